//! How long connections rest, and what is learned from those that endpoints close meanwhile: ours are given up before
//! the endpoint would close them, so that no request meets a connection that is just being closed.

use crate::snapshot::Vitals;
use http::HeaderMap;
use http::header::HeaderName;
use std::cell::Cell;
use std::time::Duration;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// An endpoint that closes earlier is ending, more likely than tidying up.
pub(super) const SHORTEST: Duration = Duration::from_millis(500);

/// Learns from connections that an endpoint closed at rest.
#[derive(Default)]
pub(super) struct Learner {
    last: Cell<Option<Duration>>,
}

impl Learner {
    /// An endpoint closed a connection that rested so long. Two that agree are taken for a rule: one alone may be an
    /// endpoint that ends.
    pub(super) fn closed_at_rest(&self, rested: Duration, vitals: &Vitals) {
        if rested < SHORTEST {
            return;
        }
        let agrees = |last: &Duration| last.abs_diff(rested) <= rested / 8;
        if let Some(last) = self.last.get().filter(agrees) {
            vitals.learn_idle_close(last.min(rested));
        }
        self.last.set(Some(rested));
    }
}

/// Takes what an endpoint says of itself (`Keep-Alive: timeout=5`).
pub(super) fn said_idle_limit(headers: &HeaderMap, vitals: &Vitals) {
    let Some(said) = headers.get(KEEP_ALIVE).and_then(|value| value.to_str().ok()) else { return };
    let seconds = said.split(',').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        name.eq_ignore_ascii_case("timeout").then(|| value.trim().parse::<u32>().ok())?
    });
    if let Some(seconds) = seconds {
        vitals.learn_idle_close(Duration::from_secs(seconds.into()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn two_closings_after_the_same_time_are_a_rule_and_ours_end_before() {
        let (learner, vitals) = (Learner::default(), Vitals::default());
        learner.closed_at_rest(seconds(60), &vitals);
        assert_eq!(vitals.idle_limit(), None);
        learner.closed_at_rest(seconds(61), &vitals);
        assert_eq!(vitals.idle_limit(), Some(seconds(48)));
    }

    #[test]
    fn closings_that_differ_or_come_at_once_teach_nothing() {
        let (learner, vitals) = (Learner::default(), Vitals::default());
        for millis in [100, 100, 2000, 9000, 1000] {
            learner.closed_at_rest(Duration::from_millis(millis), &vitals);
        }
        assert_eq!(vitals.idle_limit(), None);
    }

    #[test]
    fn an_endpoint_may_say_how_long_it_keeps_connections() {
        let vitals = Vitals::default();
        let mut headers = HeaderMap::new();
        said_idle_limit(&headers, &vitals);
        assert_eq!(vitals.idle_limit(), None);
        headers.insert(KEEP_ALIVE, "max=100, timeout=5".parse().unwrap());
        said_idle_limit(&headers, &vitals);
        assert_eq!(vitals.idle_limit(), Some(seconds(4)));
    }
}
