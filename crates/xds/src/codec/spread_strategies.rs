//! Where requests go and how many: policies, limits, outlier detection, checks, hashes, subsets, for property tests.
#![allow(clippy::unwrap_used)]

use super::strategies::{duration, header_name, json, name, string_match};
use model::affinity::{AffinityCookie, HashPolicy, HashSource};
use model::balance::{
    Criteria, Fallback, LoadBalancing, PlaceHash, RingShape, SlowStart, Spread, SubsetSelector, Subsets,
};
use model::cluster::{Connections, Keepalive, Pings};
use model::health::{HealthCheck, HttpProbe, Probe};
use model::limits::{Limits, Priority, RetryBudget, Thresholds};
use model::outlier::{FailureShare, OutlierDetection, SuccessRate, Trigger};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::SocketAddr;
use std::time::Duration;

type Of<T> = BoxedStrategy<T>;

pub(super) fn criteria() -> Of<Criteria> {
    btree_map(name(), json(), 0..3).prop_map(|all| all.into_iter().collect()).boxed()
}

pub(super) fn priority() -> Of<Priority> {
    select(vec![Priority::Default, Priority::High]).boxed()
}

pub(super) fn hash_policy() -> Of<HashPolicy> {
    let cookie = (name(), option::of(duration()), name(), vec((name(), name()), 0..2)).prop_map(
        |(name, ttl, path, attributes)| HashSource::Cookie(AffinityCookie { name, ttl, path, attributes }),
    );
    let source = prop_oneof![
        header_name().prop_map(HashSource::Header),
        cookie,
        Just(HashSource::SourceIp),
        name().prop_map(HashSource::Query),
    ];
    (source, any::<bool>()).prop_map(|(source, terminal)| HashPolicy { source, terminal }).boxed()
}

fn policy() -> Of<LoadBalancing> {
    prop_oneof![
        Just(LoadBalancing::RoundRobin),
        Just(LoadBalancing::LeastRequest),
        Just(LoadBalancing::Random),
        (1u64..2000, 2000u64..8_000_000).prop_map(|(minimum, maximum)| {
            let hash = if minimum % 2 == 0 { PlaceHash::Xx } else { PlaceHash::Murmur2 };
            LoadBalancing::RingHash(RingShape { minimum, maximum, hash })
        }),
        select(vec![251, 65_537]).prop_map(LoadBalancing::Maglev),
    ]
    .boxed()
}

fn subsets() -> Of<Subsets> {
    let fallback = || select(vec![Fallback::None, Fallback::Any, Fallback::Default]);
    let selector = (btree_set(name(), 1..3), option::of(fallback()))
        .prop_map(|(keys, fallback)| SubsetSelector { keys, fallback, fallback_keys: Default::default() });
    (fallback(), criteria(), vec(selector, 1..3), any::<(bool, bool)>())
        .prop_map(|(fallback, default, mut selectors, (list_as_any, panic_any))| {
            // Envoy wants no two selectors with the same keys.
            selectors.sort_by(|a, b| a.keys.cmp(&b.keys));
            selectors.dedup_by(|a, b| a.keys == b.keys);
            Subsets { fallback, default, selectors, list_as_any, panic_any, ..Subsets::default() }
        })
        .boxed()
}

/// A policy with what goes with it; one thing is said in one way.
pub(super) fn balance() -> Of<(LoadBalancing, Spread)> {
    let slow = (1u64..100, 1u32..20, 0u32..100).prop_map(|(window, aggression, percent)| SlowStart {
        window: Duration::from_secs(window),
        aggression: f64::from(aggression) / 4.0,
        minimum_percent: f64::from(percent),
    });
    let flags = any::<(bool, bool, bool)>();
    (policy(), 2u32..9, 0u32..100, flags, option::of(slow), option::of(subsets()))
        .prop_map(|(policy, choices, percent, (fail, weighted, names), slow_start, subsets)| {
            let is_least = policy == LoadBalancing::LeastRequest;
            let spread = Spread {
                choices: if is_least { choices } else { 2 },
                panic_threshold: f64::from(percent),
                fail_in_panic: fail && !weighted,
                weighted_localities: weighted,
                slow_start: slow_start.filter(|_| is_least || policy == LoadBalancing::RoundRobin),
                subsets,
                destination_header: None,
                destination_port: None,
                bias: 1.0,
                hash_balance: None,
                override_headers: Vec::new(),
                hash_host_names: names,
                renews_connections: names,
            };
            (policy, spread)
        })
        .boxed()
}

pub(super) fn limits() -> Of<Limits> {
    let limit = || option::of(0u32..2000);
    let budget = (0u32..=100, 0u32..9).prop_map(|(percent, minimum)| RetryBudget {
        percent: f64::from(percent),
        minimum,
        interval: Duration::from_secs(minimum.into()),
    });
    let thresholds = (limit(), limit(), limit(), limit(), option::of(budget), any::<bool>()).prop_map(
        |(connections, pending, requests, retries, retry_budget, track_remaining)| Thresholds {
            connections,
            pending,
            requests,
            retries,
            retry_budget,
            track_remaining,
        },
    );
    let envoys = Thresholds {
        connections: Some(1024),
        pending: Some(1024),
        requests: Some(1024),
        retries: Some(3),
        ..Thresholds::default()
    };
    let thresholds = prop_oneof![thresholds, Just(Thresholds::default()), Just(envoys)];
    (thresholds.clone(), thresholds).prop_map(|(default, high)| Limits { default, high }).boxed()
}

pub(super) fn outlier_detection() -> Of<OutlierDetection> {
    let trigger =
        || option::of((1u32..20, 1u32..=100).prop_map(|(count, enforced)| Trigger { count, enforced }));
    let seconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    let numbers = || (1u32..20, 1u32..500, 1u32..100, 1u32..=100, 0u32..=100);
    (
        (trigger(), trigger(), trigger(), any::<(bool, bool)>()),
        (seconds(1..99), seconds(1..99), seconds(100..900), seconds(0..9), 0u32..=100),
        (option::of(numbers()), option::of(numbers())),
    )
        .prop_map(|(triggers, times, (rate, share))| {
            let (consecutive_5xx, consecutive_gateway, local, (split_local, always_one)) = triggers;
            let (interval, base_ejection, max_ejection, jitter, max_percent) = times;
            OutlierDetection {
                consecutive_5xx,
                consecutive_gateway,
                consecutive_local: local.filter(|_| split_local),
                split_local,
                interval,
                base_ejection,
                max_ejection,
                jitter,
                max_percent,
                always_one,
                success_rate: rate.map(|(hosts, volume, deviation, enforced, local)| SuccessRate {
                    minimum_hosts: hosts,
                    request_volume: volume,
                    deviation: deviation * 100,
                    enforced,
                    enforced_local: if split_local { local } else { 0 },
                }),
                failure_share: share.map(|(hosts, volume, threshold, enforced, local)| FailureShare {
                    threshold,
                    minimum_hosts: hosts,
                    request_volume: volume,
                    enforced,
                    enforced_local: if split_local { local } else { 0 },
                }),
            }
        })
        .boxed()
}

pub(super) fn connections() -> Of<Connections> {
    let seconds = || option::of((1u64..9999).prop_map(Duration::from_secs));
    let keepalive = (option::of(1u32..9), seconds(), seconds())
        .prop_map(|(probes, time, interval)| Keepalive { probes, time, interval });
    let pings = (duration(), duration())
        .prop_map(|(interval, timeout)| Pings { interval: interval.max(Duration::from_millis(1)), timeout });
    let long = duration().prop_map(|time| time.max(Duration::from_millis(1)));
    let numbers = (option::of(1u32..9999), option::of(1u32..9999));
    (numbers, option::of(keepalive), option::of(long), option::of(pings))
        .prop_map(|((max_requests, max_streams), keepalive, max_duration, pings)| Connections {
            max_requests,
            max_streams,
            keepalive,
            max_duration,
            pings,
            source: max_requests.map(|n| SocketAddr::from(([127, 0, 0, n as u8], 0))),
            header_case: model::header::HeaderCase::Proper,
        })
        .boxed()
}

fn probe() -> Of<Probe> {
    let statuses = |count| vec((100u16..300, 300u16..600), count);
    let header = (header_name(), name()).prop_map(|(name, value)| {
        (name, http::HeaderValue::try_from(value).unwrap_or_else(|_| "x".parse().unwrap()))
    });
    let http = (
        (name(), "/[a-z]{0,5}", select(vec![http::Method::GET, http::Method::HEAD, http::Method::POST])),
        (any::<bool>(), statuses(1..3), statuses(0..2), option::of(string_match()), vec(header, 0..2)),
    )
        .prop_map(|((host, path, method), (http2, expected, retriable, service, headers))| {
            Probe::Http(HttpProbe { host, path, method, http2, expected, retriable, service, headers })
        });
    let bytes = || vec(any::<u8>(), 1..5);
    prop_oneof![
        http,
        (name(), name()).prop_map(|(service, authority)| Probe::Grpc { service, authority }),
        (bytes(), vec(bytes(), 0..3)).prop_map(|(send, receive)| Probe::Tcp { send, receive }),
    ]
    .boxed()
}

pub(super) fn health_check() -> Of<HealthCheck> {
    let millis = || (1u64..99_999).prop_map(Duration::from_millis);
    (
        probe(),
        (millis(), millis(), millis(), millis(), millis(), millis()),
        (1u32..9, 1u32..9, 0u32..100, any::<bool>()),
    )
        .prop_map(|(probe, times, (unhealthy_threshold, healthy_threshold, jitter_percent, reuse))| {
            HealthCheck {
                jitter: times.2,
                jitter_percent,
                initial_jitter: times.3,
                unhealthy_threshold,
                healthy_threshold,
                no_traffic_interval: times.4,
                unhealthy_interval: times.5,
                reuse_connection: reuse,
                ..HealthCheck::new(probe, times.0, times.1)
            }
        })
        .boxed()
}
