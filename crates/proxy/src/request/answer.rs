//! Answers: those we give ourselves, each with a reason and a request id, and the bodies of both kinds.

use super::head::Head;
use super::passing::UpstreamBody;
use super::tunnel::Tunnel;
use crate::failure::Failure;
use crate::wire::WireError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, SERVER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Carries the reason token of an answer of ours.
pub(super) const REASON: HeaderName = HeaderName::from_static("x-ieum-reason");
/// Says to a proxy of the mesh that no application began with its request, so that it may send it again whatever its
/// method. It is told over mutual TLS only, believed over mutual TLS only, and passed on to nobody.
pub(super) const UNPROCESSED: HeaderName = HeaderName::from_static("x-ieum-unprocessed");
/// Carries the request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Tells the client that a limit was reached.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The body of an answer.
pub enum AnswerBody {
    /// Nothing.
    Empty,
    /// Known whole; taken when sent.
    Whole(Option<Bytes>),
    /// What the endpoint sends.
    Upstream(Box<UpstreamBody>),
    /// There is none: what follows the head is a tunnel's.
    Tunnel(Box<Tunnel>),
}

impl AnswerBody {
    /// Sends on what is left of the request: for as long as the client takes nothing of the answer.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Self::Upstream(body) = self {
            body.poll_upload(cx);
        }
    }
}

/// An answer's body that breaks off.
#[derive(Debug)]
pub enum BodyError {
    /// The endpoint broke it off.
    Upstream(WireError),
    /// It took longer than the route allows.
    Timeout,
    /// Nothing moved for longer than allowed.
    Idle,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(error) => write!(f, "the endpoint broke off its answer: {error}"),
            Self::Timeout => write!(f, "the answer took longer than the route allows"),
            Self::Idle => write!(f, "nothing moved for longer than the route allows"),
        }
    }
}

impl std::error::Error for BodyError {}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Upstream(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Tunnel(_) => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Upstream(body) => body.size_hint(),
        }
    }
}

/// Bytes of a body that is known whole.
pub(super) fn known_length(body: &AnswerBody) -> u64 {
    match body {
        AnswerBody::Whole(Some(bytes)) => bytes.len() as u64,
        _ => 0,
    }
}

/// An answer of our own.
pub(super) struct Answer {
    status: StatusCode,
    /// What the status would be without gRPC, which puts it elsewhere.
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code: status.as_u16(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(super) fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// Sets a header; a value that cannot be one is left out.
    pub(super) fn set(&mut self, name: HeaderName, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.headers.insert(name, value);
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub(super) fn code(&self) -> u16 {
        self.code
    }

    pub(super) fn set_status(&mut self, status: u16) {
        self.status = StatusCode::from_u16(status).unwrap_or(self.status);
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn set_body(&mut self, body: Bytes) {
        self.body = body;
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    pub(super) fn into_response(self, server: Option<&HeaderValue>) -> Response<AnswerBody> {
        let body = match self.body.is_empty() {
            true => AnswerBody::Empty,
            false => AnswerBody::Whole(Some(self.body)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if let Some(server) = server {
            response.headers_mut().insert(SERVER, server.clone());
        }
        response
    }
}

/// What is needed to refuse a request: kept apart, because by then the request may be on its way.
pub(super) struct Refusal {
    id: Box<str>,
    is_grpc: bool,
}

impl Refusal {
    pub(super) fn new(head: &Head, headers: &HeaderMap) -> Self {
        Self { id: head.id.clone(), is_grpc: model::routing::is_grpc(headers) }
    }

    /// The answer for `failure`: its status, reason token and the request's id. gRPC requests get a status of their own
    /// kind (gRPC over HTTP/2, "Responses").
    pub(super) fn answer(&self, failure: Failure) -> Answer {
        let outcome = failure.outcome();
        let status = outcome.status.as_u16();
        let mut answer = match self.is_grpc {
            true => self.answer_with(status, outcome.grpc_status, outcome.token, outcome.token),
            false => {
                let text = format!("{} (request {})\n", failure.sentence(), self.id);
                self.answer_with(status, outcome.grpc_status, outcome.token, &text)
            }
        };
        if failure == Failure::Overflow {
            answer.set(OVERLOADED, b"true");
        }
        answer
    }

    /// The same of any status, with any words.
    pub(super) fn answer_with(&self, status: u16, grpc_status: u32, token: &str, words: &str) -> Answer {
        let mut answer = match self.is_grpc {
            true => {
                let mut answer = Answer { code: status, ..Answer::new(200) };
                answer.set(CONTENT_TYPE, b"application/grpc");
                answer.set(GRPC_STATUS, grpc_status.to_string().as_bytes());
                answer.set(GRPC_MESSAGE, words.as_bytes());
                answer
            }
            false => {
                let mut answer = Answer::new(status).with_body(words.to_owned().into());
                answer.set(CONTENT_TYPE, b"text/plain");
                answer
            }
        };
        answer.set(REASON, token.as_bytes());
        answer.set(REQUEST_ID, self.id.as_bytes());
        answer
    }
}
