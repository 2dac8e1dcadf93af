//! Circuit breakers. Envoy has limits where nothing is said (1024, and 3 retries), so "no limit" is written out.

use super::place::{Decoded, Place, fields};
use super::value::{decode_duration, encode_duration, encode_number};
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::UInt32Value;
use model::limits::{Limits, RetryBudget, Thresholds};
use proto::circuit_breakers::{Thresholds as ThresholdsProto, thresholds};
use std::time::Duration;

/// Stands for no limit.
const UNLIMITED: u32 = u32::MAX;
/// What Envoy takes where nothing is said.
const DEFAULTS: Thresholds = Thresholds {
    connections: Some(1024),
    pending: Some(1024),
    requests: Some(1024),
    retries: Some(3),
    retry_budget: None,
    track_remaining: false,
};

pub(crate) fn decode(place: &Place<'_>, breakers: &Option<proto::CircuitBreakers>) -> Decoded<Limits> {
    let mut limits = Limits { default: DEFAULTS, high: DEFAULTS };
    let Some(breakers) = breakers else { return Ok(limits) };
    fields!(place, breakers => proto::CircuitBreakers {
        honoured: thresholds;
        ignored: ;
        refused: per_host_thresholds;
    });
    // As in Envoy, the first of a priority counts.
    for (i, given) in thresholds.iter().enumerate().rev() {
        let place = place.item("thresholds", i);
        let found = decode_thresholds(&place, given)?;
        match RoutingPriority::try_from(given.priority) {
            Ok(RoutingPriority::Default) => limits.default = found,
            Ok(RoutingPriority::High) => limits.high = found,
            Err(_) => {
                let what = format_args!("priority {}", given.priority);
                return Err(place.field("priority").unsupported(what));
            }
        }
    }
    Ok(limits)
}

fn decode_thresholds(place: &Place<'_>, given: &ThresholdsProto) -> Decoded<Thresholds> {
    fields!(place, given => ThresholdsProto {
        honoured: max_connections, max_pending_requests, max_requests, max_retries, retry_budget, track_remaining;
        // There is one pool for each endpoint and thread, whatever the requests are.
        ignored: priority, max_connection_pools;
        refused: ;
    });
    let limit = |given: &Option<UInt32Value>, default| match given {
        None => default,
        Some(value) => Some(value.value).filter(|limit| *limit != UNLIMITED),
    };
    let budget = |budget: &thresholds::RetryBudget| {
        let place = place.field("retry_budget");
        let default = RetryBudget::default();
        let percent = budget.budget_percent.map_or(default.percent, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            return Err(place.field("budget_percent").error(format_args!("{percent} is no percentage")));
        }
        Ok(RetryBudget {
            percent,
            minimum: budget.min_retry_concurrency.map_or(default.minimum, |minimum| minimum.value),
            interval: match &budget.budget_interval {
                Some(interval) => decode_duration(&place.field("budget_interval"), interval)?,
                None => Duration::ZERO,
            },
        })
    };
    Ok(Thresholds {
        connections: limit(max_connections, DEFAULTS.connections),
        pending: limit(max_pending_requests, DEFAULTS.pending),
        requests: limit(max_requests, DEFAULTS.requests),
        retries: limit(max_retries, DEFAULTS.retries),
        retry_budget: retry_budget.as_ref().map(budget).transpose()?,
        track_remaining: *track_remaining,
    })
}

pub(crate) fn encode(limits: &Limits) -> Option<proto::CircuitBreakers> {
    let given = [(RoutingPriority::Default, &limits.default), (RoutingPriority::High, &limits.high)];
    let thresholds = given.into_iter().filter(|(_, limits)| **limits != DEFAULTS);
    let thresholds: Vec<ThresholdsProto> = thresholds.map(|(priority, t)| encode_one(priority, t)).collect();
    match thresholds.is_empty() {
        true => None,
        false => Some(proto::CircuitBreakers { thresholds, ..Default::default() }),
    }
}

fn encode_one(priority: RoutingPriority, limits: &Thresholds) -> ThresholdsProto {
    let number = |limit: Option<u32>| encode_number(limit.unwrap_or(UNLIMITED));
    ThresholdsProto {
        priority: priority as i32,
        max_connections: number(limits.connections),
        max_pending_requests: number(limits.pending),
        max_requests: number(limits.requests),
        max_retries: number(limits.retries),
        retry_budget: limits.retry_budget.map(|budget| thresholds::RetryBudget {
            budget_percent: Some(Percent { value: budget.percent }),
            min_retry_concurrency: encode_number(budget.minimum),
            budget_interval: Some(encode_duration(budget.interval)).filter(|_| !budget.interval.is_zero()),
        }),
        track_remaining: limits.track_remaining,
        ..Default::default()
    }
}
