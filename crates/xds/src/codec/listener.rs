//! Listeners and their filter chains. What a chain does with bytes is `network`'s.

use super::place::{Decoded, Place, fields};
use super::value::{self, flag, flag_or, pack, type_name};
use super::{http, network, transport};
use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::listener::{http_inspector, proxy_protocol, tls_inspector};
use envoy_types::pb::google::protobuf::Any;
use model::endpoint::EndpointAddress;
use model::listener::{
    ChainMatch, Direction, FilterChain, HttpConnectionManager, Inspection, Listener, Network, ProxyHeader,
};
use proto::filter_chain_match::ConnectionSourceType;
use proto::listener_filter::ConfigType;
use std::net::SocketAddr;

const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
const PROXY_PROTOCOL: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const HTTP_INSPECTOR: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";

pub(crate) fn decode(place: &Place<'_>, listener: &proto::Listener) -> Decoded<Listener> {
    fields!(place, listener => proto::Listener {
        honoured: name, address, filter_chains, use_original_dst, default_filter_chain, metadata, deprecated_v1,
            listener_filters, transparent, freebind, traffic_direction, api_listener, bind_to_port;
        // Statistics, buffers, sockets' fine tuning, how a listener is replaced.
        ignored: stat_prefix, stats_matcher, per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout, drain_type, listener_filters_timeout,
            continue_on_listener_filters_timeout, tcp_fast_open_queue_length, connection_balance_config, reuse_port,
            enable_reuse_port, tcp_backlog_size, max_connections_to_accept_per_socket_event,
            ignore_global_conn_limit, bypass_overload_manager, tcp_keepalive;
        refused: additional_addresses, fcds_config, filter_chain_matcher, socket_options, udp_listener_config,
            access_log, enable_mptcp, listener_specifier;
    });
    for (name, value) in
        [("use_original_dst", use_original_dst), ("transparent", transparent), ("freebind", freebind)]
    {
        place.refuse(name, &flag(value))?;
    }
    let deprecated = deprecated_v1.and_then(|v1| v1.bind_to_port);
    if !flag_or(bind_to_port, true) || !flag_or(&deprecated, true) {
        return Err(place.field("bind_to_port").unsupported("a listener without a socket of its own"));
    }
    let direction = match TrafficDirection::try_from(*traffic_direction) {
        Ok(TrafficDirection::Inbound) => Direction::Inbound,
        Ok(TrafficDirection::Outbound) => Direction::Outbound,
        _ => Direction::Unspecified,
    };
    let mut metadata = value::decode_metadata(metadata);
    let provenance = value::take_provenance(&mut metadata);
    let (name, mut inspect) = (name.clone(), Inspection::default());
    if let Some(api) = api_listener {
        place.refuse("address", address)?;
        let place = place.field("api_listener");
        let chains = vec![decode_api(&place.field("api_listener"), &api.api_listener)?];
        let (address, default_chain) = (None, None);
        return Ok(Listener {
            name,
            address,
            inspect,
            chains,
            default_chain,
            direction,
            metadata,
            provenance,
        });
    }
    for (i, filter) in listener_filters.iter().enumerate() {
        inspect_with(&place.item("listener_filters", i), filter, &mut inspect)?;
    }
    let chain = |(i, chain)| decode_chain(&place.item("filter_chains", i), chain);
    let default =
        default_filter_chain.as_ref().map(|chain| decode_chain(&place.field("default_filter_chain"), chain));
    Ok(Listener {
        name,
        address: Some(decode_address(&place.field("address"), address)?),
        inspect,
        chains: filter_chains.iter().enumerate().map(chain).collect::<Decoded<_>>()?,
        default_chain: default.transpose()?,
        direction,
        metadata,
        provenance,
    })
}

fn decode_address(
    place: &Place<'_>,
    address: &Option<envoy_types::pb::envoy::config::core::v3::Address>,
) -> Decoded<SocketAddr> {
    match value::decode_address(place, address)? {
        EndpointAddress::Socket(address) => Ok(address),
        EndpointAddress::Name(name, _) => Err(place.error(format_args!("`{name}` is not an IP address"))),
    }
}

/// What a gRPC client reads: one chain of HTTP.
fn decode_api(place: &Place<'_>, any: &Option<Any>) -> Decoded<FilterChain> {
    let http = match any {
        Some(any) if type_name(any) == network::HTTP_TYPE => {
            http::decode(place, &value::unpack(place, any)?)?
        }
        Some(any) => return Err(place.unsupported(format_args!("type {}", any.type_url))),
        None => return Err(place.error("this field is required")),
    };
    Ok(FilterChain {
        name: String::new(),
        condition: ChainMatch::default(),
        tls: None,
        network: Network::Http(Box::new(http)),
    })
}

fn inspect_with(place: &Place<'_>, filter: &proto::ListenerFilter, inspect: &mut Inspection) -> Decoded<()> {
    fields!(place, filter => proto::ListenerFilter { honoured: name, config_type; ignored: ; refused: filter_disabled; });
    let found = match config_type {
        Some(ConfigType::TypedConfig(any)) => type_name(any),
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(place.field("config_discovery").unsupported("a filter that comes separately"));
        }
        // Without a configuration Envoy goes by the name.
        None => match name.as_str() {
            "envoy.filters.listener.tls_inspector" => TLS_INSPECTOR,
            "envoy.filters.listener.http_inspector" => HTTP_INSPECTOR,
            "envoy.filters.listener.proxy_protocol" => PROXY_PROTOCOL,
            _ => "none",
        },
    };
    match found {
        TLS_INSPECTOR => inspect.tls = true,
        HTTP_INSPECTOR => inspect.http = true,
        PROXY_PROTOCOL => {
            if inspect.tls || inspect.http {
                return Err(place.error("what is in front of the connection has to be read first"));
            }
            let place = place.field("typed_config");
            let config = match config_type {
                Some(ConfigType::TypedConfig(any)) => value::unpack(&place, any)?,
                _ => proxy_protocol::v3::ProxyProtocol::default(),
            };
            inspect.proxy_protocol = Some(decode_proxy_protocol(&place, &config)?);
        }
        _ => return Err(place.unsupported(format_args!("listener filter `{name}` (type {found})"))),
    }
    Ok(())
}

fn decode_proxy_protocol(
    place: &Place<'_>,
    config: &proxy_protocol::v3::ProxyProtocol,
) -> Decoded<ProxyHeader> {
    fields!(place, config => proxy_protocol::v3::ProxyProtocol {
        honoured: allow_requests_without_proxy_protocol;
        // What stands behind the addresses is passed on to nobody.
        ignored: stat_prefix, pass_through_tlvs, tlv_location;
        refused: rules, disallowed_versions;
    });
    Ok(ProxyHeader { optional: *allow_requests_without_proxy_protocol })
}

fn decode_chain(place: &Place<'_>, chain: &proto::FilterChain) -> Decoded<FilterChain> {
    fields!(place, chain => proto::FilterChain {
        honoured: filter_chain_match, filters, use_proxy_proto, transport_socket, name;
        ignored: metadata, transport_socket_connect_timeout;
        refused: ;
    });
    place.refuse("use_proxy_proto", &flag(use_proxy_proto))?;
    let condition =
        filter_chain_match.as_ref().map(|m| decode_condition(&place.field("filter_chain_match"), m));
    Ok(FilterChain {
        name: name.clone(),
        condition: condition.transpose()?.unwrap_or_default(),
        tls: transport::decode_downstream(place, transport_socket)?,
        network: network::decode(place, filters)?,
    })
}

fn decode_condition(place: &Place<'_>, condition: &proto::FilterChainMatch) -> Decoded<ChainMatch> {
    fields!(place, condition => proto::FilterChainMatch {
        honoured: destination_port, prefix_ranges, source_type, server_names, transport_protocol,
            application_protocols;
        ignored: ;
        refused: address_suffix, suffix_len, direct_source_prefix_ranges, source_prefix_ranges, source_ports;
    });
    if *source_type != ConnectionSourceType::Any as i32 {
        return Err(place.field("source_type").unsupported("choosing by where a connection comes from"));
    }
    let port = destination_port.map(|p| value::decode_port(&place.field("destination_port"), p.value));
    let range = |(i, range)| value::decode_range(&place.item("prefix_ranges", i), range);
    for (i, name) in server_names.iter().enumerate() {
        let rest = name.strip_prefix("*.").unwrap_or(name);
        if rest.is_empty() || rest.contains('*') {
            let place = place.item("server_names", i);
            return Err(place.error(format_args!("`{name}` is neither a host name nor `*.` and one")));
        }
    }
    if !matches!(transport_protocol.as_str(), "" | "tls" | "raw_buffer") {
        let place = place.field("transport_protocol");
        return Err(place.unsupported(format_args!("transport protocol `{transport_protocol}`")));
    }
    Ok(ChainMatch {
        destination_port: port.transpose()?,
        destinations: prefix_ranges.iter().enumerate().map(range).collect::<Decoded<_>>()?,
        server_names: server_names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        transport_protocol: (!transport_protocol.is_empty()).then(|| transport_protocol.clone()),
        application_protocols: application_protocols.clone(),
    })
}

pub(crate) fn encode(listener: &Listener) -> proto::Listener {
    let direction = match listener.direction {
        Direction::Unspecified => TrafficDirection::Unspecified,
        Direction::Inbound => TrafficDirection::Inbound,
        Direction::Outbound => TrafficDirection::Outbound,
    };
    let common = proto::Listener {
        name: listener.name.clone(),
        traffic_direction: direction as i32,
        metadata: value::encode_metadata(&listener.metadata, listener.provenance.as_ref()),
        ..Default::default()
    };
    let Some(address) = listener.address else {
        let api_listener = api_chain(listener)
            .map(|http| proto::ApiListener { api_listener: Some(http::pack(&http::encode(http))) });
        return proto::Listener { api_listener, ..common };
    };
    proto::Listener {
        address: value::encode_address(&EndpointAddress::Socket(address)),
        listener_filters: encode_inspection(listener.inspect),
        filter_chains: listener.chains.iter().map(encode_chain).collect(),
        // Nothing chooses it, so it has no condition.
        default_filter_chain: listener
            .default_chain
            .as_ref()
            .map(|chain| proto::FilterChain { filter_chain_match: None, ..encode_chain(chain) }),
        ..common
    }
}

/// The listener as gRPC clients read it: nothing but routes, and the one filter that they all know.
pub(crate) fn encode_api(listener: &Listener) -> proto::Listener {
    let api_listener = api_chain(listener).map(|http| {
        let bare =
            HttpConnectionManager { stats: false, access_logs: Vec::new(), tracing: None, ..http.clone() };
        proto::ApiListener { api_listener: Some(http::pack(&http::encode_bare(&bare))) }
    });
    proto::Listener { name: listener.name.clone(), api_listener, ..Default::default() }
}

fn api_chain(listener: &Listener) -> Option<&HttpConnectionManager> {
    listener.chains.iter().chain(&listener.default_chain).find_map(|chain| match &chain.network {
        Network::Http(http) => Some(&**http),
        Network::Tcp(_) => None,
    })
}

fn encode_inspection(inspect: Inspection) -> Vec<proto::ListenerFilter> {
    let filter = |name: &str, any| proto::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any)),
        ..Default::default()
    };
    let tls =
        || filter("envoy.filters.listener.tls_inspector", pack(&tls_inspector::v3::TlsInspector::default()));
    let http =
        || filter("envoy.filters.listener.http_inspector", pack(&http_inspector::v3::HttpInspector {}));
    let header = inspect.proxy_protocol.map(|header| {
        let config = proxy_protocol::v3::ProxyProtocol {
            allow_requests_without_proxy_protocol: header.optional,
            ..Default::default()
        };
        filter("envoy.filters.listener.proxy_protocol", pack(&config))
    });
    let inspectors = inspect.tls.then(tls).into_iter().chain(inspect.http.then(http));
    header.into_iter().chain(inspectors).collect()
}

fn encode_chain(chain: &FilterChain) -> proto::FilterChain {
    proto::FilterChain {
        filter_chain_match: (chain.condition != ChainMatch::default())
            .then(|| encode_condition(&chain.condition)),
        filters: vec![network::encode(&chain.network)],
        transport_socket: transport::encode_downstream(&chain.tls),
        name: chain.name.clone(),
        ..Default::default()
    }
}

fn encode_condition(condition: &ChainMatch) -> proto::FilterChainMatch {
    proto::FilterChainMatch {
        destination_port: condition.destination_port.and_then(|port| value::encode_number(port.into())),
        prefix_ranges: condition.destinations.iter().map(value::encode_range).collect(),
        server_names: condition.server_names.clone(),
        transport_protocol: condition.transport_protocol.clone().unwrap_or_default(),
        application_protocols: condition.application_protocols.clone(),
        ..Default::default()
    }
}
