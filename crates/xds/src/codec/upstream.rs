//! The HTTP version spoken to a cluster, and how long an idle connection is kept: in the new way
//! (`typed_extension_protocol_options`) and the old (fields of the cluster itself).

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_limit, encode_limit, pack, type_name, unpack};
use super::{affinity, header_case, upstream_rules};
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options as options,
};
use envoy_types::pb::google::protobuf::Any;
use model::affinity::HashPolicy;
use model::cluster::{Cluster, Connections, UpstreamHttp};
use model::listener::Underscores;
use options::explicit_http_config::ProtocolConfig;
use options::{ExplicitHttpConfig, UpstreamProtocolOptions};
use std::collections::HashMap;
use std::time::Duration;

/// What Envoy takes for a cluster that says nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The fields of a cluster that speak of HTTP.
pub(crate) struct Options<'c> {
    pub(crate) typed: &'c HashMap<String, Any>,
    pub(crate) upstream: &'c Option<core_proto::UpstreamHttpProtocolOptions>,
    pub(crate) common: &'c Option<core_proto::HttpProtocolOptions>,
    pub(crate) http1: &'c Option<core_proto::Http1ProtocolOptions>,
    pub(crate) http2: &'c Option<core_proto::Http2ProtocolOptions>,
    pub(crate) as_downstream: bool,
}

/// What a cluster says of HTTP.
pub(crate) struct Spoken {
    pub(crate) http: UpstreamHttp,
    pub(crate) idle_timeout: Option<Duration>,
    /// What connections are like, as far as it is about HTTP.
    pub(crate) connections: Connections,
    /// Statuses that are errors.
    pub(crate) error_statuses: Vec<u16>,
    pub(crate) hash_policies: Vec<HashPolicy>,
}

pub(crate) fn decode(place: &Place<'_>, given: Options<'_>) -> Decoded<Spoken> {
    let mut keys: Vec<&String> = given.typed.keys().collect();
    keys.sort();
    let mut spoken = None;
    for key in keys {
        let place = place.key("typed_extension_protocol_options", key);
        match given.typed.get(key) {
            Some(any) if type_name(any) == KEY => spoken = Some(decode_typed(&place, &unpack(&place, any)?)?),
            Some(any) => return Err(place.unsupported(format_args!("type {}", any.type_url))),
            None => {}
        }
    }
    if let Some(spoken) = spoken {
        return Ok(spoken);
    }
    check_upstream(&place.field("upstream_http_protocol_options"), given.upstream)?;
    check_http1(&place.field("http_protocol_options"), given.http1)?;
    check_http2(&place.field("http2_protocol_options"), given.http2)?;
    let http = match (given.as_downstream, given.http2) {
        (true, _) => UpstreamHttp::AsDownstream,
        (false, Some(_)) => UpstreamHttp::Http2,
        (false, None) => UpstreamHttp::Http1,
    };
    let mut spoken = decode_common(&place.field("common_http_protocol_options"), given.common, http)?;
    let connections = &mut spoken.connections;
    connections.header_case = header_case::decode(&place.field("http_protocol_options"), given.http1)?;
    upstream_rules::decode_http2(&place.field("http2_protocol_options"), given.http2, connections)?;
    Ok(spoken)
}

fn decode_typed(place: &Place<'_>, typed: &HttpProtocolOptions) -> Decoded<Spoken> {
    fields!(place, typed => HttpProtocolOptions {
        honoured: common_http_protocol_options, upstream_http_protocol_options, http_filters,
            upstream_protocol_options, outlier_detection, hash_policy;
        ignored: ;
        refused: header_validation_config, request_mirror_policies, retry_policy;
    });
    check_upstream(&place.field("upstream_http_protocol_options"), upstream_http_protocol_options)?;
    let mut connections = Connections::default();
    for (i, filter) in http_filters.iter().enumerate() {
        check_filter(&place.item("http_filters", i), filter)?;
    }
    let http = match upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            let place = place.field("explicit_http_config");
            match &explicit.protocol_config {
                None => UpstreamHttp::Http1,
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => {
                    let (place, http1) = (place.field("http_protocol_options"), Some(http1.clone()));
                    check_http1(&place, &http1)?;
                    connections.header_case = header_case::decode(&place, &http1)?;
                    UpstreamHttp::Http1
                }
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    let (place, http2) = (place.field("http2_protocol_options"), Some(http2.clone()));
                    check_http2(&place, &http2)?;
                    upstream_rules::decode_http2(&place, &http2, &mut connections)?;
                    UpstreamHttp::Http2
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    return Err(place.field("http3_protocol_options").unsupported("HTTP/3"));
                }
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(same)) => {
            let place = place.field("use_downstream_protocol_config");
            let http1 = place.field("http_protocol_options");
            check_http1(&http1, &same.http_protocol_options)?;
            connections.header_case = header_case::decode(&http1, &same.http_protocol_options)?;
            let http2 = place.field("http2_protocol_options");
            check_http2(&http2, &same.http2_protocol_options)?;
            upstream_rules::decode_http2(&http2, &same.http2_protocol_options, &mut connections)?;
            place.refuse("http3_protocol_options", &same.http3_protocol_options)?;
            UpstreamHttp::AsDownstream
        }
        Some(UpstreamProtocolOptions::AutoConfig(auto)) => {
            let place = place.field("auto_config");
            let http1 = place.field("http_protocol_options");
            check_http1(&http1, &auto.http_protocol_options)?;
            connections.header_case = header_case::decode(&http1, &auto.http_protocol_options)?;
            let http2 = place.field("http2_protocol_options");
            check_http2(&http2, &auto.http2_protocol_options)?;
            upstream_rules::decode_http2(&http2, &auto.http2_protocol_options, &mut connections)?;
            place.refuse("http3_protocol_options", &auto.http3_protocol_options)?;
            UpstreamHttp::Alpn
        }
        None => UpstreamHttp::Http1,
    };
    let common = place.field("common_http_protocol_options");
    let common = decode_common(&common, common_http_protocol_options, http)?;
    let Connections { max_requests, max_duration, .. } = common.connections;
    let error_statuses = upstream_rules::decode_errors(&place.field("outlier_detection"), outlier_detection)?;
    let connections = Connections { max_requests, max_duration, ..connections };
    let hash_policies = affinity::decode(place, hash_policy)?;
    Ok(Spoken { connections, error_statuses, hash_policies, ..common })
}

/// Towards a cluster only the filter that every chain has to end with.
fn check_filter(place: &Place<'_>, filter: &HttpFilter) -> Decoded<()> {
    let type_url = match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(any)) => any.type_url.as_str(),
        _ => "unknown",
    };
    let codec = type_url.ends_with("/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec");
    match codec || filter.is_optional || filter.disabled {
        true => Ok(()),
        false => Err(place.unsupported(format_args!("filter `{}` (type {type_url})", filter.name))),
    }
}

fn check_upstream(
    place: &Place<'_>,
    upstream: &Option<core_proto::UpstreamHttpProtocolOptions>,
) -> Decoded<()> {
    let Some(upstream) = upstream else { return Ok(()) };
    fields!(place, upstream => core_proto::UpstreamHttpProtocolOptions {
        honoured: ;
        ignored: override_auto_sni_header;
        refused: auto_sni, auto_san_validation;
    });
    Ok(())
}

/// The limits of connections; those of streams have to be absent.
fn decode_common(
    place: &Place<'_>,
    common: &Option<core_proto::HttpProtocolOptions>,
    http: UpstreamHttp,
) -> Decoded<Spoken> {
    let Some(common) = common else {
        let (connections, error_statuses, hash_policies) = Default::default();
        let idle_timeout = Some(IDLE_TIMEOUT);
        return Ok(Spoken { http, idle_timeout, connections, error_statuses, hash_policies });
    };
    let limits = decode_limits(place, common)?;
    value::refuse_limit(place, "max_stream_duration", &common.max_stream_duration)?;
    place.refuse("headers_with_underscores_action", &common.headers_with_underscores_action)?;
    let connections = Connections {
        max_requests: limits.max_requests_per_connection,
        max_duration: limits.max_connection_duration,
        ..Connections::default()
    };
    let (error_statuses, hash_policies) = Default::default();
    Ok(Spoken { http, idle_timeout: limits.idle_timeout, connections, error_statuses, hash_policies })
}

/// Limits of connections.
pub(crate) struct ConnectionLimits {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) max_stream_duration: Option<Duration>,
    pub(crate) max_requests_per_connection: Option<u32>,
    pub(crate) underscores: Underscores,
}

pub(crate) fn decode_limits(
    place: &Place<'_>,
    common: &core_proto::HttpProtocolOptions,
) -> Decoded<ConnectionLimits> {
    fields!(place, common => core_proto::HttpProtocolOptions {
        honoured: idle_timeout, max_connection_duration, max_stream_duration, max_requests_per_connection,
            headers_with_underscores_action;
        // Heads are bounded by limits of our own.
        ignored: max_headers_count, max_response_headers_kb, max_connection_duration_jitter;
        refused: ;
    });
    use core_proto::http_protocol_options::HeadersWithUnderscoresAction as Action;
    let limit = |name: &str, duration, default| decode_limit(&place.field(name), duration, default);
    Ok(ConnectionLimits {
        idle_timeout: limit("idle_timeout", idle_timeout, Some(IDLE_TIMEOUT))?,
        max_connection_duration: limit("max_connection_duration", max_connection_duration, None)?,
        max_stream_duration: limit("max_stream_duration", max_stream_duration, None)?,
        max_requests_per_connection: max_requests_per_connection.map(|max| max.value).filter(|max| *max != 0),
        underscores: match Action::try_from(*headers_with_underscores_action) {
            Ok(Action::Allow) => Underscores::Keep,
            Ok(Action::RejectRequest) => Underscores::Reject,
            Ok(Action::DropHeader) => Underscores::Drop,
            Err(_) => {
                let place = place.field("headers_with_underscores_action");
                return Err(place.unsupported(format_args!("action {headers_with_underscores_action}")));
            }
        },
    })
}

pub(crate) fn check_http1(
    place: &Place<'_>,
    http1: &Option<core_proto::Http1ProtocolOptions>,
) -> Decoded<()> {
    let Some(http1) = http1 else { return Ok(()) };
    fields!(place, http1 => core_proto::Http1ProtocolOptions {
        honoured: ;
        checked: header_key_format;
        // HTTP/1.0 is served whatever is said; so are trailers.
        ignored: allow_absolute_url, accept_http_10, enable_trailers,
            override_stream_error_on_invalid_http_message, use_balsa_parser, allow_custom_methods;
        refused: default_host_for_http_10, allow_chunked_length, send_fully_qualified_url, ignore_http_11_upgrade;
    });
    Ok(())
}

pub(crate) fn check_http2(
    place: &Place<'_>,
    http2: &Option<core_proto::Http2ProtocolOptions>,
) -> Decoded<()> {
    let Some(http2) = http2 else { return Ok(()) };
    fields!(place, http2 => core_proto::Http2ProtocolOptions {
        honoured: ;
        // Windows, tables, budgets and pings are bounded by limits of our own; CONNECT is allowed by upgrades.
        ignored: hpack_table_size, max_concurrent_streams, initial_stream_window_size,
            initial_connection_window_size, allow_connect, max_outbound_frames, max_outbound_control_frames,
            max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream,
            max_inbound_window_update_frames_per_data_frame_sent, stream_error_on_invalid_http_messaging,
            override_stream_error_on_invalid_http_message, connection_keepalive, use_oghttp2_codec,
            max_metadata_size, enable_huffman_encoding, max_header_field_size_kb, disallow_obs_text,
            stream_reset_burst, stream_reset_rate;
        refused: allow_metadata, custom_settings_parameters;
    });
    Ok(())
}

pub(crate) fn encode(cluster: &Cluster) -> HashMap<String, Any> {
    let Cluster { http, idle_timeout, connections, .. } = cluster;
    let http1 = || core_proto::Http1ProtocolOptions {
        header_key_format: header_case::encode(connections.header_case),
        ..Default::default()
    };
    // So that an upgrade can be passed on over HTTP/2, as extended CONNECT.
    let http2 = core_proto::Http2ProtocolOptions { allow_connect: true, ..Default::default() };
    let http2 = || upstream_rules::encode_http2(connections, http2.clone());
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let protocol = match http {
        UpstreamHttp::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1())),
        UpstreamHttp::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        UpstreamHttp::AsDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(options::UseDownstreamHttpConfig {
                http_protocol_options: Some(http1()),
                http2_protocol_options: Some(http2()),
                ..Default::default()
            })
        }
        UpstreamHttp::Alpn => UpstreamProtocolOptions::AutoConfig(options::AutoHttpConfig {
            http_protocol_options: Some(http1()),
            http2_protocol_options: Some(http2()),
            ..Default::default()
        }),
    };
    let typed = HttpProtocolOptions {
        common_http_protocol_options: Some(core_proto::HttpProtocolOptions {
            idle_timeout: encode_limit(*idle_timeout),
            max_requests_per_connection: connections.max_requests.and_then(value::encode_number),
            max_connection_duration: connections.max_duration.map(value::encode_duration),
            ..Default::default()
        }),
        upstream_protocol_options: Some(protocol),
        hash_policy: cluster.hash_policies.iter().map(affinity::encode).collect(),
        outlier_detection: upstream_rules::encode_errors(&cluster.error_statuses),
        ..Default::default()
    };
    HashMap::from([(KEY.to_owned(), pack(&typed))])
}
