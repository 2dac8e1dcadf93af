//! How many requests of a connection were taken up and answered. Told by the service, read by the stream under the
//! parser, which so knows when a client's mistake may be answered without getting into another answer's way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One connection's count. Everything happens on one thread; the atomics are for hyper, which wants a `Send` stream.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    called: AtomicU64,
    answered: AtomicU64,
    flushed: AtomicU64,
    closing: AtomicBool,
}

impl Ledger {
    /// The service took up a request.
    pub(crate) fn call(&self) {
        add_one(&self.called);
    }

    /// The last byte of an answer was handed over, or given up.
    pub(crate) fn answer(&self) {
        add_one(&self.answered);
    }

    /// The answer under way is the last one on this connection.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Requests taken up so far.
    pub(crate) fn calls(&self) -> u64 {
        self.called.load(Ordering::Relaxed)
    }

    /// Whether nothing is being answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.flushed() == self.calls()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Answers whose bytes all reached the socket.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Relaxed)
    }

    /// Everything written so far reached the socket.
    pub(super) fn flush(&self) {
        self.flushed.store(self.answered.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn add_one(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
