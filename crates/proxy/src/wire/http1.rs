//! HTTP/1.0 and 1.1 (RFC 9112), for both sides of a connection. What two parties could read in two ways is refused: line
//! ends that are none, lengths that contradict each other, folded lines, control bytes.
//!
//! A head is read where it lies: its values are slices of the bytes that came in. While nothing comes in, a connection has
//! no buffer.

mod link;
mod outbox;
mod inbox;
mod parse;
mod write;
mod case;
mod decode;
mod framing;
mod rule;
mod bytes;

pub use rule::Rule;

pub(crate) use case::{Case, Names};
pub(crate) use decode::{Decoder, Piece};
pub(crate) use link::{Link, Shared, Source};
pub(crate) use parse::{RequestHead, parse_request, parse_response};
pub(crate) use write::{Asked, Delimiting, date, write_request, write_response};

#[cfg(test)]
mod tests;
