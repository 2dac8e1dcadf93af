//! Requests that are sent on (`RouteAction`).

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_duration, decode_limit, encode_flag, encode_limit, encode_number, flag_or};
use super::{affinity, condition, filter, headers, mutation, retry, rewrite, text};
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use envoy_types::pb::google::protobuf::BoolValue;
use model::format::Template;
use model::limits::Priority;
use model::route::{
    Forward, GrpcTimeout, HostRewrite, Mirror, MirrorTarget, PathMatch, PathRewrite, RouteMatch, Target,
    Upgrade, WeightedCluster,
};
use proto::route_action::{ClusterNotFoundResponseCode as NotFound, ClusterSpecifier, HostRewriteSpecifier};
use proto::weighted_cluster::{ClusterWeight, cluster_weight};
use std::time::Duration;

/// What Envoy takes for a route that says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) fn decode(place: &Place<'_>, action: &proto::RouteAction) -> Decoded<Forward> {
    fields!(place, action => proto::RouteAction {
        honoured: cluster_not_found_response_code, prefix_rewrite, regex_rewrite, path_rewrite, timeout,
            idle_timeout, retry_policy, upgrade_configs, cluster_specifier, host_rewrite_specifier,
            max_stream_duration, max_grpc_timeout, grpc_timeout_offset, append_x_forwarded_host,
            request_mirror_policies, priority, metadata_match, hash_policy, path_rewrite_policy;
        // The old field for CORS is read where the route's other filters are.
        checked: cors;
        ignored: include_vh_rate_limits, early_data_policy, flush_timeout;
        refused: retry_policy_typed_config, rate_limits, internal_redirect_policy, internal_redirect_action,
            max_internal_redirects, hedge_policy;
    });
    let (max_duration, grpc_timeout) = decode_max_duration(place, max_stream_duration)?;
    let grpc_timeout = match (grpc_timeout, max_grpc_timeout) {
        (None, Some(max)) => {
            let max = Some(decode_duration(&place.field("max_grpc_timeout"), max)?).filter(|d| !d.is_zero());
            let offset = grpc_timeout_offset.as_ref();
            let offset = offset.map(|o| decode_duration(&place.field("grpc_timeout_offset"), o));
            Some(GrpcTimeout { max, offset: offset.transpose()?.unwrap_or_default() })
        }
        (timeout, _) => timeout,
    };
    let path_rewrite = match path_rewrite_policy {
        None => decode_path_rewrite(place, prefix_rewrite, regex_rewrite, path_rewrite)?,
        Some(policy) => Some(rewrite::decode_policy(&place.field("path_rewrite_policy"), policy)?),
    };
    let idle_timeout = idle_timeout.as_ref().map(|d| decode_duration(&place.field("idle_timeout"), d));
    let split = decode_split(place, cluster_specifier)?;
    let upgrade = |(i, config)| decode_upgrade(&place.item("upgrade_configs", i), config);
    let retry = retry_policy.as_ref().map(|policy| retry::decode(&place.field("retry_policy"), policy));
    Ok(Forward {
        target: decode_target(place, cluster_specifier)?,
        cluster_not_found_status: match NotFound::try_from(*cluster_not_found_response_code) {
            Ok(NotFound::NotFound) => 404,
            Ok(NotFound::InternalServerError) => 500,
            _ => 503,
        },
        path_rewrite,
        host_rewrite: decode_host_rewrite(place, host_rewrite_specifier)?,
        timeout: decode_limit(&place.field("timeout"), timeout, Some(DEFAULT_TIMEOUT))?,
        idle_timeout: idle_timeout.transpose()?,
        max_duration,
        grpc_timeout,
        mirrors: decode_mirrors(place, request_mirror_policies)?,
        append_forwarded_host: *append_x_forwarded_host,
        retry: retry.transpose()?,
        upgrades: upgrade_configs.iter().enumerate().map(upgrade).collect::<Decoded<_>>()?,
        hash_policies: affinity::decode(place, hash_policy)?,
        subset: affinity::decode_subset(metadata_match),
        priority: match RoutingPriority::try_from(*priority) {
            Ok(RoutingPriority::High) => Priority::High,
            _ => Priority::Default,
        },
        splits_by_hash: split,
    })
}

type MaxDuration = (Option<Duration>, Option<GrpcTimeout>);

fn decode_max_duration(
    place: &Place<'_>,
    limits: &Option<proto::route_action::MaxStreamDuration>,
) -> Decoded<MaxDuration> {
    let Some(limits) = limits else { return Ok((None, None)) };
    let place = place.field("max_stream_duration");
    fields!(place, limits => proto::route_action::MaxStreamDuration {
        honoured: max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset;
        ignored: ;
        refused: ;
    });
    let read = |name: &str, duration: &Option<envoy_types::pb::google::protobuf::Duration>| {
        duration.as_ref().map(|d| decode_duration(&place.field(name), d)).transpose()
    };
    let max = read("max_stream_duration", max_stream_duration)?;
    let offset = read("grpc_timeout_header_offset", grpc_timeout_header_offset)?.unwrap_or_default();
    let grpc = read("grpc_timeout_header_max", grpc_timeout_header_max)?;
    let grpc = grpc.map(|max| GrpcTimeout { max: Some(max).filter(|d| !d.is_zero()), offset });
    Ok((max, grpc))
}

fn encode_max_duration(forward: &Forward) -> Option<proto::route_action::MaxStreamDuration> {
    if forward.max_duration.is_none() && forward.grpc_timeout.is_none() {
        return None;
    }
    let grpc = forward.grpc_timeout;
    let offset = grpc.map(|g| g.offset).filter(|offset| !offset.is_zero());
    Some(proto::route_action::MaxStreamDuration {
        max_stream_duration: forward.max_duration.map(value::encode_duration),
        grpc_timeout_header_max: grpc.map(|g| value::encode_duration(g.max.unwrap_or_default())),
        grpc_timeout_header_offset: offset.map(value::encode_duration),
    })
}

/// The field `request_mirror_policies` of `place`.
pub(crate) fn decode_mirrors(
    place: &Place<'_>,
    mirrors: &[proto::route_action::RequestMirrorPolicy],
) -> Decoded<Vec<Mirror>> {
    let mirror = |(i, mirror)| decode_mirror(&place.item("request_mirror_policies", i), mirror);
    mirrors.iter().enumerate().map(mirror).collect()
}

fn decode_mirror(place: &Place<'_>, mirror: &proto::route_action::RequestMirrorPolicy) -> Decoded<Mirror> {
    fields!(place, mirror => proto::route_action::RequestMirrorPolicy {
        honoured: cluster, cluster_header, runtime_fraction, trace_sampled, disable_shadow_host_suffix_append,
            request_headers_mutations, host_rewrite_literal;
        ignored: ;
        refused: ;
    });
    let target = match (cluster.as_str(), cluster_header.as_str()) {
        ("", "") => return Err(place.error("no cluster is named")),
        (name, "") => MirrorTarget::Cluster(name.to_owned()),
        ("", name) => MirrorTarget::Header(headers::decode_plain_name(&place.field("cluster_header"), name)?),
        _ => return Err(place.error("only one of cluster and cluster_header may be set")),
    };
    let share = runtime_fraction.as_ref();
    let share = share.map(|f| condition::decode_fraction(&place.field("runtime_fraction"), f));
    Ok(Mirror {
        target,
        share: share.transpose()?,
        keep_host: *disable_shadow_host_suffix_append,
        trace_sampled: trace_sampled.map(|sampled| sampled.value),
        host: (!host_rewrite_literal.is_empty()).then(|| host_rewrite_literal.clone()),
        edits: mutation::decode_list(place, "request_headers_mutations", request_headers_mutations)?,
    })
}

fn encode_mirror(mirror: &Mirror) -> proto::route_action::RequestMirrorPolicy {
    let (cluster, cluster_header) = match &mirror.target {
        MirrorTarget::Cluster(name) => (name.clone(), String::new()),
        MirrorTarget::Header(name) => (String::new(), name.as_str().to_owned()),
    };
    proto::route_action::RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction: mirror.share.map(condition::encode_fraction),
        trace_sampled: mirror.trace_sampled.map(|value| BoolValue { value }),
        disable_shadow_host_suffix_append: mirror.keep_host,
        request_headers_mutations: mutation::encode_list(&mirror.edits),
        host_rewrite_literal: mirror.host.clone().unwrap_or_default(),
    }
}

fn decode_path_rewrite(
    place: &Place<'_>,
    prefix: &str,
    regex: &Option<RegexMatchAndSubstitute>,
    full: &str,
) -> Decoded<Option<PathRewrite>> {
    Ok(match (prefix, regex, full) {
        ("", None, "") => None,
        (prefix, None, "") => Some(PathRewrite::Prefix(prefix.to_owned())),
        ("", Some(rewrite), "") => {
            let rewrite = text::decode_substitution(&place.field("regex_rewrite"), rewrite)?;
            Some(match text::replacement(&rewrite) {
                Some(full) => PathRewrite::Full(full),
                None => PathRewrite::Regex(rewrite),
            })
        }
        ("", None, full) => Some(decode_full_rewrite(&place.field("path_rewrite"), full)?),
        _ => return Err(place.error("only one of prefix_rewrite, regex_rewrite and path_rewrite may be set")),
    })
}

pub(crate) fn decode_full_rewrite(place: &Place<'_>, full: &str) -> Decoded<PathRewrite> {
    let template = Template::parse(full).map_err(|e| place.error(e))?;
    match template.as_literal() {
        Some(text) => Ok(PathRewrite::Full(text.to_owned())),
        None => Ok(PathRewrite::Formatted(template)),
    }
}

fn decode_target(place: &Place<'_>, target: &Option<ClusterSpecifier>) -> Decoded<Target> {
    match target {
        Some(ClusterSpecifier::Cluster(name)) => Ok(Target::Cluster(name.clone())),
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            headers::decode_plain_name(&place.field("cluster_header"), name).map(Target::Header)
        }
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            let place = place.field("weighted_clusters");
            fields!(place, all => proto::WeightedCluster {
                honoured: clusters;
                checked: random_value_specifier;
                ignored: total_weight, runtime_key_prefix;
                refused: ;
            });
            let cluster = |(i, cluster)| decode_weighted(&place.item("clusters", i), cluster);
            let clusters = clusters.iter().enumerate().map(cluster).collect::<Decoded<Vec<_>>>()?;
            match clusters.iter().any(|c| c.weight > 0) {
                true => Ok(Target::Weighted(clusters)),
                false => Err(place.error("no cluster has a weight above zero")),
            }
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(name)) => {
            Err(place.field("cluster_specifier_plugin").unsupported(format_args!("plugin `{name}`")))
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(place.field("inline_cluster_specifier_plugin").unsupported("a plugin"))
        }
        None => Err(place.error("no cluster is named")),
    }
}

/// Whether weighted clusters are picked by hash.
fn decode_split(place: &Place<'_>, target: &Option<ClusterSpecifier>) -> Decoded<bool> {
    use proto::weighted_cluster::RandomValueSpecifier as Random;
    let Some(ClusterSpecifier::WeightedClusters(all)) = target else { return Ok(false) };
    match &all.random_value_specifier {
        None => Ok(false),
        Some(Random::UseHashPolicy(wanted)) => Ok(wanted.value),
        Some(Random::HeaderName(name)) => {
            let place = place.field("weighted_clusters");
            Err(place.field("header_name").unsupported(format_args!("a number from header `{name}`")))
        }
    }
}

fn decode_weighted(place: &Place<'_>, cluster: &ClusterWeight) -> Decoded<WeightedCluster> {
    fields!(place, cluster => ClusterWeight {
        honoured: name, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier, metadata_match;
        ignored: ;
        refused: cluster_header;
    });
    filter::refuse_settings(place, typed_per_filter_config)?;
    Ok(WeightedCluster {
        cluster: name.clone(),
        weight: weight.map_or(0, |w| w.value),
        request_headers: headers::decode_edits(
            place,
            headers::REQUEST,
            request_headers_to_add,
            request_headers_to_remove,
        )?,
        response_headers: headers::decode_edits(
            place,
            headers::RESPONSE,
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        host_rewrite: host_rewrite_specifier
            .as_ref()
            .map(|cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| host.clone()),
        subset: affinity::decode_subset(metadata_match),
    })
}

fn decode_host_rewrite(
    place: &Place<'_>,
    rewrite: &Option<HostRewriteSpecifier>,
) -> Decoded<Option<HostRewrite>> {
    Ok(match rewrite {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(host.clone())),
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => auto.value.then_some(HostRewrite::Endpoint),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(headers::decode_plain_name(&place.field("host_rewrite_header"), name)?))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => Some(HostRewrite::Path(
            text::decode_substitution(&place.field("host_rewrite_path_regex"), rewrite)?,
        )),
        Some(HostRewriteSpecifier::HostRewrite(host)) => {
            let place = place.field("host_rewrite");
            let template = Template::parse(host).map_err(|e| place.error(e))?;
            let literal = template.as_literal().map(|text| HostRewrite::Literal(text.to_owned()));
            Some(literal.unwrap_or(HostRewrite::Formatted(template)))
        }
    })
}

fn decode_upgrade(place: &Place<'_>, config: &proto::route_action::UpgradeConfig) -> Decoded<Upgrade> {
    if let Some(connect) = &config.connect_config {
        let place = place.field("connect_config");
        place.refuse("proxy_protocol_config", &connect.proxy_protocol_config)?;
        place.refuse("allow_post", &connect.allow_post)?;
    }
    Ok(Upgrade {
        protocol: config.upgrade_type.clone(),
        enabled: flag_or(&config.enabled, true),
        terminate_connect: config.connect_config.is_some(),
    })
}

pub(crate) fn encode(forward: &Forward, condition: &RouteMatch) -> proto::RouteAction {
    let (mut prefix_rewrite, mut regex_rewrite) = (String::new(), None);
    let (mut path_rewrite, mut path_rewrite_policy) = (String::new(), None);
    match &forward.path_rewrite {
        None => {}
        Some(PathRewrite::Prefix(new)) if new.is_empty() => {
            regex_rewrite = Some(encode_removal(condition));
        }
        Some(PathRewrite::Prefix(new)) => prefix_rewrite = new.clone(),
        Some(PathRewrite::Full(full)) => regex_rewrite = Some(text::encode_replacement(full)),
        Some(PathRewrite::Regex(rewrite)) => regex_rewrite = Some(text::encode_substitution(rewrite)),
        Some(PathRewrite::Template(rewrite)) => path_rewrite_policy = Some(rewrite::encode_policy(rewrite)),
        Some(PathRewrite::Formatted(template)) => path_rewrite = template.source().to_owned(),
    }
    proto::RouteAction {
        cluster_not_found_response_code: match forward.cluster_not_found_status {
            404 => NotFound::NotFound,
            500 => NotFound::InternalServerError,
            _ => NotFound::ServiceUnavailable,
        } as i32,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite,
        path_rewrite_policy,
        timeout: encode_limit(forward.timeout),
        idle_timeout: forward.idle_timeout.map(value::encode_duration),
        max_stream_duration: encode_max_duration(forward),
        request_mirror_policies: forward.mirrors.iter().map(encode_mirror).collect(),
        append_x_forwarded_host: forward.append_forwarded_host,
        retry_policy: forward.retry.as_ref().map(retry::encode),
        hash_policy: forward.hash_policies.iter().map(affinity::encode).collect(),
        metadata_match: affinity::encode_subset(&forward.subset),
        priority: match forward.priority {
            Priority::Default => RoutingPriority::Default,
            Priority::High => RoutingPriority::High,
        } as i32,
        upgrade_configs: forward.upgrades.iter().map(encode_upgrade).collect(),
        cluster_specifier: Some(encode_target(&forward.target, forward.splits_by_hash)),
        host_rewrite_specifier: forward.host_rewrite.as_ref().map(|rewrite| match rewrite {
            HostRewrite::Literal(host) => HostRewriteSpecifier::HostRewriteLiteral(host.clone()),
            HostRewrite::Endpoint => HostRewriteSpecifier::AutoHostRewrite(BoolValue { value: true }),
            HostRewrite::Header(name) => HostRewriteSpecifier::HostRewriteHeader(name.as_str().to_owned()),
            HostRewrite::Path(rewrite) => {
                HostRewriteSpecifier::HostRewritePathRegex(text::encode_substitution(rewrite))
            }
            HostRewrite::Formatted(template) => {
                HostRewriteSpecifier::HostRewrite(template.source().to_owned())
            }
        }),
        ..Default::default()
    }
}

/// What was matched is taken away. An empty `prefix_rewrite` would say nothing, so this is said with a regex.
fn encode_removal(condition: &RouteMatch) -> RegexMatchAndSubstitute {
    let case = if condition.case_sensitive { "" } else { "(?i)" };
    let pattern = match &condition.path {
        PathMatch::Prefix(p) | PathMatch::SegmentPrefix(p) => format!("^{case}{}", text::escaped(p)),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Template(_) | PathMatch::Connect => {
            return text::encode_replacement("");
        }
    };
    RegexMatchAndSubstitute { pattern: Some(text::encode_regex(&pattern)), substitution: String::new() }
}

fn encode_target(target: &Target, splits_by_hash: bool) -> ClusterSpecifier {
    use proto::weighted_cluster::RandomValueSpecifier as Random;
    match target {
        Target::Cluster(name) => ClusterSpecifier::Cluster(name.clone()),
        Target::Header(name) => ClusterSpecifier::ClusterHeader(name.as_str().to_owned()),
        Target::Weighted(all) => ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
            clusters: all.iter().map(encode_weighted).collect(),
            random_value_specifier: splits_by_hash
                .then_some(Random::UseHashPolicy(BoolValue { value: true })),
            ..Default::default()
        }),
    }
}

fn encode_weighted(cluster: &WeightedCluster) -> ClusterWeight {
    let (request_headers_to_add, request_headers_to_remove) = headers::encode_edits(&cluster.request_headers);
    let (response_headers_to_add, response_headers_to_remove) =
        headers::encode_edits(&cluster.response_headers);
    ClusterWeight {
        name: cluster.cluster.clone(),
        weight: encode_number(cluster.weight),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        host_rewrite_specifier: cluster
            .host_rewrite
            .clone()
            .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        metadata_match: affinity::encode_subset(&cluster.subset),
        ..Default::default()
    }
}

fn encode_upgrade(upgrade: &Upgrade) -> proto::route_action::UpgradeConfig {
    use proto::route_action::upgrade_config::ConnectConfig;
    let is_connect = upgrade.protocol.eq_ignore_ascii_case("CONNECT");
    proto::route_action::UpgradeConfig {
        upgrade_type: upgrade.protocol.clone(),
        enabled: encode_flag(upgrade.enabled),
        connect_config: (is_connect && upgrade.terminate_connect).then(ConnectConfig::default),
    }
}
