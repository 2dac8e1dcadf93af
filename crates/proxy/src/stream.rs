//! The bytes of a TCP connection, in TLS or not; towards clients and endpoints alike, with those that were read already
//! in front. Making them is for others.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// A connection's bytes; `T` is TLS as its side speaks it.
pub enum Stream<T> {
    /// As they are.
    Plain(TcpStream),
    /// In TLS.
    Tls(Box<T>),
}

/// What may be a socket and nothing else.
pub trait Bare {
    /// The socket, if nothing stands between it and its bytes: no TLS, and nothing that was read from it already.
    fn bare(&self) -> Option<&TcpStream>;
}

impl<T> Bare for Stream<T> {
    fn bare(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl<IO: Bare> Bare for Prefixed<IO> {
    fn bare(&self) -> Option<&TcpStream> {
        match self.first.get(self.at..) {
            None | Some([]) => self.io.bare(),
            Some(_) => None,
        }
    }
}

impl<IO> Bare for BufReader<IO> {
    /// What it holds is not told apart.
    fn bare(&self) -> Option<&TcpStream> {
        None
    }
}

impl<T> Stream<T> {
    /// Ready when the peer says something, or closes; `None` at once where only reading would tell.
    pub async fn speaks(&self) -> Option<()> {
        match self {
            Self::Plain(stream) => stream.readable().await.ok(),
            Self::Tls(_) => None,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// A stream of which some bytes were read already; they come first.
pub struct Prefixed<IO> {
    first: Vec<u8>,
    at: usize,
    io: IO,
}

impl<IO: AsyncRead + Unpin> Prefixed<IO> {
    /// `io`, of which nothing was read.
    pub fn new(io: IO) -> Self {
        Self::with(Vec::new(), io)
    }

    /// `io`, of which `first` was read already.
    pub fn with(first: Vec<u8>, io: IO) -> Self {
        Self { first, at: 0, io }
    }

    /// The bytes read so far.
    pub fn first(&self) -> &[u8] {
        self.first.get(self.at..).unwrap_or_default()
    }

    /// Forgets the first `count` of them.
    pub fn skip(&mut self, count: usize) {
        self.at = self.first.len().min(self.at + count);
    }

    /// Reads more of them; 0 is the end. Nothing is allocated while nothing comes in.
    pub async fn read_more(&mut self) -> io::Result<usize> {
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
    pub fn into_parts(mut self) -> (Vec<u8>, IO) {
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
