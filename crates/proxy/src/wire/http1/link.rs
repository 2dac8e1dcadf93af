//! One connection's bytes and where in them it is. The message that is coming in is read by its [`Incoming`], the one that
//! goes out is pumped by whoever waits for the other: there is no task for either.
//!
//! [`Incoming`]: crate::wire::Incoming

use super::decode::{Decoder, Piece};
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::write::Delimiting;
use crate::wire::error::WireError;
use bytes::Bytes;
use http_body::Body;
use http_body_util::Empty;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// Where a body comes from, whatever carries it.
pub(crate) trait Source {
    /// The next piece; `None` when the body is over.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, WireError>>>;
    /// What is left of it.
    fn decoder(&self) -> Decoder;
    /// Sends on what goes the other way.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>>;
}

/// A link as its bodies see it.
pub(crate) type Shared = Rc<RefCell<dyn Source>>;

/// A message's body on its way out.
struct Upload<B> {
    body: B,
    delimiting: Delimiting,
    /// Whether trailers go along.
    has_trailers: bool,
}

/// One connection; `B` is the body that is sent while another is read.
pub(crate) struct Link<IO, B = Empty<Bytes>> {
    pub(crate) io: IO,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) decoder: Decoder,
    /// The peer waits for leave to send its body.
    pub(crate) expects_continue: bool,
    upload: Option<Upload<B>>,
}

impl<IO, B> Link<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// A link over `io`, of which `first` was read already.
    pub(crate) fn new(io: IO, first: &[u8]) -> Self {
        Self {
            io,
            inbox: Inbox::new(first),
            outbox: Outbox::default(),
            decoder: Decoder::OVER,
            expects_continue: false,
            upload: None,
        }
    }

    /// Reads once; 0 is the peer's end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.inbox.poll_read(&mut self.io, cx)
    }

    /// Writes what waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.outbox.poll_flush(&mut self.io, cx)
    }

    /// Begins to send `body` behind the head that waits. Its trailers are left out unless `has_trailers`.
    pub(crate) fn begin_upload(&mut self, body: B, delimiting: Delimiting, has_trailers: bool) {
        self.upload = Some(Upload { body, delimiting, has_trailers });
    }

    /// Whether a body is being sent.
    pub(crate) fn is_uploading(&self) -> bool {
        self.upload.is_some()
    }

    /// Puts as much of the body into the outbox as there is and fits. Ready when nothing more is to be put in.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        while let Some(upload) = &mut self.upload {
            if self.outbox.is_full() {
                return Poll::Ready(Ok(()));
            }
            let wrong = |_| WireError::WrongLength;
            match ready!(Pin::new(&mut upload.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        upload.delimiting.piece(data, &mut self.outbox).map_err(wrong)?;
                        if !upload.body.is_end_stream() {
                            continue;
                        }
                        upload.delimiting.end(None, &mut self.outbox).map_err(wrong)?;
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok().filter(|_| upload.has_trailers);
                        upload.delimiting.end(trailers.as_ref(), &mut self.outbox).map_err(wrong)?;
                    }
                },
                None => upload.delimiting.end(None, &mut self.outbox).map_err(wrong)?,
                Some(Err(_)) => return Poll::Ready(Err(WireError::Source)),
            }
            self.upload = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO, B> Source for Link<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, WireError>>> {
        if self.upload.is_some() || !self.outbox.is_empty() {
            // A peer that takes no more of it may still answer; it is the answer that counts.
            let _ = self.poll_upload(cx);
        }
        loop {
            match self.decoder.take(&mut self.inbox.bytes) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(rule) => return Poll::Ready(Some(Err(WireError::Rule(rule)))),
            }
            if std::mem::take(&mut self.expects_continue) {
                self.outbox.head(32).extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // What does not go out now goes out with what follows.
                let _ = self.poll_flush(cx)?;
            }
            let is_last = self.decoder == Decoder::UntilClose;
            match ready!(self.poll_read(cx)) {
                Ok(0) if is_last => {
                    self.decoder = Decoder::OVER;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(WireError::Incomplete))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    fn decoder(&self) -> Decoder {
        self.decoder
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            let gathered = self.poll_gather(cx)?;
            ready!(self.poll_flush(cx))?;
            match (gathered, &self.upload) {
                (Poll::Pending, _) => return Poll::Pending,
                (Poll::Ready(()), None) => return Poll::Ready(Ok(())),
                (Poll::Ready(()), Some(_)) => {}
            }
        }
    }
}
