//! Responses on their way to a client: the body of a gRPC answer, made of bytes that many streams share. tonic's own
//! encoder would copy every message whole for every stream.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::{Receiver, Sender};
use tonic::Status;

/// Messages below this, in bytes, are copied together: that is cheaper than several frames.
const MAX_COPIED: usize = 16 << 10;

/// Where a session puts its responses: messages in parts, each message [`framed`], or how it ends.
pub(super) type Outgoing = Sender<Result<Vec<Bytes>, Status>>;

/// An encoded message as gRPC sends it: uncompressed, its length before it.
pub(super) fn framed(parts: Vec<Bytes>) -> Vec<Bytes> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let copied = if length <= MAX_COPIED { parts.len() } else { 1 };
    let mut head = BytesMut::with_capacity(5 + parts.iter().take(copied).map(Bytes::len).sum::<usize>());
    head.put_u8(0);
    // Nothing near 4 GiB is ever put together.
    head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    let mut parts = parts.into_iter();
    parts.by_ref().take(copied).for_each(|part| head.put_slice(&part));
    let mut all = vec![head.freeze()];
    all.extend(parts.filter(|part| !part.is_empty()));
    all
}

/// The body: what a session sends, then how it ended. The session lives in it, so that a stream is one task and not two.
pub(super) struct Responses {
    session: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    messages: Receiver<Result<Vec<Bytes>, Status>>,
    /// What is left of the last message.
    parts: std::vec::IntoIter<Bytes>,
    has_ended: bool,
}

impl Responses {
    /// The body of the messages that `session` sends.
    pub(super) fn new(
        session: impl Future<Output = ()> + Send + 'static,
        messages: Receiver<Result<Vec<Bytes>, Status>>,
    ) -> Self {
        Self { session: Some(Box::pin(session)), messages, parts: Vec::new().into_iter(), has_ended: false }
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        // A status that cannot be written is no reason to keep the stream open.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let session = self.session.as_mut();
            if session.is_some_and(|session| session.as_mut().poll(context).is_ready()) {
                self.session = None;
            }
            if let Some(part) = self.parts.next() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            match ready!(self.messages.poll_recv(context)) {
                Some(Ok(parts)) => self.parts = parts.into_iter(),
                Some(Err(status)) => return Poll::Ready(Some(Ok(self.end(&status)))),
                None => return Poll::Ready(Some(Ok(self.end(&Status::ok(""))))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_message_is_one_piece_and_a_large_one_shares_its_parts() {
        let small = framed(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        assert_eq!(small, [Bytes::from_static(b"\0\0\0\0\x03abc")]);
        let shared = Bytes::from(vec![7; MAX_COPIED]);
        let large = framed(vec![Bytes::from_static(b"ab"), shared.clone()]);
        assert_eq!(large.first().map(|head| &head[..]), Some(&b"\0\0\0\x40\x02ab"[..]));
        assert_eq!(large.last().map(|last| last.as_ptr()), Some(shared.as_ptr()), "not copied");
    }
}
