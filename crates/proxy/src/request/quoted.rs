//! A request's head kept for what may quote it when the request itself is on its way: mapped answers and mutations of
//! answers. Nothing is kept where neither is configured.

use super::head::Head;
use http::request::Parts;
use http::{HeaderMap, Method};
use model::header::RequestHead;
use model::listener::HttpConnectionManager;

/// A request's method and fields as they came in.
pub(super) struct Quoted {
    method: Method,
    headers: HeaderMap,
}

/// The head of a request, where something may quote it.
pub(super) fn quote(manager: &HttpConnectionManager, parts: &Parts) -> Option<Box<Quoted>> {
    let is_quoted = !manager.local_replies.is_empty() || manager.filters.mutations.is_some();
    is_quoted.then(|| Box::new(Quoted { method: parts.method.clone(), headers: parts.headers.clone() }))
}

/// The head as formatting sees it.
pub(super) fn view<'a>(quoted: &'a Quoted, head: &'a Head) -> RequestHead<'a> {
    RequestHead {
        method: &quoted.method,
        scheme: head.scheme,
        authority: &head.authority,
        path: head.path(),
        query: head.query(),
        headers: &quoted.headers,
    }
}
