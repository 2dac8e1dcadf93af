//! HTTP/2 bodies over `h2`'s streams (RFC 9113), for both sides: sent as the peer's window allows, given back to the
//! window as they are read.

use super::error::WireError;
use bytes::Bytes;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http_body::{Body, Frame};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A body that comes in over a stream.
pub struct Received {
    stream: RecvStream,
    /// Bytes that are to come, if the head says.
    length: Option<u64>,
    is_data_over: bool,
    is_over: bool,
    /// What goes the other way meanwhile.
    upload: Option<Pin<Box<dyn Future<Output = Sending>>>>,
}

impl Received {
    /// The body that comes in over `stream`, behind a head that says `length` of it, while `upload` goes the other way.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        upload: Option<Pin<Box<dyn Future<Output = Sending>>>>,
    ) -> Self {
        let is_over = stream.is_end_stream();
        Self { stream, length, is_data_over: false, is_over, upload }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        if self.is_over { Some(0) } else { self.length }
    }

    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Some(upload) = &mut self.upload
            && upload.as_mut().poll(cx).is_ready()
        {
            // How it ended is told by what comes back.
            self.upload = None;
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        self.poll_upload(cx);
        if !self.is_data_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It is handed on at once, as far as the other side takes it.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.length = self.length.and_then(|left| left.checked_sub(data.len() as u64));
                    self.is_over = self.stream.is_end_stream();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // The peer has no use for the rest of what it is sent (RFC 9113, 8.1).
                Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => {
                    self.is_over = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(WireError::Http2(error)))),
                None => self.is_data_over = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.is_over = true;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(WireError::Http2(error))),
        })
    }

    /// The stream, for a tunnel's bytes.
    pub(crate) fn into_stream(self) -> RecvStream {
        self.stream
    }
}

/// How sending a body ended.
#[derive(Debug)]
pub(crate) enum Sending {
    /// As a whole.
    Complete,
    /// The peer wants no more of it.
    Refused,
    /// Its source broke off: the peer was told.
    Broken,
}

/// Sends `body` as the window of `stream` allows; `aside` is polled whenever that makes it wait.
pub(crate) async fn send<B>(
    body: &mut B,
    stream: &mut SendStream<Bytes>,
    mut aside: impl FnMut(&mut B, &mut Context<'_>),
) -> Sending
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut waiting = Bytes::new();
    std::future::poll_fn(|cx| {
        loop {
            if waiting.is_empty() {
                if let Poll::Ready(Ok(_) | Err(_)) = stream.poll_reset(cx) {
                    return Poll::Ready(Sending::Refused);
                }
                let is_sent = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    None => stream.send_data(Bytes::new(), true).map(|()| true),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() && !body.is_end_stream() => continue,
                        Ok(data) => {
                            stream.reserve_capacity(data.len());
                            waiting = data;
                            // The empty last piece needs no room.
                            match waiting.is_empty() {
                                true => stream.send_data(Bytes::new(), true).map(|()| true),
                                false => Ok(false),
                            }
                        }
                        Err(frame) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            stream.send_trailers(trailers).map(|()| true)
                        }
                    },
                    Some(Err(_)) => {
                        stream.send_reset(Reason::INTERNAL_ERROR);
                        return Poll::Ready(Sending::Broken);
                    }
                };
                match is_sent {
                    Ok(true) => return Poll::Ready(Sending::Complete),
                    Ok(false) => {}
                    Err(_) => return Poll::Ready(Sending::Refused),
                }
            }
            let room = match stream.capacity() {
                0 => match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Sending::Refused),
                    Poll::Pending => {
                        aside(body, cx);
                        return Poll::Pending;
                    }
                },
                room => room,
            };
            let piece = waiting.split_to(room.min(waiting.len()));
            let is_last = waiting.is_empty() && body.is_end_stream();
            match stream.send_data(piece, is_last) {
                Ok(()) if is_last => return Poll::Ready(Sending::Complete),
                Ok(()) => {}
                Err(_) => return Poll::Ready(Sending::Refused),
            }
        }
    })
    .await
}

/// Ends when the peer does not answer a ping within `patience`; one is sent every `interval`.
pub(crate) async fn silence(pings: Option<PingPong>, interval: Duration, patience: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        match tokio::time::timeout(patience, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection is over, and says so itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// A stream's bytes both ways, for tunnels.
pub(crate) struct Duplex {
    received: RecvStream,
    /// What came in and was not read.
    rest: Bytes,
    sending: SendStream<Bytes>,
}

impl Duplex {
    pub(crate) fn new(received: RecvStream, sending: SendStream<Bytes>) -> Self {
        Self { received, rest: Bytes::new(), sending }
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.received.poll_data(cx)) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(count));
        let _ = self.received.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.sending.reserve_capacity(buf.len());
        let room = match self.sending.capacity() {
            0 => match ready!(self.sending.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            room => room,
        };
        let count = room.min(buf.len());
        let data = Bytes::copy_from_slice(buf.get(..count).unwrap_or_default());
        self.sending.send_data(data, false).map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.send_data(Bytes::new(), true).map_err(broken))
    }
}
