//! One HTTP/2 connection to an endpoint, shared by many requests (RFC 9113).

use super::body::Outgoing;
use super::connect::{ConnectError, Connected, Facts};
use super::sent::Sent;
use crate::snapshot::Permit;
use crate::wire::http2::{Sending, send, silence};
use crate::wire::{Incoming, WireError, said_length};
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Version};
use http_body::Body;
use model::cluster::Pings;
use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Largest header list taken from an endpoint, in bytes (RFC 9113, 6.5.2).
const HEADER_LIST_LIMIT: u32 = 64 * 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of a request that wait for a stream's window.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that one side reset and the other may still speak of.
const RESETS: usize = 20;
/// How an endpoint is asked whether it is there, where nothing is said.
const PINGS: Pings = Pings { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };

/// A connection that is shared.
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    pub(super) facts: Facts,
    /// Requests under way.
    pub(super) streams: Cell<u32>,
    /// Requests it has been given.
    pub(super) served: Cell<u32>,
    _permit: Option<Permit>,
}

impl Http2 {
    /// Begins to speak HTTP/2 on a connection to `address`.
    pub(super) async fn begin(
        address: SocketAddr,
        connected: Connected,
        pings: Option<Pings>,
        permit: Option<Permit>,
    ) -> Result<Rc<Self>, ConnectError> {
        let Connected { stream, facts, .. } = connected;
        let asked = pings.unwrap_or(PINGS);
        let handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST_LIMIT)
            .max_concurrent_reset_streams(RESETS)
            .max_pending_accept_reset_streams(RESETS)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false)
            .handshake(stream);
        let (sender, mut connection) =
            handshake.await.map_err(|error| ConnectError::Protocol(address, WireError::Http2(error)))?;
        let pings = connection.ping_pong();
        // It ends by itself when the last sender is gone or the endpoint leaves; why is told to the requests on it.
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = connection => {}
                () = silence(pings, asked.interval, asked.timeout) => {}
            }
        });
        let (streams, served) = (Cell::new(0), Cell::new(0));
        Ok(Rc::new(Self { sender, facts, streams, served, _permit: permit }))
    }

    /// Whether it takes another request; `None` when it is over, or about to be.
    pub(super) fn has_room(&self) -> Option<bool> {
        if !self.facts.is_young() {
            return None;
        }
        match self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Some(true),
            Poll::Ready(Err(_)) => None,
            Poll::Pending => Some(false),
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, request: Request<Outgoing>) -> Sent {
        let mut sender = match self.sender.clone().ready().await {
            Ok(sender) => sender,
            Err(_) => return Sent::NotSent(Box::new(request)),
        };
        let (mut head, mut body) = request.into_parts();
        head.version = Version::HTTP_2;
        if head.method != Method::CONNECT && !head.headers.contains_key(CONTENT_LENGTH) {
            // A length that is known helps the endpoint; nothing does not need one.
            if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
                head.headers.insert(CONTENT_LENGTH, length.into());
            }
        }
        let is_empty = body.is_end_stream();
        let (mut answer, mut stream) = match sender.send_request(Request::from_parts(head, ()), is_empty) {
            Ok(sent) => sent,
            Err(error) => return Sent::Failed(WireError::Http2(error)),
        };
        let mut upload: Option<Pin<Box<dyn Future<Output = Sending>>>> = match is_empty {
            true => None,
            false => Some(Box::pin(async move { send(&mut body, &mut stream, |_, _| {}).await })),
        };
        let answered = std::future::poll_fn(|cx| {
            if let Some(sending) = &mut upload
                && let Poll::Ready(ended) = sending.as_mut().poll(cx)
            {
                upload = None;
                if let Sending::Broken = ended {
                    return Poll::Ready(Err(WireError::Source));
                }
            }
            Pin::new(&mut answer).poll(cx).map_err(WireError::Http2)
        });
        match answered.await {
            Ok(answer) => {
                let length = said_length(answer.headers());
                Sent::Answer(answer.map(|stream| Incoming::over_stream(stream, length, upload)))
            }
            Err(error) => Sent::Failed(error),
        }
    }
}
