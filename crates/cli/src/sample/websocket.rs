//! WebSocket for `echo` (RFC 6455, and RFC 8441 over HTTP/2): the handshake, and every frame sent back as it came. Our
//! own, because echoing needs neither assembled messages nor extensions: text is not checked to be UTF-8, subprotocols
//! and compression are not negotiated.

use super::http::{Request, Response, empty, text};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::ext::Protocol;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What RFC 6455 (1.3) has the server append to the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const LARGEST_FRAME: usize = 1024 * 1024;

/// Frame types that are treated specially (RFC 6455, 11.8); others are sent back.
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why the server ends a connection (RFC 6455, 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;

/// Whether a request wants a WebSocket.
pub(super) fn is_asked(request: &Request) -> bool {
    let upgrade = request.headers().get_all(UPGRADE);
    is_extended_connect(request) || upgrade.iter().any(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn is_extended_connect(request: &Request) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|p| p.as_str() == "websocket")
}

/// Answers the handshake; the echo goes on beside.
pub(super) fn accept(mut request: Request) -> Response {
    let extended = is_extended_connect(&request);
    let key = match handshake_key(request.headers(), extended) {
        Ok(key) => key,
        Err(error) => return error.response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // A client that goes away ends its own connection, nobody else's.
        if let Ok(stream) = upgrade.await {
            let _ = echo(TokioIo::new(stream)).await;
        }
    });
    let mut response = Response::new(empty());
    if let Some(key) = key {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept_value(&key));
    }
    response
}

/// Why a request is no handshake.
#[derive(Debug, PartialEq)]
enum HandshakeError {
    Version,
    Key,
}

impl HandshakeError {
    fn response(&self) -> Response {
        match self {
            HandshakeError::Version => {
                let mut refusal = text(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13\n");
                refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                refusal
            }
            HandshakeError::Key => {
                text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64\n")
            }
        }
    }
}

/// The key to prove with that the request was understood; none over HTTP/2.
fn handshake_key(headers: &HeaderMap, extended: bool) -> Result<Option<String>, HandshakeError> {
    let value = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if value(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(HandshakeError::Version);
    }
    if extended {
        return Ok(None);
    }
    match value(SEC_WEBSOCKET_KEY) {
        Some(key) if STANDARD.decode(key).is_ok_and(|key| key.len() == 16) => Ok(Some(key.to_owned())),
        _ => Err(HandshakeError::Key),
    }
}

fn accept_value(key: &str) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    HeaderValue::from_str(&STANDARD.encode(hash)).expect("base64 is ASCII")
}

async fn echo(mut stream: TokioIo<Upgraded>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let frame = match Frame::take(&mut buffer) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
                continue;
            }
            Err(code) => Frame { last: true, kind: CLOSE, payload: code.to_be_bytes().to_vec() },
        };
        let answer = match frame.kind {
            PONG => continue,
            PING => Frame { kind: PONG, ..frame },
            _ => frame,
        };
        stream.write_all(&answer.encoded()).await?;
        stream.flush().await?;
        if answer.kind == CLOSE {
            return stream.shutdown().await;
        }
    }
}

#[derive(Debug, PartialEq)]
struct Frame {
    /// Whether it ends its message.
    last: bool,
    kind: u8,
    /// Without the client's mask.
    payload: Vec<u8>,
}

impl Frame {
    /// Takes a client's frame off the front, if it is whole; the error is the code to close with.
    fn take(buffer: &mut Vec<u8>) -> Result<Option<Frame>, u16> {
        let [first, second, rest @ ..] = buffer.as_slice() else { return Ok(None) };
        let (last, kind) = (first & 0x80 != 0, first & 0x0f);
        let reserved = first & 0x70 != 0 || matches!(kind, 3..=7 | 11..);
        let masked = second & 0x80 != 0;
        let control_misused = kind >= CLOSE && (!last || second & 0x7f > 125);
        if reserved || !masked || control_misused {
            return Err(PROTOCOL_ERROR);
        }
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
            }
            (126 | 127, _) => return Ok(None),
            (length, rest) => (u64::from(length), rest),
        };
        let length = usize::try_from(length).ok().filter(|l| *l <= LARGEST_FRAME).ok_or(TOO_BIG)?;
        let [a, b, c, d, rest @ ..] = rest else { return Ok(None) };
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let mask = [*a, *b, *c, *d];
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let used = buffer.len() - rest.len() + length;
        buffer.drain(..used);
        Ok(Some(Frame { last, kind, payload }))
    }

    /// As a server sends it: without a mask.
    fn encoded(&self) -> Vec<u8> {
        let length = self.payload.len();
        let mut encoded = vec![u8::from(self.last) << 7 | self.kind];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => encoded.push(short),
            (_, Ok(middle)) => {
                encoded.push(126);
                encoded.extend(middle.to_be_bytes());
            }
            _ => {
                encoded.push(127);
                encoded.extend((length as u64).to_be_bytes());
            }
        }
        encoded.extend(&self.payload);
        encoded
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A client's frame: as a server's, with a mask.
    fn masked(frame: &Frame) -> Vec<u8> {
        let mut bytes = frame.encoded();
        let mask = [1, 2, 3, 4];
        let at = bytes.len() - frame.payload.len();
        bytes[1] |= 0x80;
        for (byte, mask) in bytes[at..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        bytes.splice(at..at, mask);
        bytes
    }

    #[test]
    fn the_handshake_is_answered_as_in_the_rfc() {
        assert_eq!(accept_value("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_handshake_needs_the_version_and_over_http1_a_key() {
        let mut headers = HeaderMap::new();
        assert_eq!(handshake_key(&headers, false), Err(HandshakeError::Version));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert_eq!(handshake_key(&headers, false), Err(HandshakeError::Key));
        assert_eq!(handshake_key(&headers, true), Ok(None));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("c2hvcnQ="));
        assert_eq!(handshake_key(&headers, false), Err(HandshakeError::Key));
    }

    #[test]
    fn frames_of_every_length_come_out_as_they_went_in() {
        for length in [0, 1, 125, 126, 65535, 65536] {
            let frame = Frame { last: true, kind: 2, payload: vec![7; length] };
            let bytes = masked(&frame);
            let mut early = bytes[..bytes.len() - 1].to_vec();
            assert_eq!(Frame::take(&mut early), Ok(None));
            let mut buffer = bytes;
            buffer.push(0x81);
            assert_eq!(Frame::take(&mut buffer), Ok(Some(frame)));
            assert_eq!(buffer, [0x81]);
        }
    }

    #[test]
    fn what_a_client_may_not_send_closes_the_connection() {
        let take = |bytes: &[u8]| Frame::take(&mut bytes.to_vec());
        assert_eq!(take(&[0x81, 0x01, b'x']), Err(PROTOCOL_ERROR), "no mask");
        assert_eq!(take(&[0xc1, 0x80, 0, 0, 0, 0]), Err(PROTOCOL_ERROR), "reserved bit");
        assert_eq!(take(&[0x83, 0x80, 0, 0, 0, 0]), Err(PROTOCOL_ERROR), "unknown type");
        assert_eq!(take(&[0x09, 0x80, 0, 0, 0, 0]), Err(PROTOCOL_ERROR), "ping in pieces");
        assert_eq!(take(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0]), Err(TOO_BIG));
    }
}
