//! Outlier detection: endpoints that fail are left out for a time (`OutlierDetection`).
//!
//! [`Tally`] counts what requests came to, on any thread; [`Ejections`] decides, in one place, with the time as an
//! argument. Telling both what happens, and leaving an endpoint out, is the proxy's work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// When an endpoint is left out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierDetection {
    /// Server errors in a row; local failures are counted as such unless they are split off. `None` does not count them.
    pub consecutive_5xx: Option<Trigger>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway: Option<Trigger>,
    /// Failures to connect and resets in a row, where they are split off.
    pub consecutive_local: Option<Trigger>,
    /// Local failures are told apart from what endpoints answer.
    pub split_local: bool,
    /// How often endpoints are looked at, and let in again.
    pub interval: Duration,
    /// Time out, times the number of ejections.
    pub base_ejection: Duration,
    /// Longest time out.
    pub max_ejection: Duration,
    /// Random time added to each time out.
    pub jitter: Duration,
    /// Most endpoints out at one time, in percent.
    pub max_percent: u32,
    /// One may be out whatever [`max_percent`](Self::max_percent) says.
    pub always_one: bool,
    /// A success rate far below that of the others.
    pub success_rate: Option<SuccessRate>,
    /// A share of failures.
    pub failure_share: Option<FailureShare>,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(Trigger { count: 5, enforced: 100 }),
            consecutive_gateway: None,
            consecutive_local: None,
            split_local: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            jitter: Duration::ZERO,
            max_percent: 10,
            always_one: false,
            success_rate: None,
            failure_share: None,
        }
    }
}

/// So many in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// How many.
    pub count: u32,
    /// Percent of the times it is reached at which the endpoint is ejected.
    pub enforced: u32,
}

/// Ejection by comparison of success rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
    /// The mean less this many thousandths of the standard deviation is the lowest rate.
    pub deviation: u32,
    /// Percent of the times at which the endpoint is ejected.
    pub enforced: u32,
    /// The same for local failures, where they are split off.
    pub enforced_local: u32,
}

/// Ejection by the share of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureShare {
    /// Percent of failures from which on an endpoint is ejected.
    pub threshold: u32,
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
    /// Percent of the times at which the endpoint is ejected.
    pub enforced: u32,
    /// The same for local failures, where they are split off.
    pub enforced_local: u32,
}

/// What a request came to, as far as its endpoint is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered with this status.
    Answered(u16),
    /// No connection could be made, or it broke off.
    Broken,
    /// It did not answer in time.
    TimedOut,
}

impl Verdict {
    /// The verdict where only these statuses are errors; none stand for all from 500 on.
    pub fn by(self, errors: &[u16]) -> Self {
        match self {
            Self::Answered(status) if !errors.is_empty() => {
                Self::Answered(if errors.contains(&status) { status.max(500) } else { 200 })
            }
            other => other,
        }
    }

    /// A gRPC answer, whose HTTP status says nothing: the status that goes with `grpc-status`.
    pub fn of_grpc(status: u32) -> Self {
        Self::Answered(match status {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        })
    }
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Server errors in a row.
    Consecutive5xx,
    /// Gateway errors in a row.
    ConsecutiveGateway,
    /// Local failures in a row.
    ConsecutiveLocal,
    /// A success rate below that of the others.
    SuccessRate,
    /// The same, of local failures.
    SuccessRateLocal,
    /// Too large a share of failures.
    FailureShare,
    /// The same, of local failures.
    FailureShareLocal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consecutive5xx => "server errors in a row",
            Self::ConsecutiveGateway => "gateway errors in a row",
            Self::ConsecutiveLocal => "failed connections in a row",
            Self::SuccessRate => "a success rate far below that of the others",
            Self::SuccessRateLocal => "connections fail far more often than those of the others",
            Self::FailureShare => "too large a share of failures",
            Self::FailureShareLocal => "too large a share of failed connections",
        })
    }
}

/// What an endpoint's requests came to. Written by any thread, read and emptied by one.
#[derive(Debug, Default)]
pub struct Tally {
    errors: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    answers: [AtomicU32; 2],
    locals: [AtomicU32; 2],
}

impl Tally {
    /// Counts one request. True when a number in a row was just reached.
    pub fn record(&self, verdict: Verdict, rule: &OutlierDetection) -> bool {
        let status = match verdict {
            Verdict::Answered(status) => {
                if rule.split_local {
                    self.local.store(0, Relaxed);
                    count(&self.locals, true);
                }
                status
            }
            _ if rule.split_local => {
                count(&self.locals, false);
                return reached(&self.local, rule.consecutive_local);
            }
            Verdict::Broken => 503,
            Verdict::TimedOut => 504,
        };
        let is_error = (500..600).contains(&status);
        count(&self.answers, !is_error);
        let mut is_reached = false;
        match is_error && (502..=504).contains(&status) {
            true => is_reached |= reached(&self.gateway, rule.consecutive_gateway),
            false => empty(&self.gateway),
        }
        match is_error {
            true => is_reached |= reached(&self.errors, rule.consecutive_5xx),
            false => empty(&self.errors),
        }
        is_reached
    }

    /// The numbers in a row that are reached. Each is emptied: the next time it has to be reached anew.
    pub fn take_reached(&self, rule: &OutlierDetection) -> impl Iterator<Item = (Reason, u32)> {
        let numbers = [
            (Reason::ConsecutiveGateway, &self.gateway, rule.consecutive_gateway),
            (Reason::Consecutive5xx, &self.errors, rule.consecutive_5xx),
            (Reason::ConsecutiveLocal, &self.local, rule.consecutive_local),
        ];
        let found = numbers.map(|(reason, number, trigger)| {
            let trigger = trigger.filter(|trigger| number.load(Relaxed) >= trigger.count.max(1))?;
            number.store(0, Relaxed);
            Some((reason, trigger.enforced))
        });
        found.into_iter().flatten()
    }

    /// Successes and failures since the last call: of answers, and of connections.
    pub fn take_interval(&self) -> [(u32, u32); 2] {
        [&self.answers, &self.locals]
            .map(|[successes, failures]| (successes.swap(0, Relaxed), failures.swap(0, Relaxed)))
    }

    /// Forgets what is in a row.
    pub fn forget(&self) {
        for number in [&self.errors, &self.gateway, &self.local] {
            number.store(0, Relaxed);
        }
    }
}

/// Written only where it changes something: the line stays shared between threads while all goes well.
fn empty(number: &AtomicU32) {
    if number.load(Relaxed) != 0 {
        number.store(0, Relaxed);
    }
}

fn reached(number: &AtomicU32, trigger: Option<Trigger>) -> bool {
    let now = number.fetch_add(1, Relaxed).saturating_add(1);
    trigger.is_some_and(|trigger| now == trigger.count.max(1))
}

fn count([successes, failures]: &[AtomicU32; 2], success: bool) {
    if success { successes } else { failures }.fetch_add(1, Relaxed);
}

/// Which endpoints of a cluster are out. Endpoints are known by their ids; times are since any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct Ejections {
    histories: BTreeMap<u64, History>,
}

#[derive(Debug, Clone, Default)]
struct History {
    until: Option<Duration>,
    /// How many times the base an ejection lasts.
    factor: u32,
}

impl Ejections {
    /// Whether this endpoint is out.
    pub fn is_out(&self, id: u64) -> bool {
        self.histories.get(&id).is_some_and(|history| history.until.is_some())
    }

    /// How many are out.
    pub fn out(&self) -> usize {
        self.histories.values().filter(|history| history.until.is_some()).count()
    }

    /// Forgets endpoints that are gone.
    pub fn retain(&mut self, exists: impl Fn(u64) -> bool) {
        self.histories.retain(|id, _| exists(*id));
    }

    /// Ejects an endpoint, one of `hosts`, unless too many are out. Returns how long it stays out.
    pub fn eject(
        &mut self,
        id: u64,
        enforced: u32,
        hosts: usize,
        rule: &OutlierDetection,
        now: Duration,
        random: u64,
    ) -> Option<Duration> {
        let out = self.out();
        let has_room = 100 * out < rule.max_percent.min(100) as usize * hosts;
        if self.is_out(id)
            || !(has_room || (rule.always_one && out == 0))
            || random % 100 >= u64::from(enforced)
        {
            return None;
        }
        let history = self.histories.entry(id).or_default();
        history.factor = history.factor.saturating_add(1);
        let jitter = random.checked_rem(rule.jitter.as_millis() as u64 + 1).unwrap_or(0);
        let time = time_out(rule, history.factor) + Duration::from_millis(jitter);
        history.until = Some(now + time);
        Some(time)
    }

    /// Lets in again those whose time is over, and forgives a step of those that stayed in. Once an interval.
    pub fn tick(&mut self, now: Duration) -> Vec<u64> {
        let mut back = Vec::new();
        self.histories.retain(|id, history| {
            match history.until {
                Some(until) if until <= now => {
                    history.until = None;
                    back.push(*id);
                }
                Some(_) => {}
                None => history.factor = history.factor.saturating_sub(1),
            }
            history.until.is_some() || history.factor > 0
        });
        back
    }
}

fn time_out(rule: &OutlierDetection, factor: u32) -> Duration {
    rule.base_ejection.saturating_mul(factor).min(rule.max_ejection.max(rule.base_ejection))
}

/// Endpoints that stand out in an interval, with the share of times at which they are ejected. `counts` holds successes
/// and failures of each; `local` says that they are of connections.
pub fn outstanding(
    counts: &[(u64, (u32, u32))],
    rule: &OutlierDetection,
    local: bool,
) -> Vec<(u64, Reason, u32)> {
    let mut found = Vec::new();
    if let Some(rate) = &rule.success_rate {
        let enforced = if local { rate.enforced_local } else { rate.enforced };
        let reason = if local { Reason::SuccessRateLocal } else { Reason::SuccessRate };
        let rates = rates(counts, rate.request_volume);
        if !rates.is_empty() && rates.len() >= rate.minimum_hosts as usize {
            let count = rates.len() as f64;
            let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
            let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
            let lowest = mean - variance.sqrt() * f64::from(rate.deviation) / 1000.0;
            let low = rates.iter().filter(|(_, rate)| *rate < lowest);
            found.extend(low.map(|(id, _)| (*id, reason, enforced)));
        }
    }
    if let Some(share) = &rule.failure_share {
        let enforced = if local { share.enforced_local } else { share.enforced };
        let reason = if local { Reason::FailureShareLocal } else { Reason::FailureShare };
        let rates = rates(counts, share.request_volume);
        if rates.len() >= share.minimum_hosts as usize {
            let low = rates.iter().filter(|(_, rate)| 100.0 - rate >= f64::from(share.threshold));
            found.extend(low.map(|(id, _)| (*id, reason, enforced)));
        }
    }
    found
}

/// Percent of successes of those with enough requests.
fn rates(counts: &[(u64, (u32, u32))], volume: u32) -> Vec<(u64, f64)> {
    let rate = |(id, (successes, failures)): &(u64, (u32, u32))| {
        let all = successes.saturating_add(*failures);
        let enough = all > 0 && all >= volume;
        enough.then(|| (*id, 100.0 * f64::from(*successes) / f64::from(all)))
    };
    counts.iter().filter_map(rate).collect()
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
