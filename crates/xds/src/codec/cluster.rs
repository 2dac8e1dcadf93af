//! Clusters. The HTTP version spoken to them is `upstream`'s, how endpoints are picked `balance`'s and `spread`'s.

use super::endpoint::{self, Names};
use super::place::{Decoded, Place, all, fields};
use super::value::{self, encode_duration, encode_number};
use super::{balance, dns, health, limits, outlier, source, spread, transport, upstream};
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::TcpKeepalive;
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig as AggregateConfig;
use model::cluster::{
    CONNECT_TIMEOUT, Cluster, Connections, Discovery, Keepalive, ProxyVersion, TransportMatch,
};
use proto::cluster::{self, ClusterDiscoveryType, DiscoveryType, DnsLookupFamily};
use std::sync::Arc;
use std::time::Duration;

const AGGREGATE_TYPE: &str = "envoy.extensions.clusters.aggregate.v3.ClusterConfig";

pub(crate) fn decode(place: &Place<'_>, cluster: &proto::Cluster) -> Decoded<Cluster> {
    fields!(place, cluster => proto::Cluster {
        honoured: transport_socket_matches, name, eds_cluster_config, connect_timeout, load_assignment,
            upstream_http_protocol_options, common_http_protocol_options, http_protocol_options,
            http2_protocol_options, typed_extension_protocol_options, transport_socket, metadata,
            protocol_selection, cluster_discovery_type, circuit_breakers, outlier_detection, dns_lookup_family,
            health_checks, dns_refresh_rate, dns_jitter, dns_failure_refresh_rate, respect_dns_ttl, dns_resolvers,
            use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config;
        checked: common_lb_config, lb_policy, load_balancing_policy, lb_config, lb_subset_config,
            upstream_connection_options, max_requests_per_connection, upstream_bind_config;
        // Statistics, buffers, sockets' fine tuning, warming.
        ignored: alt_stat_name, stats_matcher, per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout, wait_for_warm_on_init, cleanup_interval,
            ignore_health_on_host_removal, track_timeout_budgets, track_cluster_stats, preconnect_policy;
        refused: transport_socket_matcher, close_connections_on_host_health_failure, filters, lrs_server,
            lrs_report_endpoint_metrics, upstream_config, connection_pool_per_downstream_connection,
            queuing_policies;
    });
    let given = dns::Given {
        refresh: dns_refresh_rate,
        failure: dns_failure_refresh_rate,
        respects_ttl: *respect_dns_ttl,
        jitter: dns_jitter,
        family: DnsLookupFamily::try_from(*dns_lookup_family).ok(),
        resolver: typed_dns_resolver_config,
    };
    let mut resolving = dns::decode(place, &given)?;
    if typed_dns_resolver_config.is_none() {
        let old = (dns_resolution_config, dns_resolvers, *use_tcp_for_dns_lookups);
        dns::decode_old(place, old, &mut resolving)?;
    }
    let discovery = match cluster_discovery_type {
        Some(ClusterDiscoveryType::ClusterType(custom)) if is_dns(custom) => {
            let place = place.field("cluster_type");
            let (kind, dns) = dns::decode_type(&place, custom)?;
            resolving = dns;
            decode_discovery(&place, kind as i32, name, eds_cluster_config, load_assignment)?
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) if is_aggregate(custom) => {
            Discovery::Aggregate(decode_aggregate(&place.field("cluster_type"), custom)?)
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let what = format_args!("cluster type `{}`", custom.name);
            return Err(place.field("cluster_type").unsupported(what));
        }
        Some(ClusterDiscoveryType::Type(kind)) => {
            decode_discovery(place, *kind, name, eds_cluster_config, load_assignment)?
        }
        None => decode_discovery(place, 0, name, eds_cluster_config, load_assignment)?,
    };
    let http = upstream::Options {
        typed: typed_extension_protocol_options,
        upstream: upstream_http_protocol_options,
        common: common_http_protocol_options,
        http1: http_protocol_options,
        http2: http2_protocol_options,
        as_downstream: *protocol_selection == cluster::ClusterProtocolSelection::UseDownstreamProtocol as i32,
    };
    let mut spoken = upstream::decode(place, http)?;
    spoken.connections.source =
        source::decode(&place.field("upstream_bind_config"), &cluster.upstream_bind_config)?;
    let choice = |(i, m)| decode_match(&place.item("transport_socket_matches", i), m);
    let mut metadata = value::decode_metadata(metadata);
    let provenance = value::take_provenance(&mut metadata);
    let connect_timeout =
        connect_timeout.as_ref().map(|t| value::decode_duration(&place.field("connect_timeout"), t));
    let mut spread = spread::decode(place, cluster)?;
    let check = |(i, check)| health::decode(&place.item("health_checks", i), check);
    let outlier = outlier_detection.as_ref();
    let outlier = outlier.map(|given| outlier::decode(&place.field("outlier_detection"), given));
    let has_names = matches!(discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_));
    let matches: Vec<(TransportMatch, Option<ProxyVersion>)> =
        transport_socket_matches.iter().enumerate().map(choice).collect::<Decoded<_>>()?;
    let (transport, proxy_header) = transport::decode_upstream(place, transport_socket)?;
    if matches.iter().any(|(_, header)| *header != proxy_header) {
        let what = "the PROXY protocol towards some endpoints and not towards others";
        return Err(place.field("transport_socket_matches").unsupported(what));
    }
    Ok(Cluster {
        name: name.clone(),
        load_balancing: balance::decode(place, cluster, &discovery, &mut spread)?,
        discovery,
        spread: spread.into(),
        limits: limits::decode(&place.field("circuit_breakers"), circuit_breakers)?.into(),
        outlier_detection: outlier.transpose()?.map(Arc::new),
        health_checks: health_checks.iter().enumerate().map(check).collect::<Decoded<_>>()?,
        connections: decode_connections(cluster, spoken.connections).into(),
        error_statuses: spoken.error_statuses,
        hash_policies: spoken.hash_policies,
        connect_timeout: connect_timeout.transpose()?.unwrap_or(CONNECT_TIMEOUT),
        http: spoken.http,
        idle_timeout: spoken.idle_timeout,
        transport_matches: all(matches.into_iter().map(|(choice, _)| Ok(choice)))?,
        transport,
        proxy_header,
        dns: if has_names { resolving.into() } else { Arc::default() },
        metadata,
        provenance,
    })
}

fn decode_connections(cluster: &proto::Cluster, mut connections: Connections) -> Connections {
    // The old place for it; what the new one says counts.
    let old = cluster.max_requests_per_connection.map(|max| max.value).filter(|max| *max > 0);
    connections.max_requests = connections.max_requests.or(old);
    let Some(options) = &cluster.upstream_connection_options else { return connections };
    let proto::UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections: _,
        happy_eyeballs_config: _,
    } = options;
    connections.keepalive = tcp_keepalive.as_ref().map(|keepalive| Keepalive {
        probes: keepalive.keepalive_probes.map(|probes| probes.value),
        time: keepalive.keepalive_time.map(|time| Duration::from_secs(time.value.into())),
        interval: keepalive.keepalive_interval.map(|time| Duration::from_secs(time.value.into())),
    });
    connections
}

fn encode_connections(connections: &Connections) -> Option<proto::UpstreamConnectionOptions> {
    let seconds = |time: Option<Duration>| {
        time.and_then(|time| encode_number(u32::try_from(time.as_secs()).unwrap_or(u32::MAX)))
    };
    let keepalive = connections.keepalive.map(|keepalive| TcpKeepalive {
        keepalive_probes: keepalive.probes.and_then(encode_number),
        keepalive_time: seconds(keepalive.time),
        keepalive_interval: seconds(keepalive.interval),
    })?;
    Some(proto::UpstreamConnectionOptions { tcp_keepalive: Some(keepalive), ..Default::default() })
}

fn is_aggregate(custom: &cluster::CustomClusterType) -> bool {
    custom.typed_config.as_ref().is_some_and(|any| value::type_name(any) == AGGREGATE_TYPE)
}

fn decode_aggregate(place: &Place<'_>, custom: &cluster::CustomClusterType) -> Decoded<Vec<String>> {
    let place = place.field("typed_config");
    let config: AggregateConfig = value::unpack(&place, &custom.typed_config.clone().unwrap_or_default())?;
    match config.clusters.is_empty() {
        true => Err(place.field("clusters").error("no cluster is named")),
        false => Ok(config.clusters),
    }
}

fn encode_discovery(discovery: &Discovery, kind: DiscoveryType) -> ClusterDiscoveryType {
    let Discovery::Aggregate(clusters) = discovery else { return ClusterDiscoveryType::Type(kind as i32) };
    ClusterDiscoveryType::ClusterType(cluster::CustomClusterType {
        name: "envoy.clusters.aggregate".to_owned(),
        typed_config: Some(value::pack(&AggregateConfig { clusters: clusters.clone() })),
    })
}

fn is_dns(custom: &cluster::CustomClusterType) -> bool {
    custom.typed_config.as_ref().is_some_and(|any| value::type_name(any) == dns::TYPE)
}

fn decode_discovery(
    place: &Place<'_>,
    kind: i32,
    name: &str,
    eds: &Option<cluster::EdsClusterConfig>,
    assignment: &Option<envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment>,
) -> Decoded<Discovery> {
    let given = |names| match assignment {
        Some(assignment) => endpoint::decode(&place.field("load_assignment"), assignment, names),
        None => Ok(model::endpoint::Assignment { cluster: name.to_owned(), localities: Vec::new() }),
    };
    Ok(match DiscoveryType::try_from(kind) {
        Ok(DiscoveryType::Static) => Discovery::Static(given(Names::Refused)?),
        Ok(DiscoveryType::StrictDns) => Discovery::StrictDns(given(Names::Resolved)?),
        Ok(DiscoveryType::LogicalDns) => {
            let assignment = given(Names::Resolved)?;
            if assignment.endpoints().count() != 1 {
                let place = place.field("load_assignment");
                return Err(place.error("a LOGICAL_DNS cluster has exactly one endpoint"));
            }
            Discovery::LogicalDns(assignment)
        }
        Ok(DiscoveryType::OriginalDst) => Discovery::OriginalDestination,
        Ok(DiscoveryType::Eds) => {
            let place = place.field("eds_cluster_config");
            let Some(cluster::EdsClusterConfig { eds_config, service_name }) = eds else {
                return Err(place.error("an EDS cluster needs this field"));
            };
            value::check_config_source(&place.field("eds_config"), eds_config)?;
            Discovery::Eds(if service_name.is_empty() { name.to_owned() } else { service_name.clone() })
        }
        Err(_) => return Err(place.field("type").unsupported(format_args!("discovery type {kind}"))),
    })
}

fn decode_match(
    place: &Place<'_>,
    choice: &cluster::TransportSocketMatch,
) -> Decoded<(TransportMatch, Option<ProxyVersion>)> {
    let cluster::TransportSocketMatch { name, r#match, transport_socket } = choice;
    let (transport, header) = transport::decode_upstream(place, transport_socket)?;
    let labels = r#match.as_ref().map(value::decode_struct).unwrap_or_default();
    Ok((TransportMatch { name: name.clone(), labels, transport }, header))
}

pub(crate) fn encode(cluster: &Cluster) -> proto::Cluster {
    let (kind, assignment) = match &cluster.discovery {
        Discovery::Static(assignment) => (DiscoveryType::Static, Some(assignment)),
        Discovery::StrictDns(assignment) => (DiscoveryType::StrictDns, Some(assignment)),
        Discovery::LogicalDns(assignment) => (DiscoveryType::LogicalDns, Some(assignment)),
        Discovery::Eds(_) => (DiscoveryType::Eds, None),
        Discovery::OriginalDestination => (DiscoveryType::OriginalDst, None),
        // Said in another way.
        Discovery::Aggregate(_) => (DiscoveryType::Static, None),
    };
    let eds_cluster_config = match &cluster.discovery {
        Discovery::Eds(service_name) => {
            Some(cluster::EdsClusterConfig { eds_config: value::ads(), service_name: service_name.clone() })
        }
        _ => None,
    };
    let (lb_policy, lb_config) = balance::encode(&cluster.discovery, cluster.load_balancing, &cluster.spread);
    let common = proto::Cluster {
        name: cluster.name.clone(),
        cluster_discovery_type: Some(encode_discovery(&cluster.discovery, kind)),
        eds_cluster_config,
        load_assignment: assignment.map(endpoint::encode),
        connect_timeout: Some(encode_duration(cluster.connect_timeout)),
        lb_policy: lb_policy as i32,
        lb_config,
        common_lb_config: Some(spread::encode_common(&cluster.spread)),
        lb_subset_config: cluster.spread.subsets.as_ref().map(spread::encode_subsets),
        circuit_breakers: limits::encode(&cluster.limits),
        outlier_detection: cluster.outlier_detection.as_deref().map(outlier::encode),
        health_checks: cluster.health_checks.iter().map(health::encode).collect(),
        upstream_connection_options: encode_connections(&cluster.connections),
        upstream_bind_config: cluster.connections.source.map(source::encode),
        typed_extension_protocol_options: upstream::encode(cluster),
        ..dns::encode(&cluster.discovery, &cluster.dns)
    };
    proto::Cluster {
        transport_socket_matches: cluster
            .transport_matches
            .iter()
            .map(|choice| encode_match(choice, cluster.proxy_header))
            .collect(),
        transport_socket: transport::encode_announced(&cluster.transport, cluster.proxy_header),
        metadata: value::encode_metadata(&cluster.metadata, cluster.provenance.as_ref()),
        ..common
    }
}

fn encode_match(choice: &TransportMatch, header: Option<ProxyVersion>) -> cluster::TransportSocketMatch {
    let inner = transport::encode_choice(&choice.transport);
    cluster::TransportSocketMatch {
        name: choice.name.clone(),
        r#match: Some(value::encode_struct(&choice.labels)),
        transport_socket: Some(match header {
            Some(header) => transport::announced(inner, header),
            None => inner,
        }),
    }
}
