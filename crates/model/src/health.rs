//! Active health checks: what is asked, how often, and what the answers mean (`HealthCheck`).
//! Asking is the proxy's work.

use crate::matcher::StringMatch;
use std::time::Duration;

/// One way to find out whether an endpoint is healthy.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Time between two checks.
    pub interval: Duration,
    /// Random time added to each interval.
    pub jitter: Duration,
    /// The same in percent of the interval.
    pub jitter_percent: u32,
    /// Random time before the first check.
    pub initial_jitter: Duration,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it healthy again. The first check counts by itself.
    pub healthy_threshold: u32,
    /// Time between two checks while the cluster has had no request.
    pub no_traffic_interval: Duration,
    /// Time between two checks of an unhealthy endpoint.
    pub unhealthy_interval: Duration,
    /// Checks are made over a connection that is kept.
    pub reuse_connection: bool,
}

impl HealthCheck {
    /// A check of this kind, with Envoy's defaults for what may be left out.
    pub fn new(probe: Probe, timeout: Duration, interval: Duration) -> Self {
        Self {
            probe,
            timeout,
            interval,
            jitter: Duration::ZERO,
            jitter_percent: 0,
            initial_jitter: Duration::ZERO,
            unhealthy_threshold: 1,
            healthy_threshold: 1,
            no_traffic_interval: Duration::from_secs(60),
            unhealthy_interval: interval,
            reuse_connection: true,
        }
    }

    /// Time until the next check of an endpoint in this state. `had_traffic` says whether the cluster ever had a request.
    pub fn next(&self, state: &CheckState, had_traffic: bool, random: u64) -> Duration {
        let base = match (had_traffic, state.is_healthy()) {
            (false, _) => self.no_traffic_interval,
            (true, false) => self.unhealthy_interval,
            (true, true) => self.interval,
        };
        let share = base.as_millis() as u64 * u64::from(self.jitter_percent) / 100;
        let room = self.jitter.as_millis() as u64 + share;
        base + Duration::from_millis(random % (room + 1))
    }
}

/// What is asked of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A request over HTTP.
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked for; empty asks for the server as a whole.
        service: String,
        /// The authority; empty takes the endpoint's host name, else the cluster's name.
        authority: String,
    },
    /// A connection is made, bytes are sent, and others have to come back.
    Tcp {
        /// Sent when it is not empty.
        send: Vec<u8>,
        /// Each has to come, in this order.
        receive: Vec<Vec<u8>>,
    },
}

/// A request that tells whether an endpoint is healthy.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// The authority; empty takes the endpoint's host name, else the cluster's name.
    pub host: String,
    /// The path.
    pub path: String,
    /// The method.
    pub method: http::Method,
    /// Over HTTP/2.
    pub http2: bool,
    /// Statuses that mean healthy, as half-open ranges.
    pub expected: Vec<(u16, u16)>,
    /// Statuses that count towards the threshold instead of failing at once.
    pub retriable: Vec<(u16, u16)>,
    /// What `x-envoy-upstream-healthchecked-cluster` of the answer has to match.
    pub service: Option<StringMatch>,
    /// More request headers.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// As it should.
    Passed,
    /// It may be a hiccup: counts towards the threshold.
    Failed,
    /// The endpoint itself says that it cannot: no threshold.
    Refused,
}

/// What is known of one endpoint's health from checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckState {
    healthy: bool,
    checked: bool,
    in_row: u32,
}

impl CheckState {
    /// The state of an endpoint that is known to be healthy, or of which nothing is known.
    pub fn new(healthy: bool) -> Self {
        Self { healthy, checked: healthy, in_row: 0 }
    }

    /// Whether it passes for healthy. Nothing is, before its first check.
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Takes the end of a check. True when the endpoint's health changed.
    pub fn take(&mut self, outcome: CheckOutcome, rule: &HealthCheck) -> bool {
        let passed = outcome == CheckOutcome::Passed;
        let first = !std::mem::replace(&mut self.checked, true);
        if passed == self.healthy {
            self.in_row = 0;
            return false;
        }
        self.in_row += 1;
        let enough = match passed {
            true => first || self.in_row >= rule.healthy_threshold,
            false => outcome == CheckOutcome::Refused || self.in_row >= rule.unhealthy_threshold,
        };
        if enough {
            self.healthy = passed;
            self.in_row = 0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> HealthCheck {
        let probe = Probe::Tcp { send: Vec::new(), receive: Vec::new() };
        let second = Duration::from_secs(1);
        HealthCheck {
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            ..HealthCheck::new(probe, second, second)
        }
    }

    fn run(outcomes: &str) -> String {
        let (mut state, rule) = (CheckState::default(), rule());
        let take = |c: char| {
            let outcome = match c {
                'p' => CheckOutcome::Passed,
                'f' => CheckOutcome::Failed,
                _ => CheckOutcome::Refused,
            };
            state.take(outcome, &rule);
            if state.is_healthy() { '+' } else { '-' }
        };
        outcomes.chars().map(take).collect()
    }

    #[test]
    fn the_first_success_is_enough_and_later_ones_have_to_come_in_a_row() {
        assert_eq!(run("pffpfffpfpp"), "++++++----+");
        assert_eq!(run("fpp"), "--+");
    }

    #[test]
    fn an_endpoint_that_says_no_is_out_at_once() {
        assert_eq!(run("pr"), "+-");
    }

    #[test]
    fn checks_are_rare_without_traffic_and_jitter_stays_in_its_bounds() {
        let rule = HealthCheck { jitter_percent: 50, unhealthy_interval: Duration::from_secs(5), ..rule() };
        let mut state = CheckState::default();
        assert!(rule.next(&state, false, 0) >= Duration::from_secs(60));
        assert_eq!(rule.next(&state, true, 0), Duration::from_secs(5));
        state.take(CheckOutcome::Passed, &rule);
        for random in 0..2000 {
            let next = rule.next(&state, true, random);
            assert!((Duration::from_secs(1)..=Duration::from_millis(1500)).contains(&next));
        }
    }
}
