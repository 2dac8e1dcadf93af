//! Bodies: counted bytes, chunks with trailers, everything until the peer closes (RFC 9112, 6 and 7).

use super::bytes::run_of_value;
use super::framing::Length;
use super::parse::{break_or, parse_trailers};
use super::rule::Rule;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// Most digits of a chunk's size, leading zeros included.
const CHUNK_DIGITS: usize = 16;
/// Most bytes of a chunk's extension, which nobody reads.
const CHUNK_EXTENSION: usize = 1024;

/// Where in a body its reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// So many bytes are to come; none, and the body is over.
    Sized(u64),
    /// Before a chunk.
    ChunkSize,
    /// In a chunk, of which so many bytes are to come.
    Chunk(u64),
    /// At the line break behind it.
    ChunkEnd,
    /// Behind the last.
    Trailers,
    /// Until the peer closes.
    UntilClose,
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Some bytes.
    Data(Bytes),
    /// What comes behind the last chunk.
    Trailers(HeaderMap),
}

impl Decoder {
    /// There is no body, or no more of it.
    pub(crate) const OVER: Self = Self::Sized(0);

    pub(crate) fn new(length: Length) -> Self {
        match length {
            Length::Sized(length) => Self::Sized(length),
            Length::Chunked => Self::ChunkSize,
            Length::UntilClose => Self::UntilClose,
        }
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_over(self) -> bool {
        self == Self::OVER
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn remaining(self) -> Option<u64> {
        match self {
            Self::Sized(length) => Some(length),
            _ => None,
        }
    }

    /// Takes what is there of the body from the front of `inbox`; `None` when more bytes are needed, or it is over.
    pub(crate) fn take(&mut self, inbox: &mut BytesMut) -> Result<Option<Piece>, Rule> {
        loop {
            match *self {
                Self::Sized(0) => return Ok(None),
                Self::Sized(left) => {
                    return Ok(some_of(inbox, left).map(|data| {
                        *self = Self::Sized(left - data.len() as u64);
                        Piece::Data(data)
                    }));
                }
                Self::UntilClose => return Ok(some_of(inbox, u64::MAX).map(Piece::Data)),
                Self::ChunkSize => match chunk_size(inbox)? {
                    None => return Ok(None),
                    Some((size, taken)) => {
                        drop(inbox.split_to(taken));
                        *self = if size == 0 { Self::Trailers } else { Self::Chunk(size) };
                    }
                },
                Self::Chunk(left) => {
                    return Ok(some_of(inbox, left).map(|data| {
                        let left = left - data.len() as u64;
                        *self = if left == 0 { Self::ChunkEnd } else { Self::Chunk(left) };
                        Piece::Data(data)
                    }));
                }
                Self::ChunkEnd => match (inbox.first(), inbox.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        drop(inbox.split_to(2));
                        *self = Self::ChunkSize;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(None),
                    _ => return Err(Rule::ChunkEnd),
                },
                Self::Trailers => {
                    let Some(trailers) = parse_trailers(inbox)? else { return Ok(None) };
                    *self = Self::OVER;
                    return Ok((!trailers.is_empty()).then_some(Piece::Trailers(trailers)));
                }
            }
        }
    }
}

/// Up to `limit` bytes, if there are any.
fn some_of(inbox: &mut BytesMut, limit: u64) -> Option<Bytes> {
    if inbox.is_empty() {
        return None;
    }
    Some(match inbox.len() as u64 <= limit {
        true => std::mem::take(inbox).freeze(),
        false => inbox.split_to(limit as usize).freeze(),
    })
}

/// The size at the start of a chunk, and the length of its line.
fn chunk_size(bytes: &[u8]) -> Result<Option<(u64, usize)>, Rule> {
    let mut size = 0u64;
    let mut at = 0;
    let stopped = loop {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        match (byte as char).to_digit(16) {
            Some(_) if at == CHUNK_DIGITS => return Err(Rule::ChunkSize),
            Some(digit) => size = (size << 4) | u64::from(digit),
            None => break byte,
        }
        at += 1;
    };
    match stopped {
        _ if at == 0 => return Err(break_or(stopped, Rule::ChunkSize)),
        b'\r' => {}
        b';' => {
            let rest = bytes.get(at + 1..).unwrap_or_default();
            let length = run_of_value(rest);
            if length > CHUNK_EXTENSION {
                return Err(Rule::ChunkSize);
            }
            match rest.get(length) {
                None => return Ok(None),
                Some(b'\r') => {}
                Some(&other) => return Err(break_or(other, Rule::ChunkSize)),
            }
            at += 1 + length;
        }
        other => return Err(break_or(other, Rule::ChunkSize)),
    }
    match bytes.get(at + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some((size, at + 2))),
        Some(_) => Err(Rule::BareLineBreak),
    }
}
