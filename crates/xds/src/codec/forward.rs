//! Requests that are sent on (`RouteAction`).

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_limit, encode_flag, encode_limit, encode_number, flag_or};
use super::{headers, retry, route, text};
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use envoy_types::pb::google::protobuf::BoolValue;
use model::format::Template;
use model::route::{
    Forward, HostRewrite, PathMatch, PathRewrite, RouteMatch, Target, Upgrade, WeightedCluster,
};
use proto::route_action::{ClusterNotFoundResponseCode as NotFound, ClusterSpecifier, HostRewriteSpecifier};
use proto::weighted_cluster::{ClusterWeight, cluster_weight};
use std::time::Duration;

/// What Envoy takes for a route that says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) fn decode(place: &Place<'_>, action: &proto::RouteAction) -> Decoded<Forward> {
    fields!(place, action => proto::RouteAction {
        honoured: cluster_not_found_response_code, prefix_rewrite, regex_rewrite, path_rewrite, timeout,
            idle_timeout, retry_policy, upgrade_configs, cluster_specifier, host_rewrite_specifier;
        checked: max_stream_duration, max_grpc_timeout;
        // Priorities differ only in circuit breakers, which are as good as unlimited here.
        ignored: priority, include_vh_rate_limits, early_data_policy, flush_timeout;
        refused: metadata_match, path_rewrite_policy, append_x_forwarded_host, retry_policy_typed_config,
            request_mirror_policies, rate_limits, hash_policy, cors, grpc_timeout_offset,
            internal_redirect_policy, internal_redirect_action, max_internal_redirects, hedge_policy;
    });
    check_limits(place, action)?;
    let path_rewrite = decode_path_rewrite(place, prefix_rewrite, regex_rewrite, path_rewrite)?;
    let idle_timeout = match decode_limit(&place.field("idle_timeout"), idle_timeout, None)? {
        None if idle_timeout.is_some() => {
            return Err(place.field("idle_timeout").unsupported("0, which lifts the limit for one route,"));
        }
        timeout => timeout,
    };
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
        idle_timeout,
        retry: retry.transpose()?,
        upgrades: upgrade_configs.iter().enumerate().map(upgrade).collect::<Decoded<_>>()?,
    })
}

/// Limits that gRPC's own clients read; here they have to be absent or lifted.
fn check_limits(place: &Place<'_>, action: &proto::RouteAction) -> Decoded<()> {
    value::refuse_limit(place, "max_grpc_timeout", &action.max_grpc_timeout)?;
    if let Some(proto::route_action::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    }) = &action.max_stream_duration
    {
        let place = place.field("max_stream_duration");
        value::refuse_limit(&place, "max_stream_duration", max_stream_duration)?;
        value::refuse_limit(&place, "grpc_timeout_header_max", grpc_timeout_header_max)?;
        place.refuse("grpc_timeout_header_offset", grpc_timeout_header_offset)?;
    }
    Ok(())
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
        None => Err(place.unsupported(format_args!("a path that is made per request (`{full}`)"))),
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
                ignored: total_weight, runtime_key_prefix;
                refused: random_value_specifier;
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

fn decode_weighted(place: &Place<'_>, cluster: &ClusterWeight) -> Decoded<WeightedCluster> {
    fields!(place, cluster => ClusterWeight {
        honoured: name, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier;
        ignored: ;
        refused: cluster_header, metadata_match;
    });
    route::check_filter_config(place, typed_per_filter_config)?;
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
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            return Err(place.field("host_rewrite_path_regex").unsupported("a host made from the path"));
        }
        Some(HostRewriteSpecifier::HostRewrite(host)) => {
            let place = place.field("host_rewrite");
            let template = Template::parse(host).map_err(|e| place.error(e))?;
            let literal = template.as_literal().map(|text| HostRewrite::Literal(text.to_owned()));
            Some(literal.ok_or_else(|| {
                place.unsupported(format_args!("a host that is made per request (`{host}`)"))
            })?)
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
    match &forward.path_rewrite {
        None => {}
        Some(PathRewrite::Prefix(new)) if new.is_empty() => {
            regex_rewrite = Some(encode_removal(condition));
        }
        Some(PathRewrite::Prefix(new)) => prefix_rewrite = new.clone(),
        Some(PathRewrite::Full(full)) => regex_rewrite = Some(text::encode_replacement(full)),
        Some(PathRewrite::Regex(rewrite)) => regex_rewrite = Some(text::encode_substitution(rewrite)),
    }
    proto::RouteAction {
        cluster_not_found_response_code: match forward.cluster_not_found_status {
            404 => NotFound::NotFound,
            500 => NotFound::InternalServerError,
            _ => NotFound::ServiceUnavailable,
        } as i32,
        prefix_rewrite,
        regex_rewrite,
        timeout: encode_limit(forward.timeout),
        idle_timeout: forward.idle_timeout.map(value::encode_duration),
        retry_policy: forward.retry.as_ref().map(retry::encode),
        upgrade_configs: forward.upgrades.iter().map(encode_upgrade).collect(),
        cluster_specifier: Some(encode_target(&forward.target)),
        host_rewrite_specifier: forward.host_rewrite.as_ref().map(|rewrite| match rewrite {
            HostRewrite::Literal(host) => HostRewriteSpecifier::HostRewriteLiteral(host.clone()),
            HostRewrite::Endpoint => HostRewriteSpecifier::AutoHostRewrite(BoolValue { value: true }),
            HostRewrite::Header(name) => HostRewriteSpecifier::HostRewriteHeader(name.as_str().to_owned()),
        }),
        ..Default::default()
    }
}

/// What was matched is taken away. An empty `prefix_rewrite` would say nothing, so this is said with a regex.
fn encode_removal(condition: &RouteMatch) -> RegexMatchAndSubstitute {
    let case = if condition.case_sensitive { "" } else { "(?i)" };
    let pattern = match &condition.path {
        PathMatch::Prefix(p) | PathMatch::SegmentPrefix(p) => format!("^{case}{}", text::escaped(p)),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => {
            return text::encode_replacement("");
        }
    };
    RegexMatchAndSubstitute { pattern: Some(text::encode_regex(&pattern)), substitution: String::new() }
}

fn encode_target(target: &Target) -> ClusterSpecifier {
    match target {
        Target::Cluster(name) => ClusterSpecifier::Cluster(name.clone()),
        Target::Header(name) => ClusterSpecifier::ClusterHeader(name.as_str().to_owned()),
        Target::Weighted(all) => ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
            clusters: all.iter().map(encode_weighted).collect(),
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
