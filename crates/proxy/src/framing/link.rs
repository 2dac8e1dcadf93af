//! The byte stream under an HTTP/1 parser, and the owner's hold on it.
//!
//! The parser reads and writes through a [`Link`]; the connection keeps a [`Hold`] on the same stream, by which it
//! waits without a parser while nothing comes in, and has the last word when a client broke a rule. A head is shown to
//! the parser only when it is complete and proper, so that the end of input never cuts one in two.

use super::ledger::Ledger;
use super::rule::Rule;
use super::scanner::{Scanner, Standing};
use crate::gate::{TunnelGate, Verdict};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a parser sees of the stream.
pub(crate) struct Link<IO>(Arc<Mutex<State<IO>>>);

/// The owner's side of the stream.
pub(crate) struct Hold<IO>(Arc<Mutex<State<IO>>>);

pub(super) struct State<IO> {
    io: IO,
    scanner: Scanner,
    /// Bytes that came in and were not shown yet; no memory while there are none.
    pending: Vec<u8>,
    /// How many of `pending` may be shown.
    cleared: usize,
    /// How many of `pending` were scanned.
    scanned: usize,
    ledger: Arc<Ledger>,
    gate: Arc<TunnelGate>,
    is_tunnel: bool,
    has_ended: bool,
    has_link: bool,
    head_since: Option<Instant>,
    blocked_since: Option<Instant>,
    reader: Option<Waker>,
    owner: Option<Waker>,
}

fn lock<IO>(state: &Mutex<State<IO>>) -> MutexGuard<'_, State<IO>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the owner is told while no parser runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// A request is coming in.
    Request,
    /// The client closed.
    End,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Hold<IO> {
    /// Takes `io`, of which `first` was read already.
    pub(crate) fn new(io: IO, first: Vec<u8>, ledger: Arc<Ledger>, gate: Arc<TunnelGate>) -> Self {
        let mut state = State {
            io,
            scanner: Scanner::new(),
            pending: first,
            cleared: 0,
            scanned: 0,
            ledger,
            gate,
            is_tunnel: false,
            has_ended: false,
            has_link: false,
            head_since: None,
            blocked_since: None,
            reader: None,
            owner: None,
        };
        state.scan_pending();
        Self(Arc::new(Mutex::new(state)))
    }

    /// A view for a parser. There is one at a time.
    pub(crate) fn link(&self) -> Link<IO> {
        lock(&self.0).has_link = true;
        Link(self.0.clone())
    }

    /// Waits for the first bytes of a request with next to no memory.
    pub(crate) async fn begin(&self) -> io::Result<Begin> {
        std::future::poll_fn(|cx| lock(&self.0).poll_begin(cx)).await
    }

    /// Waits until the parser, or the tunnel it became, let go of its [`Link`].
    pub(crate) async fn released(&self) {
        std::future::poll_fn(|cx| {
            let mut state = lock(&self.0);
            if !state.has_link {
                return Poll::Ready(());
            }
            state.owner = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The parser is between two requests, and has nothing of the stream that matters.
    pub(crate) fn is_at_rest(&self) -> bool {
        let state = lock(&self.0);
        state.scanner.standing() == Standing::Idle && state.pending.is_empty() && state.is_settled()
    }

    /// When the head that is coming in began, if it was cut.
    pub(crate) fn head_since(&self) -> Option<Instant> {
        lock(&self.0).head_since
    }

    /// Since when the client has not taken what is written.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        lock(&self.0).blocked_since
    }

    /// Takes what comes in as breaking `rule`.
    pub(crate) fn refuse(&self, rule: Rule) {
        let mut state = lock(&self.0);
        state.scanner.refuse(rule);
        state.pending = Vec::new();
        state.cleared = 0;
        state.scanned = 0;
        state.wake_reader();
    }

    /// The rule that was broken, when the client is to be told so: no answer is under way that it would garble.
    pub(crate) fn refusal(&self) -> Option<Rule> {
        let state = lock(&self.0);
        match state.scanner.standing() {
            Standing::Refused(rule) if state.may_answer() => Some(rule),
            _ => None,
        }
    }

    /// Whether more may come in that nobody will read: closing at once would destroy what was written last.
    pub(crate) fn has_unread(&self) -> bool {
        let state = lock(&self.0);
        !state.has_ended && !state.is_tunnel && state.scanner.standing() != Standing::Idle
    }

    /// Writes `bytes` as the last thing.
    pub(crate) async fn write_last(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |cx: &mut Context<'_>| Pin::new(&mut lock(&self.0).io).poll_write(cx, bytes);
            match std::future::poll_fn(write).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = bytes.get(n..).unwrap_or_default(),
            }
        }
        std::future::poll_fn(|cx| Pin::new(&mut lock(&self.0).io).poll_flush(cx)).await
    }

    /// Says that nothing more will be written.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut lock(&self.0).io).poll_shutdown(cx)).await
    }

    /// Reads and forgets up to `limit` bytes, until the client closes.
    pub(crate) async fn drain(&self, limit: usize) -> io::Result<()> {
        let mut left = limit;
        while left > 0 {
            let n = std::future::poll_fn(|cx| lock(&self.0).poll_discard(cx)).await?;
            if n == 0 {
                break;
            }
            left = left.saturating_sub(n);
        }
        Ok(())
    }
}

impl<IO> State<IO> {
    /// Every request that was shown is answered, and the answers reached the socket.
    fn is_settled(&self) -> bool {
        self.ledger.flushed() == self.scanner.requests()
    }

    fn may_answer(&self) -> bool {
        !self.scanner.refused_in_body() && self.ledger.is_idle() && !self.ledger.is_closing()
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Scans what of `pending` was not; forgets what nobody will see.
    fn scan_pending(&mut self) {
        let found = self.scanner.scan(self.pending.get(self.scanned..).unwrap_or_default());
        if found.shown > 0 {
            self.cleared = self.scanned + found.shown;
        }
        self.scanned += found.used;
        self.note(found.asked);
        if matches!(self.scanner.standing(), Standing::Refused(_) | Standing::Finished) {
            self.pending.truncate(self.cleared);
            self.scanned = self.cleared;
        }
    }

    fn note(&mut self, asked: bool) {
        if asked {
            self.gate.hold();
        }
        match self.scanner.standing() {
            Standing::Head if self.head_since.is_none() => self.head_since = Some(Instant::now()),
            Standing::Head => {}
            _ => self.head_since = None,
        }
    }

    /// The bytes are a tunnel's now.
    fn enter_tunnel(&mut self) {
        if !self.is_tunnel && self.scanner.standing() == Standing::Undecided && self.gate.is_allowed() {
            self.is_tunnel = true;
            self.cleared = self.pending.len();
        }
    }

    /// Shows what may be shown of `pending`.
    fn show(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.cleared.min(buf.remaining());
        let Some(bytes) = self.pending.get(..count).filter(|b| !b.is_empty()) else { return false };
        buf.put_slice(bytes);
        if count == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..count);
        }
        self.cleared -= count;
        self.scanned = self.scanned.saturating_sub(count);
        true
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> State<IO> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            self.enter_tunnel();
            if self.show(buf) {
                return Poll::Ready(Ok(()));
            }
            if self.is_tunnel {
                return Pin::new(&mut self.io).poll_read(cx, buf);
            }
            match self.scanner.standing() {
                Standing::Refused(rule) if self.scanner.refused_in_body() => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, rule.sentence())));
                }
                Standing::Refused(_) if self.is_settled() => return Poll::Ready(Ok(())),
                Standing::Refused(_) => {
                    self.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Standing::Finished => return self.poll_finished(cx),
                Standing::Undecided => match self.gate.poll_verdict(cx) {
                    Poll::Ready(Verdict::Tunnel) => continue,
                    Poll::Ready(Verdict::Http) => {
                        self.scanner.tunnel_refused();
                        self.scan_pending();
                        continue;
                    }
                    Poll::Pending if !self.pending.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                },
                Standing::Idle | Standing::Head | Standing::Body => {}
            }
            if ready!(self.poll_more(cx, buf))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads once; whether there is something to show in `buf`, or the end.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            self.has_ended = true;
            return Poll::Ready(Ok(true));
        }
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(new);
            buf.set_filled(before);
            self.scan_pending();
            return Poll::Ready(Ok(false));
        }
        // The way of nearly all reads: whole requests, shown where they are.
        let found = self.scanner.scan(new);
        if found.shown < new.len() {
            self.pending.extend_from_slice(new.get(found.shown..).unwrap_or_default());
            self.scanned = found.used - found.shown;
            self.cleared = 0;
            buf.set_filled(before + found.shown);
            if matches!(self.scanner.standing(), Standing::Refused(_) | Standing::Finished) {
                self.pending = Vec::new();
                self.scanned = 0;
            }
            self.note(found.asked);
        } else if found.asked {
            self.gate.hold();
        }
        Poll::Ready(Ok(found.shown > 0))
    }

    /// After the last request only the client's end is of interest.
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_settled() {
            return Poll::Ready(Ok(()));
        }
        self.reader = Some(cx.waker().clone());
        while ready!(self.poll_discard(cx))? > 0 {}
        Poll::Ready(Ok(()))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut waste = [const { MaybeUninit::uninit() }; 4096];
        let mut buf = ReadBuf::uninit(&mut waste);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        self.has_ended |= buf.filled().is_empty();
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Begin>> {
        loop {
            match self.scanner.standing() {
                Standing::Refused(_) | Standing::Finished if self.cleared == 0 => {
                    return Poll::Ready(Ok(Begin::End));
                }
                Standing::Idle if self.cleared == 0 => {}
                _ => return Poll::Ready(Ok(Begin::Request)),
            }
            let mut room = [const { MaybeUninit::uninit() }; 2048];
            let mut buf = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                self.has_ended = true;
                return Poll::Ready(Ok(Begin::End));
            }
            self.pending.extend_from_slice(buf.filled());
            self.scan_pending();
        }
    }

    fn poll_write_with(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut Self) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.enter_tunnel();
        if !self.is_tunnel && self.ledger.is_idle() {
            // The parser speaks although no request was taken up: it refuses a head that was proper so far. The client
            // is told by the owner, in our own words.
            self.scanner.refuse(Rule::Target);
            return Poll::Ready(Ok(length));
        }
        let outcome = write(self);
        match outcome {
            Poll::Pending if self.blocked_since.is_none() => self.blocked_since = Some(Instant::now()),
            Poll::Pending => {}
            Poll::Ready(_) => self.blocked_since = None,
        }
        outcome
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.ledger.flush();
        if self.reader.is_some() && self.is_settled() {
            self.wake_reader();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Link<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Link<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = |state: &mut State<IO>| Pin::new(&mut state.io).poll_write(cx, buf);
        lock(&self.0).poll_write_with(buf.len(), write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = |state: &mut State<IO>| Pin::new(&mut state.io).poll_write_vectored(cx, bufs);
        lock(&self.0).poll_write_with(bufs.iter().map(|b| b.len()).sum(), write)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_flush(cx)
    }

    /// A tunnel's end is passed on; a connection's is its owner's business.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        state.enter_tunnel();
        match state.is_tunnel {
            true => Pin::new(&mut state.io).poll_shutdown(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl<IO> Drop for Link<IO> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.has_link = false;
        if let Some(owner) = state.owner.take() {
            owner.wake();
        }
    }
}
