//! What a cluster says about spreading requests, beside the policy: localities, panic, slow start, subsets
//! (`CommonLbConfig`, `LbSubsetConfig`, `SlowStartConfig`).

use http::HeaderName;
use std::collections::BTreeSet;
use std::time::Duration;

/// How requests are spread beside the policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// Endpoints compared by [`LeastRequest`](super::LoadBalancing::LeastRequest).
    pub choices: u32,
    /// How much requests count beside weights for it, where weights differ (`active_request_bias`).
    pub bias: f64,
    /// An endpoint that a hash leads to gets no more than this percent of what all get on average at one time, but is
    /// passed over (`hash_balance_factor`); `None` is no limit.
    pub hash_balance: Option<u32>,
    /// Request headers that name the endpoint to use, in order (`OverrideHost`).
    pub override_headers: Vec<HeaderName>,
    /// Where less than this percent of a priority can be used, health is not looked at; 0 never.
    pub panic_threshold: f64,
    /// In panic nothing is used instead of everything.
    pub fail_in_panic: bool,
    /// The weights of localities count.
    pub weighted_localities: bool,
    /// Endpoints that are new get less at first.
    pub slow_start: Option<SlowStart>,
    /// Requests may ask for endpoints by their metadata.
    pub subsets: Option<Subsets>,
    /// The request header that names the original destination, for clusters that are nothing but that.
    pub destination_header: Option<HeaderName>,
    /// The port that is used instead of the original destination's (`upstream_port_override`).
    pub destination_port: Option<u16>,
    /// When endpoints come or go, no connection to any of them is used again (`close_connections_on_host_set_change`).
    pub renews_connections: bool,
    /// Consistent hashing goes by host names instead of addresses.
    pub hash_host_names: bool,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            choices: 2,
            bias: 1.0,
            hash_balance: None,
            override_headers: Vec::new(),
            panic_threshold: 0.0,
            fail_in_panic: false,
            weighted_localities: false,
            slow_start: None,
            subsets: None,
            destination_header: None,
            destination_port: None,
            renews_connections: false,
            hash_host_names: false,
        }
    }
}

/// How the share of a new endpoint grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long it is new.
    pub window: Duration,
    /// 1 grows evenly; more grows fast at first.
    pub aggression: f64,
    /// Percent of its weight that it has at least.
    pub minimum_percent: f64,
}

impl SlowStart {
    /// The share of its weight that an endpoint of this age has, from 0 to 1.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let aged = age.max(Duration::from_secs(1)).as_secs_f64() / self.window.as_secs_f64();
        let grown = aged.min(1.0).powf(1.0 / self.aggression.max(f64::MIN_POSITIVE));
        grown.max(self.minimum_percent / 100.0).clamp(0.0, 1.0)
    }
}

/// Metadata namespace by which endpoints are put into subsets.
pub const SUBSET_NAMESPACE: &str = "envoy.lb";

/// What a request or a selection asks of endpoints' metadata under [`SUBSET_NAMESPACE`].
pub type Criteria = crate::metadata::Fields;

/// Endpoints by their metadata.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subsets {
    /// What is done when no subset is asked for, or there is none like it.
    pub fallback: Fallback,
    /// For [`Fallback::Default`].
    pub default: Criteria,
    /// By which keys there are subsets.
    pub selectors: Vec<SubsetSelector>,
    /// A list in an endpoint's metadata stands for each of its values.
    pub list_as_any: bool,
    /// Where a fallback leads nowhere, too, any endpoint is used.
    pub panic_any: bool,
    /// Inside of subsets the weights of localities count.
    pub weighted_localities: bool,
    /// Each is the less the fewer of its endpoints are in the subset.
    pub scaled_localities: bool,
}

/// Subsets by the values of these keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubsetSelector {
    /// The keys.
    pub keys: BTreeSet<String>,
    /// What is done instead of [`Subsets::fallback`] when a request names these keys and there is no such subset.
    pub fallback: Option<Fallback>,
    /// Where these are not none, a request that finds no subset looks for one by these keys alone (`KEYS_SUBSET`).
    pub fallback_keys: BTreeSet<String>,
}

/// What is done where no subset fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// No endpoint is used.
    #[default]
    None,
    /// Any endpoint.
    Any,
    /// Those that meet [`Subsets::default`].
    Default,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_endpoint_grows_into_its_share() {
        let of =
            |aggression| SlowStart { window: Duration::from_secs(10), aggression, minimum_percent: 10.0 };
        let at =
            |rule: SlowStart, seconds| (rule.factor(Duration::from_secs(seconds)) * 100.0).round() as u32;
        assert_eq!([0, 1, 5, 10, 99].map(|s| at(of(1.0), s)), [10, 10, 50, 100, 100]);
        assert_eq!(at(of(2.0), 5), 71);
    }
}
