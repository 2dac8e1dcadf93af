//! What retry policies say beside when and how often: which endpoints are left out, how long endpoints ask to wait, how
//! long a try may be silent.

use crate::failure::Failure;
use crate::snapshot::{ClusterState, EndpointState, Wish};
use http::HeaderMap;
use model::balance::SUBSET_NAMESPACE;
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

/// Chooses an endpoint that is not left out, in so many picks; then any.
pub(super) fn choose<'c>(
    cluster: &'c ClusterState,
    wish: &Wish<'_>,
    picks: u32,
    shuns: impl Fn(&EndpointState) -> bool,
) -> Option<&'c Arc<EndpointState>> {
    let mut found = cluster.choose(wish)?;
    for number in 1..picks.max(1) {
        if !shuns(found) {
            break;
        }
        let random = wish.random.rotate_left(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        found = cluster.choose(&Wish { random, ..*wish })?;
    }
    Some(found)
}
