//! What decides where requests go beside the policy: localities, panic, slow start, subsets.

use super::place::{Decoded, Place, fields};
use super::value;
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::RuntimeDouble;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::SlowStartConfig;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Duration as DurationProto, UInt32Value};
use model::balance::{Fallback, SlowStart, Spread, SubsetSelector, Subsets};
use proto::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use proto::cluster::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy as SelectorFallback;
use proto::cluster::lb_subset_config::{LbSubsetFallbackPolicy, LbSubsetSelector};
use proto::cluster::{CommonLbConfig, LbSubsetConfig};

/// What Envoy takes where nothing is said.
const PANIC_THRESHOLD: f64 = 50.0;
const LEAST_PERCENT: f64 = 10.0;

pub(crate) fn decode(place: &Place<'_>, cluster: &proto::Cluster) -> Decoded<Spread> {
    let mut spread = Spread { panic_threshold: PANIC_THRESHOLD, ..Spread::default() };
    if let Some(common) = &cluster.common_lb_config {
        decode_common(&place.field("common_lb_config"), common, &mut spread)?;
    }
    let subsets = cluster.lb_subset_config.as_ref();
    let subsets = subsets.map(|config| decode_subsets(&place.field("lb_subset_config"), config));
    // Without a selector there is nothing to choose from.
    spread.subsets = subsets.transpose()?.filter(|subsets| !subsets.selectors.is_empty());
    Ok(spread)
}

fn decode_common(place: &Place<'_>, common: &CommonLbConfig, spread: &mut Spread) -> Decoded<()> {
    fields!(place, common => CommonLbConfig {
        honoured: healthy_panic_threshold, locality_config_specifier, consistent_hashing_lb_config,
            close_connections_on_host_set_change;
        // Updates are taken at once, however far apart.
        ignored: update_merge_window, ignore_new_hosts_until_first_hc;
        refused: override_host_status;
    });
    spread.renews_connections = *close_connections_on_host_set_change;
    if let Some(percent) = healthy_panic_threshold {
        spread.panic_threshold = percent.value;
    }
    if let Some(hashing) = consistent_hashing_lb_config {
        let place = place.field("consistent_hashing_lb_config");
        spread.hash_balance = decode_bound(&place, &hashing.hash_balance_factor)?;
        spread.hash_host_names = hashing.use_hostname_for_hashing;
    }
    match locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => spread.weighted_localities = true,
        // Without a cluster of this proxy's own, which a bootstrap does not name here, only this part does something.
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) => {
            spread.fail_in_panic = zones.fail_traffic_on_panic;
        }
    }
    Ok(())
}

/// At most this percent of the average.
pub(crate) fn decode_bound(place: &Place<'_>, factor: &Option<UInt32Value>) -> Decoded<Option<u32>> {
    match factor.map(|factor| factor.value) {
        None | Some(0) => Ok(None),
        Some(factor @ 1..100) => {
            Err(place.field("hash_balance_factor").error(format_args!("{factor} is less than 100")))
        }
        Some(factor) => Ok(Some(factor)),
    }
}

pub(crate) fn encode_common(spread: &Spread) -> CommonLbConfig {
    let zones = || ZoneAwareLbConfig {
        // Off, but for what is said here.
        routing_enabled: Some(Percent { value: 0.0 }),
        fail_traffic_on_panic: true,
        ..Default::default()
    };
    CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: spread.panic_threshold }),
        close_connections_on_host_set_change: spread.renews_connections,
        locality_config_specifier: match (spread.weighted_localities, spread.fail_in_panic) {
            (true, _) => {
                Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default()))
            }
            (false, true) => Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones())),
            (false, false) => None,
        },
        consistent_hashing_lb_config: (spread.hash_host_names || spread.hash_balance.is_some()).then(|| {
            ConsistentHashingLbConfig {
                use_hostname_for_hashing: spread.hash_host_names,
                hash_balance_factor: spread.hash_balance.and_then(value::encode_number),
            }
        }),
        ..Default::default()
    }
}

type Given<'g> = (&'g Option<DurationProto>, &'g Option<RuntimeDouble>, &'g Option<Percent>);

pub(crate) fn decode_slow_start(
    place: &Place<'_>,
    config: &Option<proto::cluster::SlowStartConfig>,
) -> Decoded<Option<SlowStart>> {
    let Some(config) = config else { return Ok(None) };
    let given = (&config.slow_start_window, &config.aggression, &config.min_weight_percent);
    decode_slow(&place.field("slow_start_config"), given)
}

pub(crate) fn decode_slow_start_policy(
    place: &Place<'_>,
    config: &Option<SlowStartConfig>,
) -> Decoded<Option<SlowStart>> {
    let Some(config) = config else { return Ok(None) };
    let given = (&config.slow_start_window, &config.aggression, &config.min_weight_percent);
    decode_slow(&place.field("slow_start_config"), given)
}

fn decode_slow(place: &Place<'_>, given: Given<'_>) -> Decoded<Option<SlowStart>> {
    let (window, aggression, minimum) = given;
    let window = value::decode_limit(&place.field("slow_start_window"), window, None)?;
    let aggression = aggression.as_ref().map_or(1.0, |aggression| aggression.default_value);
    if aggression.is_nan() || aggression <= 0.0 {
        return Err(place.field("aggression").error(format_args!("{aggression} is not above 0")));
    }
    let minimum_percent = minimum.map_or(LEAST_PERCENT, |percent| percent.value);
    Ok(window.map(|window| SlowStart { window, aggression, minimum_percent }))
}

pub(crate) fn encode_slow_start(slow: &SlowStart) -> proto::cluster::SlowStartConfig {
    proto::cluster::SlowStartConfig {
        slow_start_window: Some(value::encode_duration(slow.window)),
        aggression: Some(RuntimeDouble {
            default_value: slow.aggression,
            // Envoy wants a name to look for; none by it is ever set.
            runtime_key: "aggression".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: slow.minimum_percent }),
    }
}

fn decode_subsets(place: &Place<'_>, config: &LbSubsetConfig) -> Decoded<Subsets> {
    fields!(place, config => LbSubsetConfig {
        honoured: fallback_policy, default_subset, subset_selectors, panic_mode_any, list_as_any,
            locality_weight_aware, scale_locality_weight;
        ignored: ;
        refused: metadata_fallback_policy;
    });
    let selector = |(i, selector)| decode_selector(&place.item("subset_selectors", i), selector);
    Ok(Subsets {
        fallback: match LbSubsetFallbackPolicy::try_from(*fallback_policy) {
            Ok(LbSubsetFallbackPolicy::NoFallback) => Fallback::None,
            Ok(LbSubsetFallbackPolicy::AnyEndpoint) => Fallback::Any,
            Ok(LbSubsetFallbackPolicy::DefaultSubset) => Fallback::Default,
            Err(_) => {
                let what = format_args!("policy {fallback_policy}");
                return Err(place.field("fallback_policy").unsupported(what));
            }
        },
        default: default_subset.as_ref().map(value::decode_struct).unwrap_or_default(),
        selectors: subset_selectors.iter().enumerate().map(selector).collect::<Decoded<_>>()?,
        list_as_any: *list_as_any,
        panic_any: *panic_mode_any,
        weighted_localities: *locality_weight_aware,
        scaled_localities: *scale_locality_weight,
    })
}

fn decode_selector(place: &Place<'_>, selector: &LbSubsetSelector) -> Decoded<SubsetSelector> {
    fields!(place, selector => LbSubsetSelector {
        honoured: keys, fallback_policy, fallback_keys_subset;
        // One endpoint a subset is found as fast as any other number.
        ignored: single_host_per_subset;
        refused: ;
    });
    let fallback = match SelectorFallback::try_from(*fallback_policy) {
        Ok(SelectorFallback::NotDefined) => None,
        Ok(SelectorFallback::NoFallback) => Some(Fallback::None),
        Ok(SelectorFallback::AnyEndpoint) => Some(Fallback::Any),
        Ok(SelectorFallback::DefaultSubset) => Some(Fallback::Default),
        Ok(SelectorFallback::KeysSubset) => None,
        Err(_) => {
            return Err(place.field("fallback_policy").unsupported(format_args!("policy {fallback_policy}")));
        }
    };
    let falls_back = *fallback_policy == SelectorFallback::KeysSubset as i32;
    let is_smaller = !fallback_keys_subset.is_empty()
        && fallback_keys_subset.len() < keys.len()
        && fallback_keys_subset.iter().all(|key| keys.contains(key));
    if falls_back != is_smaller || (!falls_back && !fallback_keys_subset.is_empty()) {
        let place = place.field("fallback_keys_subset");
        return Err(place.error("with KEYS_SUBSET, and only then, some of the selector's keys stand here"));
    }
    Ok(SubsetSelector {
        keys: keys.iter().cloned().collect(),
        fallback,
        fallback_keys: fallback_keys_subset.iter().cloned().collect(),
    })
}

pub(crate) fn encode_subsets(subsets: &Subsets) -> LbSubsetConfig {
    let fallback = |fallback: Fallback| match fallback {
        Fallback::None => LbSubsetFallbackPolicy::NoFallback,
        Fallback::Any => LbSubsetFallbackPolicy::AnyEndpoint,
        Fallback::Default => LbSubsetFallbackPolicy::DefaultSubset,
    };
    let selector = |selector: &SubsetSelector| LbSubsetSelector {
        keys: selector.keys.iter().cloned().collect(),
        fallback_keys_subset: selector.fallback_keys.iter().cloned().collect(),
        fallback_policy: match selector.fallback {
            None if !selector.fallback_keys.is_empty() => SelectorFallback::KeysSubset,
            None => SelectorFallback::NotDefined,
            Some(Fallback::None) => SelectorFallback::NoFallback,
            Some(Fallback::Any) => SelectorFallback::AnyEndpoint,
            Some(Fallback::Default) => SelectorFallback::DefaultSubset,
        } as i32,
        ..Default::default()
    };
    LbSubsetConfig {
        fallback_policy: fallback(subsets.fallback) as i32,
        default_subset: Some(value::encode_struct(&subsets.default)).filter(|_| !subsets.default.is_empty()),
        subset_selectors: subsets.selectors.iter().map(selector).collect(),
        panic_mode_any: subsets.panic_any,
        list_as_any: subsets.list_as_any,
        locality_weight_aware: subsets.weighted_localities,
        scale_locality_weight: subsets.scaled_localities,
        ..Default::default()
    }
}
