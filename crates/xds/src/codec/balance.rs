//! How endpoints are picked, in the old way (`lb_policy`) and the new (`load_balancing_policy`).

use super::place::{Decoded, Place, fields};
use super::value::{type_name, unpack};
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::extensions::load_balancing_policies as policies;
use envoy_types::pb::google::protobuf::Any;
use model::balance::LoadBalancing;
use model::cluster::Discovery;
use policies::common::v3::LocalityLbConfig;
use policies::common::v3::locality_lb_config::LocalityConfigSpecifier;
use proto::cluster::{LbConfig, LbPolicy};

pub(crate) fn decode(
    place: &Place<'_>,
    discovery: &Discovery,
    policy: i32,
    chain: &Option<proto::LoadBalancingPolicy>,
    config: &Option<LbConfig>,
) -> Decoded<LoadBalancing> {
    if let Some(chain) = chain {
        return decode_chain(&place.field("load_balancing_policy"), chain);
    }
    check_config(place, config)?;
    let place = place.field("lb_policy");
    match (LbPolicy::try_from(policy), discovery) {
        (Ok(LbPolicy::RoundRobin), _) => Ok(LoadBalancing::RoundRobin),
        (Ok(LbPolicy::LeastRequest), _) => Ok(LoadBalancing::LeastRequest),
        (Ok(LbPolicy::Random), _) => Ok(LoadBalancing::Random),
        // There is only one endpoint to pick.
        (Ok(LbPolicy::ClusterProvided), Discovery::OriginalDestination) => Ok(LoadBalancing::default()),
        (Ok(other), _) => Err(place.unsupported(other.as_str_name())),
        (Err(_), _) => Err(place.unsupported(format_args!("policy {policy}"))),
    }
}

pub(crate) fn encode(discovery: &Discovery, policy: LoadBalancing) -> i32 {
    let policy = match (discovery, policy) {
        (Discovery::OriginalDestination, _) => LbPolicy::ClusterProvided,
        (_, LoadBalancing::RoundRobin) => LbPolicy::RoundRobin,
        (_, LoadBalancing::LeastRequest) => LbPolicy::LeastRequest,
        (_, LoadBalancing::Random) => LbPolicy::Random,
    };
    policy as i32
}

/// What two choices among the endpoints are made with; other numbers of them are not supported.
const CHOICES: u32 = 2;

fn check_config(place: &Place<'_>, config: &Option<LbConfig>) -> Decoded<()> {
    match config {
        None => Ok(()),
        Some(LbConfig::OriginalDstLbConfig(config)) => place.refuse("original_dst_lb_config", config),
        Some(LbConfig::LeastRequestLbConfig(config)) => {
            let place = place.field("least_request_lb_config");
            place.refuse("choice_count", &config.choice_count.filter(|count| count.value != CHOICES))?;
            place.refuse("active_request_bias", &config.active_request_bias)?;
            place.refuse("slow_start_config", &config.slow_start_config)
        }
        Some(LbConfig::RoundRobinLbConfig(config)) => {
            place.field("round_robin_lb_config").refuse("slow_start_config", &config.slow_start_config)
        }
        // Only read by policies that are refused themselves.
        Some(LbConfig::RingHashLbConfig(_) | LbConfig::MaglevLbConfig(_)) => Ok(()),
    }
}

/// Like Envoy, the first policy of the list that is known is taken.
fn decode_chain(place: &Place<'_>, chain: &proto::LoadBalancingPolicy) -> Decoded<LoadBalancing> {
    let mut passed_over = Vec::new();
    for (i, policy) in chain.policies.iter().enumerate() {
        let place = place.item("policies", i);
        let place = place.field("typed_extension_config");
        let Some(config) = &policy.typed_extension_config else {
            return Err(place.error("this field is required"));
        };
        let found = config.typed_config.as_ref().map(|any| decode_policy(&place.field("typed_config"), any));
        match found.transpose()?.flatten() {
            Some(policy) => return Ok(policy),
            None => passed_over.push(config.name.as_str()),
        }
    }
    Err(place.error(format_args!("none of the policies is supported (found {})", passed_over.join(", "))))
}

fn decode_policy(place: &Place<'_>, any: &Any) -> Decoded<Option<LoadBalancing>> {
    match type_name(any) {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            let config: policies::round_robin::v3::RoundRobin = unpack(place, any)?;
            fields!(place, &config => policies::round_robin::v3::RoundRobin {
                honoured: locality_lb_config;
                ignored: ;
                refused: slow_start_config;
            });
            check_locality(place, locality_lb_config)?;
            Ok(Some(LoadBalancing::RoundRobin))
        }
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            let config: policies::least_request::v3::LeastRequest = unpack(place, any)?;
            fields!(place, &config => policies::least_request::v3::LeastRequest {
                honoured: choice_count, locality_lb_config;
                ignored: ;
                refused: active_request_bias, slow_start_config, enable_full_scan, selection_method;
            });
            place.refuse("choice_count", &choice_count.filter(|count| count.value != CHOICES))?;
            check_locality(place, locality_lb_config)?;
            Ok(Some(LoadBalancing::LeastRequest))
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            let config: policies::random::v3::Random = unpack(place, any)?;
            check_locality(place, &config.locality_lb_config)?;
            Ok(Some(LoadBalancing::Random))
        }
        _ => Ok(None),
    }
}

fn check_locality(place: &Place<'_>, config: &Option<LocalityLbConfig>) -> Decoded<()> {
    match config.as_ref().and_then(|config| config.locality_config_specifier.as_ref()) {
        // Weights of localities are heeded wherever there are any.
        None | Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Ok(()),
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            Err(place.field("locality_lb_config").unsupported("zone-aware balancing"))
        }
    }
}

pub(crate) fn check_common(place: &Place<'_>, common: &proto::cluster::CommonLbConfig) -> Decoded<()> {
    use proto::cluster::common_lb_config::LocalityConfigSpecifier;
    fields!(place, common => proto::cluster::CommonLbConfig {
        honoured: healthy_panic_threshold, locality_config_specifier;
        // Updates are taken at once, however far apart.
        ignored: update_merge_window, ignore_new_hosts_until_first_hc, consistent_hashing_lb_config;
        refused: close_connections_on_host_set_change, override_host_status;
    });
    // There is no panic mode: what is not healthy is not used.
    place
        .refuse("healthy_panic_threshold", &healthy_panic_threshold.filter(|percent| percent.value != 0.0))?;
    match locality_config_specifier {
        None | Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Ok(()),
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) => {
            place.refuse("zone_aware_lb_config", zones)
        }
    }
}
