//! Clusters. The HTTP version spoken to them is `upstream`'s, how endpoints are picked `balance`'s.

use super::endpoint::{self, Names};
use super::place::{Decoded, Place, fields};
use super::value::{self, encode_duration, encode_number, flag};
use super::{balance, transport, upstream};
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::Percent;
use model::cluster::{Cluster, Discovery, TransportMatch};
use proto::cluster::{self, ClusterDiscoveryType, DiscoveryType, DnsLookupFamily};
use std::time::Duration;

/// What Envoy takes for a cluster that says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn decode(place: &Place<'_>, cluster: &proto::Cluster) -> Decoded<Cluster> {
    fields!(place, cluster => proto::Cluster {
        honoured: transport_socket_matches, name, eds_cluster_config, connect_timeout, lb_policy, load_assignment,
            upstream_http_protocol_options, common_http_protocol_options, http_protocol_options,
            http2_protocol_options, typed_extension_protocol_options, transport_socket, metadata,
            protocol_selection, load_balancing_policy, cluster_discovery_type, lb_config;
        checked: circuit_breakers, outlier_detection, common_lb_config, dns_lookup_family;
        // Statistics, buffers, sockets' fine tuning, when names are looked up again, warming.
        ignored: alt_stat_name, stats_matcher, per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout, dns_refresh_rate, dns_jitter, dns_failure_refresh_rate,
            respect_dns_ttl, wait_for_warm_on_init, cleanup_interval, upstream_connection_options,
            ignore_health_on_host_removal, track_timeout_budgets, track_cluster_stats, preconnect_policy;
        refused: transport_socket_matcher, health_checks, max_requests_per_connection, dns_resolvers,
            use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config, upstream_bind_config,
            lb_subset_config, close_connections_on_host_health_failure, filters, lrs_server,
            lrs_report_endpoint_metrics, upstream_config, connection_pool_per_downstream_connection,
            queuing_policies;
    });
    check(place, cluster)?;
    let discovery = match cluster_discovery_type {
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
    let (http, idle_timeout) = upstream::decode(place, http)?;
    let choice = |(i, m)| decode_match(&place.item("transport_socket_matches", i), m);
    let mut metadata = value::decode_metadata(metadata);
    let provenance = value::take_provenance(&mut metadata);
    let connect_timeout =
        connect_timeout.as_ref().map(|t| value::decode_duration(&place.field("connect_timeout"), t));
    Ok(Cluster {
        name: name.clone(),
        load_balancing: balance::decode(place, &discovery, *lb_policy, load_balancing_policy, lb_config)?,
        discovery,
        connect_timeout: connect_timeout.transpose()?.unwrap_or(CONNECT_TIMEOUT),
        http,
        idle_timeout,
        transport_matches: transport_socket_matches.iter().enumerate().map(choice).collect::<Decoded<_>>()?,
        transport: transport::decode_upstream(place, transport_socket)?,
        metadata,
        provenance,
    })
}

/// What is only taken when it asks for nothing that is not done anyway.
fn check(place: &Place<'_>, cluster: &proto::Cluster) -> Decoded<()> {
    if cluster.dns_lookup_family == DnsLookupFamily::V6Only as i32 {
        return Err(place.field("dns_lookup_family").unsupported("V6_ONLY"));
    }
    if let Some(breakers) = &cluster.circuit_breakers {
        check_breakers(&place.field("circuit_breakers"), breakers)?;
    }
    if let Some(detection) = &cluster.outlier_detection {
        check_outlier_detection(&place.field("outlier_detection"), detection)?;
    }
    if let Some(common) = &cluster.common_lb_config {
        balance::check_common(&place.field("common_lb_config"), common)?;
    }
    Ok(())
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

fn decode_match(place: &Place<'_>, choice: &cluster::TransportSocketMatch) -> Decoded<TransportMatch> {
    let cluster::TransportSocketMatch { name, r#match, transport_socket } = choice;
    Ok(TransportMatch {
        name: name.clone(),
        labels: r#match.as_ref().map(value::decode_struct).unwrap_or_default(),
        transport: transport::decode_upstream(place, transport_socket)?,
    })
}

/// Limits from here up are taken for none; nothing here would ever reach them.
const AS_GOOD_AS_UNLIMITED: u32 = 1 << 20;
const UNLIMITED: u32 = u32::MAX;

fn check_breakers(place: &Place<'_>, breakers: &proto::CircuitBreakers) -> Decoded<()> {
    fields!(place, breakers => proto::CircuitBreakers {
        honoured: thresholds;
        ignored: ;
        refused: per_host_thresholds;
    });
    for (i, threshold) in thresholds.iter().enumerate() {
        let place = place.item("thresholds", i);
        fields!(place, threshold => proto::circuit_breakers::Thresholds {
            honoured: max_connections, max_pending_requests, max_requests, max_retries, max_connection_pools;
            ignored: priority, track_remaining;
            refused: retry_budget;
        });
        let limits = [
            ("max_connections", max_connections),
            ("max_pending_requests", max_pending_requests),
            ("max_requests", max_requests),
            ("max_retries", max_retries),
            ("max_connection_pools", max_connection_pools),
        ];
        for (name, limit) in limits {
            if let Some(limit) = limit.filter(|limit| limit.value < AS_GOOD_AS_UNLIMITED) {
                return Err(place.field(name).unsupported(format_args!("a limit of {}", limit.value)));
            }
        }
    }
    Ok(())
}

/// Ejecting endpoints is not there yet, so it has to be switched off entirely.
fn check_outlier_detection(place: &Place<'_>, detection: &proto::OutlierDetection) -> Decoded<()> {
    // Those that are on when nothing is said of them.
    let on = [
        ("enforcing_consecutive_5xx", detection.enforcing_consecutive_5xx),
        ("enforcing_success_rate", detection.enforcing_success_rate),
    ];
    for (name, share) in on {
        if share.is_none_or(|share| share.value != 0) {
            return Err(place.field(name).error("ejecting endpoints is not supported; it has to be 0"));
        }
    }
    let off = [
        ("enforcing_consecutive_gateway_failure", detection.enforcing_consecutive_gateway_failure),
        ("enforcing_failure_percentage", detection.enforcing_failure_percentage),
    ];
    for (name, share) in off {
        place.refuse(name, &share.filter(|share| share.value != 0))?;
    }
    place.refuse("split_external_local_origin_errors", &detection.split_external_local_origin_errors)?;
    place.refuse("detect_degraded_hosts", &flag(&detection.detect_degraded_hosts))?;
    place.refuse("monitors", &detection.monitors)
}

pub(crate) fn encode(cluster: &Cluster) -> proto::Cluster {
    let (kind, assignment) = match &cluster.discovery {
        Discovery::Static(assignment) => (DiscoveryType::Static, Some(assignment)),
        Discovery::StrictDns(assignment) => (DiscoveryType::StrictDns, Some(assignment)),
        Discovery::LogicalDns(assignment) => (DiscoveryType::LogicalDns, Some(assignment)),
        Discovery::Eds(_) => (DiscoveryType::Eds, None),
        Discovery::OriginalDestination => (DiscoveryType::OriginalDst, None),
    };
    let eds_cluster_config = match &cluster.discovery {
        Discovery::Eds(service_name) => {
            Some(cluster::EdsClusterConfig { eds_config: value::ads(), service_name: service_name.clone() })
        }
        _ => None,
    };
    // Envoy's own limits are low (1024 connections, 3 retries at a time) and nobody asked for them.
    let unlimited = proto::circuit_breakers::Thresholds {
        max_connections: encode_number(UNLIMITED),
        max_pending_requests: encode_number(UNLIMITED),
        max_requests: encode_number(UNLIMITED),
        max_retries: encode_number(UNLIMITED),
        ..Default::default()
    };
    // Where no endpoint is healthy, none is used: Envoy would use all of them.
    let no_panic = cluster::CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: 0.0 }),
        ..Default::default()
    };
    proto::Cluster {
        name: cluster.name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind as i32)),
        eds_cluster_config,
        load_assignment: assignment.map(endpoint::encode),
        connect_timeout: Some(encode_duration(cluster.connect_timeout)),
        lb_policy: balance::encode(&cluster.discovery, cluster.load_balancing),
        common_lb_config: Some(no_panic),
        circuit_breakers: Some(proto::CircuitBreakers { thresholds: vec![unlimited], ..Default::default() }),
        typed_extension_protocol_options: upstream::encode(cluster.http, cluster.idle_timeout),
        // Envoy's default would wait for nothing but IPv6 where a name has both kinds.
        dns_lookup_family: match &cluster.discovery {
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) => DnsLookupFamily::V4Preferred as i32,
            _ => DnsLookupFamily::Auto as i32,
        },
        transport_socket_matches: cluster.transport_matches.iter().map(encode_match).collect(),
        transport_socket: transport::encode_upstream(&cluster.transport),
        metadata: value::encode_metadata(&cluster.metadata, cluster.provenance.as_ref()),
        ..Default::default()
    }
}

fn encode_match(choice: &TransportMatch) -> cluster::TransportSocketMatch {
    cluster::TransportSocketMatch {
        name: choice.name.clone(),
        r#match: Some(value::encode_struct(&choice.labels)),
        transport_socket: Some(transport::encode_choice(&choice.transport)),
    }
}
