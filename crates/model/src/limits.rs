//! Limits of what a cluster may be asked at one time (`CircuitBreakers`), and the retry budget. Counting is the proxy's.

use std::time::Duration;

/// Which limits a request counts against (`RoutingPriority`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// The usual ones.
    #[default]
    Default,
    /// Those for requests that matter more.
    High,
}

/// Limits of a cluster by priority.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// For requests of [`Priority::Default`].
    pub default: Thresholds,
    /// For requests of [`Priority::High`].
    pub high: Thresholds,
}

impl Limits {
    /// The limits for `priority`.
    pub fn of(&self, priority: Priority) -> &Thresholds {
        match priority {
            Priority::Default => &self.default,
            Priority::High => &self.high,
        }
    }
}

/// Limits, over all threads of a proxy; `None` is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Thresholds {
    /// Connections open to all endpoints. A thread without a connection to an endpoint may always make one.
    pub connections: Option<u32>,
    /// Requests waiting for a connection.
    pub pending: Option<u32>,
    /// Requests under way.
    pub requests: Option<u32>,
    /// Retries under way.
    pub retries: Option<u32>,
    /// Retries as a share of requests under way; counts instead of [`retries`](Self::retries).
    pub retry_budget: Option<RetryBudget>,
    /// Statistics tell how much is left.
    pub track_remaining: bool,
}

/// Retries as a share of requests (`RetryBudget`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Percent of the requests that are active or wait.
    pub percent: f64,
    /// So many are always allowed.
    pub minimum: u32,
    /// Requests that began so long ago or later count, too (`budget_interval`); zero for those that are active or wait.
    pub interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20.0, minimum: 3, interval: Duration::ZERO }
    }
}

impl RetryBudget {
    /// Retries allowed at one time while `active` requests are under way or wait.
    pub fn allowed(&self, active: u64) -> u64 {
        // A share of a count: no number here is large enough to lose anything.
        let share = (active as f64 * self.percent.max(0.0) / 100.0) as u64;
        share.max(u64::from(self.minimum))
    }
}

impl Thresholds {
    /// Retries allowed at one time while `active` requests are under way or wait; `None` is no limit.
    pub fn retries_allowed(&self, active: u64) -> Option<u64> {
        match self.retry_budget {
            Some(budget) => Some(budget.allowed(active)),
            None => self.retries.map(u64::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_share_of_requests_but_never_less_than_its_minimum() {
        let budget = RetryBudget::default();
        assert_eq!([0, 10, 15, 20, 100].map(|active| budget.allowed(active)), [3, 3, 3, 4, 20]);
    }

    #[test]
    fn a_budget_counts_instead_of_the_number_of_retries() {
        let thresholds = Thresholds { retries: Some(1), ..Thresholds::default() };
        assert_eq!(thresholds.retries_allowed(100), Some(1));
        let with_budget = Thresholds { retry_budget: Some(RetryBudget::default()), ..thresholds };
        assert_eq!(with_budget.retries_allowed(100), Some(20));
        assert_eq!(Thresholds::default().retries_allowed(0), None);
    }
}
