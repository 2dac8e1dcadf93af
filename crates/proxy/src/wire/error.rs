//! What can go wrong with a message on the wire. What it means for a request is `request`'s.

use super::http1::Rule;
use std::fmt;
use std::io;

/// What goes wrong with a message on the wire.
#[derive(Debug)]
pub enum WireError {
    /// It breaks a rule of HTTP/1.
    Rule(Rule),
    /// The connection broke.
    Io(io::Error),
    /// The peer closed before the message was complete.
    Incomplete,
    /// HTTP/2 says so.
    Http2(h2::Error),
    /// What was to be sent broke off.
    Source,
    /// What was to be sent is not as long as its head says.
    WrongLength,
}

impl WireError {
    /// The peer does not speak HTTP as it should.
    pub(crate) fn is_protocol(&self) -> bool {
        match self {
            Self::Rule(_) => true,
            Self::Http2(error) => error.is_library() || error.reason() == Some(h2::Reason::PROTOCOL_ERROR),
            _ => false,
        }
    }

    /// The peer says that it did not begin: it refused the stream, or left with a GOAWAY that leaves it out
    /// (RFC 9113, 8.7).
    pub(crate) fn is_refusal(&self) -> bool {
        let Self::Http2(error) = self else { return false };
        error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote())
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "not proper HTTP/1: {}", rule.token()),
            Self::Io(error) => write!(f, "connection error: {error}"),
            Self::Incomplete => f.write_str("the connection was closed before the message was complete"),
            Self::Http2(error) => write!(f, "HTTP/2: {error}"),
            Self::Source => f.write_str("the message that was being sent broke off"),
            Self::WrongLength => {
                f.write_str("the message that was being sent is not as long as its head says")
            }
        }
    }
}

impl std::error::Error for WireError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Http2(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
