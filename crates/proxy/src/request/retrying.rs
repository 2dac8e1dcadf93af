//! What retry policies say beside when and how often: which endpoints are left out, how long endpoints ask to wait, how
//! long a try may be silent.

use crate::failure::Failure;
use crate::snapshot::{ClusterState, EndpointState, Wish};
use http::HeaderMap;
use model::balance::{SUBSET_NAMESPACE, SubsetTables};
use model::metadata::Value;
use model::retry::RetryPolicy;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long one try may take until it is answered, and what it is when it takes longer.
pub(super) fn try_limit(policy: &RetryPolicy) -> Option<(Duration, Failure)> {
    let whole = policy.per_try_timeout.map(|limit| (limit, Failure::PerTryTimeout));
    let idle = policy.per_try_idle_timeout().map(|limit| (limit, Failure::PerTryIdle));
    whole.into_iter().chain(idle).min_by_key(|(limit, _)| *limit)
}

/// How long the endpoint asks to wait before another try.
pub(super) fn asked_pause(policy: &RetryPolicy, headers: &HeaderMap, random: u64) -> Option<Duration> {
    let reset = policy.more.as_ref()?.reset.as_ref()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    reset.pause(headers, now, random)
}

/// Whether a retry leaves an endpoint out.
pub(super) fn shuns(policy: &RetryPolicy, tried: &[u64], endpoint: &EndpointState) -> bool {
    let Some(more) = policy.more.as_ref().filter(|_| !tried.is_empty()) else { return false };
    let labels = endpoint.endpoint.metadata.0.get(SUBSET_NAMESPACE);
    let says = |key: &str, value: &Value| labels.and_then(|labels| labels.get(key)) == Some(value);
    let is_canary = more.omit_canaries && says("canary", &Value::Bool(true));
    let is_omitted = !more.omit.is_empty() && more.omit.iter().all(|(key, value)| says(key, value));
    is_canary || is_omitted
}

/// Priorities that retries leave, as tries show that they are no good (`previous_priorities`).
#[derive(Default)]
pub(super) struct Departure {
    /// Those of the tries so far.
    tried: Vec<u32>,
    left: Vec<u32>,
}

impl Departure {
    /// Notes a try.
    pub(super) fn note(&mut self, policy: &RetryPolicy, cluster: &ClusterState, endpoint: u64) {
        if leaves_after(policy).is_some() {
            self.tried.extend(cluster.priority_of(endpoint));
        }
    }

    /// Who may be picked, where priorities are left by now.
    pub(super) fn tables(
        &mut self,
        policy: &RetryPolicy,
        cluster: &ClusterState,
    ) -> Option<Arc<SubsetTables>> {
        let after = leaves_after(policy).filter(|after| self.tried.len() >= *after)?;
        if self.tried.len().is_multiple_of(after) {
            self.left.clone_from(&self.tried);
            self.left.sort_unstable();
            self.left.dedup();
        }
        if self.left.is_empty() {
            return None;
        }
        let tables = cluster.elsewhere(&self.left);
        if tables.is_none() {
            // All were tried: they begin anew.
            *self = Self::default();
        }
        tables
    }
}

fn leaves_after(policy: &RetryPolicy) -> Option<usize> {
    policy.more.as_ref()?.leaves_priorities_after.map(|after| after.max(1) as usize)
}

/// Chooses an endpoint that is not left out, in so many picks; then any.
pub(super) fn choose<'c>(
    cluster: &'c ClusterState,
    tables: Option<&SubsetTables>,
    wish: &Wish<'_>,
    picks: u32,
    shuns: impl Fn(&EndpointState) -> bool,
) -> Option<&'c Arc<EndpointState>> {
    let pick = |wish: &Wish<'_>| match tables {
        Some(tables) => cluster.choose_from(tables, wish),
        None => cluster.choose(wish),
    };
    let mut found = pick(wish)?;
    for number in 1..picks.max(1) {
        if !shuns(found) {
            break;
        }
        let random = wish.random.rotate_left(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        found = pick(&Wish { random, ..*wish })?;
    }
    Some(found)
}
