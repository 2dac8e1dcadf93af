//! HTTP/1 with a client. While nothing comes in there is only the stream: hyper and its buffers are made for the first
//! byte of a request and let go of when the connection rests.

use super::answered::Answered;
use super::stage::Stage;
use super::stream::Prefixed;
use super::{Lifetime, Visit, sleep_or_never};
use crate::framing::{Begin, Hold, Ledger, Rule};
use crate::gate::TunnelGate;
use crate::request::{self, AnswerBody, Context};
use crate::snapshot::HttpState;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

/// How often a busy connection is looked at; one that rests that long lets its buffers go.
const TICK: Duration = Duration::from_secs(5);
/// Time for a head, once it began.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Time for a client to take an answer's bytes where the listener sets none.
const BLOCKED_TIME: Duration = Duration::from_secs(300);
/// Time for the last words on a connection.
const LAST_TIME: Duration = Duration::from_secs(2);
/// Bytes read and forgotten so that the last words arrive.
const LAST_BYTES: usize = 256 * 1024;
/// Largest buffer for what comes in: a head, and a body's bytes while they wait.
const BUFFER_SIZE: usize = 64 * 1024;

/// How a turn of requests ended.
enum Turn {
    /// The connection rests.
    Resting,
    /// Nothing more will come.
    Over,
}

/// Serves the requests on `stream`.
pub(super) async fn serve<IO>(
    visit: &mut Visit,
    http: &Arc<HttpState>,
    lifetime: Lifetime,
    stream: Prefixed<IO>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (first, stream) = stream.into_parts();
    let gate = Arc::new(TunnelGate::default());
    let ledger = Arc::new(Ledger::default());
    let context = visit.context(http, Some(gate.clone()));
    let hold = Hold::new(stream, first, ledger.clone(), gate);
    while await_request(visit, lifetime.idle_limit(&http.manager), &hold).await {
        let turn = Box::pin(take_turn(visit, http, &hold, &context, &ledger, lifetime)).await;
        if let Turn::Over = turn {
            break;
        }
    }
    // A tunnel may go on after HTTP.
    hold.released().await;
    Box::pin(part(visit, http, &hold)).await;
}

/// Waits for a request; whether one is coming.
async fn await_request<IO>(visit: &mut Visit, limit: Option<Duration>, hold: &Hold<IO>) -> bool
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        biased;
        begun = hold.begin() => matches!(begun, Ok(Begin::Request)),
        () = visit.stage.reached(Stage::Closing) => false,
        () = sleep_or_never(limit) => false,
    }
}

/// Serves requests until the connection rests or is over.
async fn take_turn<IO>(
    visit: &mut Visit,
    http: &Arc<HttpState>,
    hold: &Hold<IO>,
    context: &Rc<Context>,
    ledger: &Arc<Ledger>,
    lifetime: Lifetime,
) -> Turn
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stage = visit.stage.clone();
    let (context, counted) = (context.clone(), ledger.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (context, ledger, stage) = (context.clone(), counted.clone(), stage.clone());
        ledger.call();
        async move {
            let asked = Asked::of(&request);
            // Boxed: what holds this future moves it about, and it is large.
            let answer = Box::pin(request::serve(&context, request)).await;
            let is_leaving = stage.now() >= Stage::Leaving || lifetime.is_over(ledger.calls());
            Ok::<_, Infallible>(complete(answer, asked, is_leaving, &context, ledger))
        }
    });
    let mut connection = builder().serve_connection(TokioIo::new(hold.link()), service).with_upgrades();
    let mut connection = Pin::new(&mut connection);
    let mut calls = ledger.calls();
    let head_time = http.manager.request_headers_timeout.unwrap_or(HEAD_TIME);
    let tick_time = TICK.min(head_time);
    let mut tick = std::pin::pin!(sleep_until(Instant::now() + tick_time));
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            // What broke off is in the record of the request it happened to.
            _ = connection.as_mut() => return Turn::Over,
            () = visit.stage.reached(Stage::Closing), if !is_closing => {
                is_closing = true;
                if hold.is_at_rest() {
                    return Turn::Over;
                }
                ledger.close();
                connection.as_mut().graceful_shutdown();
            }
            () = tick.as_mut() => {
                if std::mem::replace(&mut calls, ledger.calls()) == calls && hold.is_at_rest() {
                    return Turn::Resting;
                }
                if hold.head_since().is_some_and(|since| since.elapsed() >= head_time) {
                    hold.refuse(Rule::HeadTime);
                }
                let patience = http.manager.stream_idle_timeout.unwrap_or(BLOCKED_TIME);
                if hold.blocked_since().is_some_and(|since| since.elapsed() >= patience) {
                    return Turn::Over;
                }
                tick.as_mut().reset(Instant::now() + tick_time);
            }
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .keep_alive(true)
        // A client that closes its side while it waits is gone: the work for it ends.
        .half_close(false)
        // Heads are timed by the stream, which knows when one begins; hyper would close resting connections.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_SIZE)
        .pipeline_flush(false);
    builder
}

/// What a request wants of its connection.
#[derive(Clone, Copy)]
struct Asked {
    connect: bool,
    upgrade: bool,
}

impl Asked {
    fn of(request: &Request<Incoming>) -> Self {
        Self {
            connect: request.method() == Method::CONNECT,
            upgrade: request.version() == Version::HTTP_11 && request.headers().contains_key(UPGRADE),
        }
    }
}

/// Counts the answer's end, and says on it what becomes of the connection.
fn complete(
    mut answer: Response<AnswerBody>,
    asked: Asked,
    is_leaving: bool,
    context: &Context,
    ledger: Arc<Ledger>,
) -> Response<Answered<End>> {
    let switches =
        answer.status() == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && answer.status().is_success());
    if !switches {
        if asked.connect || asked.upgrade {
            context.gate.iter().for_each(|gate| gate.refuse());
        }
        // What follows a refused CONNECT was meant for the other end.
        if asked.connect || is_leaving {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if answer.headers().get(CONNECTION).is_some_and(|v| v == "close") {
            ledger.close();
        }
    }
    answer.map(|body| Answered::new(body, End(ledger)))
}

/// The end of an answer.
struct End(Arc<Ledger>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.answer();
    }
}

/// The last words: what rule was broken, and an end that does not destroy what was said before.
async fn part<IO: AsyncRead + AsyncWrite + Unpin>(visit: &Visit, http: &Arc<HttpState>, hold: &Hold<IO>) {
    let words = async {
        if let Some(rule) = hold.refusal() {
            visit.refusals(http).record(rule.status(), rule.token());
            hold.write_last(&rule.answer()).await?;
        }
        hold.shutdown().await?;
        if hold.has_unread() {
            hold.drain(LAST_BYTES).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    // The client may be gone: there is nobody to tell.
    let _ = timeout(LAST_TIME, words).await;
}
