//! Whether bytes behind the head of an upgrade or CONNECT request may pass: they are held back until the request was
//! decided, so that nobody reads a tunnel's bytes as a request, or a request's as a tunnel's.

use futures_util::task::AtomicWaker;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

const OPEN: u8 = 0;
const HELD: u8 = 1;
const TUNNEL: u8 = 2;
const HTTP: u8 = 3;

/// What the bytes behind such a head are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A tunnel's: they pass as they are from now on.
    Tunnel,
    /// HTTP's: the request was answered as any other.
    Http,
}

/// One connection's gate. The framing guard holds it, the request stage decides.
#[derive(Debug, Default)]
pub struct TunnelGate {
    state: AtomicU8,
    waker: AtomicWaker,
}

impl TunnelGate {
    /// The head of an upgrade or CONNECT request was seen: hold what follows.
    pub fn hold(&self) {
        self.state.store(HELD, Ordering::Release);
    }

    /// The tunnel is granted.
    pub fn allow(&self) {
        self.decide(TUNNEL);
    }

    /// There is no tunnel. Does nothing where nothing is held.
    pub fn refuse(&self) {
        self.decide(HTTP);
    }

    /// Whether the tunnel was allowed.
    pub fn is_allowed(&self) -> bool {
        self.state.load(Ordering::Acquire) == TUNNEL
    }

    fn decide(&self, verdict: u8) {
        if self.state.compare_exchange(HELD, verdict, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// Waits for the verdict. [`Verdict::Http`] opens the gate for the next head.
    pub fn poll_verdict(&self, cx: &mut Context<'_>) -> Poll<Verdict> {
        self.waker.register(cx.waker());
        match self.state.load(Ordering::Acquire) {
            TUNNEL => Poll::Ready(Verdict::Tunnel),
            HTTP => {
                self.state.store(OPEN, Ordering::Release);
                Poll::Ready(Verdict::Http)
            }
            OPEN => Poll::Ready(Verdict::Http),
            _ => Poll::Pending,
        }
    }
}
