//! HTTP on a connection (`HttpConnectionManager`) and its filters.

use super::place::{Decoded, Place, fields};
use super::upstream::{check_http1, check_http2, decode_limits};
use super::value::{self, decode_limit, encode_flag, encode_limit, flag, flag_or, type_name, unpack};
use super::{access_log, authorization, filter, route, wire_order};
use core_proto::http_protocol_options::HeadersWithUnderscoresAction as UnderscoresAction;
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;
use model::filter::{HttpFilters, Placed};
use model::listener::{Codec, HttpConnectionManager, RouteSource, Tracing, Underscores};
use model::path::{EscapedSlashes, PathNormalization};
use model::route::Upgrade;
use prost::{Message, Name};
use proto::http_connection_manager::{
    self as manager, CodecType, PathWithEscapedSlashesAction as Slashes, RouteSpecifier,
    ServerHeaderTransformation as ServerHeader,
};
use proto::http_filter::ConfigType;
use std::time::Duration;

/// What Envoy takes for a manager that says nothing.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const SERVER_NAME: &str = "envoy";

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
/// Istio's filter that counts requests; Envoy as it comes does not know it and passes over it.
const STATS: &str = "istio.stats";
const STATS_TYPE: &str = "stats.PluginConfig";

pub(crate) fn decode(
    place: &Place<'_>,
    http: &proto::HttpConnectionManager,
) -> Decoded<HttpConnectionManager> {
    fields!(place, http => proto::HttpConnectionManager {
        honoured: codec_type, stat_prefix, http_filters, tracing, common_http_protocol_options, server_name,
            server_header_transformation, stream_idle_timeout, access_log, use_remote_address,
            xff_num_trusted_hops, preserve_external_request_id, upgrade_configs, normalize_path, merge_slashes,
            path_with_escaped_slashes_action, route_specifier, request_timeout, request_headers_timeout;
        checked: add_user_agent, http_protocol_options, http2_protocol_options, access_log_flush_interval, generate_request_id, request_id_extension,
            strip_port_mode;
        // How connections end, and bounds on heads, are ours; nothing here depends on who counts as internal; the
        // details of a client's certificate are only told where it is to be forwarded, which is refused.
        ignored: http1_safe_max_connection_duration, max_request_headers_kb, stream_flush_timeout, drain_timeout,
            drain_timeout_jitter, delayed_close_timeout, internal_address_config, set_current_client_cert_details,
            stream_error_on_invalid_http_message, append_local_overload, add_proxy_protocol_connection_state;
        refused: http3_protocol_options, scheme_header_transformation, flush_access_log_on_new_request,
            access_log_options, original_ip_detection_extensions, early_header_mutation_extensions,
            skip_xff_append, via, proxy_100_continue, always_set_request_id_in_response, forward_client_cert_details,
            forward_client_cert_matcher, represent_ipv4_remote_address_as_ipv4_mapped_ipv6, local_reply_config,
            strip_matching_host_port, path_normalization_options, strip_trailing_host_dot, proxy_status_config,
            typed_header_validation_config, append_x_forwarded_port, forward_proto_config;
    });
    check(place, http)?;
    let path = PathNormalization {
        normalize: flag(normalize_path),
        merge_slashes: *merge_slashes,
        escaped_slashes: decode_slashes(place, *path_with_escaped_slashes_action)?,
    };
    let limits = decode_limits(
        &place.field("common_http_protocol_options"),
        common_http_protocol_options.as_ref().unwrap_or(&core_proto::HttpProtocolOptions::default()),
    )?;
    let found = decode_filters(place, http_filters)?;
    let upgrade = |(i, config)| decode_upgrade(&place.item("upgrade_configs", i), config);
    let tracing = tracing.as_ref().map(|tracing| decode_tracing(&place.field("tracing"), tracing));
    Ok(HttpConnectionManager {
        stat_prefix: stat_prefix.clone(),
        codec: match CodecType::try_from(*codec_type) {
            Ok(CodecType::Auto) => Codec::Auto,
            Ok(CodecType::Http1) => Codec::Http1,
            Ok(CodecType::Http2) => Codec::Http2,
            _ => return Err(place.field("codec_type").unsupported(format_args!("codec {codec_type}"))),
        },
        routes: decode_routes(place, route_specifier)?,
        path,
        edge: flag(use_remote_address),
        trusted_hops: *xff_num_trusted_hops,
        upgrades: upgrade_configs.iter().enumerate().map(upgrade).collect::<Decoded<_>>()?,
        stream_idle_timeout: decode_limit(
            &place.field("stream_idle_timeout"),
            stream_idle_timeout,
            Some(STREAM_IDLE_TIMEOUT),
        )?,
        idle_timeout: limits.idle_timeout,
        max_stream_duration: limits.max_stream_duration,
        max_connection_duration: limits.max_connection_duration,
        max_requests_per_connection: limits.max_requests_per_connection,
        underscores: limits.underscores,
        request_timeout: decode_limit(&place.field("request_timeout"), request_timeout, None)?,
        request_headers_timeout: decode_limit(
            &place.field("request_headers_timeout"),
            request_headers_timeout,
            None,
        )?,
        server_name: decode_server(place, *server_header_transformation, server_name)?,
        keep_request_id: *preserve_external_request_id,
        tracing: tracing.transpose()?,
        stats: found.stats,
        filters: found.filters,
        access_logs: access_log::decode(place, access_log)?,
    })
}

/// What is only taken as it is, or when it says nothing.
fn check(place: &Place<'_>, http: &proto::HttpConnectionManager) -> Decoded<()> {
    place.refuse("add_user_agent", &flag(&http.add_user_agent))?;
    value::refuse_limit(place, "access_log_flush_interval", &http.access_log_flush_interval)?;
    if let Some(manager::StripPortMode::StripAnyHostPort(strip)) = &http.strip_port_mode {
        place.refuse("strip_any_host_port", strip)?;
    }
    if !flag_or(&http.generate_request_id, true) {
        return Err(place.field("generate_request_id").unsupported("a request without an id"));
    }
    check_request_id(&place.field("request_id_extension"), &http.request_id_extension)?;
    check_http1(&place.field("http_protocol_options"), &http.http_protocol_options)?;
    check_http2(&place.field("http2_protocol_options"), &http.http2_protocol_options)
}

fn decode_slashes(place: &Place<'_>, action: i32) -> Decoded<EscapedSlashes> {
    match Slashes::try_from(action) {
        Ok(Slashes::ImplementationSpecificDefault | Slashes::KeepUnchanged) => Ok(EscapedSlashes::Keep),
        Ok(Slashes::RejectRequest) => Ok(EscapedSlashes::Reject),
        Ok(Slashes::UnescapeAndForward) => Ok(EscapedSlashes::Unescape),
        Ok(Slashes::UnescapeAndRedirect) => Ok(EscapedSlashes::Redirect),
        Err(_) => {
            Err(place.field("path_with_escaped_slashes_action").unsupported(format_args!("action {action}")))
        }
    }
}

fn decode_server(place: &Place<'_>, transformation: i32, name: &str) -> Decoded<Option<String>> {
    match ServerHeader::try_from(transformation) {
        Ok(ServerHeader::Overwrite) => {
            Ok(Some(if name.is_empty() { SERVER_NAME.to_owned() } else { name.to_owned() }))
        }
        Ok(ServerHeader::PassThrough) => Ok(None),
        _ => Err(place.field("server_header_transformation").unsupported("APPEND_IF_ABSENT")),
    }
}

fn decode_routes(place: &Place<'_>, routes: &Option<RouteSpecifier>) -> Decoded<RouteSource> {
    match routes {
        Some(RouteSpecifier::RouteConfig(table)) => {
            route::decode(&place.field("route_config"), table, true).map(RouteSource::Inline)
        }
        Some(RouteSpecifier::Rds(rds)) => {
            let place = place.field("rds");
            value::check_config_source(&place.field("config_source"), &rds.config_source)?;
            match rds.route_config_name.is_empty() {
                true => Err(place.field("route_config_name").error("this field is required")),
                false => Ok(RouteSource::Rds(rds.route_config_name.clone())),
            }
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            Err(place.field("scoped_routes").unsupported("choosing among route tables"))
        }
        None => Err(place.error("nothing is said about where routes come from")),
    }
}

fn decode_upgrade(place: &Place<'_>, config: &manager::UpgradeConfig) -> Decoded<Upgrade> {
    fields!(place, config => manager::UpgradeConfig {
        honoured: upgrade_type, filters, enabled;
        ignored: ;
        refused: ;
    });
    // Its own chain may only be what every chain is here.
    if !filters.is_empty() {
        decode_filters(place, filters)?;
    }
    Ok(Upgrade { protocol: upgrade_type.clone(), enabled: flag_or(enabled, true), terminate_connect: false })
}

fn decode_tracing(place: &Place<'_>, tracing: &manager::Tracing) -> Decoded<Tracing> {
    fields!(place, tracing => manager::Tracing {
        honoured: client_sampling, random_sampling, overall_sampling;
        // Spans are not sent anywhere, so what they would carry does not matter.
        ignored: verbose, max_path_tag_length, custom_tags, spawn_upstream_span, operation, upstream_operation;
        refused: provider, no_context_propagation;
    });
    for (name, percent) in [("client_sampling", client_sampling), ("overall_sampling", overall_sampling)] {
        place.refuse(name, &percent.filter(|percent| percent.value != 100.0))?;
    }
    match random_sampling.map_or(100.0, |percent| percent.value) {
        share if (0.0..=100.0).contains(&share) => Ok(Tracing { random_sampling_percent: share }),
        share => Err(place.field("random_sampling").error(format_args!("{share} is no percentage"))),
    }
}

/// Ids are random UUIDs; this is also what the only extension that Envoy has makes.
fn check_request_id(place: &Place<'_>, extension: &Option<proto::RequestIdExtension>) -> Decoded<()> {
    match extension.as_ref().and_then(|extension| extension.typed_config.as_ref()) {
        Some(any) if type_name(any) != "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" => {
            Err(place.unsupported(format_args!("type {}", any.type_url)))
        }
        _ => Ok(()),
    }
}

/// What is in a filter chain beside the router.
#[derive(Default)]
struct Found {
    /// Requests are counted.
    stats: bool,
    filters: HttpFilters,
}

/// Every filter has to be known or optional, and the last one has to be the router.
fn decode_filters(place: &Place<'_>, filters: &[proto::HttpFilter]) -> Decoded<Found> {
    let (mut found, mut routed) = (Found::default(), false);
    for (i, filter) in filters.iter().enumerate() {
        let place = place.item("http_filters", i);
        fields!(place, filter => proto::HttpFilter {
            honoured: name, config_type, is_optional, disabled;
            ignored: ;
            refused: ;
        });
        if routed {
            return Err(
                place.error(format_args!("filter `{name}` stands behind the router, which comes last"))
            );
        }
        let any = match config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            _ if name == STATS => {
                found.stats |= !disabled;
                continue;
            }
            _ if *is_optional || *disabled => continue,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(place.field("config_discovery").unsupported("a filter that comes separately"));
            }
            None => return Err(place.unsupported(format_args!("filter `{name}` (no type)"))),
        };
        match type_name(any) {
            ROUTER => {
                let config = place.field("typed_config");
                check_router(&config, &unpack(&config, any)?)?;
                routed = true;
            }
            STATS_TYPE => found.stats |= !disabled,
            _ if name == STATS => found.stats |= !disabled,
            filter::CORS_TYPE => {
                check_placed(&place, name, filter::CORS, found.filters.cors.is_some())?;
                found.filters.cors = Some(Placed { config: (), disabled: *disabled });
            }
            authorization::RBAC_TYPE if !*disabled => {
                let config = place.field("typed_config");
                let rules = authorization::decode(&config, &unpack(&config, any)?)?;
                found.filters.authorization.extend(rules);
            }
            filter::FAULT_TYPE => {
                check_placed(&place, name, filter::FAULT, found.filters.fault.is_some())?;
                let config = place.field("typed_config");
                let config = filter::decode_fault(&config, &unpack(&config, any)?)?;
                found.filters.fault = Some(Box::new(Placed { config, disabled: *disabled }));
            }
            _ if *is_optional || *disabled => {}
            _ => return Err(place.unsupported(format_args!("filter `{name}` (type {})", any.type_url))),
        }
    }
    match routed {
        true => Ok(found),
        false => Err(place.field("http_filters").error("the last filter has to be the router")),
    }
}

/// Routes speak of a filter by its name, and know only one of a kind.
fn check_placed(place: &Place<'_>, name: &str, known: &str, again: bool) -> Decoded<()> {
    match (name == known, again) {
        (true, false) => Ok(()),
        (true, true) => Err(place.unsupported(format_args!("filter `{name}` a second time"))),
        (false, _) => Err(place.field("name").unsupported(format_args!("`{name}` for the filter `{known}`"))),
    }
}

fn check_router(place: &Place<'_>, router: &Router) -> Decoded<()> {
    fields!(place, router => Router {
        honoured: ;
        // Of the headers that Envoy adds on its own, only the number of the attempt is ever added, where asked for.
        ignored: dynamic_stats, start_child_span, suppress_envoy_headers, suppress_grpc_request_failure_code_stats,
            reject_connect_request_early_data;
        refused: upstream_log, upstream_log_options, strict_check_headers, respect_expected_rq_timeout,
            upstream_http_filters;
    });
    Ok(())
}

/// What an `Any` holds, in one byte string for one value.
pub(crate) fn pack(http: &proto::HttpConnectionManager) -> Any {
    Any {
        type_url: proto::HttpConnectionManager::type_url(),
        value: wire_order::ordered(&http.encode_to_vec(), &wire_order::HTTP),
    }
}

/// Only what gRPC clients read.
pub(crate) fn encode_bare(http: &HttpConnectionManager) -> proto::HttpConnectionManager {
    let router = proto::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(ConfigType::TypedConfig(value::pack(&Router::default()))),
        ..Default::default()
    };
    // Envoy refuses an empty prefix.
    let prefix = if http.stat_prefix.is_empty() { "http" } else { http.stat_prefix.as_str() };
    proto::HttpConnectionManager {
        stat_prefix: prefix.to_owned(),
        http_filters: vec![router],
        route_specifier: Some(match &http.routes {
            RouteSource::Inline(table) => RouteSpecifier::RouteConfig(route::encode(table)),
            RouteSource::Rds(name) => RouteSpecifier::Rds(proto::Rds {
                config_source: value::ads(),
                route_config_name: name.clone(),
            }),
        }),
        ..Default::default()
    }
}

pub(crate) fn encode(http: &HttpConnectionManager) -> proto::HttpConnectionManager {
    let mut bare = encode_bare(http);
    if http.stats {
        let any = Any { type_url: format!("type.googleapis.com/{STATS_TYPE}"), value: Vec::new() };
        let stats = proto::HttpFilter {
            name: STATS.to_owned(),
            is_optional: true,
            config_type: Some(ConfigType::TypedConfig(any)),
            ..Default::default()
        };
        bare.http_filters.insert(0, stats);
    }
    let mut filters = encode_filters(&http.filters);
    filters.append(&mut bare.http_filters);
    bare.http_filters = filters;
    let (transformation, server_name) = match &http.server_name {
        None => (ServerHeader::PassThrough, String::new()),
        Some(name) => (ServerHeader::Overwrite, name.clone()),
    };
    proto::HttpConnectionManager {
        codec_type: match http.codec {
            Codec::Auto => CodecType::Auto,
            Codec::Http1 => CodecType::Http1,
            Codec::Http2 => CodecType::Http2,
        } as i32,
        server_name,
        server_header_transformation: transformation as i32,
        normalize_path: encode_flag(http.path.normalize),
        merge_slashes: http.path.merge_slashes,
        path_with_escaped_slashes_action: match http.path.escaped_slashes {
            EscapedSlashes::Keep => Slashes::KeepUnchanged,
            EscapedSlashes::Reject => Slashes::RejectRequest,
            EscapedSlashes::Unescape => Slashes::UnescapeAndForward,
            EscapedSlashes::Redirect => Slashes::UnescapeAndRedirect,
        } as i32,
        use_remote_address: encode_flag(http.edge),
        xff_num_trusted_hops: http.trusted_hops,
        upgrade_configs: http.upgrades.iter().map(encode_upgrade).collect(),
        stream_idle_timeout: encode_limit(http.stream_idle_timeout),
        request_timeout: http.request_timeout.map(value::encode_duration),
        request_headers_timeout: http.request_headers_timeout.map(value::encode_duration),
        common_http_protocol_options: Some(core_proto::HttpProtocolOptions {
            idle_timeout: encode_limit(http.idle_timeout),
            headers_with_underscores_action: match http.underscores {
                Underscores::Keep => UnderscoresAction::Allow,
                Underscores::Reject => UnderscoresAction::RejectRequest,
                Underscores::Drop => UnderscoresAction::DropHeader,
            } as i32,
            max_connection_duration: http.max_connection_duration.map(value::encode_duration),
            max_stream_duration: http.max_stream_duration.map(value::encode_duration),
            max_requests_per_connection: http.max_requests_per_connection.and_then(value::encode_number),
            ..Default::default()
        }),
        // Old clients are served, and an upgrade may come over HTTP/2 as extended CONNECT.
        http_protocol_options: Some(core_proto::Http1ProtocolOptions {
            accept_http_10: true,
            ..Default::default()
        }),
        http2_protocol_options: Some(core_proto::Http2ProtocolOptions {
            allow_connect: http.upgrades.iter().any(|upgrade| upgrade.enabled),
            ..Default::default()
        }),
        preserve_external_request_id: http.keep_request_id,
        tracing: http.tracing.map(|tracing| manager::Tracing {
            random_sampling: Some(Percent { value: tracing.random_sampling_percent }),
            ..Default::default()
        }),
        access_log: http.access_logs.iter().map(access_log::encode).collect(),
        ..bare
    }
}

/// Filters in the order in which they run.
fn encode_filters(filters: &HttpFilters) -> Vec<proto::HttpFilter> {
    let filter = |name: &str, config, disabled| proto::HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        disabled,
        ..Default::default()
    };
    let cors = filters.cors.iter();
    let cors = cors.map(|placed| filter(filter::CORS, value::pack(&Cors {}), placed.disabled));
    let fault = filters.fault.iter().map(|placed| {
        filter(filter::FAULT, value::pack(&filter::encode_fault(&placed.config)), placed.disabled)
    });
    let rules = filters.authorization.iter();
    let rules = rules.map(|rules| filter(authorization::RBAC, authorization::encode(rules), false));
    cors.chain(rules).chain(fault).collect()
}

fn encode_upgrade(upgrade: &Upgrade) -> manager::UpgradeConfig {
    manager::UpgradeConfig {
        upgrade_type: upgrade.protocol.clone(),
        enabled: encode_flag(upgrade.enabled),
        ..Default::default()
    }
}
