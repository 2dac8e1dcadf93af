//! An answer's body that tells when it is over.

use crate::request::{AnswerBody, BodyError};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body, and something that is dropped with it.
pub(super) struct Answered<T> {
    body: AnswerBody,
    _end: T,
}

impl<T> Answered<T> {
    /// `end` is dropped when `body` was sent or given up.
    pub(super) fn new(body: AnswerBody, end: T) -> Self {
        Self { body, _end: end }
    }
}

impl<T: Unpin> Body for Answered<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
