//! The body of an endpoint's answer on its way to the client, the limits on it, and what is finished when it ends.

use super::answer::{AnswerBody, BodyError};
use super::limits::Deadline;
use crate::failure::Failure;
use crate::record::Exchange;
use crate::upstream::{BodyTally, Lease};
use crate::wire::Incoming;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Ready when a limit is reached: which.
pub(super) fn poll_limits(
    deadline: &mut Option<Deadline>,
    tally: &BodyTally,
    cx: &mut Context<'_>,
) -> Poll<Failure> {
    if let Some(deadline) = deadline
        && let Poll::Ready(failure) = deadline.as_mut().poll(cx)
    {
        return Poll::Ready(failure);
    }
    tally.poll_expired(cx).map(|()| match tally.ended.get() {
        None => Failure::IdleTimeout,
        Some(_) => Failure::IdleAnswer,
    })
}

/// The body of an endpoint's answer on its way to the client, with what is finished when it ends.
pub struct UpstreamBody {
    inner: Incoming,
    lease: Option<Lease>,
    exchange: Option<Box<Exchange>>,
    tally: Rc<BodyTally>,
    deadline: Option<Deadline>,
}

impl UpstreamBody {
    pub(super) fn new(
        inner: Incoming,
        lease: Lease,
        exchange: Box<Exchange>,
        tally: Rc<BodyTally>,
        deadline: Option<Deadline>,
    ) -> Self {
        let mut body = Self { inner, lease: Some(lease), exchange: Some(exchange), tally, deadline };
        if body.inner.is_end_stream() {
            body.complete();
        }
        body
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // An endpoint that never pauses must not outrun its limit either.
        if self.deadline.is_some()
            && let Poll::Ready(failure) = poll_limits(&mut self.deadline, &self.tally, cx)
        {
            return self.break_off(failure);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => match poll_limits(&mut self.deadline, &self.tally, cx) {
                Poll::Ready(failure) => self.break_off(failure),
                Poll::Pending => Poll::Pending,
            },
            Poll::Ready(Some(Ok(frame))) => {
                self.tally.count_answer();
                if let Some(exchange) = &mut self.exchange {
                    match (frame.data_ref(), frame.trailers_ref()) {
                        (Some(data), _) => exchange.bytes_sent += data.len() as u64,
                        (_, Some(trailers)) => exchange.trailers(trailers),
                        _ => {}
                    }
                }
                if self.inner.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.give_up(Failure::UpstreamReset);
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
        }
    }

    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.inner.poll_upload(cx);
    }

    pub(super) fn is_done(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn break_off(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.give_up(failure);
        Poll::Ready(Some(Err(match failure {
            Failure::IdleTimeout | Failure::IdleAnswer => BodyError::Idle,
            _ => BodyError::Timeout,
        })))
    }

    fn complete(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
        self.record(None);
    }

    fn give_up(&mut self, failure: Failure) {
        self.lease = None;
        self.record(Some(failure));
    }

    fn record(&mut self, failure: Option<Failure>) {
        let Some(mut exchange) = self.exchange.take() else { return };
        exchange.bytes_received = self.tally.bytes.get();
        exchange.request_end = self.tally.ended.get();
        if let Some(failure) = failure {
            exchange.flags = failure.outcome().flags;
            exchange.details = failure.outcome().token;
        }
        exchange.finish();
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if self.exchange.is_some() {
            self.give_up(Failure::ClientGone);
        }
    }
}

impl From<UpstreamBody> for AnswerBody {
    fn from(body: UpstreamBody) -> Self {
        match body.is_done() {
            true => Self::Empty,
            false => Self::Upstream(Box::new(body)),
        }
    }
}
