//! What gRPC libraries are sent that speak xDS themselves: a listener for every name by which a service's port can be
//! asked for, its routes, and clusters as all of them understand them (`clusters`, with `grpc`).

use super::Mesh;
use super::clusters::cluster_name;
use super::connection::route_filters;
use super::matches::{Asker, MESH};
use super::outbound::with_port;
use super::policy::Client;
use super::registry::{Port, Service};
use super::rules::default_route;
use super::scope::Way;
use model::filter::HttpFilters;
use model::listener::{
    ChainMatch, Direction, FilterChain, HttpConnectionManager, Inspection, Listener, Network, RouteSource,
};
use model::metadata::Metadata;
use model::retry::RetryPolicy;
use model::route::{Action, DirectResponse, RouteConfiguration, VirtualHost};
use std::sync::Arc;

/// The listeners that ask for the table of `port`.
pub(super) fn listeners(service: &Service, port: &Port, client: Client<'_>) -> Vec<Listener> {
    let table = cluster_name(port.number, "", &service.host);
    let mut names = vec![service.host.clone()];
    if service.is_kubernetes {
        let Service { name, namespace, .. } = service;
        names.extend([format!("{name}.{namespace}"), format!("{name}.{namespace}.svc")]);
        if namespace == client.namespace {
            names.push(name.clone());
        }
    }
    let listener = |name: String| Listener {
        name,
        address: None,
        binding: Default::default(),
        inspect: Inspection::default(),
        chains: vec![FilterChain {
            name: String::new(),
            condition: ChainMatch::default(),
            tls: None,
            network: Network::Http(Box::new(HttpConnectionManager {
                // Libraries know faults, and refuse filters that they do not know.
                filters: HttpFilters { fault: route_filters().fault, ..HttpFilters::default() },
                ..HttpConnectionManager::new(RouteSource::Rds(table.clone()))
            })),
        }],
        default_chain: None,
        direction: Direction::Outbound,
        metadata: Metadata::default(),
        provenance: Some(service.provenance.clone()),
    };
    names.iter().flat_map(|name| with_port(name, port.number)).map(listener).collect()
}

/// Whether there is a cluster of this name.
fn is_declared(mesh: &Mesh, client: Client<'_>, cluster: &str) -> bool {
    let mut parts = cluster.splitn(4, '|').skip(1);
    let (Some(port), Some(subset), Some(host)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let service = mesh.registry.find(host);
    let Some(service) = service.filter(|s| port.parse().is_ok_and(|port| s.port(port).is_some())) else {
        return false;
    };
    let chosen = mesh.policies.choose(client, service);
    subset.is_empty() || mesh.policies.subsets(&chosen).iter().any(|(known, _)| known.name == subset)
}

/// The table of `port`.
pub(super) fn table(mesh: &Mesh, service: &Service, port: &Port, client: Client<'_>) -> RouteConfiguration {
    let asker = Asker {
        gateway: MESH,
        namespace: client.namespace,
        labels: client.labels,
        port: port.number,
        address: client.address,
        destinations: &service.addresses,
    };
    let seen = client.scope.and_then(|scope| scope.way(port.number)).map(Way::rules);
    let rules = mesh.rules.for_host(&service.host, client.namespace, seen);
    let name = cluster_name(port.number, "", &service.host);
    let written = rules.map(|rules| rules.routes(&asker)).filter(|routes| !routes.is_empty());
    let mut routes = written
        .unwrap_or_else(|| vec![default_route(name.clone(), mesh.defaults.timeout, &service.provenance)]);
    // A library waits for every cluster that a table names before it sends anything anywhere.
    for route in &mut routes {
        let known = |name: &str| is_declared(mesh, client, name);
        if let Action::Forward(forward) = &route.action
            && !forward.target.clusters().all(known)
        {
            let body = "nobody declares this destination\n".into();
            route.action = Action::Respond(DirectResponse { status: 503, body });
        }
    }
    for route in &mut routes {
        if let Action::Forward(forward) = &mut route.action
            && forward.retry.as_ref().is_some_and(|retry| retry.retries == 0)
        {
            // They refuse a policy that never tries again; without one they do not.
            Arc::make_mut(forward).retry = None;
        }
    }
    for settings in routes.iter_mut().filter_map(|route| route.filters.as_mut()) {
        settings.cors = None;
    }
    // Libraries retry what was not processed by themselves, and know few conditions besides.
    let retry: Option<RetryPolicy> = None;
    RouteConfiguration {
        name,
        virtual_hosts: vec![VirtualHost {
            name: format!("{}:{}", service.host, port.number),
            domains: vec!["*".to_owned()],
            routes,
            retry,
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}
