//! Endpoints of a cluster, grouped by locality (`envoy.config.endpoint.v3`). Which of them is picked is `balance`'s.

use crate::metadata::Metadata;
use std::fmt;
use std::net::SocketAddr;

/// All endpoints of one cluster (`ClusterLoadAssignment`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment {
    /// The cluster, or its EDS service name.
    pub cluster: String,
    /// Endpoints by locality and priority.
    pub localities: Vec<LocalityEndpoints>,
}

impl Assignment {
    /// Every endpoint of every locality.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.localities.iter().flat_map(|l| &l.endpoints)
    }
}

/// Endpoints in one place (`LocalityLbEndpoints`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LocalityEndpoints {
    /// The place.
    pub locality: Locality,
    /// Share of traffic among localities of one priority; `None` leaves it to the endpoints' number.
    pub weight: Option<u32>,
    /// 0 is tried first.
    pub priority: u32,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A place; empty parts mean "not said".
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone in the region.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

/// One place to connect to (`LbEndpoint`).
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Host name for `auto_host_rewrite` and health checks; empty when there is none.
    pub hostname: String,
    /// Share of traffic, at least 1.
    pub weight: u32,
    /// What discovery says of its health.
    pub health: Health,
    /// What transport sockets, subsets and telemetry read.
    pub metadata: Metadata,
}

/// An address, or a name to be resolved by clusters that use DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A DNS name and port.
    Name(String, u16),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Health as discovery reports it (`HealthStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Nothing is said; taken for healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Not to be used.
    Unhealthy,
    /// Going away: finishes what it has, gets nothing new.
    Draining,
    /// Usable if nothing better is there.
    Degraded,
}

impl Health {
    /// Whether it may get a request while a better endpoint is there.
    pub fn takes_requests(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy)
    }
}
