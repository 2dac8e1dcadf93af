//! How sending a request on a connection ended. What follows from it is `request`'s.

use super::body::Outgoing;
use crate::wire::{Incoming, WireError};
use http::{Request, Response};

/// How sending a request ended.
pub enum Sent {
    /// The head of an answer.
    Answer(Response<Incoming>),
    /// The connection could not take it; no byte of it was sent. The request is handed back.
    NotSent(Box<Request<Outgoing>>),
    /// It failed after some of it may have been sent.
    Failed(WireError),
}
