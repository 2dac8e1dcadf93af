//! What a filter chain does with bytes: HTTP (see `http`) or passing them on.

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_limit, encode_limit, type_name, unpack};
use super::{access_log, http};
use envoy_types::pb::envoy::config::listener::v3::{Filter, filter::ConfigType};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::google::protobuf::Any;
use model::listener::{Network, TcpProxy};
use model::route::WeightedCluster;
use std::time::Duration;
use tcp::tcp_proxy::{self, ClusterSpecifier, weighted_cluster::ClusterWeight};

pub(crate) const HTTP_TYPE: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_TYPE: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// What Envoy takes for a filter that says nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

pub(crate) fn decode(place: &Place<'_>, filters: &[Filter]) -> Decoded<Network> {
    let mut network = None;
    for (i, filter) in filters.iter().enumerate() {
        let place = place.item("filters", i);
        if network.is_some() {
            return Err(place.error(format_args!("filter `{}` stands behind the last one", filter.name)));
        }
        let any = match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(place.field("config_discovery").unsupported("a filter that comes separately"));
            }
            None => return Err(place.unsupported(format_args!("filter `{}` (no type)", filter.name))),
        };
        network = Some(decode_filter(&place, &filter.name, any)?);
    }
    network.ok_or_else(|| place.field("filters").error("nothing is said about what to do with the bytes"))
}

fn decode_filter(place: &Place<'_>, name: &str, any: &Any) -> Decoded<Network> {
    let config = place.field("typed_config");
    match type_name(any) {
        HTTP_TYPE => Ok(Network::Http(Box::new(http::decode(&config, &unpack(&config, any)?)?))),
        TCP_TYPE => Ok(Network::Tcp(decode_tcp(&config, &unpack(&config, any)?)?)),
        _ => Err(place.unsupported(format_args!("filter `{name}` (type {})", any.type_url))),
    }
}

fn decode_tcp(place: &Place<'_>, proxy: &tcp::TcpProxy) -> Decoded<TcpProxy> {
    fields!(place, proxy => tcp::TcpProxy {
        honoured: stat_prefix, idle_timeout, access_log, max_connect_attempts, cluster_specifier,
            access_log_options, max_downstream_connection_duration, access_log_flush_interval;
        ignored: max_downstream_connection_duration_jitter_percentage, max_early_data_bytes, check_drain_close;
        refused: on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, backoff_options,
            hash_policy, tunneling_config, flush_access_log_on_connected, proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy, upstream_connect_mode;
    });
    place.refuse("access_log_options", access_log_options)?;
    value::refuse_limit(place, "access_log_flush_interval", access_log_flush_interval)?;
    let clusters = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![cluster(name, 1)],
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            let place = place.field("weighted_clusters");
            for (i, weighted) in all.clusters.iter().enumerate() {
                place.item("clusters", i).refuse("metadata_match", &weighted.metadata_match)?;
            }
            all.clusters.iter().map(|weighted| cluster(&weighted.name, weighted.weight)).collect()
        }
        None => return Err(place.error("no cluster is named")),
    };
    if clusters.iter().all(|c| c.weight == 0) {
        return Err(place.field("weighted_clusters").error("no cluster has a weight above zero"));
    }
    Ok(TcpProxy {
        stat_prefix: stat_prefix.clone(),
        clusters,
        idle_timeout: decode_limit(&place.field("idle_timeout"), idle_timeout, Some(IDLE_TIMEOUT))?,
        max_duration: decode_limit(
            &place.field("max_downstream_connection_duration"),
            max_downstream_connection_duration,
            None,
        )?,
        max_connect_attempts: max_connect_attempts.map(|attempts| attempts.value.max(1)),
        access_logs: access_log::decode(place, access_log)?,
    })
}

fn cluster(name: &str, weight: u32) -> WeightedCluster {
    WeightedCluster { cluster: name.to_owned(), weight, ..WeightedCluster::default() }
}

pub(crate) fn encode(network: &Network) -> Filter {
    let (name, any) = match network {
        Network::Http(manager) => {
            ("envoy.filters.network.http_connection_manager", http::pack(&http::encode(manager)))
        }
        Network::Tcp(proxy) => ("envoy.filters.network.tcp_proxy", value::pack(&encode_tcp(proxy))),
    };
    Filter { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(any)) }
}

fn encode_tcp(proxy: &TcpProxy) -> tcp::TcpProxy {
    let specifier = match proxy.clusters.as_slice() {
        [only] if only.weight == 1 => ClusterSpecifier::Cluster(only.cluster.clone()),
        // Envoy takes no weight of zero here, and such a cluster would get nothing.
        all => ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
            clusters: all
                .iter()
                .filter(|c| c.weight > 0)
                .map(|c| ClusterWeight { name: c.cluster.clone(), weight: c.weight, ..Default::default() })
                .collect(),
        }),
    };
    tcp::TcpProxy {
        stat_prefix: if proxy.stat_prefix.is_empty() { "tcp".to_owned() } else { proxy.stat_prefix.clone() },
        idle_timeout: encode_limit(proxy.idle_timeout),
        max_downstream_connection_duration: proxy.max_duration.map(value::encode_duration),
        max_connect_attempts: proxy.max_connect_attempts.and_then(value::encode_number),
        access_log: proxy.access_logs.iter().map(access_log::encode).collect(),
        cluster_specifier: Some(specifier),
        ..Default::default()
    }
}
