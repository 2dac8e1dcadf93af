//! What a rule has filters do before a request is sent on: failures made on purpose, and answers to pages of other origins.

use super::place::Place;
use super::shares::of_percent;
use api::networking::{
    CorsPolicy, FaultAbort, FaultDelay, HttpFaultInjection, HttpRoute, StringMatch, UnmatchedPreflights,
};
use model::cors::Cors;
use model::fault::{Abort, AbortAnswer, Delay, DelayTime, Fault};
use model::filter::{FilterSettings, Setting};
use model::fraction::Fraction;
use model::matcher::{Pattern, StringMatch as Matcher, StringMatchKind};

/// gRPC's status codes by number.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What `rule` says of filters.
pub(super) fn filters(rule: &HttpRoute, place: &mut Place<'_>) -> Option<Box<FilterSettings>> {
    let settings = FilterSettings {
        fault: rule.fault.as_ref().and_then(fault).map(Setting::Use),
        cors: rule.cors_policy.as_ref().map(|written| Setting::Use(cors(written, place))),
        ..FilterSettings::default()
    };
    settings.boxed()
}

/// A fault; `None` when it hits no request at all, such as without a percentage.
fn fault(written: &HttpFaultInjection) -> Option<Fault> {
    let (delay, abort) = (written.delay.as_ref().and_then(delay), written.abort.as_ref().and_then(abort));
    (delay.is_some() || abort.is_some()).then(|| Fault { delay, abort, ..Fault::default() })
}

fn share(percentage: Option<f64>) -> Option<Fraction> {
    percentage.map(of_percent).filter(|share| share.numerator > 0)
}

fn delay(written: &FaultDelay) -> Option<Delay> {
    let old = Some(f64::from(written.percent)).filter(|percent| *percent > 0.0);
    let share = share(written.percentage.as_ref().map(|p| p.value).or(old))?;
    let time = written.fixed_delay.filter(|time| !time.is_zero())?;
    Some(Delay { time: DelayTime::Fixed(time), share })
}

fn abort(written: &FaultAbort) -> Option<Abort> {
    let share = share(written.percentage.as_ref().map(|p| p.value))?;
    let grpc = |name: &String| GRPC_STATUS.iter().zip(0..).find(|(known, _)| *known == name).map(|(_, n)| n);
    let answer = match written.http_status {
        Some(status) => AbortAnswer::Http(u16::try_from(status).ok()?),
        None => AbortAnswer::Grpc(written.grpc_status.as_ref().and_then(grpc)?),
    };
    Some(Abort::new(answer, share))
}

fn cors(written: &CorsPolicy, place: &mut Place<'_>) -> Cors {
    let mut origins: Vec<Matcher> = written.allow_origin.iter().map(Matcher::exact).collect();
    for (index, origin) in written.allow_origins.iter().enumerate() {
        let kind = match origin {
            // Refused before; no origin is let in by what says nothing.
            StringMatch::Any => continue,
            StringMatch::Exact(text) => StringMatchKind::Exact(text.clone()),
            StringMatch::Prefix(text) => StringMatchKind::Prefix(text.clone()),
            StringMatch::Regex(regex) => match Pattern::new(regex) {
                Ok(pattern) => StringMatchKind::Regex(pattern),
                Err(error) => {
                    let field = format!("corsPolicy.allowOrigins[{index}]");
                    place.tell(&field, error.to_string(), "no origin is allowed by it; write RE2 syntax");
                    continue;
                }
            },
        };
        origins.push(Matcher { kind, ignore_case: false });
    }
    Cors {
        origins,
        methods: written.allow_methods.join(","),
        headers: written.allow_headers.join(","),
        expose: written.expose_headers.join(","),
        max_age: written.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        credentials: written.allow_credentials == Some(true),
        forward_unmatched: written.unmatched_preflights != UnmatchedPreflights::Ignore,
        ..Cors::default()
    }
}
