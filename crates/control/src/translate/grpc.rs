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
use model::route::{RouteConfiguration, VirtualHost};

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
