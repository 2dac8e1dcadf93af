//! When to renew a certificate: a state machine without clock or randomness; both are arguments.
//!
//! A certificate is renewed at half of its life, give or take a tenth of that half, so that workloads started together
//! do not ask together. Failures are retried with growing pauses. With a quarter of the life left, and again when it is
//! over, the state machine says so, loudly and once. How to renew is `workload`'s work.

use std::time::{Duration, SystemTime};

/// Longest [`Step::Wait`]: a machine that slept, or whose clock was set, is noticed within this time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Shortest pause before a retry.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// First and longest pause between attempts while there is no certificate at all.
const PAUSES_WITHOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask for a new certificate; then replace this rotation by a new one, or call [`Rotation::failed`].
    Renew,
    /// Tell people; then ask again for the next step.
    Alarm(Alarm),
    /// Nothing until this much time has passed.
    Wait(Duration),
}

/// What people must hear about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// A quarter of the life is left and no renewal has succeeded.
    QuarterLeft,
    /// The certificate has expired.
    Expired,
}

/// The life of one certificate, or the time before the first.
#[derive(Debug, Clone)]
pub struct Rotation {
    life: Option<Life>,
    attempt_at: Option<SystemTime>,
    failures: u32,
    next_alarm: Option<Alarm>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    obtained: SystemTime,
    not_after: SystemTime,
}

impl Life {
    fn length(&self) -> Duration {
        self.not_after.duration_since(self.obtained).unwrap_or_default()
    }
}

impl Rotation {
    /// Before the first certificate: the first attempt is due at once.
    pub fn without_certificate() -> Self {
        Self { life: None, attempt_at: None, failures: 0, next_alarm: None }
    }

    /// For a certificate `obtained` then (not its backdated `not_before`) and valid until `not_after`.
    pub fn new(obtained: SystemTime, not_after: SystemTime, entropy: u64) -> Self {
        let life = Life { obtained, not_after };
        let half = life.length() / 2;
        // From 90 % to 110 % of half of the life.
        let renew_after = half.mul_f64(0.9 + 0.2 * fraction(entropy));
        Self {
            life: Some(life),
            attempt_at: obtained.checked_add(renew_after),
            failures: 0,
            next_alarm: Some(Alarm::QuarterLeft),
        }
    }

    /// The next step. Alarms come before renewals, so that a hanging renewal cannot hold them back.
    pub fn advance(&mut self, now: SystemTime) -> Step {
        if let Some((alarm, at)) = self.pending_alarm()
            && at <= now
        {
            self.next_alarm = match alarm {
                Alarm::QuarterLeft => Some(Alarm::Expired),
                Alarm::Expired => None,
            };
            return Step::Alarm(alarm);
        }
        if self.attempt_at.is_none_or(|at| at <= now) {
            return Step::Renew;
        }
        let next = self.attempt_at.into_iter().chain(self.pending_alarm().map(|(_, at)| at)).min();
        let wait = next.and_then(|at| at.duration_since(now).ok()).unwrap_or_default();
        Step::Wait(wait.min(LONGEST_WAIT))
    }

    /// A renewal failed at `now`: pauses grow from a hundredth of the life to a sixteenth of it, within 50 ms and 5 min.
    /// Returns the pause.
    pub fn failed(&mut self, now: SystemTime, entropy: u64) -> Duration {
        let (first, longest) = match self.life {
            None => PAUSES_WITHOUT,
            Some(life) => {
                let length = life.length();
                let first = (length / 100).clamp(SHORTEST_PAUSE, Duration::from_secs(1));
                (first, (length / 16).clamp(SHORTEST_PAUSE, Duration::from_secs(300)))
            }
        };
        let grown = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        // From half of it to all of it.
        let pause = grown.mul_f64(0.5 + 0.5 * fraction(entropy));
        self.failures = self.failures.saturating_add(1);
        self.attempt_at = now.checked_add(pause);
        pause
    }

    /// How often renewing has failed since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether there is a certificate that `now` is still valid.
    pub fn holds_valid(&self, now: SystemTime) -> bool {
        self.life.is_some_and(|life| now < life.not_after)
    }

    fn pending_alarm(&self) -> Option<(Alarm, SystemTime)> {
        let (alarm, life) = (self.next_alarm?, self.life?);
        let at = match alarm {
            Alarm::QuarterLeft => life.not_after.checked_sub(life.length() / 4)?,
            Alarm::Expired => life.not_after,
        };
        Some((alarm, at))
    }
}

/// Maps all of `u64` evenly onto 0.0 to 1.0.
fn fraction(entropy: u64) -> f64 {
    entropy as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000_000) + Duration::from_secs_f64(seconds)
    }

    /// Runs `rotation` from `now` until `end`; `renew` says whether an attempt succeeds. Returns (time, event) pairs.
    fn timeline(mut rotation: Rotation, life_s: f64, entropy: u64) -> Vec<(f64, Step)> {
        let mut now = at(0.0);
        let mut seen = Vec::new();
        while now <= at(life_s * 1.5) && seen.len() < 10_000 {
            let since = now.duration_since(at(0.0)).unwrap_or_default().as_secs_f64();
            match rotation.advance(now) {
                Step::Wait(pause) => {
                    assert!(pause <= LONGEST_WAIT);
                    now += pause.max(Duration::from_micros(1));
                }
                Step::Renew => {
                    seen.push((since, Step::Renew));
                    rotation.failed(now, entropy);
                }
                alarm => seen.push((since, alarm)),
            }
        }
        seen
    }

    #[test]
    fn without_a_certificate_the_first_attempt_is_due_at_once() {
        let mut rotation = Rotation::without_certificate();
        assert_eq!(rotation.advance(at(0.0)), Step::Renew);
        let pause = rotation.failed(at(0.0), 0);
        assert_eq!(pause, Duration::from_millis(50));
        assert_eq!(rotation.advance(at(0.0)), Step::Wait(pause));
        assert_eq!(rotation.advance(at(0.06)), Step::Renew);
    }

    #[test]
    fn a_certificate_that_arrives_expired_is_renewed_at_once() {
        let mut rotation = Rotation::new(at(10.0), at(5.0), 7);
        assert_eq!(rotation.advance(at(10.0)), Step::Alarm(Alarm::QuarterLeft));
        assert_eq!(rotation.advance(at(10.0)), Step::Alarm(Alarm::Expired));
        assert_eq!(rotation.advance(at(10.0)), Step::Renew);
        assert!(!rotation.holds_valid(at(10.0)));
    }

    proptest! {
        #[test]
        fn renewal_is_due_around_half_life_and_never_later_than_three_quarters(
            life_s in 1.0f64..200_000.0, entropy: u64
        ) {
            let seen = timeline(Rotation::new(at(0.0), at(life_s), entropy), life_s, entropy);
            let (first, step) = seen[0];
            prop_assert_eq!(step, Step::Renew);
            prop_assert!(first >= life_s * 0.449 && first <= life_s * 0.551, "{} of {}", first, life_s);
        }

        #[test]
        fn each_alarm_is_raised_once_and_in_time(life_s in 1.0f64..200_000.0, entropy: u64) {
            let seen = timeline(Rotation::new(at(0.0), at(life_s), entropy), life_s, entropy);
            let alarms: Vec<_> = seen.iter().filter(|(_, s)| matches!(s, Step::Alarm(_))).collect();
            prop_assert_eq!(alarms.len(), 2);
            prop_assert_eq!(alarms[0].1, Step::Alarm(Alarm::QuarterLeft));
            prop_assert!((alarms[0].0 - life_s * 0.75).abs() < 0.01 * life_s);
            prop_assert_eq!(alarms[1].1, Step::Alarm(Alarm::Expired));
            prop_assert!((alarms[1].0 - life_s).abs() < 0.01 * life_s);
        }

        #[test]
        fn a_failing_ca_is_asked_at_least_three_times_before_expiry_and_not_hammered(
            life_s in 10.0f64..200_000.0, entropy: u64
        ) {
            let seen = timeline(Rotation::new(at(0.0), at(life_s), entropy), life_s, entropy);
            let attempts: Vec<f64> = seen.iter().filter(|(_, s)| *s == Step::Renew).map(|(t, _)| *t).collect();
            prop_assert!(attempts.iter().filter(|t| **t < life_s).count() >= 3);
            prop_assert!(attempts.windows(2).all(|w| w[1] - w[0] >= 0.049), "{:?}", &attempts[..5]);
        }
    }
}
