//! How many requests began lately, for budgets of retries that are a share of those (`budget_interval`). Counted without
//! a lock, in slots of time; a request counts for its time and up to an eighth more.

use model::limits::{Limits, Priority, Thresholds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Parts of the time that is looked at.
const PARTS: u64 = 8;

/// Requests of both priorities that began lately, where a budget asks for them.
#[derive(Debug)]
pub(super) struct Recent {
    default: Option<Window>,
    high: Option<Window>,
}

#[derive(Debug)]
struct Window {
    interval: Duration,
    start: Instant,
    /// Of each slot, its number in the upper half and its count in the lower. One more than parts: the one that is on.
    slots: [AtomicU64; PARTS as usize + 1],
}

impl Recent {
    /// What `limits` need: what was counted before where they need the same, nothing where they need nothing.
    pub(super) fn of(limits: &Limits, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let interval = |thresholds: &Thresholds| {
            let interval = thresholds.retry_budget.map(|budget| budget.interval);
            interval.filter(|interval| !interval.is_zero())
        };
        let wanted = (interval(&limits.default), interval(&limits.high));
        if wanted == (None, None) {
            return None;
        }
        let had = |recent: &Self| {
            let interval = |window: &Option<Window>| window.as_ref().map(|window| window.interval);
            (interval(&recent.default), interval(&recent.high))
        };
        if let Some(before) = before.filter(|before| had(before) == wanted) {
            return Some(before.clone());
        }
        Some(Arc::new(Self { default: wanted.0.map(Window::new), high: wanted.1.map(Window::new) }))
    }

    /// A request begins.
    pub(super) fn note(&self, priority: Priority) {
        if let Some(window) = self.window(priority) {
            window.note(window.start.elapsed());
        }
    }

    /// How many began lately; `None` where no budget asks.
    pub(super) fn count(&self, priority: Priority) -> Option<u64> {
        self.window(priority).map(|window| window.count(window.start.elapsed()))
    }

    fn window(&self, priority: Priority) -> Option<&Window> {
        match priority {
            Priority::Default => self.default.as_ref(),
            Priority::High => self.high.as_ref(),
        }
    }
}

impl Window {
    fn new(interval: Duration) -> Self {
        Self { interval, start: Instant::now(), slots: Default::default() }
    }

    /// The number of the slot that is on, from 1: no slot that was never used has it.
    fn number(&self, now: Duration) -> u64 {
        let width = (self.interval.as_micros() as u64 / PARTS).max(1);
        (now.as_micros() as u64 / width + 1) & u64::from(u32::MAX)
    }

    fn note(&self, now: Duration) {
        let number = self.number(now);
        let Some(slot) = self.slots.get((number % (PARTS + 1)) as usize) else { return };
        let add = |found: u64| match found >> 32 == number {
            true => Some(found + 1),
            false => Some((number << 32) | 1),
        };
        // It always adds; how often it had to try does not matter.
        let _ = slot.fetch_update(Relaxed, Relaxed, add);
    }

    fn count(&self, now: Duration) -> u64 {
        let number = self.number(now);
        let slots = self.slots.iter().map(|slot| slot.load(Relaxed));
        let is_recent = |slot: &u64| number.checked_sub(slot >> 32).is_some_and(|age| age <= PARTS);
        slots.filter(is_recent).map(|slot| slot & u64::from(u32::MAX)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::limits::RetryBudget;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn requests_count_for_their_time_whether_they_are_over_or_not() {
        let window = Window::new(millis(80));
        (0..3).for_each(|_| window.note(millis(5)));
        window.note(millis(45));
        let at = |n| window.count(millis(n));
        assert_eq!([5, 45, 80, 85].map(at), [3, 4, 4, 4]);
        assert_eq!([95, 125, 140, 9000].map(at), [1, 1, 0, 0]);
        window.note(millis(9000));
        assert_eq!(at(9000), 1, "a slot that is used again begins anew");
    }

    #[test]
    fn what_was_counted_stays_while_the_budget_does() {
        let mut limits = Limits::default();
        assert!(Recent::of(&limits, None).is_none());
        limits.default.retry_budget =
            Some(RetryBudget { interval: Duration::from_secs(60), ..RetryBudget::default() });
        let recent = Recent::of(&limits, None);
        recent.iter().for_each(|recent| recent.note(Priority::Default));
        let again = Recent::of(&limits, recent.as_ref());
        assert_eq!(again.as_ref().and_then(|recent| recent.count(Priority::Default)), Some(1));
        assert_eq!(again.and_then(|recent| recent.count(Priority::High)), None);
    }
}
