//! What waits to be written: heads and small pieces copied together, so that they go out in one call, and at most one
//! large piece as it is.

use bytes::{Buf, Bytes};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A piece up to this size is copied behind what waits.
const COPIED: usize = 8 * 1024;
/// Bytes that may be gathered before they are written.
const GATHERED: usize = 16 * 1024;

/// Bytes on their way out.
#[derive(Default)]
pub(crate) struct Outbox {
    flat: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
}

impl Outbox {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.flat.is_empty()
    }

    /// Whether it must be written before more is put in.
    pub(crate) fn is_full(&self) -> bool {
        !self.data.is_empty() || !self.tail.is_empty() || self.flat.len() >= GATHERED
    }

    /// Room for a head of about so many bytes.
    pub(crate) fn head(&mut self, size: usize) -> &mut Vec<u8> {
        self.flat.reserve(size);
        &mut self.flat
    }

    /// A piece of a body. There must be room.
    pub(crate) fn piece(&mut self, data: Bytes) {
        self.put(data, b"");
    }

    /// A piece of a body as a chunk. There must be room.
    pub(crate) fn chunk(&mut self, data: Bytes) {
        if !data.is_empty() {
            write_hexadecimal(data.len(), &mut self.flat);
            self.flat.extend_from_slice(b"\r\n");
            self.put(data, b"\r\n");
        }
    }

    fn put(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPIED {
            self.flat.extend_from_slice(&data);
            self.flat.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    /// Writes what waits.
    pub(crate) fn poll_flush<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let flat = self.flat.get(self.written..).unwrap_or_default();
            let count = if self.data.is_empty() && self.tail.is_empty() {
                if flat.is_empty() {
                    break;
                }
                ready!(Pin::new(&mut *io).poll_write(cx, flat))?
            } else {
                let slices = [IoSlice::new(flat), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                match io.is_write_vectored() {
                    true => ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?,
                    false => {
                        let first = slices.iter().find(|s| !s.is_empty()).map_or(&[][..], |s| s);
                        ready!(Pin::new(&mut *io).poll_write(cx, first))?
                    }
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        // The memory goes with what it held: a connection at rest has none.
        self.flat = Vec::new();
        self.written = 0;
        Pin::new(io).poll_flush(cx)
    }

    fn advance(&mut self, mut count: usize) {
        let flat = count.min(self.flat.len() - self.written);
        self.written += flat;
        count -= flat;
        let data = count.min(self.data.len());
        self.data.advance(data);
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
        self.tail = self.tail.get(count - data..).unwrap_or_default();
    }
}

fn write_hexadecimal(number: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.push(DIGITS[(number >> (at * 4)) & 0xf]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_hexadecimal_digits() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 20, usize::MAX] {
            let mut out = Vec::new();
            write_hexadecimal(number, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("{number:x}"));
        }
    }
}
