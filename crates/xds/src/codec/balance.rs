//! How endpoints are picked, in the old way (`lb_policy`) and the new (`load_balancing_policy`). The old is written:
//! everybody reads it.

use super::headers;
use super::place::{DecodeError, Decoded, Place, fields};
use super::spread;
use super::value::{self, encode_number, type_name, unpack};
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::RuntimeDouble;
use envoy_types::pb::envoy::extensions::load_balancing_policies as policies;
use envoy_types::pb::google::protobuf::{Any, UInt32Value, UInt64Value};
use http::HeaderName;
use model::balance::{LoadBalancing, MAGLEV_SIZE, PlaceHash, RingShape, Spread};
use model::cluster::Discovery;
use policies::common::v3::locality_lb_config::LocalityConfigSpecifier;
use policies::common::v3::{ConsistentHashingLbConfig, LocalityLbConfig};
use proto::cluster::ring_hash_lb_config::HashFunction;
use proto::cluster::{LbConfig, LbPolicy};

/// The policy of a cluster, and what of `spread` comes with it.
pub(crate) fn decode(
    place: &Place<'_>,
    cluster: &proto::Cluster,
    discovery: &Discovery,
    spread: &mut Spread,
) -> Decoded<LoadBalancing> {
    if let Some(chain) = &cluster.load_balancing_policy {
        // The new way says it all by itself.
        spread.weighted_localities = false;
        return decode_chain(&place.field("load_balancing_policy"), chain, spread);
    }
    let policy = cluster.lb_policy;
    let config = &cluster.lb_config;
    match (LbPolicy::try_from(policy), discovery) {
        (Ok(LbPolicy::RoundRobin), _) => {
            if let Some(LbConfig::RoundRobinLbConfig(config)) = config {
                let place = place.field("round_robin_lb_config");
                spread.slow_start = spread::decode_slow_start(&place, &config.slow_start_config)?;
            }
            Ok(LoadBalancing::RoundRobin)
        }
        (Ok(LbPolicy::LeastRequest), _) => {
            if let Some(LbConfig::LeastRequestLbConfig(config)) = config {
                let place = place.field("least_request_lb_config");
                spread.bias = decode_bias(&place, &config.active_request_bias)?;
                spread.choices = decode_choices(&place, &config.choice_count)?;
                spread.slow_start = spread::decode_slow_start(&place, &config.slow_start_config)?;
            }
            Ok(LoadBalancing::LeastRequest)
        }
        (Ok(LbPolicy::Random), _) => Ok(LoadBalancing::Random),
        (Ok(LbPolicy::RingHash), _) => match config {
            Some(LbConfig::RingHashLbConfig(config)) => {
                let place = place.field("ring_hash_lb_config");
                let hash = match HashFunction::try_from(config.hash_function) {
                    Ok(HashFunction::XxHash) => PlaceHash::Xx,
                    Ok(HashFunction::MurmurHash2) => PlaceHash::Murmur2,
                    Err(_) => return Err(unknown_hash(&place, config.hash_function)),
                };
                decode_ring(&place, (&config.minimum_ring_size, &config.maximum_ring_size), hash)
            }
            _ => Ok(LoadBalancing::RingHash(RingShape::default())),
        },
        (Ok(LbPolicy::Maglev), _) => match config {
            Some(LbConfig::MaglevLbConfig(config)) => {
                decode_maglev(&place.field("maglev_lb_config"), &config.table_size)
            }
            _ => Ok(LoadBalancing::Maglev(MAGLEV_SIZE)),
        },
        // There is only one endpoint to pick.
        (Ok(LbPolicy::ClusterProvided), Discovery::OriginalDestination) => {
            if let Some(LbConfig::OriginalDstLbConfig(config)) = config {
                let place = place.field("original_dst_lb_config");
                decode_destination(&place, config, spread)?;
            }
            Ok(LoadBalancing::default())
        }
        // The clusters in it have policies of their own.
        (Ok(LbPolicy::ClusterProvided), Discovery::Aggregate(_)) => Ok(LoadBalancing::default()),
        (Ok(other), _) => Err(place.field("lb_policy").unsupported(other.as_str_name())),
        (Err(_), _) => Err(place.field("lb_policy").unsupported(format_args!("policy {policy}"))),
    }
}

const DESTINATION: HeaderName = HeaderName::from_static("x-envoy-original-dst-host");

fn decode_destination(
    place: &Place<'_>,
    config: &proto::cluster::OriginalDstLbConfig,
    spread: &mut Spread,
) -> Decoded<()> {
    fields!(place, config => proto::cluster::OriginalDstLbConfig {
        honoured: use_http_header, http_header_name, upstream_port_override;
        ignored: ;
        refused: metadata_key;
    });
    spread.destination_header = match (use_http_header, http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(DESTINATION),
        (true, name) => Some(headers::decode_plain_name(&place.field("http_header_name"), name)?),
    };
    let port = upstream_port_override.map(|port| port.value);
    let port = port.map(|port| value::decode_port(&place.field("upstream_port_override"), port));
    spread.destination_port = port.transpose()?;
    Ok(())
}

/// Most endpoints compared for one pick.
const MOST_CHOICES: u32 = 128;

fn decode_bias(place: &Place<'_>, bias: &Option<RuntimeDouble>) -> Decoded<f64> {
    match bias.as_ref().map_or(1.0, |bias| bias.default_value) {
        bias if bias >= 0.0 && bias.is_finite() => Ok(bias),
        bias => Err(place.field("active_request_bias").error(format_args!("{bias} is not 0 or more"))),
    }
}

fn decode_choices(place: &Place<'_>, count: &Option<UInt32Value>) -> Decoded<u32> {
    match count.map_or(2, |count| count.value) {
        count @ 2..=MOST_CHOICES => Ok(count),
        count => {
            Err(place.field("choice_count").error(format_args!("{count} is not from 2 to {MOST_CHOICES}")))
        }
    }
}

fn unknown_hash(place: &Place<'_>, number: i32) -> DecodeError {
    place.field("hash_function").unsupported(format_args!("hash function {number}"))
}

/// Envoy's own bound.
const LARGEST_RING: u64 = 8 << 20;

fn decode_ring(
    place: &Place<'_>,
    (minimum, maximum): (&Option<UInt64Value>, &Option<UInt64Value>),
    hash: PlaceHash,
) -> Decoded<LoadBalancing> {
    let default = RingShape::default();
    let minimum = minimum.map_or(default.minimum, |size| size.value);
    let maximum = maximum.map_or(default.maximum, |size| size.value);
    if minimum > maximum || maximum > LARGEST_RING {
        let problem = format_args!("a ring of {minimum} to {maximum} places (at most {LARGEST_RING})");
        return Err(place.field("minimum_ring_size").unsupported(problem));
    }
    Ok(LoadBalancing::RingHash(RingShape { minimum, maximum, hash }))
}

/// Envoy's own bound.
const LARGEST_TABLE: u64 = 5_000_011;

fn decode_maglev(place: &Place<'_>, size: &Option<UInt64Value>) -> Decoded<LoadBalancing> {
    let size = size.map_or(u64::from(MAGLEV_SIZE), |size| size.value);
    match u32::try_from(size) {
        Ok(found) if size <= LARGEST_TABLE && is_prime(found) => Ok(LoadBalancing::Maglev(found)),
        _ => {
            let problem = format_args!("{size} is no prime up to {LARGEST_TABLE}");
            Err(place.field("table_size").error(problem))
        }
    }
}

fn is_prime(number: u32) -> bool {
    let divides = |divisor: &u32| number.is_multiple_of(*divisor);
    number > 1 && !(2..).take_while(|divisor| divisor * divisor <= number).any(|divisor| divides(&divisor))
}

pub(crate) fn encode(
    discovery: &Discovery,
    policy: LoadBalancing,
    spread: &Spread,
) -> (LbPolicy, Option<LbConfig>) {
    let slow_start_config = spread.slow_start.map(|slow| spread::encode_slow_start(&slow));
    let large = |value: u64| Some(UInt64Value { value });
    match (discovery, policy) {
        (Discovery::Aggregate(_), _) => (LbPolicy::ClusterProvided, None),
        (Discovery::OriginalDestination, _) => {
            let config = proto::cluster::OriginalDstLbConfig {
                use_http_header: spread.destination_header.is_some(),
                http_header_name: spread
                    .destination_header
                    .as_ref()
                    .map_or("", |name| name.as_str())
                    .to_owned(),
                upstream_port_override: spread.destination_port.and_then(|port| encode_number(port.into())),
                ..Default::default()
            };
            let says = config != proto::cluster::OriginalDstLbConfig::default();
            (LbPolicy::ClusterProvided, says.then_some(LbConfig::OriginalDstLbConfig(config)))
        }
        (_, LoadBalancing::RoundRobin) => {
            let config = slow_start_config.map(|slow| {
                LbConfig::RoundRobinLbConfig(proto::cluster::RoundRobinLbConfig {
                    slow_start_config: Some(slow),
                })
            });
            (LbPolicy::RoundRobin, config)
        }
        (_, LoadBalancing::LeastRequest) => {
            let says = slow_start_config.is_some() || spread.choices != 2 || spread.bias != 1.0;
            let config = proto::cluster::LeastRequestLbConfig {
                choice_count: encode_number(spread.choices),
                slow_start_config,
                active_request_bias: (spread.bias != 1.0).then(|| RuntimeDouble {
                    default_value: spread.bias,
                    runtime_key: "active_request_bias".to_owned(),
                }),
            };
            (LbPolicy::LeastRequest, says.then_some(LbConfig::LeastRequestLbConfig(config)))
        }
        (_, LoadBalancing::Random) => (LbPolicy::Random, None),
        (_, LoadBalancing::RingHash(shape)) => {
            let config = proto::cluster::RingHashLbConfig {
                minimum_ring_size: large(shape.minimum),
                maximum_ring_size: large(shape.maximum),
                hash_function: match shape.hash {
                    PlaceHash::Xx => HashFunction::XxHash,
                    PlaceHash::Murmur2 => HashFunction::MurmurHash2,
                } as i32,
            };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
        }
        (_, LoadBalancing::Maglev(size)) => {
            let config = proto::cluster::MaglevLbConfig { table_size: large(u64::from(size)) };
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config)))
        }
    }
}

/// Like Envoy, the first policy of the list that is known is taken.
fn decode_chain(
    place: &Place<'_>,
    chain: &proto::LoadBalancingPolicy,
    spread: &mut Spread,
) -> Decoded<LoadBalancing> {
    let mut passed_over = Vec::new();
    for (i, policy) in chain.policies.iter().enumerate() {
        let place = place.item("policies", i);
        let place = place.field("typed_extension_config");
        let Some(config) = &policy.typed_extension_config else {
            return Err(place.error("this field is required"));
        };
        let found = match &config.typed_config {
            Some(any) => decode_policy(&place.field("typed_config"), any, spread)?,
            None => None,
        };
        match found {
            Some(policy) => return Ok(policy),
            None => passed_over.push(config.name.as_str()),
        }
    }
    Err(place.error(format_args!("none of the policies is supported (found {})", passed_over.join(", "))))
}

fn decode_policy(place: &Place<'_>, any: &Any, spread: &mut Spread) -> Decoded<Option<LoadBalancing>> {
    match type_name(any) {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            let config: policies::round_robin::v3::RoundRobin = unpack(place, any)?;
            spread.slow_start = spread::decode_slow_start_policy(place, &config.slow_start_config)?;
            decode_locality(&config.locality_lb_config, spread);
            Ok(Some(LoadBalancing::RoundRobin))
        }
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            let config: policies::least_request::v3::LeastRequest = unpack(place, any)?;
            fields!(place, &config => policies::least_request::v3::LeastRequest {
                honoured: choice_count, locality_lb_config, slow_start_config, active_request_bias;
                ignored: ;
                refused: enable_full_scan, selection_method;
            });
            spread.bias = decode_bias(place, active_request_bias)?;
            spread.choices = decode_choices(place, choice_count)?;
            spread.slow_start = spread::decode_slow_start_policy(place, slow_start_config)?;
            decode_locality(locality_lb_config, spread);
            Ok(Some(LoadBalancing::LeastRequest))
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            let config: policies::random::v3::Random = unpack(place, any)?;
            decode_locality(&config.locality_lb_config, spread);
            Ok(Some(LoadBalancing::Random))
        }
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => {
            let config: policies::ring_hash::v3::RingHash = unpack(place, any)?;
            use policies::ring_hash::v3::ring_hash::HashFunction;
            let hash = match HashFunction::try_from(config.hash_function) {
                Ok(HashFunction::DefaultHash | HashFunction::XxHash) => PlaceHash::Xx,
                Ok(HashFunction::MurmurHash2) => PlaceHash::Murmur2,
                Err(_) => return Err(unknown_hash(place, config.hash_function)),
            };
            spread.hash_balance = spread::decode_bound(place, &config.hash_balance_factor)?;
            spread.weighted_localities = config.locality_weighted_lb_config.is_some();
            decode_consistent(place, &config.consistent_hashing_lb_config, spread)?;
            spread.hash_host_names |= config.use_hostname_for_hashing;
            decode_ring(place, (&config.minimum_ring_size, &config.maximum_ring_size), hash).map(Some)
        }
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" => {
            let config: policies::maglev::v3::Maglev = unpack(place, any)?;
            spread.weighted_localities = config.locality_weighted_lb_config.is_some();
            decode_consistent(place, &config.consistent_hashing_lb_config, spread)?;
            decode_maglev(place, &config.table_size).map(Some)
        }
        "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost" => {
            decode_override(place, &unpack(place, any)?, spread).map(Some)
        }
        _ => Ok(None),
    }
}

fn decode_override(
    place: &Place<'_>,
    config: &policies::override_host::v3::OverrideHost,
    spread: &mut Spread,
) -> Decoded<LoadBalancing> {
    fields!(place, config => policies::override_host::v3::OverrideHost {
        honoured: override_host_sources, fallback_policy;
        // Nothing here reads what it would leave.
        ignored: selected_host_key;
        refused: ;
    });
    for (i, source) in override_host_sources.iter().enumerate() {
        let place = place.item("override_host_sources", i);
        place.refuse("metadata", &source.metadata)?;
        spread.override_headers.push(headers::decode_plain_name(&place.field("header"), &source.header)?);
    }
    let place = place.field("fallback_policy");
    match fallback_policy {
        Some(chain) => decode_chain(&place, chain, spread),
        None => Err(place.error("this field is required")),
    }
}

fn decode_consistent(
    place: &Place<'_>,
    config: &Option<ConsistentHashingLbConfig>,
    spread: &mut Spread,
) -> Decoded<()> {
    let Some(config) = config else { return Ok(()) };
    let place = place.field("consistent_hashing_lb_config");
    fields!(place, config => ConsistentHashingLbConfig {
        honoured: use_hostname_for_hashing, hash_balance_factor;
        ignored: ;
        refused: hash_policy;
    });
    spread.hash_host_names = *use_hostname_for_hashing;
    spread.hash_balance = spread::decode_bound(&place, hash_balance_factor)?.or(spread.hash_balance);
    Ok(())
}

/// Zone-aware balancing needs to know a cluster of this proxy's own, which a bootstrap does not name here; without it
/// Envoy leaves it alone, too.
fn decode_locality(config: &Option<LocalityLbConfig>, spread: &mut Spread) {
    match config.as_ref().and_then(|config| config.locality_config_specifier.as_ref()) {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => spread.weighted_localities = true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) => {
            spread.fail_in_panic = zones.fail_traffic_on_panic;
        }
    }
}
