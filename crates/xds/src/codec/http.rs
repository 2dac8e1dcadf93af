//! HTTP on a connection (`HttpConnectionManager`) and its filters.

use super::place::{Decoded, Place, fields};
use super::upstream::{check_http1, check_http2, decode_limits};
use super::value::{self, decode_limit, encode_flag, encode_limit, flag, flag_or, type_name};
use super::{access_log, header_case, http_filter, local_reply, mutation, route, wire_order};
use core_proto::http_protocol_options::HeadersWithUnderscoresAction as UnderscoresAction;
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;
use http_filter::{STATS, STATS_TYPE};
use manager::ForwardClientCertDetails as ClientCertProto;
use model::listener::{
    ClientCert, Codec, HeadLimits, HttpConnectionManager, RouteSource, Tracing, Underscores,
};
use model::path::{EscapedSlashes, PathNormalization};
use model::rewrite::{HostStripping, PortStripping};
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

pub(crate) fn decode(
    place: &Place<'_>,
    http: &proto::HttpConnectionManager,
) -> Decoded<HttpConnectionManager> {
    fields!(place, http => proto::HttpConnectionManager {
        honoured: codec_type, stat_prefix, http_filters, tracing, common_http_protocol_options, server_name,
            server_header_transformation, stream_idle_timeout, access_log, use_remote_address,
            xff_num_trusted_hops, preserve_external_request_id, upgrade_configs, normalize_path, merge_slashes,
            path_with_escaped_slashes_action, route_specifier, request_timeout, request_headers_timeout,
            local_reply_config, strip_matching_host_port, strip_port_mode, strip_trailing_host_dot,
            early_header_mutation_extensions, max_request_headers_kb, forward_client_cert_details,
            always_set_request_id_in_response, generate_request_id, skip_xff_append, via, http_protocol_options;
        checked: add_user_agent, http2_protocol_options, access_log_flush_interval, request_id_extension;
        // How connections end is ours; nothing here depends on who counts as internal; the details of a client's
        // certificate are only told where it is to be forwarded anew, which is refused.
        ignored: http1_safe_max_connection_duration, stream_flush_timeout, drain_timeout,
            drain_timeout_jitter, delayed_close_timeout, internal_address_config, set_current_client_cert_details,
            stream_error_on_invalid_http_message, append_local_overload, add_proxy_protocol_connection_state;
        refused: http3_protocol_options, scheme_header_transformation, flush_access_log_on_new_request,
            access_log_options, original_ip_detection_extensions, proxy_100_continue,
            forward_client_cert_matcher, represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            path_normalization_options, proxy_status_config,
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
    let found = http_filter::decode(place, http_filters)?;
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
        local_replies: local_reply::decode(&place.field("local_reply_config"), local_reply_config)?,
        stripping: HostStripping {
            port: match strip_port_mode {
                Some(manager::StripPortMode::StripAnyHostPort(true)) => PortStripping::Any,
                _ if *strip_matching_host_port => PortStripping::Matching,
                _ => PortStripping::Keep,
            },
            trailing_dot: *strip_trailing_host_dot,
        },
        early_edits: mutation::decode_early(place, early_header_mutation_extensions)?,
        heads: HeadLimits {
            kilobytes: max_request_headers_kb.map(|max| max.value),
            count: common_http_protocol_options
                .and_then(|common| common.max_headers_count)
                .map(|max| max.value),
        },
        header_case: header_case::decode(&place.field("http_protocol_options"), http_protocol_options)?,
        client_cert: decode_client_cert(place, *forward_client_cert_details)?,
        makes_request_id: flag_or(generate_request_id, true),
        returns_request_id: *always_set_request_id_in_response,
        keeps_forwarded_for: *skip_xff_append,
        via: via.clone(),
    })
}

/// What is only taken as it is, or when it says nothing.
fn check(place: &Place<'_>, http: &proto::HttpConnectionManager) -> Decoded<()> {
    place.refuse("add_user_agent", &flag(&http.add_user_agent))?;
    value::refuse_limit(place, "access_log_flush_interval", &http.access_log_flush_interval)?;
    check_request_id(&place.field("request_id_extension"), &http.request_id_extension)?;
    check_http1(&place.field("http_protocol_options"), &http.http_protocol_options)?;
    check_http2(&place.field("http2_protocol_options"), &http.http2_protocol_options)
}

/// Who proved what, told anew, would need facts of the certificate that are not kept.
fn decode_client_cert(place: &Place<'_>, details: i32) -> Decoded<ClientCert> {
    let place = place.field("forward_client_cert_details");
    match ClientCertProto::try_from(details) {
        Ok(ClientCertProto::Sanitize) => Ok(ClientCert::Sanitize),
        Ok(ClientCertProto::ForwardOnly) => Ok(ClientCert::ForwardOnly),
        Ok(ClientCertProto::AlwaysForwardOnly) => Ok(ClientCert::AlwaysForward),
        Ok(ClientCertProto::AppendForward) => Err(place.unsupported("APPEND_FORWARD")),
        Ok(ClientCertProto::SanitizeSet) => Err(place.unsupported("SANITIZE_SET")),
        Err(_) => Err(place.unsupported(details)),
    }
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
            let place = place.field("route_config");
            let table = route::decode(&place, table, true)?;
            // Hosts are asked for by the name of a table that came over RDS.
            place.refuse("vhds", &table.asks_for_hosts)?;
            Ok(RouteSource::Inline(table))
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
        http_filter::decode(place, filters)?;
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

/// The same, with the one filter besides that gRPC clients know.
pub(crate) fn encode_for_clients(http: &HttpConnectionManager) -> proto::HttpConnectionManager {
    let mut bare = encode_bare(http);
    let fault = http.filters.fault.clone();
    let mut filters = http_filter::encode(&model::filter::HttpFilters { fault, ..Default::default() });
    filters.append(&mut bare.http_filters);
    bare.http_filters = filters;
    bare
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
    let mut filters = http_filter::encode(&http.filters);
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
            max_headers_count: http.heads.count.and_then(value::encode_number),
            ..Default::default()
        }),
        // Old clients are served, and an upgrade may come over HTTP/2 as extended CONNECT.
        http_protocol_options: Some(core_proto::Http1ProtocolOptions {
            accept_http_10: true,
            header_key_format: header_case::encode(http.header_case),
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
        local_reply_config: local_reply::encode(&http.local_replies),
        strip_matching_host_port: http.stripping.port == PortStripping::Matching,
        strip_port_mode: (http.stripping.port == PortStripping::Any)
            .then_some(manager::StripPortMode::StripAnyHostPort(true)),
        strip_trailing_host_dot: http.stripping.trailing_dot,
        early_header_mutation_extensions: mutation::encode_early(&http.early_edits),
        max_request_headers_kb: http.heads.kilobytes.and_then(value::encode_number),
        forward_client_cert_details: match http.client_cert {
            ClientCert::Sanitize => ClientCertProto::Sanitize,
            ClientCert::ForwardOnly => ClientCertProto::ForwardOnly,
            ClientCert::AlwaysForward => ClientCertProto::AlwaysForwardOnly,
        } as i32,
        always_set_request_id_in_response: http.returns_request_id,
        generate_request_id: if http.makes_request_id { None } else { encode_flag(false) },
        skip_xff_append: http.keeps_forwarded_for,
        via: http.via.clone(),
        ..bare
    }
}

fn encode_upgrade(upgrade: &Upgrade) -> manager::UpgradeConfig {
    manager::UpgradeConfig {
        upgrade_type: upgrade.protocol.clone(),
        enabled: encode_flag(upgrade.enabled),
        ..Default::default()
    }
}
