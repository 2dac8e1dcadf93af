//! What a resource refers to by name: tables, clusters, endpoints, secrets. Whether that is there is `warming`'s.

use model::cluster::{Cluster, Discovery, Transport};
use model::listener::{FilterChain, Listener, Network, RouteSource};
use model::route::{Action, RouteConfiguration, VirtualHost};
use model::tls::{CertificatePair, PeerValidation, SecretSource};
use std::collections::BTreeSet;

/// All chains of a listener.
pub(super) fn chains(listener: &Listener) -> impl Iterator<Item = &FilterChain> {
    listener.chains.iter().chain(&listener.default_chain)
}

/// Names of the tables that a listener asks RDS for.
pub(super) fn tables(listener: &Listener) -> impl Iterator<Item = &str> {
    chains(listener).filter_map(|chain| match &chain.network {
        Network::Http(manager) => match &manager.routes {
            RouteSource::Rds(name) => Some(name.as_str()),
            RouteSource::Inline(_) => None,
        },
        Network::Tcp(_) => None,
    })
}

/// The route configurations that a listener holds itself.
pub(super) fn inline_routes(listener: &Listener) -> impl Iterator<Item = &RouteConfiguration> {
    chains(listener).filter_map(|chain| match &chain.network {
        Network::Http(manager) => match &manager.routes {
            RouteSource::Inline(routes) => Some(routes),
            RouteSource::Rds(_) => None,
        },
        Network::Tcp(_) => None,
    })
}

/// Clusters that a table sends to.
pub(super) fn clusters_of_routes(routes: &RouteConfiguration) -> impl Iterator<Item = &str> {
    routes.virtual_hosts.iter().flat_map(clusters_of_host)
}

/// Clusters that a virtual host sends to.
pub(super) fn clusters_of_host(host: &VirtualHost) -> impl Iterator<Item = &str> {
    let clusters = host.routes.iter().filter_map(|route| match &route.action {
        Action::Forward(forward) => Some(forward.target.clusters()),
        Action::Redirect(_) | Action::Respond(_) => None,
    });
    clusters.flatten()
}

/// Whether a listener has clusters asked for when requests need them.
pub(super) fn asks_on_demand(listener: &Listener) -> bool {
    chains(listener).any(|chain| match &chain.network {
        Network::Http(manager) => {
            manager.filters.on_demand.as_ref().is_some_and(|placed| placed.config.clusters.is_some())
        }
        Network::Tcp(_) => false,
    })
}

/// Whether clusters that requests of this table need are asked for when they do.
pub(super) fn asks_for_clusters(listener: &Listener, table: &str) -> bool {
    chains(listener).any(|chain| match &chain.network {
        Network::Http(manager) => {
            manager.filters.on_demand.is_some()
                && matches!(&manager.routes, RouteSource::Rds(name) if name == table)
        }
        Network::Tcp(_) => false,
    })
}

/// Clusters that a listener sends to without asking for a table.
pub(super) fn clusters_of_listener(listener: &Listener) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for chain in chains(listener) {
        match &chain.network {
            Network::Tcp(proxy) => {
                names.extend(proxy.clusters.iter().map(|target| target.cluster.as_str()));
            }
            // Where clusters are asked for on demand, nothing waits for them before.
            Network::Http(manager) if manager.filters.on_demand.is_some() => {}
            Network::Http(manager) => match &manager.routes {
                RouteSource::Inline(routes) => names.extend(clusters_of_routes(routes)),
                RouteSource::Rds(_) => {}
            },
        }
    }
    names
}

/// Secrets that a listener asks SDS for.
pub(super) fn secrets_of_listener(listener: &Listener) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for tls in chains(listener).filter_map(|chain| chain.tls.as_ref()) {
        tls.certificates.iter().for_each(|source| add_certificate(source, &mut names));
        add_trust(tls.validation.as_ref(), &mut names);
    }
    names
}

/// Secrets that a cluster asks SDS for.
pub(super) fn secrets_of_cluster(cluster: &Cluster) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let transports = cluster.transport_matches.iter().map(|matched| &matched.transport);
    for transport in transports.chain([&cluster.transport]) {
        if let Transport::Tls(tls) = transport {
            tls.certificate.iter().for_each(|source| add_certificate(source, &mut names));
            add_trust(tls.validation.as_deref(), &mut names);
        }
    }
    names
}

/// The name by which a cluster asks EDS for its endpoints.
pub fn eds_name(cluster: &Cluster) -> Option<&str> {
    match &cluster.discovery {
        Discovery::Eds(name) => Some(name),
        _ => None,
    }
}

/// Whether names have to be resolved before the cluster has endpoints.
pub fn is_dns(cluster: &Cluster) -> bool {
    matches!(cluster.discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_))
}

fn add_certificate<'a>(source: &'a SecretSource<CertificatePair>, names: &mut BTreeSet<&'a str>) {
    if let SecretSource::Sds(name) = source {
        names.insert(name);
    }
}

fn add_trust<'a>(validation: Option<&'a PeerValidation>, names: &mut BTreeSet<&'a str>) {
    if let Some(SecretSource::Sds(name)) = validation.map(|v| &v.trust) {
        names.insert(name);
    }
}
