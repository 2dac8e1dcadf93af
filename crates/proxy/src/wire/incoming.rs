//! A message's body as it comes in, in HTTP/1 or HTTP/2.

use super::error::WireError;
use super::http1::{Piece, Shared};
use super::http2::{Received, Sending};
use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body that is coming in. It is read from its connection as it is polled.
pub enum Incoming {
    /// There is none, or no more of it.
    Over,
    /// Over HTTP/1.
    Http1(Http1Body),
    /// Over HTTP/2.
    Http2(Box<Received>),
}

/// A body over HTTP/1.
pub struct Http1Body(Shared);

impl Incoming {
    /// The body that comes in over `link`, if there is any.
    pub(crate) fn over(link: &Shared) -> Self {
        match link.borrow().decoder().is_over() {
            true => Self::Over,
            false => Self::Http1(Http1Body(link.clone())),
        }
    }

    /// The body that comes in over `stream`, if there is any, while `upload` goes the other way.
    pub(crate) fn over_stream(
        stream: RecvStream,
        length: Option<u64>,
        upload: Option<Pin<Box<dyn Future<Output = Sending>>>>,
    ) -> Self {
        match stream.is_end_stream() && upload.is_none() {
            true => Self::Over,
            false => Self::Http2(Box::new(Received::new(stream, length, upload))),
        }
    }

    /// Sends on what goes the other way: for as long as nobody reads.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Over => {}
            // How it ends is told when the body is read.
            Self::Http1(Http1Body(link)) => drop(link.borrow_mut().poll_upload(cx)),
            Self::Http2(received) => received.poll_upload(cx),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = WireError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        let (frame, is_over) = match &mut *self {
            Self::Over => return Poll::Ready(None),
            Self::Http1(Http1Body(link)) => {
                let mut link = link.borrow_mut();
                let piece = ready!(link.poll_piece(cx));
                let frame = piece.map(|piece| {
                    piece.map(|piece| match piece {
                        Piece::Data(data) => Frame::data(data),
                        Piece::Trailers(trailers) => Frame::trailers(trailers),
                    })
                });
                (frame, link.decoder().is_over())
            }
            Self::Http2(received) => {
                let frame = ready!(received.poll_frame(cx));
                (frame, received.is_over())
            }
        };
        if is_over || !matches!(frame, Some(Ok(_))) {
            *self = Self::Over;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Over => true,
            Self::Http1(Http1Body(link)) => link.borrow().decoder().is_over(),
            Self::Http2(received) => received.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = match self {
            Self::Over => Some(0),
            Self::Http1(Http1Body(link)) => link.borrow().decoder().remaining(),
            Self::Http2(received) => received.remaining(),
        };
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
