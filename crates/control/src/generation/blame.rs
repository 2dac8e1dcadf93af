//! What the user wrote that something served came from, for a proxy that refuses it.

use super::View;
use crate::node::ProxyNode;
use model::cluster::Cluster;
use model::listener::Listener;
use model::provenance::Provenance;
use model::route::{Route, RouteConfiguration};
use std::sync::Arc;
use xds::codec::type_url;

impl View {
    /// What the user wrote that a resource came from. For a table of routes, the route that `hint`, a proxy's message,
    /// mentions, or else the first.
    pub(crate) fn provenance(
        &self,
        node: &ProxyNode,
        kind: &str,
        name: &str,
        hint: &str,
    ) -> Option<Provenance> {
        match kind {
            type_url::LISTENER => self.listener(name)?.provenance.clone(),
            // Endpoints are blamed on what asked for them.
            type_url::CLUSTER | type_url::ENDPOINT => self.cluster(name)?.provenance.clone(),
            type_url::ROUTE => {
                let tables = self.mesh.routes(node);
                route_provenance(tables.iter().find(|table| table.name == name)?, hint)
            }
            _ => None,
        }
    }

    fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.portion.own.listeners.iter().find(|l| l.name == name)
    }

    fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        let common = self.portion.common.sets.iter().flat_map(|(_, set)| &set.clusters);
        common.chain(&self.portion.own.clusters).find(|c| c.name == name)
    }
}

fn route_provenance(table: &RouteConfiguration, hint: &str) -> Option<Provenance> {
    let mentioned = |name: &str| !name.is_empty() && hint.contains(name);
    let of_hosts = |only_mentioned: bool| {
        let hosts = table.virtual_hosts.iter();
        let hosts = hosts
            .filter(move |h| !only_mentioned || mentioned(&h.name) || h.domains.iter().any(|d| mentioned(d)));
        hosts.flat_map(|h| &h.routes)
    };
    let known = |route: &&Route| route.provenance.is_some();
    let by_route = of_hosts(false).filter(known).find(|route| mentioned(&route.name));
    by_route
        .or_else(|| of_hosts(true).find(known))
        .or_else(|| of_hosts(false).find(known))
        .and_then(|route| route.provenance.clone())
}
