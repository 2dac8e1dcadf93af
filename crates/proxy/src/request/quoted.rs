//! A request's head kept for what may quote it when the request itself is on its way: mapped answers and mutations of
//! answers. Nothing is kept where neither is configured.

use super::Stage;
use super::edits::Outbound;
use super::head::Head;
use http::request::Parts;
use http::{HeaderMap, Method};
use model::header::RequestHead;
use model::listener::HttpConnectionManager;

/// A request's head: as it came in, then as it is sent on.
pub(super) struct Quoted {
    method: Method,
    scheme: &'static str,
    authority: String,
    target: String,
    headers: HeaderMap,
}

/// The head of a request, where something may quote it.
pub(super) fn quote(manager: &HttpConnectionManager, head: &Head, parts: &Parts) -> Option<Box<Quoted>> {
    let is_quoted = !manager.local_replies.is_empty() || manager.filters.mutations.is_some();
    is_quoted.then(|| Box::new(Quoted::new(head.scheme, parts, Outbound::new(head))))
}

impl Quoted {
    fn new(scheme: &'static str, parts: &Parts, out: Outbound) -> Self {
        Self {
            method: parts.method.clone(),
            scheme,
            authority: out.authority,
            target: out.target,
            headers: parts.headers.clone(),
        }
    }

    /// The head as formatting sees it.
    pub(super) fn view(&self) -> RequestHead<'_> {
        let (path, query) = match self.target.split_once('?') {
            None => (self.target.as_str(), None),
            Some((path, query)) => (path, Some(query)),
        };
        RequestHead {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            path,
            query,
            headers: &self.headers,
        }
    }
}

impl Stage<'_> {
    /// Keeps the head as it is sent on, where something may quote it.
    pub(super) fn requote(&self, parts: &Parts, out: &Outbound) {
        if self.quoted.is_some() {
            let out = Outbound { authority: out.authority.clone(), target: out.target.clone() };
            // A request is sent on once.
            let _ = self.requoted.set(Box::new(Quoted::new(self.head.scheme, parts, out)));
        }
    }

    /// The head that is quoted.
    pub(super) fn quotable(&self) -> Option<RequestHead<'_>> {
        let quoted = self.requoted.get().or(self.quoted.as_ref())?;
        Some(quoted.view())
    }
}
