//! A client's bytes: those that were read to find out what they are, then the rest; in TLS or not.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A stream of which some bytes were read already; they come first.
pub(crate) struct Prefixed<IO> {
    first: Vec<u8>,
    at: usize,
    io: IO,
}

impl<IO: AsyncRead + Unpin> Prefixed<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self::with(Vec::new(), io)
    }

    /// `io`, of which `first` was read already.
    pub(crate) fn with(first: Vec<u8>, io: IO) -> Self {
        Self { first, at: 0, io }
    }

    /// The bytes read so far.
    pub(crate) fn first(&self) -> &[u8] {
        self.first.get(self.at..).unwrap_or_default()
    }

    /// Forgets the first `count` of them.
    pub(crate) fn skip(&mut self, count: usize) {
        self.at = self.first.len().min(self.at + count);
    }

    /// Reads more of them; 0 is the end. Nothing is allocated while nothing comes in.
    pub(crate) async fn read_more(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            let mut room = [const { MaybeUninit::uninit() }; 4096];
            let mut buf = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            self.first.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        })
        .await
    }

    /// The bytes read so far, and the stream they came from.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, IO) {
        if self.at > 0 {
            self.first.drain(..self.at);
        }
        (self.first, self.io)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.first.get(this.at..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..count).unwrap_or_default());
        this.at += count;
        if this.at == this.first.len() {
            this.first = Vec::new();
            this.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// A client's bytes, in TLS or not.
pub(crate) type Stream = crate::stream::Stream<TlsStream<Prefixed<TcpStream>>>;
