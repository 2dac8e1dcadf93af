//! HTTP on the wire, towards clients and endpoints alike: HTTP/1 is ours, HTTP/2 is the `h2` crate's. Heads become
//! `http`'s types, bodies an [`Incoming`]; what a message means is `request`'s.

mod incoming;
pub mod http1;
pub(crate) mod http2;
mod error;

pub use error::WireError;
pub use incoming::Incoming;

use http::HeaderMap;
use http::header::CONTENT_LENGTH;

/// The length that a head says its body has.
pub(crate) fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
