//! Outlier detection. Envoy ejects by two rules where nothing is said of them, so every rule is written out.

use super::place::{Decoded, Place, fields};
use super::value::{self, encode_duration, encode_flag, encode_number};
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::google::protobuf::{Duration as DurationProto, UInt32Value};
use model::outlier::{FailureShare, OutlierDetection, SuccessRate, Trigger};
use std::time::Duration;

/// In a row, where nothing is said.
const IN_ROW: u32 = 5;
/// What a success rate and a share of failures take where nothing is said.
const RATE: SuccessRate = SuccessRate {
    minimum_hosts: 5,
    request_volume: 100,
    deviation: 1900,
    enforced: 100,
    enforced_local: 100,
};
const SHARE: FailureShare =
    FailureShare { threshold: 85, minimum_hosts: 5, request_volume: 50, enforced: 0, enforced_local: 0 };

pub(crate) fn decode(place: &Place<'_>, given: &proto::OutlierDetection) -> Decoded<OutlierDetection> {
    fields!(place, given => proto::OutlierDetection {
        honoured: consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
            enforcing_success_rate, success_rate_minimum_hosts, success_rate_request_volume,
            success_rate_stdev_factor, consecutive_gateway_failure, enforcing_consecutive_gateway_failure,
            split_external_local_origin_errors, consecutive_local_origin_failure,
            enforcing_consecutive_local_origin_failure, enforcing_local_origin_success_rate,
            failure_percentage_threshold, enforcing_failure_percentage,
            enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts,
            failure_percentage_request_volume, max_ejection_time, max_ejection_time_jitter, always_eject_one_host;
        // A check that an endpoint passes lets it in again, unless this says otherwise.
        ignored: successful_active_health_check_uneject_host;
        refused: monitors, detect_degraded_hosts;
    });
    let default = OutlierDetection::default();
    let split = *split_external_local_origin_errors;
    let time = |name: &str, given: &Option<DurationProto>, default: Duration| match given {
        Some(given) => value::decode_duration(&place.field(name), given),
        None => Ok(default),
    };
    let base_ejection = time("base_ejection_time", base_ejection_time, default.base_ejection)?;
    let max_ejection = time("max_ejection_time", max_ejection_time, default.max_ejection.max(base_ejection))?;
    if max_ejection < base_ejection {
        return Err(place.field("max_ejection_time").error("it is shorter than base_ejection_time"));
    }
    let trigger = |count: &Option<UInt32Value>, enforced: &Option<UInt32Value>, default: u32| {
        let enforced = number(enforced, default);
        let count = number(count, IN_ROW);
        (enforced > 0).then_some(Trigger { count, enforced })
    };
    let success_rate = SuccessRate {
        minimum_hosts: number(success_rate_minimum_hosts, RATE.minimum_hosts),
        request_volume: number(success_rate_request_volume, RATE.request_volume),
        deviation: number(success_rate_stdev_factor, RATE.deviation),
        enforced: number(enforcing_success_rate, RATE.enforced),
        enforced_local: if split {
            number(enforcing_local_origin_success_rate, RATE.enforced_local)
        } else {
            0
        },
    };
    let failure_share = FailureShare {
        threshold: number(failure_percentage_threshold, SHARE.threshold),
        minimum_hosts: number(failure_percentage_minimum_hosts, SHARE.minimum_hosts),
        request_volume: number(failure_percentage_request_volume, SHARE.request_volume),
        enforced: number(enforcing_failure_percentage, SHARE.enforced),
        enforced_local: if split { number(enforcing_failure_percentage_local_origin, 0) } else { 0 },
    };
    let local = trigger(consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure, 100);
    Ok(OutlierDetection {
        consecutive_5xx: trigger(consecutive_5xx, enforcing_consecutive_5xx, 100),
        consecutive_gateway: trigger(consecutive_gateway_failure, enforcing_consecutive_gateway_failure, 0),
        consecutive_local: local.filter(|_| split),
        split_local: split,
        interval: time("interval", interval, default.interval)?,
        base_ejection,
        max_ejection,
        jitter: time("max_ejection_time_jitter", max_ejection_time_jitter, default.jitter)?,
        max_percent: number(max_ejection_percent, default.max_percent),
        always_one: value::flag(always_eject_one_host),
        success_rate: Some(success_rate).filter(|rate| rate.enforced > 0 || rate.enforced_local > 0),
        failure_share: Some(failure_share).filter(|share| share.enforced > 0 || share.enforced_local > 0),
    })
}

fn number(given: &Option<UInt32Value>, default: u32) -> u32 {
    given.map_or(default, |given| given.value)
}

pub(crate) fn encode(rule: &OutlierDetection) -> proto::OutlierDetection {
    let count = |trigger: Option<Trigger>| trigger.and_then(|trigger| encode_number(trigger.count));
    let enforced = |trigger: Option<Trigger>| encode_number(trigger.map_or(0, |trigger| trigger.enforced));
    let split = |share: u32| encode_number(share).filter(|_| rule.split_local);
    let rate = rule.success_rate.unwrap_or(SuccessRate { enforced: 0, enforced_local: 0, ..RATE });
    let share = rule.failure_share.unwrap_or(SHARE);
    proto::OutlierDetection {
        consecutive_5xx: count(rule.consecutive_5xx),
        enforcing_consecutive_5xx: enforced(rule.consecutive_5xx),
        consecutive_gateway_failure: count(rule.consecutive_gateway),
        enforcing_consecutive_gateway_failure: enforced(rule.consecutive_gateway),
        split_external_local_origin_errors: rule.split_local,
        consecutive_local_origin_failure: count(rule.consecutive_local),
        enforcing_consecutive_local_origin_failure: enforced(rule.consecutive_local)
            .filter(|_| rule.split_local),
        interval: Some(encode_duration(rule.interval)),
        base_ejection_time: Some(encode_duration(rule.base_ejection)),
        max_ejection_time: Some(encode_duration(rule.max_ejection)),
        max_ejection_time_jitter: Some(encode_duration(rule.jitter)).filter(|_| !rule.jitter.is_zero()),
        max_ejection_percent: encode_number(rule.max_percent),
        always_eject_one_host: encode_flag(true).filter(|_| rule.always_one),
        enforcing_success_rate: encode_number(rate.enforced),
        enforcing_local_origin_success_rate: split(rate.enforced_local),
        success_rate_minimum_hosts: rule.success_rate.and_then(|rate| encode_number(rate.minimum_hosts)),
        success_rate_request_volume: rule.success_rate.and_then(|rate| encode_number(rate.request_volume)),
        success_rate_stdev_factor: rule.success_rate.and_then(|rate| encode_number(rate.deviation)),
        enforcing_failure_percentage: encode_number(share.enforced),
        enforcing_failure_percentage_local_origin: split(share.enforced_local),
        failure_percentage_threshold: rule.failure_share.and_then(|share| encode_number(share.threshold)),
        failure_percentage_minimum_hosts: rule.failure_share.and_then(|s| encode_number(s.minimum_hosts)),
        failure_percentage_request_volume: rule.failure_share.and_then(|s| encode_number(s.request_volume)),
        ..Default::default()
    }
}
