//! Retry policies.

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_duration, decode_limit, encode_duration, encode_number};
use super::{headers, text};
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use model::header::HeaderTest;
use model::matcher::StringMatch;
use model::retry::{BACK_OFF_BASE, RetryConditions, RetryPolicy};
use proto::header_matcher::HeaderMatchSpecifier;
use proto::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate::ConfigType};

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";

pub(crate) fn decode(place: &Place<'_>, policy: &proto::RetryPolicy) -> Decoded<RetryPolicy> {
    fields!(place, policy => proto::RetryPolicy {
        honoured: retry_on, num_retries, per_try_timeout, retry_host_predicate, host_selection_retry_max_attempts,
            retriable_status_codes, retry_back_off, retriable_headers, per_try_idle_timeout;
        ignored: ;
        refused: retry_priority, retry_options_predicates, rate_limited_retry_back_off, retriable_request_headers,
            refresh_cluster_on_retry;
    });
    value::refuse_limit(place, "per_try_idle_timeout", per_try_idle_timeout)?;
    // Envoy passes over tokens it does not know, and so do we: `idempotent_reset` relies on it.
    let (mut conditions, _) = RetryConditions::parse(retry_on);
    if let Some(codes) = &mut conditions.status_codes {
        for (i, code) in retriable_status_codes.iter().enumerate() {
            let place = place.item("retriable_status_codes", i);
            codes.push(u16::try_from(*code).map_err(|_| place.error(format_args!("{code} is no status")))?);
        }
    }
    if retry_on.split(',').any(|token| token.trim() == "retriable-headers") {
        for (i, matcher) in retriable_headers.iter().enumerate() {
            conditions.response_headers.push(decode_header(&place.item("retriable_headers", i), matcher)?);
        }
    }
    let (back_off_base, back_off_max) = decode_back_off(&place.field("retry_back_off"), retry_back_off)?;
    for (i, predicate) in retry_host_predicate.iter().enumerate() {
        check_predicate(&place.item("retry_host_predicate", i), predicate)?;
    }
    Ok(RetryPolicy {
        conditions,
        retries: num_retries.map_or(1, |n| n.value),
        per_try_timeout: decode_limit(&place.field("per_try_timeout"), per_try_timeout, None)?,
        back_off_base,
        back_off_max,
        avoid_previous_hosts: !retry_host_predicate.is_empty(),
        host_picks: u32::try_from(*host_selection_retry_max_attempts).unwrap_or(u32::MAX).max(1),
    })
}

fn check_predicate(place: &Place<'_>, predicate: &RetryHostPredicate) -> Decoded<()> {
    let named = predicate.name == PREVIOUS_HOSTS;
    let known = match &predicate.config_type {
        None => named,
        Some(ConfigType::TypedConfig(any)) => value::type_name(any).ends_with(".PreviousHostsPredicate"),
    };
    match known {
        true => Ok(()),
        false => Err(place.unsupported(format_args!("predicate `{}`", predicate.name))),
    }
}

fn decode_header(place: &Place<'_>, matcher: &proto::HeaderMatcher) -> Decoded<(String, StringMatch)> {
    let m = headers::decode_match(place, matcher)?;
    let wanted = match m.test {
        HeaderTest::Value(wanted) => wanted,
        HeaderTest::Present(true) => StringMatch::prefix(""),
        _ => return Err(place.unsupported("a range or an absence")),
    };
    if m.invert || m.missing_as_empty {
        return Err(place.unsupported("an inverted match, or one of absent headers,"));
    }
    Ok((m.name.as_str().to_owned(), wanted))
}

fn decode_back_off(
    place: &Place<'_>,
    back_off: &Option<RetryBackOff>,
) -> Decoded<(std::time::Duration, std::time::Duration)> {
    let Some(RetryBackOff { base_interval, max_interval }) = back_off else {
        return Ok((BACK_OFF_BASE, BACK_OFF_BASE * 10));
    };
    let base = match base_interval {
        Some(base) => decode_duration(&place.field("base_interval"), base)?,
        None => return Err(place.field("base_interval").error("this field is required")),
    };
    let max = match max_interval {
        Some(max) => decode_duration(&place.field("max_interval"), max)?,
        None => base.saturating_mul(10),
    };
    match base.is_zero() || max < base {
        true => Err(place.error("the base must be above zero and the maximum not below it")),
        false => Ok((base, max)),
    }
}

pub(crate) fn encode(policy: &RetryPolicy) -> proto::RetryPolicy {
    let predicate = RetryHostPredicate {
        name: PREVIOUS_HOSTS.to_owned(),
        config_type: Some(ConfigType::TypedConfig(value::pack(&PreviousHostsPredicate {}))),
    };
    let header = |(name, wanted): &(String, StringMatch)| proto::HeaderMatcher {
        name: name.clone(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text::encode_string_match(wanted))),
        ..Default::default()
    };
    proto::RetryPolicy {
        retry_on: policy.conditions.tokens(),
        num_retries: encode_number(policy.retries),
        per_try_timeout: policy.per_try_timeout.map(encode_duration),
        retry_host_predicate: if policy.avoid_previous_hosts { vec![predicate] } else { Vec::new() },
        host_selection_retry_max_attempts: policy.host_picks.into(),
        retriable_status_codes: policy
            .conditions
            .status_codes
            .iter()
            .flatten()
            .map(|c| u32::from(*c))
            .collect(),
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(encode_duration(policy.back_off_base)),
            max_interval: Some(encode_duration(policy.back_off_max)),
        }),
        retriable_headers: policy.conditions.response_headers.iter().map(header).collect(),
        ..Default::default()
    }
}
