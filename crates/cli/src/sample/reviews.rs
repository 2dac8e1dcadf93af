//! `reviews`: what readers wrote. v1 stops there; v2 and v3 ask `ratings` for stars and paint them black and red.

use super::client::{Answer, Upstream, forwarded};
use super::details::product;
use super::http::{Closed, Request, Response, Service, json, not_served, signed, text};
use super::{Environment, Instance};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

pub(super) const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

const REVIEWS: [(&str, &str, &str); 2] = [
    (
        "Reviewer1",
        "Imke van Aalst",
        "I read it in one night with the radio off. Nobody has written about waiting for a line to clear with this \
         much suspense, and the last switchboard scene made me put a hand on the telephone.",
    ),
    (
        "Reviewer2",
        "Teodor Mak",
        "Slow to start, like any storm. Once the cut line rings, though, every cord Halvorsen has been laying out \
         since page one is pulled tight at once. I only wish the harbour master had been given a chapter.",
    ),
];

pub(super) struct Reviews {
    instance: Instance,
    /// The color of stars and who knows their number; none in v1.
    stars: Option<(&'static str, Upstream)>,
}

impl Reviews {
    pub(super) fn new(instance: Instance, environment: Environment) -> Self {
        // The two versions wait for different lengths of time, so that a delay put before `ratings` tells them apart.
        let (color, timeout) = match instance.version.as_str() {
            "v2" => (Some("black"), Duration::from_secs(10)),
            "v3" => (Some("red"), Duration::from_millis(2500)),
            _ => (None, Duration::ZERO),
        };
        let stars = color.map(|color| (color, Upstream::new("ratings", timeout, environment)));
        Reviews { instance, stars }
    }

    async fn reviews(&self, id: u32, request: &Request) -> Value {
        let mut value = json!({
            "id": id.to_string(),
            "podname": self.instance.name,
            "clustername": self.instance.cluster,
            "version": self.instance.version,
        });
        let mut ratings = None;
        if let Some((color, upstream)) = &self.stars {
            let answer = upstream.get(&format!("/ratings/{id}"), forwarded(request.headers())).await;
            value["calls"] = json!([call("ratings", &answer)]);
            ratings = Some((*color, answer.json()));
        }
        value["reviews"] = REVIEWS
            .iter()
            .map(|(reviewer, name, text)| {
                let mut review = json!({"reviewer": reviewer, "name": name, "text": text});
                if let Some((color, ratings)) = &ratings {
                    review["rating"] = rating(reviewer, color, ratings);
                }
                review
            })
            .collect();
        value
    }
}

/// How a call went, for the page to show.
pub(super) fn call(service: &str, answer: &Answer) -> Value {
    let reply = answer.outcome.as_ref().ok();
    let (instance, version) = reply.map_or((None, None), |reply| reply.signature());
    json!({
        "service": service,
        "status": reply.map(|reply| reply.status.as_u16()),
        "instance": instance,
        "version": version,
        "milliseconds": (answer.elapsed.as_secs_f64() * 10_000.0).round() / 10.0,
        "error": answer.outcome.as_ref().err().map(ToString::to_string),
    })
}

fn rating(reviewer: &str, color: &str, ratings: &Result<Value, String>) -> Value {
    match ratings {
        Ok(ratings) => json!({"stars": ratings["ratings"][reviewer].as_u64(), "color": color}),
        Err(why) => json!({"error": format!("Ratings are currently unavailable: {why}")}),
    }
}

impl Service for Reviews {
    async fn answer(&self, request: Request, _: SocketAddr) -> Result<Response, Closed> {
        let path = request.uri().path();
        let response = match (request.method(), path, product(path, "/reviews/")) {
            (&Method::GET | &Method::HEAD, "/health", _) => text(StatusCode::OK, "reviews is healthy\n"),
            (&Method::GET | &Method::HEAD, _, Some(Ok(id))) => {
                json(StatusCode::OK, &self.reviews(id, &request).await)
            }
            (&Method::GET | &Method::HEAD, _, Some(Err(refusal))) => refusal,
            (method, _, _) => not_served(method, path),
        };
        Ok(signed(response, &self.instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rating_is_stars_in_the_color_of_the_version_or_an_error() {
        let ratings = Ok(json!({"id": 0, "ratings": {"Reviewer1": 5}}));
        assert_eq!(rating("Reviewer1", "red", &ratings), json!({"stars": 5, "color": "red"}));
        assert_eq!(rating("Nobody", "red", &ratings), json!({"stars": null, "color": "red"}));
        let error = rating("Reviewer1", "red", &Err("it answered 503".to_owned()));
        assert_eq!(error, json!({"error": "Ratings are currently unavailable: it answered 503"}));
    }
}
