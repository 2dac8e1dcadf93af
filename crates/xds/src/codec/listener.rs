//! Listeners and their filter chains. What a chain does with bytes is `network`'s.

use super::place::{Decoded, Place, fields};
use super::value::{self, flag, flag_or, pack, type_name};
use super::{http, network, transport};
use envoy_types::pb::envoy::config::core::v3::{CidrRange, ProxyProtocolPassThroughTlVs, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::listener::{
    http_inspector, original_dst, proxy_protocol, tls_inspector,
};
use envoy_types::pb::google::protobuf::{Any, BoolValue};
use model::endpoint::EndpointAddress;
use model::listener::{
    Binding, ChainMatch, Direction, FilterChain, HttpConnectionManager, Inspection, Listener, Network,
    ProxyHeader, SourceType,
};
use proto::filter_chain_match::ConnectionSourceType;
use proto::listener_filter::ConfigType;
use std::net::SocketAddr;

const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
const PROXY_PROTOCOL: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const ORIGINAL_DST: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
const HTTP_INSPECTOR: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";

pub(crate) fn decode(place: &Place<'_>, listener: &proto::Listener) -> Decoded<Listener> {
    fields!(place, listener => proto::Listener {
        honoured: name, address, filter_chains, use_original_dst, default_filter_chain, metadata, deprecated_v1,
            listener_filters, transparent, freebind, traffic_direction, api_listener, bind_to_port,
            additional_addresses;
        // Statistics, buffers, sockets' fine tuning, how a listener is replaced.
        ignored: stat_prefix, stats_matcher, per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout, drain_type, listener_filters_timeout,
            continue_on_listener_filters_timeout, tcp_fast_open_queue_length, connection_balance_config, reuse_port,
            enable_reuse_port, tcp_backlog_size, max_connections_to_accept_per_socket_event,
            ignore_global_conn_limit, bypass_overload_manager, tcp_keepalive;
        refused: fcds_config, filter_chain_matcher, socket_options, udp_listener_config,
            access_log, enable_mptcp, listener_specifier;
    });
    let deprecated = deprecated_v1.and_then(|v1| v1.bind_to_port);
    let more = |(i, more)| decode_additional(&place.item("additional_addresses", i), more);
    let binding = Binding {
        more: additional_addresses.iter().enumerate().map(more).collect::<Decoded<_>>()?,
        unbound: !flag_or(bind_to_port, true) || !flag_or(&deprecated, true),
        hands_over: flag(use_original_dst),
        transparent: flag(transparent),
        freebind: flag(freebind),
    };
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
            binding: Binding::default(),
            inspect,
            chains,
            default_chain,
            direction,
            metadata,
            provenance,
        });
    }
    // Who hands connections over has to know where they wanted to go.
    inspect.original_destination = binding.hands_over;
    for (i, filter) in listener_filters.iter().enumerate() {
        inspect_with(&place.item("listener_filters", i), filter, &mut inspect)?;
    }
    let chain = |(i, chain)| decode_chain(&place.item("filter_chains", i), chain);
    let default =
        default_filter_chain.as_ref().map(|chain| decode_chain(&place.field("default_filter_chain"), chain));
    let listener = Listener {
        name,
        address: Some(decode_address(&place.field("address"), address)?),
        binding,
        inspect,
        chains: filter_chains.iter().enumerate().map(chain).collect::<Decoded<_>>()?,
        default_chain: default.transpose()?,
        direction,
        metadata,
        provenance,
    };
    match listener.ambiguous_chains() {
        None => Ok(listener),
        Some((first, second)) => {
            let place = place.item("filter_chains", second);
            let problem = format_args!("it takes connections that filter_chains[{first}] takes as well");
            Err(place.field("filter_chain_match").error(problem))
        }
    }
}

fn decode_additional(place: &Place<'_>, more: &proto::AdditionalAddress) -> Decoded<SocketAddr> {
    fields!(place, more => proto::AdditionalAddress {
        honoured: address;
        // The common settings count for all.
        ignored: tcp_keepalive;
        refused: socket_options;
    });
    decode_address(&place.field("address"), address)
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
            "envoy.filters.listener.original_dst" => ORIGINAL_DST,
            _ => "none",
        },
    };
    match found {
        TLS_INSPECTOR => inspect.tls = true,
        HTTP_INSPECTOR => inspect.http = true,
        ORIGINAL_DST => inspect.original_destination = true,
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
        honoured: allow_requests_without_proxy_protocol, pass_through_tlvs;
        ignored: stat_prefix, tlv_location;
        refused: rules, disallowed_versions;
    });
    if let Some(types) = pass_through_tlvs.as_ref().filter(|given| !given.tlv_type.is_empty()) {
        let place = place.field("pass_through_tlvs");
        return Err(place
            .field("tlv_type")
            .unsupported(format_args!("only some of them: {:?}", types.tlv_type)));
    }
    Ok(ProxyHeader {
        optional: *allow_requests_without_proxy_protocol,
        keeps_tlvs: pass_through_tlvs.is_some(),
    })
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
            application_protocols, direct_source_prefix_ranges, source_prefix_ranges, source_ports;
        ignored: ;
        refused: address_suffix, suffix_len;
    });
    let source_type = match ConnectionSourceType::try_from(*source_type) {
        Ok(ConnectionSourceType::Any) => SourceType::Any,
        Ok(ConnectionSourceType::SameIpOrLoopback) => SourceType::Local,
        Ok(ConnectionSourceType::External) => SourceType::External,
        Err(_) => return Err(place.field("source_type").unsupported(format_args!("type {source_type}"))),
    };
    let port = destination_port.map(|p| value::decode_port(&place.field("destination_port"), p.value));
    let ranges = |name: &str, ranges: &[CidrRange]| -> Decoded<Vec<_>> {
        let range = |(i, range)| value::decode_range(&place.item(name, i), range);
        ranges.iter().enumerate().map(range).collect()
    };
    let source_port = |(i, port): (usize, &u32)| value::decode_port(&place.item("source_ports", i), *port);
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
        destinations: ranges("prefix_ranges", prefix_ranges)?,
        server_names: server_names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        transport_protocol: (!transport_protocol.is_empty()).then(|| transport_protocol.clone()),
        application_protocols: application_protocols.clone(),
        direct_sources: ranges("direct_source_prefix_ranges", direct_source_prefix_ranges)?,
        source_type,
        sources: ranges("source_prefix_ranges", source_prefix_ranges)?,
        source_ports: source_ports.iter().enumerate().map(source_port).collect::<Decoded<_>>()?,
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
        additional_addresses: listener.binding.more.iter().map(encode_additional).collect(),
        bind_to_port: listener.binding.unbound.then_some(BoolValue { value: false }),
        use_original_dst: encode_set(listener.binding.hands_over),
        transparent: encode_set(listener.binding.transparent),
        freebind: encode_set(listener.binding.freebind),
        listener_filters: encode_inspection(listener.inspect, listener.binding.hands_over),
        filter_chains: listener.chains.iter().map(encode_chain).collect(),
        // Nothing chooses it, so it has no condition.
        default_filter_chain: listener
            .default_chain
            .as_ref()
            .map(|chain| proto::FilterChain { filter_chain_match: None, ..encode_chain(chain) }),
        ..common
    }
}

fn encode_additional(address: &SocketAddr) -> proto::AdditionalAddress {
    proto::AdditionalAddress {
        address: value::encode_address(&EndpointAddress::Socket(*address)),
        ..Default::default()
    }
}

/// Nothing where it is not set.
fn encode_set(flag: bool) -> Option<BoolValue> {
    flag.then_some(BoolValue { value: true })
}

/// The listener as gRPC clients read it: nothing but routes, and the filters that they know.
pub(crate) fn encode_api(listener: &Listener) -> proto::Listener {
    let api_listener = api_chain(listener).map(|http| {
        let bare =
            HttpConnectionManager { stats: false, access_logs: Vec::new(), tracing: None, ..http.clone() };
        proto::ApiListener { api_listener: Some(http::pack(&http::encode_for_clients(&bare))) }
    });
    proto::Listener { name: listener.name.clone(), api_listener, ..Default::default() }
}

fn api_chain(listener: &Listener) -> Option<&HttpConnectionManager> {
    listener.chains.iter().chain(&listener.default_chain).find_map(|chain| match &chain.network {
        Network::Http(http) => Some(&**http),
        Network::Tcp(_) => None,
    })
}

fn encode_inspection(inspect: Inspection, hands_over: bool) -> Vec<proto::ListenerFilter> {
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
            pass_through_tlvs: header.keeps_tlvs.then(ProxyProtocolPassThroughTlVs::default),
            ..Default::default()
        };
        filter("envoy.filters.listener.proxy_protocol", pack(&config))
    });
    let inspectors = inspect.tls.then(tls).into_iter().chain(inspect.http.then(http));
    // Who hands over asks the kernel without being told.
    let asks = (inspect.original_destination && !hands_over)
        .then(|| filter("envoy.filters.listener.original_dst", pack(&original_dst::v3::OriginalDst {})));
    asks.into_iter().chain(header).chain(inspectors).collect()
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
        direct_source_prefix_ranges: condition.direct_sources.iter().map(value::encode_range).collect(),
        source_type: match condition.source_type {
            SourceType::Any => ConnectionSourceType::Any,
            SourceType::Local => ConnectionSourceType::SameIpOrLoopback,
            SourceType::External => ConnectionSourceType::External,
        } as i32,
        source_prefix_ranges: condition.sources.iter().map(value::encode_range).collect(),
        source_ports: condition.source_ports.iter().map(|port| u32::from(*port)).collect(),
        ..Default::default()
    }
}
