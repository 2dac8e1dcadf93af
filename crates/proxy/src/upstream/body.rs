//! The body of a request on its way to an endpoint: streamed as it comes, and kept up to a bound, so that another try can
//! send it again.

mod fill;

pub use fill::FillError;

use super::mirrors::{Fed, Feed, MirrorSeat, feed};
use super::watch::Watch;
use crate::wire::Incoming;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Bytes of one request's body that are kept for another try.
const KEPT_LIMIT: usize = 64 * 1024;

/// What has come in of a body.
#[derive(Default)]
pub struct BodyTally {
    /// Bytes.
    pub bytes: Cell<u64>,
    /// When the last byte came in.
    pub ended: Cell<Option<Instant>>,
    /// Pieces of the answer that went the other way, its head included.
    pub answered: Cell<u64>,
    expired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    watch: OnceCell<(Rc<Watch>, u32)>,
}

impl BodyTally {
    /// Something that grows whenever anything moves.
    pub(super) fn moved(&self) -> u64 {
        self.bytes.get() + self.answered.get() + u64::from(self.ended.get().is_some())
    }

    /// One more piece of the answer.
    pub fn count_answer(&self) {
        self.answered.set(self.answered.get() + 1);
    }

    pub(super) fn watched(&self, watch: &Rc<Watch>, at: u32) {
        // It is watched once.
        let _ = self.watch.set((watch.clone(), at));
    }

    pub(super) fn expire(&self) {
        self.expired.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Nothing moved for too long.
    pub fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// Ready when nothing moved for too long.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.expired.get() {
            return Poll::Ready(());
        }
        if self.watch.get().is_some() {
            let mut waker = self.waker.borrow_mut();
            match &*waker {
                Some(known) if known.will_wake(cx.waker()) => {}
                _ => *waker = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl Drop for BodyTally {
    fn drop(&mut self) {
        if let Some((watch, at)) = self.watch.get() {
            watch.remove(*at);
        }
    }
}

/// A request's body, of which several tries can be given an [`Outgoing`] one after the other.
pub struct Replay {
    shared: Rc<RefCell<Shared>>,
    tally: Rc<BodyTally>,
}

struct Shared {
    source: Option<Incoming>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// More came than is kept: the beginning is lost.
    overflowed: bool,
    ended: bool,
    failed: bool,
    /// Tries are numbered; only the newest may read.
    newest: u32,
    waker: Option<Waker>,
    /// Copies that get the same.
    feeds: Vec<Feed>,
}

/// One try's view of a request's body.
pub enum Outgoing {
    /// There is none.
    Empty,
    /// What the client sends.
    Streamed(Streamed),
    /// The same, for a copy of the request.
    Fed(Fed),
}

/// A body that is being read while it is sent.
pub struct Streamed {
    shared: Rc<RefCell<Shared>>,
    tally: Rc<BodyTally>,
    number: u32,
    next: usize,
    sent_trailers: bool,
}

/// The client's body broke off, or a newer try took it over.
#[derive(Debug)]
pub struct BodyBroken;

impl std::fmt::Display for BodyBroken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request's body broke off")
    }
}

impl std::error::Error for BodyBroken {}

impl Replay {
    /// Takes over a request's body.
    pub fn new(source: Incoming) -> Self {
        let ended = source.is_end_stream();
        let tally = Rc::new(BodyTally::default());
        if ended {
            tally.ended.set(Some(Instant::now()));
        }
        let shared = Shared {
            source: (!ended).then_some(source),
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            overflowed: false,
            ended,
            failed: false,
            newest: 0,
            waker: None,
            feeds: Vec::new(),
        };
        Self { shared: Rc::new(RefCell::new(shared)), tally }
    }

    /// What has come in of it.
    pub fn tally(&self) -> &Rc<BodyTally> {
        &self.tally
    }

    /// Whether another try can be given the whole body.
    pub fn can_repeat(&self) -> bool {
        let shared = self.shared.borrow();
        !shared.overflowed && !shared.failed
    }

    /// Whether the client broke off.
    pub fn has_failed(&self) -> bool {
        self.shared.borrow().failed
    }

    /// The body for one more try, from its beginning. Bodies given before end with an error.
    pub fn outgoing(&self) -> Outgoing {
        let mut shared = self.shared.borrow_mut();
        if shared.ended && shared.kept.is_empty() && shared.trailers.is_none() {
            return Outgoing::Empty;
        }
        shared.newest += 1;
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
        Outgoing::Streamed(Streamed {
            shared: self.shared.clone(),
            tally: self.tally.clone(),
            number: shared.newest,
            next: 0,
            sent_trailers: false,
        })
    }

    /// The body for a copy of the request. Ask before anything is read.
    pub fn copy(&self, seat: &MirrorSeat) -> Outgoing {
        let mut shared = self.shared.borrow_mut();
        if shared.ended {
            return Outgoing::Empty;
        }
        let (feed, fed) = feed(seat);
        shared.feeds.push(feed);
        Outgoing::Fed(fed)
    }

    /// No try will follow: what was kept is let go once it is sent, and nothing more is kept.
    pub fn stop_keeping(&self) {
        let mut shared = self.shared.borrow_mut();
        shared.overflowed = true;
    }
}

impl Shared {
    fn end(&mut self) {
        self.ended = true;
        let trailers = self.trailers.as_ref();
        self.feeds.iter().for_each(|feed| feed.end(trailers));
        self.feeds = Vec::new();
    }

    fn keep(&mut self, data: &Bytes) {
        if self.overflowed {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > KEPT_LIMIT {
            self.overflowed = true;
            self.kept = Vec::new();
        } else {
            self.kept.push(data.clone());
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(streamed) => streamed.poll(cx),
            Self::Fed(fed) => fed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(streamed) => streamed.is_done(),
            Self::Fed(fed) => fed.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(streamed) => streamed.size_hint(),
            Self::Fed(_) => SizeHint::default(),
        }
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        let mut guard = self.shared.borrow_mut();
        let shared = &mut *guard;
        if shared.newest != self.number || shared.failed {
            return Poll::Ready(Some(Err(BodyBroken)));
        }
        if let Some(data) = shared.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if shared.overflowed {
            shared.kept.clear();
            self.next = 0;
        }
        let Some(source) = shared.source.as_mut().filter(|_| !shared.ended) else {
            return Poll::Ready(match (&shared.trailers, self.sent_trailers) {
                (Some(trailers), false) => {
                    self.sent_trailers = true;
                    Some(Ok(Frame::trailers(trailers.clone())))
                }
                _ => None,
            });
        };
        let frame = match Pin::new(&mut *source).poll_frame(cx) {
            Poll::Pending => {
                shared.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame,
        };
        let is_last = source.is_end_stream();
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.tally.bytes.set(self.tally.bytes.get() + data.len() as u64);
                    shared.keep(data);
                    shared.feeds.iter().for_each(|feed| feed.push(data));
                    // All that is kept is sent by now, this included.
                    self.next = shared.kept.len();
                } else if let Some(trailers) = frame.trailers_ref() {
                    shared.trailers = Some(trailers.clone());
                    self.sent_trailers = true;
                }
                if is_last {
                    shared.end();
                    self.tally.ended.set(Some(Instant::now()));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                shared.end();
                self.tally.ended.set(Some(Instant::now()));
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                shared.failed = true;
                shared.feeds = Vec::new();
                Poll::Ready(Some(Err(BodyBroken)))
            }
        }
    }

    fn is_done(&self) -> bool {
        let shared = self.shared.borrow();
        shared.ended
            && self.next >= shared.kept.len()
            && (self.sent_trailers || shared.trailers.is_none())
            && shared.newest == self.number
            && !shared.failed
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let unsent: u64 = shared.kept.iter().skip(self.next).map(|b| b.len() as u64).sum();
        let rest = match (&shared.source, shared.ended) {
            (Some(source), false) => source.size_hint(),
            _ => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + unsent);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + unsent);
        }
        hint
    }
}
