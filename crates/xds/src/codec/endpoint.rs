//! Endpoints (`ClusterLoadAssignment`).

use super::place::{Decoded, Place, all, fields};
use super::value::{self, encode_number};
use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality as LocalityProto};
use envoy_types::pb::envoy::config::endpoint::v3 as proto;
use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health, Locality, LocalityEndpoints};
use proto::lb_endpoint::HostIdentifier;

/// Whether an endpoint may be a name that has to be resolved.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Names {
    /// It may.
    Resolved,
    /// It has to be an IP address.
    Refused,
}

/// What Envoy takes for [`proto::cluster_load_assignment::Policy::overprovisioning_factor`].
const OVERPROVISIONING: u32 = 140;

pub(crate) fn decode(
    place: &Place<'_>,
    assignment: &proto::ClusterLoadAssignment,
    names: Names,
) -> Decoded<Assignment> {
    fields!(place, assignment => proto::ClusterLoadAssignment {
        honoured: cluster_name, endpoints, policy;
        ignored: ;
        refused: named_endpoints;
    });
    if let Some(policy) = policy {
        let place = place.field("policy");
        fields!(place, policy => proto::cluster_load_assignment::Policy {
            honoured: overprovisioning_factor;
            ignored: ;
            refused: drop_overloads, endpoint_stale_after, weighted_priority_health;
        });
        place.refuse(
            "overprovisioning_factor",
            &overprovisioning_factor.filter(|factor| factor.value != OVERPROVISIONING),
        )?;
    }
    let group = |(i, group)| decode_group(&place.item("endpoints", i), group, names);
    Ok(Assignment {
        cluster: cluster_name.clone(),
        localities: all(endpoints.iter().enumerate().map(group))?,
    })
}

fn decode_group(
    place: &Place<'_>,
    group: &proto::LocalityLbEndpoints,
    names: Names,
) -> Decoded<LocalityEndpoints> {
    fields!(place, group => proto::LocalityLbEndpoints {
        honoured: locality, lb_endpoints, load_balancing_weight, priority;
        ignored: proximity, metadata;
        refused: lb_config;
    });
    let locality = locality.as_ref().map(|l| Locality {
        region: l.region.clone(),
        zone: l.zone.clone(),
        sub_zone: l.sub_zone.clone(),
    });
    let endpoint = |(i, endpoint)| decode_endpoint(&place.item("lb_endpoints", i), endpoint, names);
    Ok(LocalityEndpoints {
        locality: locality.unwrap_or_default(),
        weight: load_balancing_weight.map(|w| w.value),
        priority: *priority,
        endpoints: all(lb_endpoints.iter().enumerate().map(endpoint))?,
    })
}

fn decode_endpoint(place: &Place<'_>, endpoint: &proto::LbEndpoint, names: Names) -> Decoded<Endpoint> {
    fields!(place, endpoint => proto::LbEndpoint {
        honoured: health_status, metadata, load_balancing_weight, host_identifier;
        ignored: ;
        refused: ;
    });
    let health = match HealthStatus::try_from(*health_status) {
        Ok(HealthStatus::Unknown) => Health::Unknown,
        Ok(HealthStatus::Healthy) => Health::Healthy,
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
        Ok(HealthStatus::Draining) => Health::Draining,
        Ok(HealthStatus::Degraded) => Health::Degraded,
        Err(_) => {
            return Err(place.field("health_status").unsupported(format_args!("health {health_status}")));
        }
    };
    let metadata = value::decode_metadata(metadata);
    let weight = load_balancing_weight.map_or(1, |w| w.value.max(1));
    let host = match host_identifier {
        Some(HostIdentifier::Endpoint(host)) => host,
        Some(HostIdentifier::EndpointName(name)) => {
            return Err(place.field("endpoint_name").unsupported(format_args!("named endpoint `{name}`")));
        }
        None => return Err(place.error("an endpoint is missing")),
    };
    let place = place.field("endpoint");
    fields!(place, host => proto::Endpoint {
        honoured: address, hostname;
        ignored: observability_name;
        refused: health_check_config, additional_addresses;
    });
    let address = value::decode_address(&place.field("address"), address)?;
    if let (EndpointAddress::Name(name, _), Names::Refused) = (&address, names) {
        let place = place.field("address");
        return Err(
            place.error(format_args!("`{name}` is not an IP address; only DNS clusters resolve names"))
        );
    }
    Ok(Endpoint { address, hostname: hostname.clone(), weight, health, metadata })
}

pub(crate) fn encode(assignment: &Assignment) -> proto::ClusterLoadAssignment {
    proto::ClusterLoadAssignment {
        cluster_name: assignment.cluster.clone(),
        endpoints: assignment.localities.iter().map(encode_group).collect(),
        ..Default::default()
    }
}

fn encode_group(group: &LocalityEndpoints) -> proto::LocalityLbEndpoints {
    // Always there, even when it says nothing: gRPC clients want it.
    let locality = LocalityProto {
        region: group.locality.region.clone(),
        zone: group.locality.zone.clone(),
        sub_zone: group.locality.sub_zone.clone(),
    };
    proto::LocalityLbEndpoints {
        locality: Some(locality),
        lb_endpoints: group.endpoints.iter().map(encode_endpoint).collect(),
        // Envoy refuses a weight of 0; without one a place gets as little.
        load_balancing_weight: group.weight.filter(|weight| *weight > 0).and_then(encode_number),
        priority: group.priority,
        ..Default::default()
    }
}

fn encode_endpoint(endpoint: &Endpoint) -> proto::LbEndpoint {
    let health = match endpoint.health {
        Health::Unknown => HealthStatus::Unknown,
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
        Health::Degraded => HealthStatus::Degraded,
    };
    let host = proto::Endpoint {
        address: value::encode_address(&endpoint.address),
        hostname: endpoint.hostname.clone(),
        ..Default::default()
    };
    proto::LbEndpoint {
        health_status: health as i32,
        metadata: value::encode_metadata(&endpoint.metadata, None),
        load_balancing_weight: encode_number(endpoint.weight.max(1)),
        host_identifier: Some(HostIdentifier::Endpoint(host)),
    }
}
