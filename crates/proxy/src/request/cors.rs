//! Requests from pages of other origins: preflights answered, grants put into answers. Who may ask is said in
//! `model::cors`.

use super::Stage;
use super::answer::Answer;
use crate::record::RouteTaken;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use model::cors::Cors;
use model::filter::Setting;
use model::route::Action;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Leave for a page of another origin to read the answer.
pub(super) struct Grant {
    origin: HeaderValue,
    credentials: bool,
    expose: Option<HeaderValue>,
}

impl Grant {
    /// Puts it into an answer; what the endpoint said of it does not count.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Stage<'_> {
    /// Looks whether the request comes from another origin's page: remembers the grant for its answer, and answers a
    /// preflight.
    pub(super) fn cross_origin(&self, taken: &RouteTaken, parts: &Parts) -> Option<Answer> {
        self.http.manager.filters.cors.as_ref()?;
        // As in Envoy, what is answered here by the route itself has no policy.
        let Some(Action::Forward(_)) = taken.route().map(|route| &route.action) else { return None };
        let cors = taken.filter_setting(|settings| settings.cors.as_ref()).and_then(Setting::used)?;
        let origin = parts.headers.get(ORIGIN).filter(|origin| !origin.is_empty())?;
        if !cors.share.takes(self.context.local.random()) {
            return None;
        }
        let allowed = cors.allows(origin.as_bytes());
        if allowed {
            let expose = HeaderValue::from_str(&cors.expose).ok().filter(|value| !value.is_empty());
            let grant = Grant { origin: origin.clone(), credentials: cors.credentials, expose };
            // There is one route for each request, and so one grant.
            let _ = self.grant.set(Box::new(grant));
        }
        let asks_first = parts.method == Method::OPTIONS
            && parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| !method.is_empty());
        if asks_first && (allowed || !cors.forward_unmatched) {
            return Some(preflight(cors, &parts.headers));
        }
        None
    }

    /// Puts the grant, if there is one, into an answer.
    pub(super) fn write_grant(&self, headers: &mut HeaderMap) {
        if let Some(grant) = self.grant.get() {
            grant.write(headers);
        }
    }
}

/// Says what may be asked; that this origin may ask is said by its grant, if it has one.
fn preflight(cors: &Cors, headers: &HeaderMap) -> Answer {
    let mut answer = Answer::new(200);
    if cors.credentials {
        answer.set(ACCESS_CONTROL_ALLOW_CREDENTIALS, b"true");
    }
    let told = [
        (ACCESS_CONTROL_ALLOW_METHODS, &cors.methods),
        (ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers),
        (ACCESS_CONTROL_MAX_AGE, &cors.max_age),
    ];
    for (name, value) in told.into_iter().filter(|(_, value)| !value.is_empty()) {
        answer.set(name, value.as_bytes());
    }
    let asks_private = headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|v| v == "true");
    if cors.private_network && asks_private {
        answer.set(ALLOW_PRIVATE_NETWORK, b"true");
    }
    answer
}
