//! Retries: what may be tried again, how often, and how long to wait first.
//! Sending again, and keeping what was sent, is the proxy's work. Envoy `config.route.v3.RetryPolicy`.

use crate::balance::Criteria;
use crate::header::{HeaderMatch, RequestHead};
use crate::matcher::StringMatch;
use http::{HeaderMap, HeaderName, Method};
use std::time::Duration;

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// What is worth another try.
    pub conditions: RetryConditions,
    /// Tries after the first.
    pub retries: u32,
    /// Time one try may take; `None` leaves it to the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Base of the exponential back-off.
    pub back_off_base: Duration,
    /// Longest wait; Envoy's default is ten times the base.
    pub back_off_max: Duration,
    /// Endpoints that were tried are avoided (`envoy.retry_host_predicates.previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// How many picks are made to find another endpoint (`host_selection_retry_max_attempts`).
    pub host_picks: u32,
    /// What few policies say.
    pub more: Option<Box<RetryExtras>>,
}

/// What few retry policies say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RetryExtras {
    /// Only requests with one of these headers are tried again; empty for all (`retriable_request_headers`).
    pub request_headers: Vec<HeaderMatch>,
    /// Time one try may go without a byte; `None` is no limit.
    pub per_try_idle_timeout: Option<Duration>,
    /// Endpoints tell how long to wait (`rate_limited_retry_back_off`).
    pub reset: Option<ResetBackOff>,
    /// Endpoints that are canaries are avoided (`envoy.retry_host_predicates.omit_canary_hosts`).
    pub omit_canaries: bool,
    /// Endpoints like this are avoided (`envoy.retry_host_predicates.omit_host_metadata`).
    pub omit: Criteria,
    /// After this number of tries other priorities are preferred to those that were tried
    /// (`envoy.retry_priorities.previous_priorities`).
    pub leaves_priorities_after: Option<u32>,
}

/// How endpoints tell how long to wait before another try.
#[derive(Debug, Clone, PartialEq)]
pub struct ResetBackOff {
    /// Headers of their answers; the first one that says it is heard.
    pub headers: Vec<(HeaderName, ResetFormat)>,
    /// Who says more is not heard.
    pub max: Duration,
}

/// How a header says how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// In seconds from now.
    Seconds,
    /// As seconds since 1970.
    UnixTimestamp,
}

/// The longest wait that an endpoint may ask for, unless said otherwise.
pub const RESET_MAX: Duration = Duration::from_secs(300);

impl ResetBackOff {
    /// How long `headers` ask to wait, at a time given since 1970: at least as long as they say and up to half as long
    /// again. `random` is any 64 random bits.
    pub fn pause(&self, headers: &HeaderMap, now: Duration, random: u64) -> Option<Duration> {
        let told = |(name, format): &(HeaderName, ResetFormat)| {
            let seconds = headers.get(name)?.to_str().ok()?.parse().ok()?;
            let told = match format {
                ResetFormat::Seconds => Duration::from_secs(seconds),
                ResetFormat::UnixTimestamp => {
                    let now = Duration::from_secs(now.as_secs());
                    Duration::from_secs(seconds).checked_sub(now).filter(|left| !left.is_zero())?
                }
            };
            (told <= self.max).then_some(told)
        };
        let told = self.headers.iter().find_map(told)?;
        let half = u64::try_from(told.as_millis() / 2).unwrap_or(u64::MAX).max(1);
        Some(told + Duration::from_millis(random % half))
    }
}

/// Envoy's default base interval.
pub const BACK_OFF_BASE: Duration = Duration::from_millis(25);

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            conditions: RetryConditions::default(),
            retries: 1,
            per_try_timeout: None,
            back_off_base: BACK_OFF_BASE,
            back_off_max: BACK_OFF_BASE * 10,
            avoid_previous_hosts: false,
            host_picks: 1,
            more: None,
        }
    }
}

/// Conditions under which another try is made; Envoy's `retry_on` tokens as flags.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RetryConditions {
    /// `5xx`
    pub server_error: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_error: bool,
    /// `reset`: the upstream did not answer at all.
    pub reset: bool,
    /// `reset-before-request`: reset before the request's head was sent.
    pub reset_before_request: bool,
    /// `connect-failure`
    pub connect_failure: bool,
    /// `refused-stream`
    pub refused_stream: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// `envoy-ratelimited`
    pub rate_limited: bool,
    /// `http3-post-connect-failure`, which never happens here.
    pub http3_post_connect_failure: bool,
    /// gRPC statuses (`cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`).
    pub grpc_statuses: Vec<u32>,
    /// `retriable-status-codes`: the list counts only when this token is there.
    pub status_codes: Option<Vec<u16>>,
    /// `retriable-headers`: response headers that ask for another try.
    pub response_headers: Vec<(String, StringMatch)>,
    /// Ours: an idempotent method (RFC 9110, 9.2.2) whose answer never began is tried again. Written as the token
    /// [`IDEMPOTENT_RESET`], which other proxies do not know and skip.
    pub idempotent_reset: bool,
}

/// Token for [`RetryConditions::idempotent_reset`].
pub const IDEMPOTENT_RESET: &str = "ieum-idempotent-reset";

/// gRPC status names that `retry_on` may list, with their numbers.
pub const GRPC_RETRY_STATUSES: [(&str, u32); 5] = [
    ("cancelled", 1),
    ("deadline-exceeded", 4),
    ("internal", 13),
    ("resource-exhausted", 8),
    ("unavailable", 14),
];

impl RetryConditions {
    /// Reads a comma-separated `retry_on`. Returns the tokens nobody knows beside the conditions; Envoy ignores those.
    pub fn parse(tokens: &str) -> (Self, Vec<String>) {
        let mut conditions = Self::default();
        let mut unknown = Vec::new();
        for token in tokens.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            match token {
                "5xx" => conditions.server_error = true,
                "gateway-error" => conditions.gateway_error = true,
                "reset" => conditions.reset = true,
                "reset-before-request" => conditions.reset_before_request = true,
                "connect-failure" => conditions.connect_failure = true,
                "refused-stream" => conditions.refused_stream = true,
                "retriable-4xx" => conditions.retriable_4xx = true,
                "envoy-ratelimited" => conditions.rate_limited = true,
                "http3-post-connect-failure" => conditions.http3_post_connect_failure = true,
                "retriable-status-codes" => conditions.status_codes = Some(Vec::new()),
                // The headers themselves are listed beside the tokens.
                "retriable-headers" => {}
                IDEMPOTENT_RESET => conditions.idempotent_reset = true,
                other => match GRPC_RETRY_STATUSES.iter().find(|(name, _)| *name == other) {
                    Some((_, status)) => conditions.grpc_statuses.push(*status),
                    None => unknown.push(other.to_owned()),
                },
            }
        }
        (conditions, unknown)
    }

    /// The tokens that [`parse`](Self::parse) reads back.
    pub fn tokens(&self) -> String {
        let flags = [
            (self.server_error, "5xx"),
            (self.gateway_error, "gateway-error"),
            (self.reset, "reset"),
            (self.reset_before_request, "reset-before-request"),
            (self.connect_failure, "connect-failure"),
            (self.refused_stream, "refused-stream"),
            (self.retriable_4xx, "retriable-4xx"),
            (self.rate_limited, "envoy-ratelimited"),
            (self.http3_post_connect_failure, "http3-post-connect-failure"),
            (self.status_codes.is_some(), "retriable-status-codes"),
            (!self.response_headers.is_empty(), "retriable-headers"),
            (self.idempotent_reset, IDEMPOTENT_RESET),
        ];
        let named = flags.into_iter().filter_map(|(on, token)| on.then_some(token));
        let grpc = self.grpc_statuses.iter().filter_map(|status| {
            GRPC_RETRY_STATUSES.iter().find(|(_, number)| number == status).map(|(name, _)| *name)
        });
        named.chain(grpc).collect::<Vec<_>>().join(",")
    }
}

/// How a try ended, as far as a retry is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryOutcome<'a> {
    /// No connection could be made.
    ConnectFailure,
    /// The peer said that it did not begin: HTTP/2 `REFUSED_STREAM`, or a GOAWAY below our stream.
    RefusedStream,
    /// The connection ended or the stream was reset before an answer.
    Reset {
        /// Some of the request's head was already sent.
        request_sent: bool,
    },
    /// The try took longer than [`RetryPolicy::per_try_timeout`].
    PerTryTimeout,
    /// An answer's head arrived.
    Answer {
        /// Its status.
        status: u16,
        /// `grpc-status` in that head, for answers that are all trailers.
        grpc_status: Option<u32>,
        /// Its headers.
        headers: &'a http::HeaderMap,
    },
}

impl RetryPolicy {
    /// Whether such a request is tried again at all.
    pub fn takes(&self, head: &RequestHead<'_>) -> bool {
        let wanted = self.more.as_ref().map_or(&[][..], |more| more.request_headers.as_slice());
        self.retries > 0 && (wanted.is_empty() || wanted.iter().any(|header| header.matches(head)))
    }

    /// Time one try may go without a byte.
    pub fn per_try_idle_timeout(&self) -> Option<Duration> {
        self.more.as_ref()?.per_try_idle_timeout
    }

    /// Whether `outcome` is worth another try under this policy. Counting tries is the caller's.
    pub fn wants(&self, outcome: TryOutcome<'_>, method: &Method) -> bool {
        let c = &self.conditions;
        match outcome {
            TryOutcome::ConnectFailure => {
                c.connect_failure || c.reset_before_request || c.reset || c.server_error || c.gateway_error
            }
            TryOutcome::RefusedStream => c.refused_stream || c.reset || c.server_error,
            TryOutcome::Reset { request_sent } => {
                c.reset
                    || c.server_error
                    || (c.reset_before_request && !request_sent)
                    || (c.idempotent_reset && is_idempotent(method))
            }
            TryOutcome::PerTryTimeout => c.server_error || c.gateway_error || c.reset,
            TryOutcome::Answer { status, grpc_status, headers } => {
                (c.server_error && (500..600).contains(&status))
                    || (c.gateway_error && (502..=504).contains(&status))
                    || (c.retriable_4xx && status == 409)
                    || c.status_codes.as_ref().is_some_and(|codes| codes.contains(&status))
                    || grpc_status.is_some_and(|s| c.grpc_statuses.contains(&s))
                    || (c.rate_limited && headers.contains_key("x-envoy-ratelimited"))
                    || c.response_headers.iter().any(|(name, m)| {
                        headers.get_all(name.as_str()).iter().any(|v| m.matches(v.as_bytes()))
                    })
            }
        }
    }

    /// How long to wait before try number `retry` (1 is the first retry): uniformly random below
    /// `base * (2^retry - 1)`, capped. `random` is any 64 random bits.
    pub fn back_off(&self, retry: u32, random: u64) -> Duration {
        let factor = (1u64 << retry.min(20)) - 1;
        let base_us = self.back_off_base.as_micros() as u64;
        let max_us = self.back_off_max.as_micros() as u64;
        let window_us = base_us.saturating_mul(factor).min(max_us.max(1)).max(1);
        Duration::from_micros(random % window_us)
    }
}

/// RFC 9110, 9.2.2.
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(tokens: &str) -> RetryPolicy {
        RetryPolicy { conditions: RetryConditions::parse(tokens).0, ..Default::default() }
    }

    #[test]
    fn tokens_survive_a_round_trip_and_unknown_ones_are_told() {
        let (c, unknown) = RetryConditions::parse("5xx, refused-stream,unavailable,sometimes");
        assert_eq!(unknown, ["sometimes"]);
        assert_eq!(RetryConditions::parse(&c.tokens()), (c, vec![]));
    }

    #[test]
    fn the_safe_default_never_repeats_a_post_that_may_have_been_processed() {
        let safe = policy("connect-failure,refused-stream,reset-before-request,ieum-idempotent-reset");
        let sent = TryOutcome::Reset { request_sent: true };
        assert!(!safe.wants(sent, &Method::POST));
        assert!(safe.wants(sent, &Method::GET));
        assert!(safe.wants(TryOutcome::ConnectFailure, &Method::POST));
        assert!(safe.wants(TryOutcome::RefusedStream, &Method::POST));
        assert!(safe.wants(TryOutcome::Reset { request_sent: false }, &Method::POST));
    }

    #[test]
    fn status_codes_count_only_with_their_token() {
        let headers = http::HeaderMap::new();
        let answer = |status| TryOutcome::Answer { status, grpc_status: None, headers: &headers };
        let mut p = policy("retriable-status-codes");
        p.conditions.status_codes = Some(vec![418]);
        assert!(p.wants(answer(418), &Method::GET) && !p.wants(answer(503), &Method::GET));
        assert!(policy("gateway-error").wants(answer(503), &Method::GET));
        assert!(!policy("gateway-error").wants(answer(500), &Method::GET));
    }

    #[test]
    fn an_endpoint_says_how_long_to_wait_within_bounds() {
        let name = HeaderName::from_static;
        let reset = ResetBackOff {
            headers: vec![
                (name("x-reset"), ResetFormat::UnixTimestamp),
                (name("retry-after"), ResetFormat::Seconds),
            ],
            max: Duration::from_secs(10),
        };
        let pause = |header: &'static str, value: &'static str, random| {
            let mut headers = HeaderMap::new();
            headers.insert(header, http::HeaderValue::from_static(value));
            reset.pause(&headers, Duration::from_millis(1_000_500), random).map(|d| d.as_millis())
        };
        assert_eq!(pause("retry-after", "2", 0), Some(2000));
        assert_eq!(pause("retry-after", "2", 999), Some(2999));
        assert_eq!(pause("retry-after", "11", 0), None, "too long");
        assert_eq!(pause("x-reset", "1004", 0), Some(4000));
        assert_eq!(pause("x-reset", "1000", 0), None, "over already");
        assert_eq!(pause("x-reset", "soon", 0), None);
    }

    #[test]
    fn back_off_grows_and_stays_below_its_cap() {
        let p = RetryPolicy::default();
        assert!(p.back_off(1, u64::MAX) < Duration::from_millis(25));
        assert!((0..64).all(|n| p.back_off(n, u64::MAX / (u64::from(n) + 1)) <= Duration::from_millis(250)));
    }
}
