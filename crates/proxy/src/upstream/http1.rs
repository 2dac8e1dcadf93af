//! One HTTP/1.1 connection to an endpoint: a request goes out, its answer comes in, and the connection rests until the
//! next. It has no task: who waits for the answer moves the bytes both ways.

use super::body::Outgoing;
use super::connect::{Facts, Stream};
use super::sent::Sent;
use crate::stream::Prefixed;
use crate::wire::http1::{Case, Decoder, Link, Shared, Source, parse_response, write_request};
use crate::wire::{Incoming, WireError};
use http::header::TRAILER;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use model::header::HeaderCase;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A connection in the hands of one request, or at rest.
pub(super) struct Http1 {
    link: Rc<RefCell<Link<Stream, Outgoing>>>,
    pub(super) facts: Facts,
    /// Requests it has served.
    pub(super) served: u32,
    /// The answer that came last does not end the connection.
    goes_on: bool,
    case: HeaderCase,
}

impl Http1 {
    pub(super) fn new(stream: Stream, facts: Facts, case: HeaderCase) -> Self {
        let link = Rc::new(RefCell::new(Link::new(stream, b"")));
        Self { link, facts, served: 1, goes_on: true, case }
    }

    /// Whether the endpoint has neither closed it nor said anything unasked. Nothing is read where nothing came in.
    pub(super) fn is_alive(&self) -> bool {
        let mut link = self.link.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        link.inbox.bytes.is_empty() && link.poll_read(&mut cx).is_pending()
    }

    /// Whether the exchange is complete and another may follow.
    pub(super) fn is_reusable(&self) -> bool {
        let link = self.link.borrow();
        self.goes_on
            && link.decoder.is_over()
            && !link.is_uploading()
            && link.outbox.is_empty()
            && link.inbox.bytes.is_empty()
            && !link.inbox.has_ended()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Outgoing>) -> Sent {
        self.goes_on = false;
        let method = request.method().clone();
        if let Err(request) = self.begin(request) {
            return Sent::NotSent(request);
        }
        match std::future::poll_fn(|cx| self.poll_answer(&method, cx)).await {
            Ok(answer) => Sent::Answer(answer),
            Err(error) => Sent::Failed(error),
        }
    }

    /// Puts the request on its way; it comes back when the connection is found to be closed.
    fn begin(&mut self, request: Request<Outgoing>) -> Result<(), Box<Request<Outgoing>>> {
        if self.served > 1 && !self.is_alive() {
            return Err(Box::new(request));
        }
        let (head, body) = request.into_parts();
        let mut link = self.link.borrow_mut();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let length = body.size_hint().exact();
        let case = Case::new(self.case, &head.extensions);
        let delimiting = write_request(&head.method, target, &head.headers, case, length, &mut link.outbox);
        match body {
            Outgoing::Empty => {}
            // An endpoint that was not told of trailers may not expect them (RFC 9110, 6.5.1).
            body => link.begin_upload(body, delimiting, head.headers.contains_key(TRAILER)),
        }
        Ok(())
    }

    fn poll_answer(
        &mut self,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Incoming>, WireError>> {
        let mut link = self.link.borrow_mut();
        let sent = match link.is_uploading() || !link.outbox.is_empty() {
            true => link.poll_upload(cx),
            false => Poll::Ready(Ok(())),
        };
        if let Poll::Ready(Err(WireError::Source | WireError::WrongLength)) = sent {
            return Poll::Ready(Err(WireError::Source));
        }
        loop {
            match parse_response(&mut link.inbox.bytes, self.case == HeaderCase::Preserve) {
                // What is said meanwhile is for us (RFC 9110, 15.2).
                Ok(Some(head))
                    if head.parts.status.is_informational()
                        && head.parts.status != StatusCode::SWITCHING_PROTOCOLS => {}
                Ok(Some(head)) => {
                    let has_body = *method != Method::HEAD
                        && !head.parts.status.is_informational()
                        && !matches!(head.parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
                    link.decoder = if has_body { Decoder::new(head.length) } else { Decoder::OVER };
                    self.goes_on = !head.is_last && link.decoder != Decoder::UntilClose;
                    drop(link);
                    let shared: Shared = self.link.clone();
                    return Poll::Ready(Ok(Response::from_parts(head.parts, Incoming::over(&shared))));
                }
                Ok(None) => match link.poll_read(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(WireError::Incomplete)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    // An endpoint that takes no more may have answered before; it did not.
                    Poll::Pending => match sent {
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        _ => return Poll::Pending,
                    },
                },
                Err(rule) => return Poll::Ready(Err(WireError::Rule(rule))),
            }
        }
    }

    /// The bytes of a connection that speaks another protocol from now on.
    pub(super) fn into_stream(self) -> Option<Prefixed<Stream>> {
        let link = Rc::try_unwrap(self.link).ok()?.into_inner();
        Some(Prefixed::with(link.inbox.bytes.to_vec(), link.io))
    }
}
