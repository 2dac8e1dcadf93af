//! `productpage`: asks `details` and `reviews` at once and makes a page of what comes, for whoever is signed in.
//! How it looks is for `page`.

use super::client::{Answer, Upstream, forwarded};
use super::http::{
    self, Closed, Request, Response, Service, decode, encode, full, not_served, pairs, respond, see, signed,
    text,
};
use super::page::{self, Call, Page};
use super::{Environment, Instance};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue,
    SET_COOKIE,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
const LONGEST_FORM: usize = 4096;
const LONGEST_USER: usize = 40;
/// How many loads the page remembers in the browser's cookie.
const REMEMBERED_LOADS: usize = 40;
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

pub(super) struct Productpage {
    instance: Instance,
    details: Upstream,
    reviews: Upstream,
    ratings: Upstream,
}

impl Productpage {
    pub(super) fn new(instance: Instance, environment: Environment) -> Self {
        let upstream = |name| Upstream::new(name, TIMEOUT, environment);
        Productpage {
            instance,
            details: upstream("details"),
            reviews: upstream("reviews"),
            ratings: upstream("ratings"),
        }
    }

    async fn page(&self, request: &Request) -> Response {
        let headers = outgoing(request.headers());
        let (details, reviews) = tokio::join!(
            self.details.get("/details/0", headers.clone()),
            self.reviews.get("/reviews/0", headers)
        );
        let user = user(request.headers());
        let version = match reviews.outcome.as_ref().map(|reply| (reply.status, reply.signature().1)) {
            Ok((StatusCode::OK, version)) => version.and_then(|v| v.strip_prefix('v')?.chars().next()),
            _ => Some('x'),
        };
        let seen = remember(&cookie(request.headers(), "seen").unwrap_or_default(), version.unwrap_or('?'));
        let query = request.uri().query().unwrap_or("");
        let every = pairs(query).find(|(name, _)| name == "every").and_then(|(_, value)| value.parse().ok());
        let html = page::render(&Page {
            user: user.as_deref(),
            calls: calls(&self.instance, &details, &reviews),
            details: details.json(),
            reviews: reviews.json(),
            seen: &seen,
            reload_every_s: every.filter(|s| (1..=60).contains(s)),
        });
        let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", full(html));
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        set_cookie(&mut response, "seen", &seen, 86400);
        response
    }

    async fn products(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let headers = || outgoing(headers);
        let rest = path.strip_prefix("/api/v1/products")?.trim_end_matches('/');
        let Some((id, part)) = rest.strip_prefix('/').map(|r| r.split_once('/').unwrap_or((r, ""))) else {
            return rest.is_empty().then(|| http::json(StatusCode::OK, &json!([page::product()])));
        };
        let id: u32 = id.parse().ok()?;
        let answer = match part {
            "" => self.details.get(&format!("/details/{id}"), headers()).await,
            "reviews" => self.reviews.get(&format!("/reviews/{id}"), headers()).await,
            "ratings" => self.ratings.get(&format!("/ratings/{id}"), headers()).await,
            _ => return None,
        };
        Some(passed_on(answer))
    }
}

impl Service for Productpage {
    async fn answer(&self, request: Request, _: SocketAddr) -> Result<Response, Closed> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = match (&method, path.as_str()) {
            (&Method::POST, "/login") => login(request).await,
            (&Method::GET | &Method::HEAD, path) => match path {
                "/productpage" => self.page(&request).await,
                "/" | "/login" => see("/productpage"),
                "/logout" => signed_in_as(""),
                "/health" => text(StatusCode::OK, "productpage is healthy\n"),
                "/static/icon.svg" => respond(StatusCode::OK, "image/svg+xml", full(page::ICON)),
                _ => {
                    let products = self.products(path, request.headers()).await;
                    products.unwrap_or_else(|| not_served(&method, path))
                }
            },
            (method, path) => not_served(method, path),
        };
        Ok(signed(response, &self.instance))
    }
}

/// The answer of another service, as our own.
fn passed_on(answer: Answer) -> Response {
    match answer.outcome {
        Ok(reply) => {
            let mut response = Response::new(full(reply.body));
            *response.status_mut() = reply.status;
            if let Some(content_type) = reply.headers.get(CONTENT_TYPE) {
                response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
            }
            response
        }
        Err(error) => http::json(StatusCode::BAD_GATEWAY, &json!({ "error": error.to_string() })),
    }
}

/// The headers of a request to another service: those passed on, and who is signed in.
fn outgoing(headers: &HeaderMap) -> HeaderMap {
    let mut forwarded = forwarded(headers);
    // Only signing in makes somebody the user, not a header that a browser sends.
    let end_user = HeaderName::from_static("end-user");
    forwarded.remove(&end_user);
    if let Some(user) = user(headers).and_then(|user| HeaderValue::from_str(&user).ok()) {
        forwarded.insert(end_user, user);
    }
    forwarded
}

fn calls(instance: &Instance, details: &Answer, reviews: &Answer) -> Vec<Call> {
    let own = json!({"service": "productpage", "version": instance.version, "instance": instance.name});
    let mut calls = vec![Call::read(&own)];
    calls.push(Call::read(&super::reviews::call("details", details)));
    calls.push(Call::read(&super::reviews::call("reviews", reviews)));
    let further = reviews.json().unwrap_or(Value::Null);
    calls.extend(further["calls"].as_array().into_iter().flatten().take(1).map(Call::read));
    calls
}

async fn login(request: Request) -> Response {
    match http::read(request.into_body(), LONGEST_FORM).await {
        Ok(form) => {
            let form = String::from_utf8_lossy(&form);
            let user = pairs(&form).find(|(name, _)| name == "username").map(|(_, user)| user);
            signed_in_as(&user.unwrap_or_default())
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("the form cannot be read: {error}\n")),
    }
}

/// Back to the page with a new user; nobody when empty. There is no password: it is a demo, and the cookie says so.
fn signed_in_as(user: &str) -> Response {
    let user: String = user.trim().chars().filter(|c| !c.is_control()).take(LONGEST_USER).collect();
    let mut response = see("/productpage");
    let lifetime_s = if user.is_empty() { 0 } else { 86400 };
    set_cookie(&mut response, "user", &encode(&user), lifetime_s);
    response
}

fn set_cookie(response: &mut Response, name: &str, value: &str, lifetime_s: u32) {
    let cookie = format!("{name}={value}; Path=/; Max-Age={lifetime_s}; HttpOnly; SameSite=Lax");
    // Values are percent-encoded or of a fixed alphabet; one that is neither sets no cookie.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    let mut pairs = cookies.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value.to_owned())
}

fn user(headers: &HeaderMap) -> Option<String> {
    cookie(headers, "user").map(|user| decode(&user)).filter(|user| !user.is_empty())
}

/// The loads seen so far, one character each, and one more; what a browser made up is dropped.
fn remember(seen: &str, now: char) -> String {
    let known = seen.chars().chain([now]).filter(|c| c.is_ascii_digit() || matches!(c, 'x' | '?'));
    let known: Vec<char> = known.collect();
    known[known.len().saturating_sub(REMEMBERED_LOADS)..].iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with_cookie(cookie: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static(cookie));
        headers
    }

    #[test]
    fn the_signed_in_user_goes_on_as_end_user_and_nobody_else_does() {
        let mut headers = with_cookie("seen=12; user=jason");
        headers.insert("end-user", HeaderValue::from_static("mallory"));
        assert_eq!(outgoing(&headers).get("end-user").unwrap(), "jason");
        headers.remove(COOKIE);
        assert_eq!(outgoing(&headers).get("end-user"), None);
    }

    #[test]
    fn a_user_name_cannot_break_out_of_its_cookie() {
        let response = signed_in_as("a; Path=/x\r\nSet-Cookie: b=c");
        let cookie = response.headers().get(SET_COOKIE).unwrap().to_str().unwrap();
        assert!(cookie.starts_with("user=a%3B%20Path%3D%2FxSet-Cookie%3A%20b%3Dc; Path=/;"), "{cookie}");
        let header = with_cookie("user=%0d%0Ax");
        assert_eq!(outgoing(&header).get("end-user"), None);
    }

    #[test]
    fn the_page_remembers_the_latest_loads() {
        assert_eq!(remember("12<script>x", '3'), "12x3");
        let long = remember(&"1".repeat(200), 'x');
        assert_eq!(long.len(), REMEMBERED_LOADS);
        assert!(long.ends_with("1x"));
    }
}
