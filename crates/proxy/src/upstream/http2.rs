//! One HTTP/2 connection to an endpoint, shared by many requests (RFC 9113).

use super::body::Outgoing;
use super::connect::{ConnectError, Stream};
use super::lease::Sent;
use super::pool::Facts;
use crate::snapshot::Permit;
use crate::wire::http2::{Received, Sending, send};
use crate::wire::{Incoming, WireError};
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Ping, PingPong};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Body;
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
/// How often an endpoint is asked whether it is there, and the time it has to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

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
    /// Begins to speak HTTP/2 on `stream`.
    pub(super) async fn begin(
        address: SocketAddr,
        stream: Stream,
        facts: Facts,
        permit: Option<Permit>,
    ) -> Result<Rc<Self>, ConnectError> {
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
                () = silence(pings) => {}
            }
        });
        let (streams, served) = (Cell::new(0), Cell::new(0));
        Ok(Rc::new(Self { sender, facts, streams, served, _permit: permit }))
    }

    /// Whether it takes another request; `None` when it is over, or about to be.
    pub(super) fn has_room(&self) -> Option<bool> {
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
        let (answer, mut stream) = match sender.send_request(Request::from_parts(head, ()), is_empty) {
            Ok(sent) => sent,
            Err(error) => return Sent::Failed(WireError::Http2(error)),
        };
        if is_empty {
            return match answer.await {
                Ok(answer) => Sent::Answer(received(answer, None)),
                Err(error) => Sent::Failed(WireError::Http2(error)),
            };
        }
        let mut upload: Upload = Box::pin(async move { send(&mut body, &mut stream, |_, _| {}).await });
        let (answered, upload) = while_uploading(answer, &mut upload).await.split(upload);
        match answered {
            Ok(answer) => Sent::Answer(received(answer, upload)),
            Err(error) => Sent::Failed(error),
        }
    }
}

type Upload = Pin<Box<dyn Future<Output = Sending>>>;

/// What came of waiting for an answer, and whether the request is still on its way.
struct Waited {
    answered: Result<Response<h2::RecvStream>, WireError>,
    is_uploading: bool,
}

impl Waited {
    fn split(self, upload: Upload) -> (Result<Response<h2::RecvStream>, WireError>, Option<Upload>) {
        (self.answered, self.is_uploading.then_some(upload))
    }
}

async fn while_uploading(mut answer: ResponseFuture, upload: &mut Upload) -> Waited {
    let mut is_uploading = true;
    std::future::poll_fn(|cx| {
        if is_uploading && let Poll::Ready(sending) = upload.as_mut().poll(cx) {
            is_uploading = false;
            if let Sending::Broken = sending {
                return Poll::Ready(Waited { answered: Err(WireError::Source), is_uploading });
            }
        }
        let answered = std::task::ready!(Pin::new(&mut answer).poll(cx)).map_err(WireError::Http2);
        Poll::Ready(Waited { answered, is_uploading })
    })
    .await
}

fn received(answer: Response<h2::RecvStream>, upload: Option<Upload>) -> Response<Incoming> {
    let length = said_length(answer.headers());
    answer.map(|stream| {
        let received = Received::new(stream, length);
        match upload {
            Some(upload) => {
                let upload = async move {
                    // How it ended is told by the answer.
                    let _ = upload.await;
                };
                Incoming::Http2(Box::new(received.with_upload(Box::pin(upload))))
            }
            None if received.is_over() => Incoming::Over,
            None => Incoming::Http2(Box::new(received)),
        }
    })
}

fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Ends when the peer does not answer a ping in time.
async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING.0).await;
        match tokio::time::timeout(PING.1, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection is over, and says so itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
