//! A VirtualService's rules for connections: by port, by server name where there is TLS, and by addresses.

use super::actions::{Destination, destinations};
use super::matches::{Asker, MESH, Scope};
use super::registry::{Registry, provenance};
use api::Object;
use api::networking::{L4MatchAttributes, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService};
use model::address::AddressRange;
use model::provenance::Provenance;
use std::net::IpAddr;

/// A rule for connections: by port and, with TLS, by server name.
#[derive(Debug)]
pub(super) struct ConnectionRule {
    /// One must hold.
    pub(super) conditions: Vec<ConnectionCondition>,
    pub(super) destinations: Vec<Destination>,
    pub(super) provenance: Provenance,
}

impl ConnectionRule {
    pub(super) fn of_tcp(object: &Object, spec: &VirtualService, registry: &Registry) -> Vec<Self> {
        let namespace = object.namespace();
        let rule = |(index, rule): (usize, &TcpRoute)| Self {
            conditions: match rule.r#match.as_slice() {
                [] => vec![ConnectionCondition::default()],
                written => written.iter().map(|m| ConnectionCondition::of_tcp(m, namespace)).collect(),
            },
            destinations: destinations(&rule.route, namespace, registry),
            provenance: provenance(object, &format!("spec.tcp[{index}]")),
        };
        spec.tcp.iter().enumerate().map(rule).collect()
    }

    pub(super) fn of_tls(object: &Object, spec: &VirtualService, registry: &Registry) -> Vec<Self> {
        let namespace = object.namespace();
        let rule = |(index, rule): (usize, &TlsRoute)| Self {
            conditions: rule.r#match.iter().map(|m| ConnectionCondition::of_tls(m, namespace)).collect(),
            destinations: destinations(&rule.route, namespace, registry),
            provenance: provenance(object, &format!("spec.tls[{index}]")),
        };
        spec.tls.iter().enumerate().map(rule).collect()
    }
}

/// What a rule asks of a connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionCondition {
    pub(super) scope: Scope,
    /// Server names; none stand for all.
    pub(super) names: Vec<String>,
    /// Addresses that the client wanted to reach; none stand for all.
    pub(super) destinations: Vec<AddressRange>,
    /// Where the client is; none stand for everywhere.
    pub(super) sources: Vec<AddressRange>,
}

impl ConnectionCondition {
    pub(super) fn of_tcp(m: &L4MatchAttributes, namespace: &str) -> Self {
        Self {
            scope: Scope::of_tcp(m, namespace),
            names: Vec::new(),
            destinations: ranges(&m.destination_subnets),
            sources: ranges(std::slice::from_ref(&m.source_subnet)),
        }
    }

    pub(super) fn of_tls(m: &TlsMatchAttributes, namespace: &str) -> Self {
        Self {
            scope: Scope::of_tls(m, namespace),
            names: m.sni_hosts.clone(),
            destinations: ranges(&m.destination_subnets),
            sources: Vec::new(),
        }
    }

    /// Whether it holds for `asker`. Gateways look at addresses by themselves, connection by connection.
    pub(super) fn holds(&self, asker: &Asker<'_>) -> bool {
        let inside = |ranges: &[AddressRange], addresses: &[IpAddr]| {
            ranges.is_empty() || ranges.iter().any(|range| addresses.iter().any(|a| range.contains(*a)))
        };
        self.scope.includes(asker)
            && (asker.gateway != MESH
                || (inside(&self.destinations, asker.destinations)
                    && inside(&self.sources, asker.address.as_slice())))
    }
}

/// Ranges as written; what is none was told when it was read.
fn ranges(written: &[String]) -> Vec<AddressRange> {
    let range = |text: &String| {
        let (address, length) = text.split_once('/').map_or((text.as_str(), None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        Some(AddressRange { address, prefix_length: length.map_or(Some(whole), |l| l.parse().ok())? })
    };
    written.iter().filter_map(range).collect()
}
