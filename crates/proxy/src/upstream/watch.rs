//! Exchanges on which nothing moves: looked for all at once now and then, so that a limit on silence costs a request
//! next to nothing, and no timer of its own.

use super::body::BodyTally;
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// One thread's exchanges that may not be silent for too long.
#[derive(Default)]
pub struct Watch(RefCell<Slots>);

#[derive(Default)]
struct Slots {
    all: Vec<Option<Slot>>,
    free: Vec<u32>,
}

struct Slot {
    tally: Weak<BodyTally>,
    limit: Duration,
    /// Bytes when it was last looked.
    seen: u64,
    since: Instant,
}

impl Watch {
    /// Watches over `tally` from `since` on, until it is dropped.
    pub fn add(self: &Rc<Self>, tally: &Rc<BodyTally>, limit: Duration, since: Instant) {
        let mut slots = self.0.borrow_mut();
        let slot = Some(Slot { tally: Rc::downgrade(tally), limit, seen: 0, since });
        let at = match slots.free.pop() {
            Some(at) => {
                if let Some(place) = slots.all.get_mut(at as usize) {
                    *place = slot;
                }
                at
            }
            None => {
                slots.all.push(slot);
                (slots.all.len() - 1) as u32
            }
        };
        tally.watched(self, at);
    }

    pub(super) fn remove(&self, at: u32) {
        let mut slots = self.0.borrow_mut();
        let slot = slots.all.get_mut(at as usize).and_then(Option::take);
        slots.free.push(at);
        drop(slots);
        drop(slot);
    }

    /// Ends what was silent for longer than its limit at `now`.
    pub fn sweep(&self, now: Instant) {
        let mut expired = Vec::new();
        for slot in self.0.borrow_mut().all.iter_mut().flatten() {
            let Some(tally) = slot.tally.upgrade() else { continue };
            let moved = tally.moved();
            if moved != slot.seen {
                slot.seen = moved;
                slot.since = now;
            } else if now.saturating_duration_since(slot.since) >= slot.limit {
                expired.push(tally);
            }
        }
        expired.iter().for_each(|tally| tally.expire());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_silent_for_too_long_expires_and_what_moves_does_not() {
        let watch = Rc::new(Watch::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (quiet, busy) = (Rc::new(BodyTally::default()), Rc::new(BodyTally::default()));
        watch.add(&quiet, Duration::from_secs(10), start);
        watch.add(&busy, Duration::from_secs(10), start);
        watch.sweep(at(9));
        assert!(!quiet.is_expired());
        busy.bytes.set(1);
        watch.sweep(at(10));
        assert!(quiet.is_expired() && !busy.is_expired());
        watch.sweep(at(19));
        assert!(!busy.is_expired());
        watch.sweep(at(20));
        assert!(busy.is_expired());
    }

    #[test]
    fn a_place_is_used_again_when_its_exchange_is_over() {
        let watch = Rc::new(Watch::default());
        for _ in 0..5 {
            let tally = Rc::new(BodyTally::default());
            watch.add(&tally, Duration::from_secs(1), Instant::now());
        }
        assert_eq!(watch.0.borrow().all.len(), 1);
    }
}
