//! How endpoints are picked, as DestinationRules write it: the policy, what requests are hashed by, and the slow start of
//! new endpoints.

use super::policy::Policy;
use api::networking::{ConsistentHashLb, LoadBalancerSettings, SimpleLb};
use http::HeaderName;
use model::affinity::{AffinityCookie, HashPolicy, HashSource};
use model::balance::{LoadBalancing, MAGLEV_SIZE, RingShape, SlowStart};
use std::time::Duration;

/// Percent of its share that a new endpoint has from the first.
const WARMUP_PERCENT: f64 = 10.0;

/// The policy of a cluster.
pub(super) fn load_balancing(policy: &Policy) -> LoadBalancing {
    let Some(settings) = &policy.load_balancer else { return LoadBalancing::LeastRequest };
    if let Some(hash) = &settings.consistent_hash {
        return by_hash(hash);
    }
    match settings.simple {
        Some(SimpleLb::RoundRobin) => LoadBalancing::RoundRobin,
        Some(SimpleLb::Random) => LoadBalancing::Random,
        Some(
            SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::Passthrough,
        )
        | None => LoadBalancing::LeastRequest,
    }
}

fn by_hash(hash: &ConsistentHashLb) -> LoadBalancing {
    if let Some(maglev) = &hash.maglev {
        let size = u32::try_from(maglev.table_size).ok().filter(|size| *size > 0);
        return LoadBalancing::Maglev(size.unwrap_or(MAGLEV_SIZE));
    }
    let usual = RingShape::default();
    let written = hash.ring_hash.as_ref().map(|ring| ring.minimum_ring_size).filter(|size| *size > 0);
    let minimum = written.or(hash.minimum_ring_size.filter(|size| *size > 0)).unwrap_or(usual.minimum);
    LoadBalancing::RingHash(RingShape { minimum: minimum.min(usual.maximum), ..usual })
}

/// What a request is hashed by.
pub(super) fn hash_policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let header = hash.http_header_name.as_ref().map(|name| HeaderName::from_bytes(name.as_bytes()));
    let source = if let Some(name) = header {
        HashSource::Header(name.ok()?)
    } else if let Some(cookie) = &hash.http_cookie {
        HashSource::Cookie(AffinityCookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl,
            path: cookie.path.clone(),
            attributes: cookie.attributes.iter().map(|a| (a.name.clone(), a.value.clone())).collect(),
        })
    } else if hash.use_source_ip == Some(true) {
        HashSource::SourceIp
    } else {
        HashSource::Query(hash.http_query_parameter_name.clone()?)
    };
    Some(HashPolicy { source, terminal: false })
}

/// How the share of new endpoints grows; only where they are picked in turn or by load, as in Envoy.
pub(super) fn slow_start(
    settings: Option<&LoadBalancerSettings>,
    policy: LoadBalancing,
) -> Option<SlowStart> {
    let settings =
        settings.filter(|_| matches!(policy, LoadBalancing::RoundRobin | LoadBalancing::LeastRequest))?;
    let warmup = settings.warmup.clone().unwrap_or_default();
    let window: Duration = warmup.duration.or(settings.warmup_duration_secs)?;
    (!window.is_zero()).then(|| SlowStart {
        window,
        aggression: warmup.aggression.unwrap_or(1.0),
        minimum_percent: warmup.minimum_percent.unwrap_or(WARMUP_PERCENT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::networking::{Maglev, RingHash, WarmupConfiguration};

    fn policy(load_balancer: LoadBalancerSettings) -> Policy {
        Policy { load_balancer: Some(load_balancer), ..Policy::default() }
    }

    #[test]
    fn a_ring_has_1024_places_and_a_maglev_table_65537_where_nothing_else_is_said() {
        let of = |hash| {
            load_balancing(&policy(LoadBalancerSettings {
                consistent_hash: Some(hash),
                ..Default::default()
            }))
        };
        assert_eq!(of(ConsistentHashLb::default()), LoadBalancing::RingHash(RingShape::default()));
        let ring = ConsistentHashLb {
            ring_hash: Some(RingHash { minimum_ring_size: 99 }),
            ..ConsistentHashLb::default()
        };
        assert_eq!(of(ring), LoadBalancing::RingHash(RingShape { minimum: 99, ..RingShape::default() }));
        let maglev = ConsistentHashLb { maglev: Some(Maglev::default()), ..ConsistentHashLb::default() };
        assert_eq!(of(maglev), LoadBalancing::Maglev(65_537));
    }

    #[test]
    fn load_balancing_is_least_request_where_nothing_is_said() {
        assert_eq!(load_balancing(&Policy::default()), LoadBalancing::LeastRequest);
        assert_eq!(load_balancing(&policy(LoadBalancerSettings::default())), LoadBalancing::LeastRequest);
    }

    #[test]
    fn new_endpoints_begin_with_a_tenth_where_they_are_warmed_up() {
        let minute = Duration::from_secs(60);
        let warmup = WarmupConfiguration { duration: Some(minute), ..WarmupConfiguration::default() };
        let settings = LoadBalancerSettings { warmup: Some(warmup), ..LoadBalancerSettings::default() };
        let expected = SlowStart { window: minute, aggression: 1.0, minimum_percent: 10.0 };
        assert_eq!(slow_start(Some(&settings), LoadBalancing::LeastRequest), Some(expected));
        assert_eq!(slow_start(Some(&settings), LoadBalancing::Random), None);
        let old =
            LoadBalancerSettings { warmup_duration_secs: Some(minute), ..LoadBalancerSettings::default() };
        assert_eq!(slow_start(Some(&old), LoadBalancing::RoundRobin), Some(expected));
    }
}
