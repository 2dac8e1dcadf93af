//! What a proxy says of itself: `via`, the request's id in answers; and bounds on heads that are configured.

use super::Stage;
use super::answer::REQUEST_ID;
use crate::failure::Failure;
use http::header::{HeaderName, VIA};
use http::{HeaderMap, HeaderValue};
use model::listener::HeadLimits;

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Whether a head is larger than is configured.
pub(super) fn exceeded(limits: &HeadLimits, headers: &HeaderMap) -> Option<Failure> {
    if *limits == HeadLimits::default() {
        return None;
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let is_large = limits.kilobytes.is_some_and(|most| bytes > most as usize * 1024);
    let is_many = limits.count.is_some_and(|most| headers.len() > most as usize);
    (is_large || is_many).then_some(Failure::HeadersTooLarge)
}

/// Signs a request, or an answer.
pub(super) fn append_via(headers: &mut HeaderMap, via: &str) {
    if via.is_empty() {
        return;
    }
    let all = match headers.get(VIA) {
        Some(told) => [told.as_bytes(), b", ", via.as_bytes()].concat(),
        None => via.as_bytes().to_vec(),
    };
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(VIA, value);
    }
}

impl Stage<'_> {
    /// Signs an answer as configured. `attempts` is told where the host wants it.
    pub(super) fn sign(&self, headers: &mut HeaderMap, attempts: Option<u32>) {
        append_via(headers, &self.http.manager.via);
        if self.http.manager.returns_request_id
            && let Ok(id) = HeaderValue::from_str(&self.head.id)
        {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(attempts) = attempts {
            headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
        }
    }
}
