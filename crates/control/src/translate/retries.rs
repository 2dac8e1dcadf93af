//! When requests are tried again: as rules write it, and where nobody says anything.

use super::place::Place;
use api::networking::HttpRetry;
use model::retry::{BACK_OFF_BASE, RetryConditions, RetryExtras, RetryPolicy};

/// Conditions of retries that are written without any: Istio's, and what is safe besides.
const WRITTEN_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,reset-before-request,ieum-idempotent-reset";
/// Picks made to find an endpoint that was not tried.
const HOST_PICKS: u32 = 5;

/// Retries where nobody says anything: only of what was not processed, or does no harm when it is done twice.
pub(super) fn default_retry() -> RetryPolicy {
    RetryPolicy {
        conditions: RetryConditions {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            idempotent_reset: true,
            ..RetryConditions::default()
        },
        retries: 2,
        avoid_previous_hosts: true,
        host_picks: HOST_PICKS,
        ..RetryPolicy::default()
    }
}

/// No retries at all.
pub(super) fn no_retries() -> RetryPolicy {
    RetryPolicy { retries: 0, ..RetryPolicy::default() }
}

/// Retries as written.
pub(super) fn retry_policy(written: &HttpRetry, field: &str, place: &mut Place<'_>) -> RetryPolicy {
    let retries = u32::try_from(written.attempts).unwrap_or(0);
    let tokens = match written.retry_on.as_str() {
        _ if retries == 0 => "",
        "" => WRITTEN_RETRY_ON,
        tokens => tokens,
    };
    let is_code = |token: &&str| token.len() == 3 && token.bytes().all(|b| b.is_ascii_digit());
    let (codes, words): (Vec<&str>, Vec<&str>) = tokens.split(',').map(str::trim).partition(is_code);
    let (mut conditions, unknown) = RetryConditions::parse(&words.join(","));
    let codes: Vec<u16> = codes.iter().filter_map(|code| code.parse().ok()).collect();
    if !codes.is_empty() {
        conditions.status_codes.get_or_insert_default().extend(codes);
    }
    for token in unknown {
        place.tell(
            &format!("{field}.retryOn"),
            format!("`{token}` is not a condition for retries; it is ignored"),
            "name one of Envoy's retry conditions, or a status code",
        );
    }
    let base = written.backoff.filter(|base| !base.is_zero()).unwrap_or(BACK_OFF_BASE);
    let avoid = written.retry_ignore_previous_hosts.unwrap_or(true);
    RetryPolicy {
        conditions,
        retries,
        per_try_timeout: written.per_try_timeout.filter(|timeout| !timeout.is_zero()),
        back_off_base: base,
        back_off_max: base.saturating_mul(10),
        avoid_previous_hosts: avoid,
        host_picks: if avoid { HOST_PICKS } else { 1 },
        more: (written.retry_remote_localities == Some(true)).then(|| Box::new(elsewhere())),
    }
}

/// Other places are preferred after two tries, as in Istio.
fn elsewhere() -> RetryExtras {
    RetryExtras { leaves_priorities_after: Some(2), ..RetryExtras::default() }
}
