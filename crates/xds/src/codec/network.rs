//! What a filter chain does with bytes: HTTP (see `http`) or passing them on.

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_limit, encode_limit, type_name, unpack};
use super::{access_log, affinity, headers, http};
use envoy_types::pb::envoy::config::listener::v3::{Filter, filter::ConfigType};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::r#type::v3::{
    HashPolicy,
    hash_policy::{PolicySpecifier, SourceIp},
};
use envoy_types::pb::google::protobuf::Any;
use model::format::Template;
use model::listener::{Network, TcpProxy, Tunnel};
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
        TCP_TYPE => Ok(Network::Tcp(Box::new(decode_tcp(&config, &unpack(&config, any)?)?))),
        _ => Err(place.unsupported(format_args!("filter `{name}` (type {})", any.type_url))),
    }
}

fn decode_tcp(place: &Place<'_>, proxy: &tcp::TcpProxy) -> Decoded<TcpProxy> {
    fields!(place, proxy => tcp::TcpProxy {
        honoured: stat_prefix, idle_timeout, access_log, max_connect_attempts, cluster_specifier,
            access_log_options, max_downstream_connection_duration, access_log_flush_interval, metadata_match,
            hash_policy, tunneling_config, flush_access_log_on_connected;
        // The idle timeouts of one side do nothing in Envoy.
        ignored: max_downstream_connection_duration_jitter_percentage, max_early_data_bytes, check_drain_close,
            downstream_idle_timeout, upstream_idle_timeout;
        refused: on_demand, backoff_options, proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy,
            upstream_connect_mode;
    });
    let options = access_log_options.as_ref();
    let starts = options.is_some_and(|o| o.flush_access_log_on_start);
    place.field("access_log_options").refuse("flush_access_log_on_start", &starts)?;
    let interval =
        options.and_then(|o| o.access_log_flush_interval.as_ref()).or(access_log_flush_interval.as_ref());
    let clusters = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![cluster(name, 1)],
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            let subset = |weighted: &ClusterWeight| affinity::decode_subset(&weighted.metadata_match);
            let weighted = all.clusters.iter();
            weighted.map(|w| WeightedCluster { subset: subset(w), ..cluster(&w.name, w.weight) }).collect()
        }
        None => return Err(place.error("no cluster is named")),
    };
    if clusters.iter().all(|c| c.weight == 0) {
        return Err(place.field("weighted_clusters").error("no cluster has a weight above zero"));
    }
    let tunnel = tunneling_config.as_ref().map(|t| decode_tunnel(&place.field("tunneling_config"), t));
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
        subset: affinity::decode_subset(metadata_match),
        hashes_source: decode_hash(place, hash_policy)?,
        tunnel: tunnel.transpose()?,
        access_logs: access_log::decode(place, access_log)?,
        logs_start: *flush_access_log_on_connected
            || options.is_some_and(|o| o.flush_access_log_on_connected),
        log_interval: decode_limit(&place.field("access_log_flush_interval"), &interval.copied(), None)?,
    })
}

fn decode_hash(place: &Place<'_>, policies: &[HashPolicy]) -> Decoded<bool> {
    for (i, policy) in policies.iter().enumerate() {
        let place = place.item("hash_policy", i);
        match &policy.policy_specifier {
            Some(PolicySpecifier::SourceIp(_)) => {}
            Some(PolicySpecifier::FilterState(_)) => {
                return Err(place.field("filter_state").unsupported("a value that other filters leave"));
            }
            None => return Err(place.error("nothing is said of what to hash")),
        }
    }
    Ok(!policies.is_empty())
}

fn decode_tunnel(place: &Place<'_>, tunnel: &tcp_proxy::TunnelingConfig) -> Decoded<Tunnel> {
    fields!(place, tunnel => tcp_proxy::TunnelingConfig {
        honoured: hostname, use_post, headers_to_add, post_path;
        // Nothing here reads what an answer left.
        ignored: propagate_response_headers, propagate_response_trailers, request_id_header,
            request_id_metadata_key;
        refused: request_id_extension, formatters;
    });
    if !use_post && !post_path.is_empty() {
        return Err(place.field("post_path").error("there is a path, but no POST (`use_post`)"));
    }
    let path = || if post_path.is_empty() { "/".to_owned() } else { post_path.clone() };
    Ok(Tunnel {
        host: Template::parse(hostname).map_err(|e| place.field("hostname").error(e))?,
        post_path: use_post.then(path),
        headers: headers::decode_edits(place, ["headers_to_add", ""], headers_to_add, &[])?,
    })
}

fn encode_tunnel(tunnel: &Tunnel) -> tcp_proxy::TunnelingConfig {
    tcp_proxy::TunnelingConfig {
        hostname: tunnel.host.source().to_owned(),
        use_post: tunnel.post_path.is_some(),
        post_path: tunnel.post_path.clone().unwrap_or_default(),
        headers_to_add: headers::encode_edits(&tunnel.headers).0,
        ..Default::default()
    }
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

fn hash_of_source() -> HashPolicy {
    HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) }
}

fn encode_tcp(proxy: &TcpProxy) -> tcp::TcpProxy {
    let specifier = match proxy.clusters.as_slice() {
        [only] if only.weight == 1 && only.subset.is_empty() => {
            ClusterSpecifier::Cluster(only.cluster.clone())
        }
        // Envoy takes no weight of zero here, and such a cluster would get nothing.
        all => ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
            clusters: all
                .iter()
                .filter(|c| c.weight > 0)
                .map(|c| ClusterWeight {
                    name: c.cluster.clone(),
                    weight: c.weight,
                    metadata_match: affinity::encode_subset(&c.subset),
                })
                .collect(),
        }),
    };
    tcp::TcpProxy {
        stat_prefix: if proxy.stat_prefix.is_empty() { "tcp".to_owned() } else { proxy.stat_prefix.clone() },
        idle_timeout: encode_limit(proxy.idle_timeout),
        max_downstream_connection_duration: proxy.max_duration.map(value::encode_duration),
        max_connect_attempts: proxy.max_connect_attempts.and_then(value::encode_number),
        access_log: proxy.access_logs.iter().map(access_log::encode).collect(),
        access_log_options: (proxy.logs_start || proxy.log_interval.is_some()).then(|| {
            tcp_proxy::TcpAccessLogOptions {
                access_log_flush_interval: proxy.log_interval.map(value::encode_duration),
                flush_access_log_on_start: false,
                flush_access_log_on_connected: proxy.logs_start,
            }
        }),
        metadata_match: affinity::encode_subset(&proxy.subset),
        hash_policy: proxy.hashes_source.then(hash_of_source).into_iter().collect(),
        tunneling_config: proxy.tunnel.as_ref().map(encode_tunnel),
        cluster_specifier: Some(specifier),
        ..Default::default()
    }
}
