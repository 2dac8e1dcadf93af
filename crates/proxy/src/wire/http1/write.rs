//! Heads as they are written, and how the end of a body is told (RFC 9112, 6.3).

use super::case::Case;
use super::outbox::Outbox;
use crate::wire::said_length;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode};
use model::header::HeaderCase;
use std::cell::RefCell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Room for most heads.
const HEAD_ROOM: usize = 512;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delimiting {
    /// By its length, of which so much is to be written.
    Sized(u64),
    /// By an empty chunk.
    Chunked,
    /// By the connection's end.
    Close,
    /// There is none to be written, whatever the head says.
    Bodiless,
}

/// A body that is longer than its head says, or ends before.
#[derive(Debug)]
pub(crate) struct WrongLength;

impl Delimiting {
    /// Puts a piece of the body into `outbox`, which has room.
    pub(crate) fn piece(&mut self, data: Bytes, outbox: &mut Outbox) -> Result<(), WrongLength> {
        match self {
            Self::Sized(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                outbox.piece(data);
            }
            Self::Chunked => outbox.chunk(data),
            Self::Close => outbox.piece(data),
            Self::Bodiless => {}
        }
        Ok(())
    }

    /// Puts the body's end into `outbox`.
    pub(crate) fn end(self, trailers: Option<&HeaderMap>, outbox: &mut Outbox) -> Result<(), WrongLength> {
        match self {
            Self::Sized(0) | Self::Close | Self::Bodiless => Ok(()),
            Self::Sized(_) => Err(WrongLength),
            Self::Chunked => {
                let out = outbox.head(8);
                out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    write_fields(trailers, Case::new(HeaderCase::Lower, &Extensions::new()), out);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// Writes the head of a request. `length` is what is known of its body's; the head's own `Content-Length` goes before.
pub(crate) fn write_request(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    case: Case<'_>,
    length: Option<u64>,
    outbox: &mut Outbox,
) -> Delimiting {
    let out = outbox.head(HEAD_ROOM);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(headers, case, out);
    let delimiting = match (said_length(headers), length) {
        (Some(said), _) => Delimiting::Sized(said),
        (None, Some(0)) => Delimiting::Bodiless,
        (None, Some(length)) => {
            write_length(length, case, out);
            Delimiting::Sized(length)
        }
        (None, None) => {
            write_chunked(case, out);
            Delimiting::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    delimiting
}

/// What the head of an answer depends on beside the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// HEAD: the answer's head speaks of a body that is not sent.
    pub(crate) head: bool,
    /// CONNECT.
    pub(crate) connect: bool,
    /// By a client that knows HTTP/1.0 only.
    pub(crate) http10: bool,
}

/// Writes the head of an answer whose body's length is `length`, if it is known.
pub(crate) fn write_response(
    status: StatusCode,
    headers: &HeaderMap,
    case: Case<'_>,
    asked: Asked,
    length: Option<u64>,
    outbox: &mut Outbox,
) -> Delimiting {
    let out = outbox.head(HEAD_ROOM);
    out.extend_from_slice(if asked.http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
    let is_bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || (asked.connect && status.is_success());
    let said = said_length(headers);
    let delimiting = if is_bodiless || asked.head || status == StatusCode::NOT_MODIFIED {
        Delimiting::Bodiless
    } else {
        match (said.or(length), asked.http10) {
            (Some(length), _) => Delimiting::Sized(length),
            (None, false) => Delimiting::Chunked,
            (None, true) => Delimiting::Close,
        }
    };
    for (name, value) in headers {
        // A length where there can be no body would be read as one (RFC 9110, 8.6).
        if !(is_bodiless && *name == CONTENT_LENGTH) && *name != TRANSFER_ENCODING {
            write_field(name.as_str(), value.as_bytes(), case, out);
        }
    }
    match delimiting {
        Delimiting::Sized(length) if said.is_none() => write_length(length, case, out),
        // HEAD is told what GET would be (RFC 9110, 9.3.2), where that is known here.
        Delimiting::Bodiless if asked.head && said.is_none() && !is_bodiless => {
            if let Some(length) = length.filter(|length| *length > 0) {
                write_length(length, case, out);
            }
        }
        Delimiting::Chunked => write_chunked(case, out),
        _ => {}
    }
    if !headers.contains_key(DATE) && !status.is_informational() {
        write_field("date", date().as_bytes(), case, out);
    }
    out.extend_from_slice(b"\r\n");
    delimiting
}

fn write_fields(headers: &HeaderMap, case: Case<'_>, out: &mut Vec<u8>) {
    for (name, value) in headers {
        write_field(name.as_str(), value.as_bytes(), case, out);
    }
}

fn write_field(name: &str, value: &[u8], case: Case<'_>, out: &mut Vec<u8>) {
    case.write(name, out);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_length(length: u64, case: Case<'_>, out: &mut Vec<u8>) {
    case.write("content-length", out);
    // Writing into memory does not fail.
    let _ = write!(out, ": {length}\r\n");
}

fn write_chunked(case: Case<'_>, out: &mut Vec<u8>) {
    write_field("transfer-encoding", b"chunked", case, out);
}

/// The time (RFC 9110, 6.6.1), written once a second and thread.
pub(crate) fn date() -> HeaderValue {
    thread_local! {
        static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    WRITTEN.with_borrow_mut(|(at, value)| {
        if *at != second
            && let Ok(new) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            (*at, *value) = (second, new);
        }
        value.clone()
    })
}
