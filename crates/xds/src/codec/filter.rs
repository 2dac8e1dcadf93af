//! HTTP filters beside the router: their configurations, and what tables, hosts and routes say of them.

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_duration, encode_duration, encode_flag, flag, flag_or, type_name, unpack};
use super::{condition, headers, mutation, on_demand, small_filter, text};
use envoy_types::pb::envoy::config::route::v3 as route_proto;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_proto;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault_proto;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::HeaderMutationPerRoute;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use fault_delay::FaultDelaySecifier as DelayKind;
use fault_proto::fault_abort::{ErrorType, HeaderAbort};
use model::cors::Cors;
use model::fault::{Abort, AbortAnswer, Delay, DelayTime, Fault};
use model::filter::{FilterSettings, Setting};
use model::fraction::Fraction;
use std::collections::HashMap;

pub(crate) const CORS: &str = "envoy.filters.http.cors";
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
/// The filter itself; what it does is said by tables, hosts and routes.
pub(crate) const CORS_TYPE: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const CORS_POLICY_TYPE: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
pub(crate) const FAULT_TYPE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const WRAPPER_TYPE: &str = "envoy.config.route.v3.FilterConfig";

/// Reads `typed_per_filter_config`. Fails where a filter that is not there is told what to do, unless it is said that this
/// does not matter.
pub(crate) fn decode_settings(
    place: &Place<'_>,
    configs: &HashMap<String, Any>,
) -> Decoded<Option<Box<FilterSettings>>> {
    let mut names: Vec<&String> = configs.keys().collect();
    names.sort();
    let mut settings = FilterSettings::default();
    for name in names {
        let Some(any) = configs.get(name) else { continue };
        decode_setting(&place.key("typed_per_filter_config", name), name, any, &mut settings)?;
    }
    Ok(settings.boxed())
}

fn decode_setting(place: &Place<'_>, name: &str, any: &Any, settings: &mut FilterSettings) -> Decoded<()> {
    let (mut any, mut is_optional, mut is_disabled) = (any.clone(), false, false);
    if type_name(&any) == WRAPPER_TYPE {
        let wrapper: route_proto::FilterConfig = unpack(place, &any)?;
        (is_optional, is_disabled) = (wrapper.is_optional, wrapper.disabled);
        any = wrapper.config.unwrap_or_default();
    }
    match (name, type_name(&any)) {
        (CORS, _) if is_disabled => settings.cors = Some(Setting::Disabled),
        (FAULT, _) if is_disabled => settings.fault = Some(Setting::Disabled),
        (small_filter::CSRF, _) if is_disabled => settings.csrf = Some(Setting::Disabled),
        (small_filter::BUFFER, _) if is_disabled => settings.buffer = Some(Setting::Disabled),
        (small_filter::SESSION, _) if is_disabled => settings.session = Some(Setting::Disabled),
        (mutation::NAME, _) if is_disabled => settings.mutations = Some(Setting::Disabled),
        (on_demand::NAME, _) if is_disabled => settings.on_demand = Some(Setting::Disabled),
        (CORS, CORS_POLICY_TYPE) => {
            settings.cors = Some(Setting::Use(decode_cors(place, &unpack(place, &any)?)?));
        }
        (FAULT, FAULT_TYPE) => {
            settings.fault = Some(Setting::Use(decode_fault(place, &unpack(place, &any)?)?));
        }
        (small_filter::CSRF, small_filter::CSRF_TYPE) => {
            settings.csrf = Some(Setting::Use(small_filter::decode_csrf(place, &unpack(place, &any)?)?));
        }
        (small_filter::BUFFER, small_filter::BUFFER_ROUTE_TYPE) => {
            settings.buffer = Some(small_filter::decode_buffer_setting(place, &unpack(place, &any)?)?);
        }
        (small_filter::SESSION, small_filter::SESSION_ROUTE_TYPE) => {
            settings.session = Some(small_filter::decode_session_setting(place, &unpack(place, &any)?)?);
        }
        (mutation::NAME, mutation::ROUTE_TYPE) => {
            let route: HeaderMutationPerRoute = unpack(place, &any)?;
            settings.mutations = Some(Setting::Use(mutation::decode_mutations(place, &route.mutations)?));
        }
        (on_demand::NAME, on_demand::ROUTE_TYPE) => {
            settings.on_demand = Some(on_demand::decode_setting(place, &unpack(place, &any)?)?);
        }
        _ if is_optional || is_disabled => {}
        _ => {
            let what = format_args!("configuration of filter `{name}` (type {})", any.type_url);
            return Err(place.unsupported(what));
        }
    }
    Ok(())
}

/// Fails where anything is said of filters.
pub(crate) fn refuse_settings(place: &Place<'_>, configs: &HashMap<String, Any>) -> Decoded<()> {
    match decode_settings(place, configs)? {
        None => Ok(()),
        Some(_) => {
            Err(place.field("typed_per_filter_config").unsupported("a filter's setting at this level"))
        }
    }
}

pub(crate) fn encode_settings(settings: Option<&FilterSettings>) -> HashMap<String, Any> {
    let Some(settings) = settings else { return HashMap::new() };
    let off = || value::pack(&route_proto::FilterConfig { disabled: true, ..Default::default() });
    fn any<T>(setting: &Option<Setting<T>>, off: impl Fn() -> Any, pack: impl Fn(&T) -> Any) -> Option<Any> {
        setting.as_ref().map(|setting| setting.used().map_or_else(off, pack))
    }
    let cors = any(&settings.cors, off, |cors| value::pack(&encode_cors(cors)));
    let fault = any(&settings.fault, off, |fault| value::pack(&encode_fault(fault)));
    let csrf = any(&settings.csrf, off, |csrf| value::pack(&small_filter::encode_csrf(csrf)));
    let buffer = any(&settings.buffer, off, |max| value::pack(&small_filter::encode_buffer_setting(*max)));
    let session =
        any(&settings.session, off, |session| value::pack(&small_filter::encode_session_setting(session)));
    let mutations = any(&settings.mutations, off, |m| value::pack(&mutation::encode_per_route(m)));
    let on_demand = any(&settings.on_demand, off, |o| value::pack(&on_demand::encode_setting(o)));
    [
        (CORS, cors),
        (FAULT, fault),
        (small_filter::CSRF, csrf),
        (small_filter::BUFFER, buffer),
        (small_filter::SESSION, session),
        (mutation::NAME, mutations),
        (on_demand::NAME, on_demand),
    ]
    .into_iter()
    .filter_map(|(name, config)| Some((name.to_owned(), config?)))
    .collect()
}

fn decode_cors(place: &Place<'_>, cors: &cors_proto::CorsPolicy) -> Decoded<Cors> {
    fields!(place, cors => cors_proto::CorsPolicy {
        honoured: allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age,
            allow_credentials, filter_enabled, shadow_enabled, allow_private_network_access,
            forward_not_matching_preflights;
        ignored: ;
        refused: ;
    });
    let origins = allow_origin_string_match.iter().enumerate();
    let origins =
        origins.map(|(i, m)| text::decode_string_match(&place.item("allow_origin_string_match", i), m));
    let share = filter_enabled.as_ref();
    let share = share.map(|f| condition::decode_fraction(&place.field("filter_enabled"), f));
    Ok(Cors {
        // Where only shadows are wanted, nothing is.
        share: match (share.transpose()?, shadow_enabled) {
            (Some(share), _) => share,
            (None, Some(_)) => Fraction { numerator: 0, denominator: 100 },
            (None, None) => Fraction::ALL,
        },
        origins: origins.collect::<Decoded<_>>()?,
        methods: allow_methods.clone(),
        headers: allow_headers.clone(),
        expose: expose_headers.clone(),
        max_age: max_age.clone(),
        credentials: flag(allow_credentials),
        private_network: flag(allow_private_network_access),
        forward_unmatched: flag_or(forward_not_matching_preflights, true),
    })
}

/// The policy as routes and hosts carried it before it was the filter's own.
pub(crate) fn decode_old_cors(place: &Place<'_>, cors: &route_proto::CorsPolicy) -> Decoded<Cors> {
    use route_proto::cors_policy::EnabledSpecifier;
    let cors = cors.clone();
    let new = cors_proto::CorsPolicy {
        allow_origin_string_match: cors.allow_origin_string_match,
        allow_methods: cors.allow_methods,
        allow_headers: cors.allow_headers,
        expose_headers: cors.expose_headers,
        max_age: cors.max_age,
        allow_credentials: cors.allow_credentials,
        filter_enabled: cors.enabled_specifier.map(|EnabledSpecifier::FilterEnabled(share)| share),
        shadow_enabled: cors.shadow_enabled,
        allow_private_network_access: cors.allow_private_network_access,
        forward_not_matching_preflights: cors.forward_not_matching_preflights,
    };
    decode_cors(place, &new)
}

fn encode_cors(cors: &Cors) -> cors_proto::CorsPolicy {
    cors_proto::CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(text::encode_string_match).collect(),
        allow_methods: cors.methods.clone(),
        allow_headers: cors.headers.clone(),
        expose_headers: cors.expose.clone(),
        max_age: cors.max_age.clone(),
        allow_credentials: cors.credentials.then(|| encode_flag(true)).flatten(),
        filter_enabled: (cors.share != Fraction::ALL).then(|| condition::encode_fraction(cors.share)),
        shadow_enabled: None,
        allow_private_network_access: cors.private_network.then(|| encode_flag(true)).flatten(),
        forward_not_matching_preflights: encode_flag(cors.forward_unmatched),
    }
}

pub(crate) fn decode_fault(place: &Place<'_>, fault: &fault_proto::HttpFault) -> Decoded<Fault> {
    fields!(place, fault => fault_proto::HttpFault {
        honoured: delay, abort, upstream_cluster, headers, max_active_faults, downstream_nodes;
        // There is no runtime that could say otherwise.
        ignored: delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
            max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
            disable_downstream_cluster_stats, filter_metadata;
        refused: response_rate_limit;
    });
    let delay = delay.as_ref().map(|delay| decode_delay(&place.field("delay"), delay));
    let abort = abort.as_ref().map(|abort| decode_abort(&place.field("abort"), abort));
    let header = |(i, m)| headers::decode_match(&place.item("headers", i), m);
    Ok(Fault {
        delay: delay.transpose()?,
        abort: abort.transpose()?,
        headers: headers.iter().enumerate().map(header).collect::<Decoded<_>>()?,
        upstream_cluster: upstream_cluster.clone(),
        max_active: max_active_faults.map(|max| max.value),
        downstream_nodes: downstream_nodes.clone(),
    })
}

fn decode_delay(place: &Place<'_>, delay: &FaultDelay) -> Decoded<Delay> {
    let time = match &delay.fault_delay_secifier {
        Some(DelayKind::FixedDelay(time)) => {
            DelayTime::Fixed(decode_duration(&place.field("fixed_delay"), time)?)
        }
        Some(DelayKind::HeaderDelay(_)) => DelayTime::Header,
        None => return Err(place.error("nothing is said about how long")),
    };
    let share = condition::decode_percent(&place.field("percentage"), delay.percentage.as_ref())?;
    Ok(Delay { time, share })
}

fn decode_abort(place: &Place<'_>, abort: &fault_proto::FaultAbort) -> Decoded<Abort> {
    fields!(place, abort => fault_proto::FaultAbort {
        honoured: percentage, error_type, response_body;
        ignored: ;
        refused: ;
    });
    let answer = match error_type {
        Some(ErrorType::HttpStatus(status)) => match u16::try_from(*status) {
            Ok(status @ 200..=599) => AbortAnswer::Http(status),
            _ => {
                let place = place.field("http_status");
                return Err(place.error(format_args!("{status} is no status from 200 to 599")));
            }
        },
        Some(ErrorType::GrpcStatus(status)) => AbortAnswer::Grpc(*status),
        Some(ErrorType::HeaderAbort(_)) => AbortAnswer::Header,
        None => return Err(place.error("nothing is said about the answer")),
    };
    let share = condition::decode_percent(&place.field("percentage"), percentage.as_ref())?;
    Ok(Abort { answer, share, body: response_body.clone() })
}

pub(crate) fn encode_fault(fault: &Fault) -> fault_proto::HttpFault {
    let delay = fault.delay.map(|delay| FaultDelay {
        percentage: Some(condition::encode_percent(delay.share)),
        fault_delay_secifier: Some(match delay.time {
            DelayTime::Fixed(time) => DelayKind::FixedDelay(encode_duration(time)),
            DelayTime::Header => DelayKind::HeaderDelay(fault_delay::HeaderDelay {}),
        }),
    });
    let abort = fault.abort.as_ref().map(|abort| fault_proto::FaultAbort {
        percentage: Some(condition::encode_percent(abort.share)),
        error_type: Some(match abort.answer {
            AbortAnswer::Http(status) => ErrorType::HttpStatus(status.into()),
            AbortAnswer::Grpc(status) => ErrorType::GrpcStatus(status),
            AbortAnswer::Header => ErrorType::HeaderAbort(HeaderAbort {}),
        }),
        response_body: abort.body.clone(),
    });
    fault_proto::HttpFault {
        delay,
        abort,
        upstream_cluster: fault.upstream_cluster.clone(),
        headers: fault.headers.iter().map(headers::encode_match).collect(),
        max_active_faults: fault.max_active.map(|value| UInt32Value { value }),
        downstream_nodes: fault.downstream_nodes.clone(),
        ..Default::default()
    }
}
