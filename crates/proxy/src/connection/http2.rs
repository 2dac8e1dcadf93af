//! HTTP/2 with a client. Every limit is set here: the library's own defaults are generous.

use super::answered::Answered;
use super::stage::Stage;
use super::{Lifetime, Refusals, Visit};
use crate::framing::Rule;
use crate::record::Telemetry;
use crate::request::{self, AnswerBody};
use crate::snapshot::HttpState;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

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
    let context = visit.context(http, None);
    let streams = Rc::new(Streams::default());
    let (counted, refusals) = (streams.clone(), visit.refusals(http));
    let service = service_fn(move |request: Request<Incoming>| {
        let open = Open::new(counted.clone());
        let (context, refusals) = (context.clone(), refusals.clone());
        async move {
            let answer = match request.headers().len() > HEADER_FIELDS {
                true => too_many_fields(&refusals),
                // Boxed: what holds this future moves it about, and it is large.
                false => Box::pin(request::serve(&context, request)).await,
            };
            Ok::<_, Infallible>(answer.map(|body| Answered::new(body, open)))
        }
    });
    let executor = LocalExecutor(visit.telemetry().clone());
    let mut connection = builder(executor).serve_connection(TokioIo::new(stream), service);
    let mut connection = Pin::new(&mut connection);
    let (mut calls, mut idle_since) = (0, Instant::now());
    let mut tick = std::pin::pin!(sleep_until(Instant::now() + TICK));
    let mut is_leaving = false;
    loop {
        tokio::select! {
            biased;
            // What broke off is in the record of the requests it happened to.
            _ = connection.as_mut() => return,
            () = visit.stage.reached(Stage::Leaving), if !is_leaving => {
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tick.as_mut() => {
                let now = Instant::now();
                if std::mem::replace(&mut calls, streams.calls.get()) != calls || streams.open.get() > 0 {
                    idle_since = now;
                }
                let is_idle = http.manager.idle_timeout.is_some_and(|limit| now - idle_since >= limit);
                if (is_idle || lifetime.is_over(calls)) && !is_leaving {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                tick.as_mut().reset(now + TICK);
            }
        }
    }
}

fn builder(executor: LocalExecutor) -> Builder<LocalExecutor> {
    let mut builder = Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST_SIZE)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(FAULTS)
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    builder
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

/// Runs a connection's tasks on this thread; a panic in one is counted and costs that one.
#[derive(Clone)]
struct LocalExecutor(Arc<Telemetry>);

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        let telemetry = self.0.clone();
        tokio::task::spawn_local(async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                telemetry.panicked();
            }
        });
    }
}
