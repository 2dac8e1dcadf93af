//! HTTP/1 with a client: one request after the other, each answered before the next is read. While nothing comes in there
//! is only the stream and one timer.

use super::stage::{Stage, StageView};
use super::{Lifetime, Visit};
use crate::request::{self, AnswerBody, Context, Tunnel};
use crate::snapshot::HttpState;
use crate::stream::Prefixed;
use crate::wire::Incoming;
use crate::wire::http1::{
    Asked, Case, Decoder, Delimiting, Link, RequestHead, Rule, Shared, parse_request, write_response,
};
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use model::header::HeaderCase;
use model::listener::HttpConnectionManager;
use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Time for a head, once it began.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Time for a client to take an answer's bytes where the listener sets none.
const BLOCKED_TIME: Duration = Duration::from_secs(300);
/// Time for the last words on a connection.
const LAST_TIME: Duration = Duration::from_secs(2);
/// Bytes read and forgotten so that the last words arrive.
const LAST_BYTES: u64 = 256 * 1024;
/// Longer than any connection lives.
const FOREVER: Duration = Duration::from_secs(86_400 * 365);

/// What came of waiting for a request. It lives for a moment: a box would cost each request more than the room does.
#[allow(clippy::large_enum_variant)]
enum Next {
    Request(RequestHead),
    /// A rule is broken, and the client is to be told.
    Refused(Rule),
    /// Nothing more will come.
    Over,
}

/// How a request's exchange with its client ended.
enum Turn {
    /// Another request may follow.
    Next,
    /// The connection is to be closed, now that everything is said.
    Last,
    /// It broke.
    Broken,
    /// It is a tunnel's from now on.
    Tunnel(Box<Tunnel>),
}

/// Serves the requests on `stream`.
pub(super) async fn serve<IO>(
    visit: &mut Visit,
    http: &Arc<HttpState>,
    lifetime: Lifetime,
    stream: Prefixed<IO>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let context = visit.context(http);
    let server = Server::new(context, &http.manager, lifetime, visit.stage.clone(), stream);
    if let Some(rule) = server.serve().await {
        visit.refusals(http).record(rule.status(), rule.token());
    }
}

/// A connection that requests come in on.
pub(super) struct Server<IO> {
    context: Rc<Context>,
    link: Rc<RefCell<Link<IO>>>,
    lifetime: Lifetime,
    stage: StageView,
    idle_limit: Option<Duration>,
    head_time: Duration,
    patience: Duration,
    case: HeaderCase,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + 'static> Server<IO> {
    pub(super) fn new(
        context: Rc<Context>,
        manager: &HttpConnectionManager,
        lifetime: Lifetime,
        stage: StageView,
        stream: Prefixed<IO>,
    ) -> Self {
        let (first, io) = stream.into_parts();
        Self {
            context,
            link: Rc::new(RefCell::new(Link::new(io, &first))),
            idle_limit: lifetime.idle_limit(manager),
            lifetime,
            stage,
            head_time: manager.request_headers_timeout.unwrap_or(HEAD_TIME),
            patience: manager.stream_idle_timeout.unwrap_or(BLOCKED_TIME),
            case: manager.header_case,
        }
    }

    /// Serves to the end. Returns the rule that the client broke, if it was told of one.
    pub(super) async fn serve(self) -> Option<Rule> {
        let mut stage = self.stage.clone();
        let mut closing = pin!(stage.reached(Stage::Closing));
        let mut sleep = pin!(sleep_until(Instant::now() + FOREVER));
        let mut clock = Clock(sleep.as_mut());
        let mut requests = 0;
        loop {
            let waiting = self.next(&mut clock, closing.as_mut());
            let head = match waiting.await {
                Next::Request(head) => head,
                Next::Refused(rule) => {
                    Box::pin(self.part(&rule.answer())).await;
                    return Some(rule);
                }
                Next::Over => {
                    Box::pin(self.part(b"")).await;
                    return None;
                }
            };
            requests += 1;
            match self.exchange(head, requests, &mut clock).await {
                Turn::Next => {}
                Turn::Last => {
                    Box::pin(self.part(b"")).await;
                    return None;
                }
                Turn::Broken => return None,
                Turn::Tunnel(tunnel) => {
                    if let Ok(link) = Rc::try_unwrap(self.link) {
                        let link = link.into_inner();
                        let client = Prefixed::with(link.inbox.bytes.to_vec(), link.io);
                        Box::pin(tunnel.pass(client)).await;
                    }
                    return None;
                }
            }
        }
    }

    /// Waits for a request.
    async fn next(&self, clock: &mut Clock<'_>, mut closing: Pin<&mut impl Future<Output = ()>>) -> Next {
        let idle_since = Instant::now();
        let mut head_since = None;
        std::future::poll_fn(|cx| {
            let mut link = self.link.borrow_mut();
            loop {
                if !link.inbox.bytes.is_empty() {
                    match parse_request(&mut link.inbox.bytes, self.case == HeaderCase::Preserve) {
                        Ok(Some(head)) => return Poll::Ready(Next::Request(head)),
                        Ok(None) => {}
                        Err(rule) => return Poll::Ready(Next::Refused(rule)),
                    }
                }
                match link.poll_read(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Over),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => break,
                }
            }
            if link.inbox.bytes.is_empty() {
                head_since = None;
                if closing.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Next::Over);
                }
                let limit = self.idle_limit.and_then(|limit| idle_since.checked_add(limit));
                return clock.poll_at(limit, cx).map(|()| Next::Over);
            }
            let since = *head_since.get_or_insert_with(Instant::now);
            clock.poll_at(since.checked_add(self.head_time), cx).map(|()| Next::Refused(Rule::HeadTime))
        })
        .await
    }

    /// Takes a request through its stages and its answer to the client.
    async fn exchange(&self, head: RequestHead, requests: u64, clock: &mut Clock<'_>) -> Turn {
        let RequestHead { parts, length, is_last, asks_for_tunnel, expects_continue } = head;
        let asked = Asked {
            head: parts.method == Method::HEAD,
            connect: parts.method == Method::CONNECT,
            http10: parts.version == Version::HTTP_10,
        };
        {
            let mut link = self.link.borrow_mut();
            link.decoder = Decoder::new(length);
            link.expects_continue = expects_continue;
        }
        let shared: Shared = self.link.clone();
        let request = Request::from_parts(parts, Incoming::over(&shared));
        drop(shared);
        let Some(mut answer) = self.answer(request, asks_for_tunnel).await else { return Turn::Broken };
        if let AnswerBody::Tunnel(_) = answer.body() {
            return self.switch(answer, asked).await;
        }
        // What follows a refused CONNECT was meant for the other end.
        let is_leaving = self.stage.now() >= Stage::Leaving || self.lifetime.is_over(requests);
        let mut closes = is_last || is_leaving || asked.connect;
        closes |= answer.headers().get(CONNECTION).is_some_and(|v| v == "close");
        // There is no other way to tell HTTP/1.0 where a body ends that has no length.
        closes |= asked.http10 && answer.body().size_hint().exact().is_none();
        if closes {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if asked.http10 {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        match self.send(answer, asked, clock).await {
            Ok(Delimiting::Close) => Turn::Last,
            Ok(_) if closes || !self.is_read() => Turn::Last,
            Ok(_) => Turn::Next,
            Err(()) => Turn::Broken,
        }
    }

    /// The answer; `None` when the client goes away before there is one.
    async fn answer(
        &self,
        request: Request<Incoming>,
        asks_for_tunnel: bool,
    ) -> Option<Response<AnswerBody>> {
        // Boxed: a connection at rest has no room for it.
        let mut answer = Box::pin(request::serve(&self.context, request));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            let mut link = self.link.borrow_mut();
            // While a body is read, its reader sees the client go.
            if !link.decoder.is_over() || link.inbox.has_ended() {
                return Poll::Pending;
            }
            while !link.inbox.is_full() {
                match ready!(link.poll_read(cx)) {
                    Ok(0) if link.inbox.bytes.is_empty() || asks_for_tunnel => return Poll::Ready(None),
                    Ok(0) => return Poll::Pending,
                    Ok(_) => {}
                    Err(_) => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the request's body was read to its end. What is left of it here is taken now.
    fn is_read(&self) -> bool {
        let mut link = self.link.borrow_mut();
        let link = &mut *link;
        while let Ok(Some(_)) = link.decoder.take(&mut link.inbox.bytes) {}
        link.decoder.is_over()
    }

    /// Writes an answer as its bytes come.
    async fn send(
        &self,
        answer: Response<AnswerBody>,
        asked: Asked,
        clock: &mut Clock<'_>,
    ) -> Result<Delimiting, ()> {
        let (head, mut body) = answer.into_parts();
        let mut delimiting = {
            let mut link = self.link.borrow_mut();
            link.expects_continue = false;
            let length = body.size_hint().exact();
            let case = Case::new(self.case, &head.extensions);
            write_response(head.status, &head.headers, case, asked, length, &mut link.outbox)
        };
        drop(head);
        let mut gathered = match delimiting {
            Delimiting::Bodiless => Gathered::All,
            _ => Gathered::Full,
        };
        let mut blocked_since = None;
        std::future::poll_fn(|cx| {
            loop {
                if gathered != Gathered::All {
                    gathered = self.gather(&mut body, &mut delimiting, cx)?;
                }
                let flushed = self.link.borrow_mut().poll_flush(cx);
                match flushed {
                    Poll::Ready(Ok(())) => blocked_since = None,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                    Poll::Pending => {
                        body.poll_upload(cx);
                        let since = *blocked_since.get_or_insert_with(Instant::now);
                        return clock.poll_at(since.checked_add(self.patience), cx).map(Err);
                    }
                }
                match gathered {
                    Gathered::All => return Poll::Ready(Ok(delimiting)),
                    Gathered::Some => return Poll::Pending,
                    Gathered::Full => {}
                }
            }
        })
        .await
    }

    /// Puts what there is of `body` into the outbox, as far as it fits.
    fn gather(
        &self,
        body: &mut AnswerBody,
        delimiting: &mut Delimiting,
        cx: &mut Task<'_>,
    ) -> Result<Gathered, ()> {
        let mut trailers = None;
        while !body.is_end_stream() {
            if self.link.borrow().outbox.is_full() {
                return Ok(Gathered::Full);
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(Gathered::Some),
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) => return Err(()),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        delimiting.piece(data, &mut self.link.borrow_mut().outbox).map_err(drop)?;
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        delimiting.end(trailers.as_ref(), &mut self.link.borrow_mut().outbox).map_err(drop)?;
        Ok(Gathered::All)
    }

    /// Writes the head of an answer that begins a tunnel.
    async fn switch(&self, answer: Response<AnswerBody>, asked: Asked) -> Turn {
        let (head, body) = answer.into_parts();
        let AnswerBody::Tunnel(tunnel) = body else { return Turn::Broken };
        let case = Case::new(self.case, &head.extensions);
        write_response(head.status, &head.headers, case, asked, None, &mut self.link.borrow_mut().outbox);
        match std::future::poll_fn(|cx| self.link.borrow_mut().poll_flush(cx)).await {
            Ok(()) => Turn::Tunnel(tunnel),
            Err(_) => Turn::Broken,
        }
    }

    /// The last words, and an end that does not destroy what was said before.
    async fn part(self, words: &[u8]) {
        let Ok(link) = Rc::try_unwrap(self.link) else { return };
        let mut link = link.into_inner();
        let has_unread = !link.inbox.has_ended() && (!words.is_empty() || !link.decoder.is_over());
        let saying = async {
            link.io.write_all(words).await?;
            link.io.shutdown().await?;
            if has_unread {
                let mut rest = (&mut link.io).take(LAST_BYTES);
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        // The client may be gone: there is nobody to tell.
        let _ = timeout(LAST_TIME, saying).await;
    }
}

/// One timer for all that a connection waits for; it is set anew only when it would ring too late.
struct Clock<'s>(Pin<&'s mut Sleep>);

impl Clock<'_> {
    /// Ready at `limit`.
    fn poll_at(&mut self, limit: Option<Instant>, cx: &mut Task<'_>) -> Poll<()> {
        let Some(limit) = limit else { return Poll::Pending };
        if self.0.deadline() > limit {
            self.0.as_mut().reset(limit);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= limit {
                return Poll::Ready(());
            }
            // It was set for something that has moved on since.
            self.0.as_mut().reset(limit);
        }
    }
}

/// Where putting a body into the outbox stopped.
#[derive(PartialEq, Eq)]
enum Gathered {
    /// It is over.
    All,
    /// There is no more room.
    Full,
    /// There is no more of it yet.
    Some,
}
