//! Bodies of copied requests: what the client sends is handed to the copy, too, as long as it keeps up. One thread's
//! copies share a bound on their number and on the bytes that wait for them.

use super::body::BodyBroken;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Copies of one thread on their way at once.
const COPIES: u32 = 256;
/// Bytes that wait for one copy to take them.
const COPY_BYTES: usize = 1024 * 1024;
/// The same for all copies of a thread.
const ALL_BYTES: usize = 16 * 1024 * 1024;

/// One thread's copies.
#[derive(Default)]
pub struct Mirrors(Rc<Room>);

#[derive(Default)]
struct Room {
    copies: Cell<u32>,
    bytes: Cell<usize>,
}

/// A copy's place among those on their way.
pub struct MirrorSeat(Rc<Room>);

impl Mirrors {
    /// A place for one more copy; `None` when there are too many.
    pub fn take_seat(&self) -> Option<MirrorSeat> {
        let room = &self.0;
        if room.copies.get() >= COPIES {
            return None;
        }
        room.copies.set(room.copies.get() + 1);
        Some(MirrorSeat(room.clone()))
    }
}

impl Drop for MirrorSeat {
    fn drop(&mut self) {
        self.0.copies.set(self.0.copies.get() - 1);
    }
}

/// Where a body's bytes are put for a copy.
pub(super) struct Feed(Rc<RefCell<Queue>>);

/// A copy's body.
pub struct Fed(Rc<RefCell<Queue>>);

struct Queue {
    room: Rc<Room>,
    waiting: VecDeque<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The client broke off, or the copy fell behind.
    broken: bool,
    waker: Option<Waker>,
}

pub(super) fn feed(seat: &MirrorSeat) -> (Feed, Fed) {
    let queue = Queue {
        room: seat.0.clone(),
        waiting: VecDeque::new(),
        bytes: 0,
        trailers: None,
        ended: false,
        broken: false,
        waker: None,
    };
    let queue = Rc::new(RefCell::new(queue));
    (Feed(queue.clone()), Fed(queue))
}

impl Feed {
    pub(super) fn push(&self, data: &Bytes) {
        let mut queue = self.0.borrow_mut();
        if queue.broken {
            return;
        }
        let all = queue.room.bytes.get() + data.len();
        if Rc::strong_count(&self.0) == 1 || queue.bytes + data.len() > COPY_BYTES || all > ALL_BYTES {
            queue.give_up();
            return;
        }
        queue.room.bytes.set(all);
        queue.bytes += data.len();
        queue.waiting.push_back(data.clone());
        queue.wake();
    }

    pub(super) fn end(&self, trailers: Option<&HeaderMap>) {
        let mut queue = self.0.borrow_mut();
        queue.trailers = trailers.cloned();
        queue.ended = true;
        queue.wake();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        if !queue.ended {
            queue.give_up();
        }
    }
}

impl Queue {
    fn give_up(&mut self) {
        self.broken = true;
        self.forget();
        self.wake();
    }

    fn forget(&mut self) {
        self.room.bytes.set(self.room.bytes.get() - self.bytes);
        self.bytes = 0;
        self.waiting = VecDeque::new();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Fed {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        let mut queue = self.0.borrow_mut();
        if queue.broken {
            return Poll::Ready(Some(Err(BodyBroken)));
        }
        if let Some(data) = queue.waiting.pop_front() {
            queue.bytes -= data.len();
            queue.room.bytes.set(queue.room.bytes.get() - data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if queue.ended {
            return Poll::Ready(queue.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn is_done(&self) -> bool {
        let queue = self.0.borrow();
        queue.ended && !queue.broken && queue.waiting.is_empty() && queue.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_falls_behind_is_given_up_and_its_bytes_are_let_go() {
        let mirrors = Mirrors::default();
        let Some(seat) = mirrors.take_seat() else { panic!("there is room") };
        let (feed, mut fed) = feed(&seat);
        let piece = Bytes::from(vec![0; COPY_BYTES / 2]);
        feed.push(&piece);
        feed.push(&piece);
        assert_eq!(mirrors.0.bytes.get(), COPY_BYTES);
        feed.push(&piece);
        assert_eq!(mirrors.0.bytes.get(), 0);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(fed.poll(&mut cx), Poll::Ready(Some(Err(BodyBroken)))));
    }

    #[test]
    fn copies_are_counted_and_come_back() {
        let mirrors = Mirrors::default();
        let seats: Vec<_> = std::iter::from_fn(|| mirrors.take_seat()).collect();
        assert_eq!(seats.len(), COPIES as usize);
        drop(seats);
        assert!(mirrors.take_seat().is_some());
    }
}
