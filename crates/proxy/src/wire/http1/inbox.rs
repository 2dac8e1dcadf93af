//! What came in and was not taken yet. No memory while there is nothing; reads grow with what comes.

use bytes::BytesMut;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// A read that may be a head's: put onto the stack first.
const SMALL: usize = 4 * 1024;
/// The first larger read.
const LARGE: usize = 64 * 1024;
/// The largest.
const LARGEST: usize = 256 * 1024;
/// Bytes that may wait to be taken.
const WAITING: usize = 64 * 1024;

/// The bytes of a connection that wait for their reader.
pub(crate) struct Inbox {
    pub(crate) bytes: BytesMut,
    /// Size of the next read.
    next: usize,
    has_ended: bool,
}

impl Inbox {
    /// An inbox in which `first` waits already.
    pub(crate) fn new(first: &[u8]) -> Self {
        Self { bytes: BytesMut::from(first), next: SMALL, has_ended: false }
    }

    /// Whether the peer closed its side.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether so much waits that nothing more should be read.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= WAITING
    }

    /// Reads once; 0 is the peer's end.
    pub(crate) fn poll_read<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.has_ended {
            return Poll::Ready(Ok(0));
        }
        let read = match self.next {
            SMALL => self.poll_small(io, cx),
            _ => self.poll_large(io, cx),
        };
        if let Poll::Ready(Ok(count)) = read {
            self.has_ended = count == 0;
            self.next = match self.next {
                SMALL if count == SMALL => LARGE,
                SMALL => SMALL,
                size if count >= size => LARGEST,
                size if count < SMALL && size == LARGE => SMALL,
                size if count < size / 8 => LARGE,
                size => size,
            };
        }
        read
    }

    fn poll_small<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = [const { MaybeUninit::uninit() }; SMALL];
        let mut buf = ReadBuf::uninit(&mut room);
        let read = Pin::new(io).poll_read(cx, &mut buf);
        read.map_ok(|()| {
            self.bytes.extend_from_slice(buf.filled());
            buf.filled().len()
        })
    }

    fn poll_large<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.bytes.reserve(self.next);
        let read = poll_read_buf(Pin::new(io), cx, &mut self.bytes);
        if read.is_pending() && self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        read
    }
}
