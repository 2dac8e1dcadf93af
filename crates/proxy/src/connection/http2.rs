//! HTTP/2 with a client. Every limit is set here: the library's own defaults are generous.

use super::stage::Stage;
use super::{Lifetime, Refusals, Visit};
use crate::request::{self, AnswerBody, Context};
use crate::snapshot::HttpState;
use crate::wire::http1::{Rule, date};
use crate::wire::http2::{Duplex, send, silence};
use crate::wire::{Incoming, said_length};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

/// Time for a client to send its preface.
const HANDSHAKE_TIME: Duration = Duration::from_secs(15);
/// Requests under way at once.
const STREAMS: u32 = 100;
/// Largest header list, as RFC 9113 counts it.
const HEADER_LIST_SIZE: u32 = 64 * 1024;
/// Most fields in it, cookie crumbs counted one by one.
const HEADER_FIELDS: usize = 128;
/// Reset streams that may wait to be seen (Rapid Reset, CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams reset because the client broke the protocol, before the connection is closed.
const FAULTS: usize = 256;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that wait for a stream's window.
const SEND_BUFFER: usize = 256 * 1024;
/// How often a silent client is asked whether it is there, and the time it has to answer.
const PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// How often it is looked whether the connection is idle for too long.
const TICK: Duration = Duration::from_secs(5);

/// Serves the requests on `stream`.
pub(super) async fn serve<IO>(visit: &mut Visit, http: &Arc<HttpState>, lifetime: Lifetime, stream: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let context = visit.context(http);
    let refusals = visit.refusals(http);
    let Ok(Ok(mut connection)) = timeout(HANDSHAKE_TIME, builder().handshake(stream)).await else { return };
    let mut silence = pin!(silence(connection.ping_pong(), PING.0, PING.1));
    let streams = Rc::new(Streams::default());
    let mut answering = FuturesUnordered::new();
    let mut closing = pin!(visit.stage.reached(Stage::Leaving));
    let mut tick = pin!(sleep_until(Instant::now() + TICK));
    let (mut calls, mut idle_since) = (0, Instant::now());
    let mut is_leaving = false;
    std::future::poll_fn(|cx| {
        // Answers first: what they write goes out when the connection is polled.
        loop {
            while let Poll::Ready(Some(())) = answering.poll_next_unpin(cx) {}
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let open = Open::new(streams.clone());
                    let answer = answer(context.clone(), refusals.clone(), request, respond, open);
                    let telemetry = context.local.live().telemetry().clone();
                    // A panic costs one request, and is counted.
                    let answer = AssertUnwindSafe(Box::pin(answer)).catch_unwind();
                    answering.push(answer.map(move |outcome| {
                        if outcome.is_err() {
                            telemetry.panicked();
                        }
                    }));
                }
                // What broke off is in the record of the requests it happened to.
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if !is_leaving && closing.as_mut().poll(cx).is_ready() {
            is_leaving = true;
            connection.graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        while tick.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if std::mem::replace(&mut calls, streams.calls.get()) != calls || streams.open.get() > 0 {
                idle_since = now;
            }
            let is_idle = http.manager.idle_timeout.is_some_and(|limit| now - idle_since >= limit);
            if (is_idle || lifetime.is_over(calls)) && !is_leaving {
                is_leaving = true;
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            tick.as_mut().reset(now + TICK);
        }
        silence.as_mut().poll(cx)
    })
    .await;
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST_SIZE)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(FAULTS))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Answers one request.
async fn answer(
    context: Rc<Context>,
    refusals: Refusals,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    _open: Open,
) {
    let length = said_length(request.headers());
    let is_head = request.method() == Method::HEAD;
    let too_many = request.headers().len() > HEADER_FIELDS;
    let request = request.map(|stream| Incoming::over_stream(stream, length, None));
    let answer = match too_many {
        true => Some(too_many_fields(&refusals)),
        false => {
            let mut serving = pin!(request::serve(&context, request));
            // A client that resets its stream is gone: the work for it ends.
            std::future::poll_fn(|cx| match serving.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            })
            .await
        }
    };
    let Some(answer) = answer else { return };
    let (mut head, mut body) = answer.into_parts();
    complete(&mut head.headers, head.status, &body);
    if let AnswerBody::Tunnel(mut tunnel) = body {
        let client = tunnel.take_client();
        if let (Ok(sending), Incoming::Http2(received)) =
            (respond.send_response(Response::from_parts(head, ()), false), client)
        {
            tunnel.pass(Duplex::new(received.into_stream(), sending)).await;
        }
        return;
    }
    let is_over = is_head || body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), is_over) else { return };
    if !is_over {
        send(&mut body, &mut stream, AnswerBody::poll_upload).await;
    }
}

/// What every answer says.
fn complete(headers: &mut HeaderMap, status: StatusCode, body: &AnswerBody) {
    headers.remove(CONNECTION);
    if !headers.contains_key(CONTENT_LENGTH)
        && !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && let Some(length) = body.size_hint().exact().filter(|length| *length > 0)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, date());
    }
}

/// The answer to a request with more fields than anybody needs.
fn too_many_fields(refusals: &Refusals) -> Response<AnswerBody> {
    let rule = Rule::HeadFields;
    refusals.record(rule.status(), rule.token());
    let text = format!("the request has more than {HEADER_FIELDS} header fields\n");
    let mut answer = Response::new(AnswerBody::Whole(Some(Bytes::from(text))));
    *answer.status_mut() = rule.status();
    answer.headers_mut().insert("x-ieum-reason", HeaderValue::from_static(rule.token()));
    answer
}

/// How many requests there were, and are.
#[derive(Default)]
struct Streams {
    calls: Cell<u64>,
    open: Cell<u32>,
}

/// A request under way.
struct Open(Rc<Streams>);

impl Open {
    fn new(streams: Rc<Streams>) -> Self {
        streams.calls.set(streams.calls.get() + 1);
        streams.open.set(streams.open.get() + 1);
        Self(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
