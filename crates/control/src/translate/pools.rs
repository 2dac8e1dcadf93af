//! What a DestinationRule says of connections and endpoints that fail: limits, keep-alive, outlier detection.

use super::policy::Policy;
use api::networking::{ConnectionPoolSettings, OutlierDetection as Written, TcpKeepalive};
use model::cluster::{Connections, Keepalive, Pings};
use model::limits::{Limits, RetryBudget, Thresholds};
use model::outlier::{OutlierDetection, Trigger};
use std::time::Duration;

/// Percent of requests that may be retries where a budget does not say.
const BUDGET_PERCENT: f64 = 20.0;
/// Retries that a budget always allows where it does not say.
const BUDGET_MINIMUM: u32 = 3;
/// The budget where nobody says anything: a fifth of what is under way, and a hundred where little is.
const USUAL_BUDGET: RetryBudget =
    RetryBudget { percent: BUDGET_PERCENT, minimum: 100, interval: Duration::ZERO };
/// Failures in a row where nobody says how many.
const IN_A_ROW: u32 = 5;

/// What a cluster may be asked at one time; nothing is limited that nobody limits.
pub(super) fn limits(policy: &Policy) -> Limits {
    // 0 is no limit, as below 0 is.
    let some = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0);
    let (tcp, http) = parts(policy.connection_pool.as_ref());
    // Retries must not become most of what there is. Who writes a number of their own means that number.
    let usual = (http.max_retries <= 0).then_some(USUAL_BUDGET);
    let budget = policy.retry_budget.as_ref().map(|budget| RetryBudget {
        percent: budget.percent.unwrap_or(BUDGET_PERCENT),
        minimum: match budget.min_retry_concurrency {
            0 => BUDGET_MINIMUM,
            minimum => minimum,
        },
        interval: budget.budget_interval.unwrap_or_default(),
    });
    let budget = budget.or(usual);
    let default = Thresholds {
        connections: some(tcp.max_connections),
        pending: some(http.http1_max_pending_requests),
        requests: some(http.http2_max_requests),
        retries: some(http.max_retries),
        retry_budget: budget,
        track_remaining: false,
    };
    Limits { default, high: Thresholds::default() }
}

/// What the connections of a cluster are like; `mesh` is how they are probed where no rule says so.
pub(super) fn connections(policy: &Policy, mesh: Option<&TcpKeepalive>) -> Connections {
    let (tcp, http) = parts(policy.connection_pool.as_ref());
    let probes = tcp.tcp_keepalive.as_ref().or(mesh);
    let ping = http.http2_keep_alive.as_ref();
    let (max_duration, pings) =
        (tcp.max_connection_duration, ping.and_then(|ping| ping.interval.zip(ping.timeout)));
    Connections {
        max_duration: max_duration.filter(|duration| !duration.is_zero()),
        max_streams: u32::try_from(http.max_concurrent_streams).ok().filter(|most| *most > 0),
        pings: pings.map(|(interval, timeout)| Pings { interval, timeout }),
        max_requests: u32::try_from(http.max_requests_per_connection).ok().filter(|most| *most > 0),
        keepalive: probes.map(|probes| Keepalive {
            probes: Some(probes.probes).filter(|number| *number > 0),
            time: probes.time,
            interval: probes.interval,
        }),
        ..Connections::default()
    }
}

fn parts(
    pool: Option<&ConnectionPoolSettings>,
) -> (api::networking::TcpSettings, api::networking::HttpSettings) {
    let pool = pool.cloned().unwrap_or_default();
    (pool.tcp.unwrap_or_default(), pool.http.unwrap_or_default())
}

/// When endpoints are left out: not unless a rule asks for it, and then as in Istio.
pub(super) fn outlier_detection(written: &Written) -> OutlierDetection {
    let usual = OutlierDetection::default();
    // 0 is written to say: never.
    let trigger = |count: u32| (count > 0).then_some(Trigger { count, enforced: 100 });
    let local = written.consecutive_local_origin_failures.filter(|count| *count > 0).unwrap_or(IN_A_ROW);
    OutlierDetection {
        consecutive_5xx: trigger(written.consecutive_5xx_errors.unwrap_or(IN_A_ROW)),
        consecutive_gateway: written.consecutive_gateway_errors.and_then(trigger),
        consecutive_local: trigger(local).filter(|_| written.split_external_local_origin_errors),
        split_local: written.split_external_local_origin_errors,
        interval: written.interval.unwrap_or(usual.interval),
        base_ejection: written.base_ejection_time.unwrap_or(usual.base_ejection),
        max_percent: match u32::try_from(written.max_ejection_percent) {
            Ok(0) | Err(_) => usual.max_percent,
            Ok(percent) => percent,
        },
        ..usual
    }
}

/// Statuses that are errors; none where all from 500 on are.
pub(super) fn error_statuses(written: Option<&Written>) -> Vec<u16> {
    let codes =
        written.map(|written| written.outlier_detection_http_error_codes.as_slice()).unwrap_or_default();
    codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect()
}

/// Below this percent of healthy endpoints health is not looked at; 0 never.
pub(super) fn panic_threshold(written: Option<&Written>) -> f64 {
    written.map_or(0.0, |written| f64::from(written.min_health_percent.max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::networking::HttpSettings;

    #[test]
    fn outlier_detection_is_five_in_a_row_for_thirty_seconds_and_at_most_a_tenth() {
        let usual = outlier_detection(&Written::default());
        assert_eq!(usual.consecutive_5xx, Some(Trigger { count: 5, enforced: 100 }));
        assert_eq!((usual.consecutive_gateway, usual.consecutive_local), (None, None));
        assert_eq!((usual.interval, usual.base_ejection), (Duration::from_secs(10), Duration::from_secs(30)));
        assert_eq!(usual.max_percent, 10);
        assert_eq!(usual.success_rate, None);
        assert!(panic_threshold(None) == 0.0);
    }

    #[test]
    fn no_errors_in_a_row_turn_that_detection_off() {
        let written = Written {
            consecutive_5xx_errors: Some(0),
            consecutive_gateway_errors: Some(2),
            split_external_local_origin_errors: true,
            ..Written::default()
        };
        let found = outlier_detection(&written);
        assert_eq!(found.consecutive_5xx, None);
        assert_eq!(found.consecutive_gateway, Some(Trigger { count: 2, enforced: 100 }));
        assert_eq!(found.consecutive_local, Some(Trigger { count: 5, enforced: 100 }));
    }

    #[test]
    fn nothing_is_limited_that_nobody_limits_but_retries_to_a_fifth() {
        let default = Thresholds { retry_budget: Some(USUAL_BUDGET), ..Thresholds::default() };
        assert_eq!(limits(&Policy::default()), Limits { default, ..Limits::default() });
    }

    #[test]
    fn a_number_of_retries_counts_instead_of_the_usual_budget() {
        let http = HttpSettings { max_retries: 7, ..HttpSettings::default() };
        let pool = ConnectionPoolSettings { http: Some(http), ..ConnectionPoolSettings::default() };
        let found = limits(&Policy { connection_pool: Some(pool), ..Policy::default() }).default;
        assert_eq!((found.retries, found.retry_budget), (Some(7), None));
    }
}
