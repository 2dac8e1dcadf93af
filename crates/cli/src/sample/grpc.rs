//! gRPC for `echo`: the service `ieum.sample.v1.Echo` and the standard health check, over hyper, with messages written
//! by hand so that building needs no protoc. No compression, no deadlines: a client that gives up resets the stream.
//!
//! ```proto
//! package ieum.sample.v1;
//! service Echo {
//!   rpc Echo(EchoRequest) returns (EchoReply);
//!   rpc EchoStream(stream EchoRequest) returns (stream EchoReply);  // one EchoRequest makes it server streaming
//! }
//! message EchoRequest { string message = 1; uint32 delay_ms = 2; uint32 status = 3; uint32 count = 4; }
//! message EchoReply { string message = 1; string instance = 2; map<string, string> headers = 3; }
//! ```

use super::Instance;
use super::http::{BoxError, Request, Response, empty};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use prost::Message;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;

const LARGEST_MESSAGE: usize = 4 * 1024 * 1024;
/// A request may ask for no more replies.
const MOST_REPLIES: u32 = 1_000_000;
/// Replies made but not yet taken.
const AHEAD: usize = 8;

#[derive(Clone, PartialEq, Message)]
struct EchoRequest {
    #[prost(string, tag = "1")]
    message: String,
    /// Milliseconds before each reply.
    #[prost(uint32, tag = "2")]
    delay_ms: u32,
    /// End with this status instead of a reply; 0 is OK.
    #[prost(uint32, tag = "3")]
    status: u32,
    /// Replies to this message, in a stream; 0 is one.
    #[prost(uint32, tag = "4")]
    count: u32,
}

#[derive(Clone, PartialEq, Message)]
struct EchoReply {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(string, tag = "2")]
    instance: String,
    /// What the request's headers were; several values of one name are joined by commas.
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// A gRPC status code other than OK and what is said about it.
#[derive(Debug, PartialEq)]
struct Refusal(u32, String);

const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;

pub(super) fn is_call(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

pub(super) async fn answer(request: Request, instance: &Instance) -> Response {
    let path = request.uri().path().to_owned();
    let reply = EchoReply {
        message: String::new(),
        instance: instance.name.clone(),
        headers: joined(request.headers()),
    };
    let messages = Messages { body: request.into_body(), buffer: BytesMut::new() };
    match path.as_str() {
        "/ieum.sample.v1.Echo/Echo" => unary(echo(messages, reply).await),
        "/ieum.sample.v1.Echo/EchoStream" => echo_stream(messages, reply),
        "/grpc.health.v1.Health/Check" => unary(Ok(frame(&HealthCheckResponse { status: SERVING }))),
        _ => unary(Err(Refusal(UNIMPLEMENTED, format!("{path} is not served")))),
    }
}

async fn echo(mut messages: Messages, reply: EchoReply) -> Result<Bytes, Refusal> {
    let Some(request) = messages.next::<EchoRequest>().await? else {
        return Err(Refusal(INVALID_ARGUMENT, "the call has no message".to_owned()));
    };
    act(&request).await?;
    Ok(frame(&EchoReply { message: request.message, ..reply }))
}

/// Waits and fails as the request asks.
async fn act(request: &EchoRequest) -> Result<(), Refusal> {
    tokio::time::sleep(Duration::from_millis(request.delay_ms.into())).await;
    match request.status {
        0 => Ok(()),
        status => Err(Refusal(status, format!("status {status}, as asked"))),
    }
}

fn echo_stream(messages: Messages, reply: EchoReply) -> Response {
    let (replies, taken) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let end = exchange(messages, reply, &replies).await;
        // Nobody may be left to hear how it ended.
        let _ = replies.send(Frame::trailers(trailers(end.as_ref().err()))).await;
    });
    let frames =
        stream::unfold(taken, async |mut taken| taken.recv().await.map(|f| (Ok::<_, BoxError>(f), taken)));
    respond(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

async fn exchange(
    mut messages: Messages,
    reply: EchoReply,
    replies: &mpsc::Sender<Frame<Bytes>>,
) -> Result<(), Refusal> {
    while let Some(request) = messages.next::<EchoRequest>().await? {
        for _ in 0..request.count.clamp(1, MOST_REPLIES) {
            act(&request).await?;
            let reply = EchoReply { message: request.message.clone(), ..reply.clone() };
            if replies.send(Frame::data(frame(&reply))).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn respond(body: super::http::Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One reply and OK, or trailers only.
fn unary(outcome: Result<Bytes, Refusal>) -> Response {
    match outcome {
        Ok(message) => {
            let frames = [Ok::<_, BoxError>(Frame::data(message)), Ok(Frame::trailers(trailers(None)))];
            respond(BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames))))
        }
        Err(refusal) => {
            let mut response = respond(empty());
            response.headers_mut().extend(trailers(Some(&refusal)));
            response
        }
    }
}

fn trailers(refusal: Option<&Refusal>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", refusal.map_or(0, |Refusal(status, _)| *status).into());
    if let Some(Refusal(_, message)) = refusal
        && let Ok(message) = HeaderValue::from_str(&percent_encoded(message))
    {
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// As gRPC over HTTP/2 wants its messages: printable ASCII but `%` as it is.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn joined(headers: &HeaderMap) -> HashMap<String, String> {
    let mut joined: HashMap<String, String> = HashMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.to_string())
            .and_modify(|known| *known = format!("{known},{value}"))
            .or_insert_with(|| value.into_owned());
    }
    joined
}

/// The messages of a request.
struct Messages {
    body: Incoming,
    buffer: BytesMut,
}

impl Messages {
    async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Refusal> {
        loop {
            if let Some(message) = unframe(&mut self.buffer)? {
                let decoded = M::decode(message);
                return decoded.map(Some).map_err(|e| Refusal(INVALID_ARGUMENT, e.to_string()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().ok()),
                Some(Err(error)) => return Err(Refusal(INTERNAL, error.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Refusal(INTERNAL, "the call ends within a message".to_owned())),
            }
        }
    }
}

/// A message with its prefix: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.put_u8(0);
    framed.put_u32(
        u32::try_from(length).expect("an echo is no longer than what was received, far below 4 GiB"),
    );
    message.encode(&mut framed).expect("a BytesMut grows as needed");
    framed.freeze()
}

/// Takes a whole message off the front, if there is one.
fn unframe(buffer: &mut BytesMut) -> Result<Option<Bytes>, Refusal> {
    let [compressed, a, b, c, d, ..] = **buffer else { return Ok(None) };
    if compressed != 0 {
        return Err(Refusal(UNIMPLEMENTED, "compressed messages are not read".to_owned()));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > LARGEST_MESSAGE {
        let told = format!("a message of {length} bytes is larger than {LARGEST_MESSAGE}");
        return Err(Refusal(RESOURCE_EXHAUSTED, told));
    }
    if buffer.len() < 5 + length {
        return Ok(None);
    }
    buffer.advance(5);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_framed_message_comes_out_as_it_went_in_however_it_arrives() {
        let request = EchoRequest { message: "이음".to_owned(), delay_ms: 1, status: 0, count: 3 };
        let framed = frame(&request);
        let mut buffer = BytesMut::new();
        for byte in &framed[..framed.len() - 1] {
            buffer.put_u8(*byte);
            assert_eq!(unframe(&mut buffer), Ok(None));
        }
        buffer.put_u8(framed[framed.len() - 1]);
        buffer.put_u8(0);
        let message = unframe(&mut buffer).unwrap().unwrap();
        assert_eq!(EchoRequest::decode(message).unwrap(), request);
        assert_eq!(buffer.len(), 1);
    }

    #[test]
    fn compressed_and_oversized_messages_are_refused() {
        let compressed = unframe(&mut BytesMut::from(&[1, 0, 0, 0, 0][..]));
        assert_eq!(compressed.unwrap_err().0, UNIMPLEMENTED);
        let oversized = unframe(&mut BytesMut::from(&[0, 255, 255, 255, 255][..]));
        assert_eq!(oversized.unwrap_err().0, RESOURCE_EXHAUSTED);
    }

    #[test]
    fn a_refusal_becomes_trailers_of_printable_ascii() {
        let trailers = trailers(Some(&Refusal(14, "100% é\n".to_owned())));
        assert_eq!(trailers.get("grpc-status").unwrap(), "14");
        assert_eq!(trailers.get("grpc-message").unwrap(), "100%25 %C3%A9%0A");
    }
}
