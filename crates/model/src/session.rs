//! Sessions that stay with one endpoint, whose address the client carries (`envoy.filters.http.stateful_session`).
//! Choosing the endpoint, and what the address looks like, is the proxy's.

use crate::affinity::AffinityCookie;
use http::HeaderName;

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Where the client carries the address.
    pub carrier: SessionCarrier,
    /// Where the endpoint is gone, the request is refused instead of going to another.
    pub strict: bool,
    /// With this status (503 unless set).
    pub refusal_status: u16,
}

/// Where a client carries the address of its endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionCarrier {
    /// In a cookie.
    Cookie(AffinityCookie),
    /// In a header, which it has to send back.
    Header(HeaderName),
}
