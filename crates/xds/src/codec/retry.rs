//! Retry policies.

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_duration, decode_limit, encode_duration, encode_number};
use super::{affinity, headers, text, wire_order};
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::extensions::retry::host::omit_canary_hosts::v3::OmitCanaryHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use model::header::HeaderTest;
use model::matcher::StringMatch;
use model::retry::{
    BACK_OFF_BASE, RESET_MAX, ResetBackOff, ResetFormat, RetryConditions, RetryExtras, RetryPolicy,
};
use proto::header_matcher::HeaderMatchSpecifier;
use proto::retry_policy::{
    ResetHeader, ResetHeaderFormat, RetryBackOff, RetryHostPredicate, RetryPriority,
    retry_host_predicate::ConfigType, retry_priority,
};

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
const OMIT_CANARIES: &str = "envoy.retry_host_predicates.omit_canary_hosts";
const OMIT_METADATA: &str = "envoy.retry_host_predicates.omit_host_metadata";

pub(crate) fn decode(place: &Place<'_>, policy: &proto::RetryPolicy) -> Decoded<RetryPolicy> {
    fields!(place, policy => proto::RetryPolicy {
        honoured: retry_on, num_retries, per_try_timeout, retry_host_predicate, host_selection_retry_max_attempts,
            retriable_status_codes, retry_back_off, retriable_headers, per_try_idle_timeout,
            rate_limited_retry_back_off, retriable_request_headers, retry_priority;
        ignored: ;
        refused: retry_options_predicates, refresh_cluster_on_retry;
    });
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
    let mut avoid_previous_hosts = false;
    let request_header = |(i, m)| headers::decode_match(&place.item("retriable_request_headers", i), m);
    let mut more = RetryExtras {
        request_headers: retriable_request_headers
            .iter()
            .enumerate()
            .map(request_header)
            .collect::<Decoded<_>>()?,
        per_try_idle_timeout: decode_limit(&place.field("per_try_idle_timeout"), per_try_idle_timeout, None)?,
        reset: decode_reset(&place.field("rate_limited_retry_back_off"), rate_limited_retry_back_off)?,
        leaves_priorities_after: decode_priority(&place.field("retry_priority"), retry_priority)?,
        ..RetryExtras::default()
    };
    for (i, predicate) in retry_host_predicate.iter().enumerate() {
        let place = place.item("retry_host_predicate", i);
        decode_predicate(&place, predicate, &mut avoid_previous_hosts, &mut more)?;
    }
    Ok(RetryPolicy {
        conditions,
        retries: num_retries.map_or(1, |n| n.value),
        per_try_timeout: decode_limit(&place.field("per_try_timeout"), per_try_timeout, None)?,
        back_off_base,
        back_off_max,
        avoid_previous_hosts,
        host_picks: u32::try_from(*host_selection_retry_max_attempts).unwrap_or(u32::MAX).max(1),
        more: (more != RetryExtras::default()).then(|| Box::new(more)),
    })
}

/// The one way there is to choose between priorities.
fn decode_priority(place: &Place<'_>, priority: &Option<RetryPriority>) -> Decoded<Option<u32>> {
    let Some(RetryPriority { name, config_type }) = priority else { return Ok(None) };
    let Some(retry_priority::ConfigType::TypedConfig(any)) = config_type else {
        return Err(place.unsupported(format_args!("priority `{name}`")));
    };
    if !value::type_name(any).ends_with(".PreviousPrioritiesConfig") {
        return Err(place.unsupported(format_args!("priority `{name}` (type {})", any.type_url)));
    }
    let place = place.field("typed_config");
    let PreviousPrioritiesConfig { update_frequency } = value::unpack(&place, any)?;
    Ok(Some(u32::try_from(update_frequency).unwrap_or(1).max(1)))
}

fn encode_priority(after: u32) -> RetryPriority {
    let config = PreviousPrioritiesConfig { update_frequency: i32::try_from(after).unwrap_or(i32::MAX) };
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(value::pack(&config))),
    }
}

fn decode_predicate(
    place: &Place<'_>,
    predicate: &RetryHostPredicate,
    avoid_previous_hosts: &mut bool,
    more: &mut RetryExtras,
) -> Decoded<()> {
    let any = predicate.config_type.as_ref().map(|ConfigType::TypedConfig(any)| any);
    let kind = any.map(value::type_name).and_then(|name| name.rsplit('.').next());
    match (kind, predicate.name.as_str(), any) {
        (Some("PreviousHostsPredicate"), _, _) | (None, PREVIOUS_HOSTS, _) => *avoid_previous_hosts = true,
        (Some("OmitCanaryHostsPredicate"), _, _) | (None, OMIT_CANARIES, _) => more.omit_canaries = true,
        (Some("OmitHostMetadataConfig"), _, Some(any)) => {
            let config: OmitHostMetadataConfig = value::unpack(&place.field("typed_config"), any)?;
            more.omit = affinity::decode_subset(&config.metadata_match);
        }
        _ => return Err(place.unsupported(format_args!("predicate `{}`", predicate.name))),
    }
    Ok(())
}

fn decode_reset(
    place: &Place<'_>,
    back_off: &Option<proto::retry_policy::RateLimitedRetryBackOff>,
) -> Decoded<Option<ResetBackOff>> {
    let Some(back_off) = back_off else { return Ok(None) };
    let header = |(i, header): (usize, &ResetHeader)| {
        let place = place.item("reset_headers", i);
        let format = match ResetHeaderFormat::try_from(header.format) {
            Ok(ResetHeaderFormat::Seconds) => ResetFormat::Seconds,
            Ok(ResetHeaderFormat::UnixTimestamp) => ResetFormat::UnixTimestamp,
            Err(_) => return Err(place.field("format").unsupported(header.format)),
        };
        Ok((headers::decode_plain_name(&place.field("name"), &header.name)?, format))
    };
    let headers = back_off.reset_headers.iter().enumerate().map(header).collect::<Decoded<Vec<_>>>()?;
    if headers.is_empty() {
        return Err(place.field("reset_headers").error("at least one is required"));
    }
    let max = back_off.max_interval.as_ref();
    let max = max.map(|max| decode_duration(&place.field("max_interval"), max)).transpose()?;
    Ok(Some(ResetBackOff { headers, max: max.unwrap_or(RESET_MAX) }))
}

fn encode_reset(reset: &ResetBackOff) -> proto::retry_policy::RateLimitedRetryBackOff {
    let header = |(name, format): &(http::HeaderName, ResetFormat)| ResetHeader {
        name: name.as_str().to_owned(),
        format: match format {
            ResetFormat::Seconds => ResetHeaderFormat::Seconds,
            ResetFormat::UnixTimestamp => ResetHeaderFormat::UnixTimestamp,
        } as i32,
    };
    proto::retry_policy::RateLimitedRetryBackOff {
        reset_headers: reset.headers.iter().map(header).collect(),
        max_interval: Some(encode_duration(reset.max)),
    }
}

/// In the order in which they are asked.
fn encode_predicates(policy: &RetryPolicy) -> Vec<RetryHostPredicate> {
    let predicate = |name: &str, any| RetryHostPredicate {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any)),
    };
    let mut all = Vec::new();
    if policy.avoid_previous_hosts {
        all.push(predicate(PREVIOUS_HOSTS, value::pack(&PreviousHostsPredicate {})));
    }
    let Some(more) = &policy.more else { return all };
    if more.omit_canaries {
        all.push(predicate(OMIT_CANARIES, value::pack(&OmitCanaryHostsPredicate {})));
    }
    if !more.omit.is_empty() {
        let config = OmitHostMetadataConfig { metadata_match: affinity::encode_subset(&more.omit) };
        all.push(predicate(OMIT_METADATA, value::pack_ordered(&config, &wire_order::OMIT_HOSTS)));
    }
    all
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
    let header = |(name, wanted): &(String, StringMatch)| proto::HeaderMatcher {
        name: name.clone(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text::encode_string_match(wanted))),
        ..Default::default()
    };
    proto::RetryPolicy {
        retry_on: policy.conditions.tokens(),
        num_retries: encode_number(policy.retries),
        per_try_timeout: policy.per_try_timeout.map(encode_duration),
        retry_host_predicate: encode_predicates(policy),
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
        per_try_idle_timeout: policy.per_try_idle_timeout().map(encode_duration),
        retry_priority: policy.more.iter().find_map(|more| more.leaves_priorities_after.map(encode_priority)),
        rate_limited_retry_back_off: policy
            .more
            .iter()
            .find_map(|more| more.reset.as_ref().map(encode_reset)),
        retriable_request_headers: policy
            .more
            .iter()
            .flat_map(|more| more.request_headers.iter().map(headers::encode_match))
            .collect(),
        ..Default::default()
    }
}
