//! `echo`: answers with what it received, as JSON, or in the way the knobs of the request ask for. What people and
//! tests put behind a proxy to see what the proxy did. gRPC and WebSocket requests go to their modules.

use super::http::{Body, BoxError, Closed, Request, Response, Service, empty, json, respond, signed, text};
use super::knobs::{Close, Knobs};
use super::tls::Facts;
use super::{Instance, grpc, websocket};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRAILER, UPGRADE,
};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// More of a body is counted, not shown.
const SHOWN_BODY: usize = 64 * 1024;
const PIECE: u64 = 16 * 1024;
const LONGEST_PIECE: u64 = 1024 * 1024;

pub(super) struct Echo {
    instance: Instance,
}

impl Echo {
    pub(super) fn new(instance: Instance) -> Self {
        Echo { instance }
    }

    async fn report(&self, request: Request, peer: SocketAddr) -> Result<Value, BoxError> {
        let (head, body) = request.into_parts();
        let (length, shown, trailers) = receive(body).await?;
        let authority = head.uri.authority().map(|a| a.to_string());
        let host = head.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let mut report = json!({
            "service": "echo",
            "instance": self.instance.name,
            "version": self.instance.version,
            "cluster": self.instance.cluster,
            "peer": peer.to_string(),
            "tls": head.extensions.get::<Facts>().map(Facts::json),
            "protocol": format!("{:?}", head.version),
            "method": head.method.as_str(),
            "scheme": head.uri.scheme_str(),
            "authority": authority.or(host),
            "path": head.uri.path(),
            "query": head.uri.query(),
            "headers": fields(&head.headers),
            "trailers": trailers.as_ref().map(fields),
            "body": {"length": length, "truncated": length > shown.len() as u64},
        });
        match String::from_utf8(shown) {
            Ok(text) => report["body"]["text"] = text.into(),
            Err(binary) => report["body"]["base64"] = STANDARD.encode(binary.as_bytes()).into(),
        }
        Ok(report)
    }

    async fn reflect(&self, request: Request, peer: SocketAddr) -> Result<Response, Closed> {
        let knobs = match Knobs::read(request.uri().query().unwrap_or(""), request.headers()) {
            Ok(knobs) => knobs,
            Err(error) => return Ok(json(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()}))),
        };
        if knobs.close == Some(Close::Before) {
            tokio::time::sleep(knobs.delay).await;
            return Err(Closed);
        }
        if knobs.mirror {
            tokio::time::sleep(knobs.delay).await;
            return Ok(mirror(request, knobs));
        }
        // A request that breaks off has nobody left to answer.
        let report = self.report(request, peer).await.map_err(|_| Closed)?;
        tokio::time::sleep(knobs.delay).await;
        Ok(answer(&report, knobs))
    }
}

impl Service for Echo {
    async fn answer(&self, request: Request, peer: SocketAddr) -> Result<Response, Closed> {
        let response = if grpc::is_call(request.headers()) {
            grpc::answer(request, &self.instance).await
        } else if websocket::is_asked(&request) {
            websocket::accept(request)
        } else if asks_for_tunnel(&request) {
            tunnel(request)
        } else if request.uri().path() == "/health" {
            text(StatusCode::OK, "echo is healthy\n")
        } else {
            self.reflect(request, peer).await?
        };
        Ok(signed(response, &self.instance))
    }
}

/// Names in order of their first appearance, each with all its values.
fn fields(headers: &HeaderMap) -> Value {
    let values = |name| headers.get_all(name).into_iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
    headers.keys().map(|name| (name.to_string(), values(name).collect::<Value>())).collect()
}

/// How long the body is, the beginning of it, and its trailers.
async fn receive(mut body: Incoming) -> Result<(u64, Vec<u8>, Option<HeaderMap>), BoxError> {
    let (mut length, mut shown, mut trailers) = (0, Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                length += data.len() as u64;
                shown.extend(data.iter().take(SHOWN_BODY - shown.len()));
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((length, shown, trailers))
}

fn mirror(request: Request, knobs: Knobs) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().map_err(BoxError::from).boxed_unsync());
    *response.status_mut() = knobs.status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response.headers_mut().extend(knobs.headers.into_iter().map(|(name, value)| (Some(name), value)));
    response
}

fn answer(report: &Value, knobs: Knobs) -> Response {
    let bodiless = matches!(knobs.status.as_u16(), 204 | 205 | 304);
    let (content_type, body, length) = match (knobs.size, knobs.chunks) {
        (None, None) => {
            let body = format!("{report:#}\n");
            let length = body.len() as u64;
            ("application/json", Pieces::one(body.into()), Some(length))
        }
        (None, Some(chunks)) => ("text/plain; charset=utf-8", Pieces::lines(chunks), None),
        (Some(size), None) => ("application/octet-stream", Pieces::bytes(size, PIECE), Some(size)),
        (Some(size), Some(chunks)) => {
            ("application/octet-stream", Pieces::bytes(size, size.div_ceil(chunks.into()).max(1)), None)
        }
    };
    let fails_after = (knobs.close == Some(Close::Within)).then_some(body.count / 2);
    let body = match bodiless {
        true => empty(),
        false => body.send(knobs.interval, fails_after, knobs.trailers),
    };
    let mut response = respond(knobs.status, content_type, body);
    let headers = response.headers_mut();
    if bodiless {
        headers.remove(CONTENT_TYPE);
    } else if knobs.trailers {
        headers.insert(TRAILER, HeaderValue::from_static("x-echo-trailer"));
    } else if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    for (name, value) in knobs.headers {
        headers.append(name, value);
    }
    response
}

/// A body in pieces.
struct Pieces {
    count: u64,
    piece: Box<dyn FnMut(u64) -> Bytes + Send>,
}

impl Pieces {
    fn one(bytes: Bytes) -> Self {
        Pieces { count: 1, piece: Box::new(move |_| bytes.clone()) }
    }

    fn lines(count: u32) -> Self {
        let line = move |at| format!("chunk {} of {count}\n", at + 1).into();
        Pieces { count: count.into(), piece: Box::new(line) }
    }

    /// `size` times the same byte, at most `longest` (and 1 MiB) a piece.
    fn bytes(size: u64, longest: u64) -> Self {
        let longest = longest.min(size).clamp(1, LONGEST_PIECE);
        let piece = Bytes::from(vec![b'x'; longest as usize]);
        let cut = move |at: u64| piece.slice(..(size - at * longest).min(longest) as usize);
        Pieces { count: size.div_ceil(longest), piece: Box::new(cut) }
    }

    fn send(self, interval: Duration, fails_after: Option<u64>, trailers: bool) -> Body {
        let frames = stream::unfold((self, 0), move |(mut pieces, at)| async move {
            if fails_after == Some(at) {
                // The head must be on its way before the failure, or there would be no answer to break off.
                tokio::time::sleep(interval.max(Duration::from_millis(20))).await;
                return Some((Err(BoxError::from(Closed)), (pieces, u64::MAX)));
            }
            if at < pieces.count {
                if at > 0 && !interval.is_zero() {
                    tokio::time::sleep(interval).await;
                }
                let piece = (pieces.piece)(at);
                return Some((Ok(Frame::data(piece)), (pieces, at + 1)));
            }
            if at == pieces.count && trailers {
                let mut end = HeaderMap::new();
                end.insert("x-echo-trailer", HeaderValue::from_static("end"));
                return Some((Ok(Frame::trailers(end)), (pieces, u64::MAX)));
            }
            None
        });
        BodyExt::boxed_unsync(StreamBody::new(frames))
    }
}

fn asks_for_tunnel(request: &Request) -> bool {
    let upgrade = request.headers().get(UPGRADE);
    request.method() == Method::CONNECT || upgrade.is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"echo"))
}

/// Sends every byte back: after CONNECT with 200, after `Upgrade: echo` with 101.
fn tunnel(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // A client that goes away ends its tunnel, nobody else's.
        if let Ok(stream) = upgrade.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
    });
    let mut response = Response::new(empty());
    if request.method() != Method::CONNECT {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn sent(body: Body) -> Result<Bytes, BoxError> {
        Ok(body.collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn a_body_has_the_size_asked_for_however_it_is_cut() {
        for (size, chunks) in [(0, None), (1, Some(5)), (100_000, None), (100_000, Some(7))] {
            let knobs = Knobs { size: Some(size), chunks, ..Knobs::default() };
            let response = answer(&Value::Null, knobs);
            assert_eq!(sent(response.into_body()).await.unwrap().len() as u64, size);
        }
    }

    #[tokio::test]
    async fn chunks_without_a_size_are_numbered_lines() {
        let knobs = Knobs { chunks: Some(2), ..Knobs::default() };
        let response = answer(&Value::Null, knobs);
        assert_eq!(sent(response.into_body()).await.unwrap(), "chunk 1 of 2\nchunk 2 of 2\n");
    }

    #[tokio::test]
    async fn a_body_that_is_to_break_off_does() {
        let knobs = Knobs { size: Some(100_000), close: Some(Close::Within), ..Knobs::default() };
        assert!(sent(answer(&Value::Null, knobs).into_body()).await.is_err());
    }

    #[test]
    fn headers_are_told_in_order_with_all_their_values() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(fields(&headers).to_string(), r#"{"b":["1","3"],"a":["2"]}"#);
    }
}
