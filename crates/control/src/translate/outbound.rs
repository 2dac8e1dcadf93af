//! What leaves a workload: one listener that applications use as their HTTP proxy, and the table of every host of the
//! mesh behind it, by authority.
//!
//! A CONNECT is ended there and its bytes go on as TCP: to a port that does not speak HTTP, or that speaks it inside of
//! the tunnel. Hosts that nobody declares are in no virtual host, so that they are answered with 404: without a
//! declaration there is nothing that could resolve them.

use super::actions::Defaults;
use super::clusters::{cluster_name, tunnel_name};
use super::connection::{ConnectionSettings, upgrade};
use super::matches::{Asker, MESH};
use super::policy::Client;
use super::protocol::Protocol;
use super::registry::{Port, Registry, Service};
use super::rules::{RuleSet, Rules, bare_route, default_route};
use super::tuning::Tuner;
use crate::node::{OUTBOUND_PORT, ProxyNode};
use model::listener::{ChainMatch, Direction, FilterChain, Inspection, Listener, Network, RouteSource};
use model::metadata::Metadata;
use model::provenance::Provenance;
use model::route::{
    Action, Forward, PathMatch, Route, RouteConfiguration, RouteMatch, Target, Upgrade, VirtualHost,
};
use std::collections::HashSet;
use std::net::SocketAddr;

/// Name of the table.
pub(super) const ROUTES: &str = "http_proxy";
/// Port of plain HTTP, which an authority may leave out.
const HTTP_PORT: u16 = 80;

/// The listener that applications of `node` use as their proxy.
pub(super) fn listener(node: &ProxyNode, settings: &ConnectionSettings) -> Option<Listener> {
    let address = node.outbound.or_else(|| Some(SocketAddr::new(node.address?, OUTBOUND_PORT)))?;
    let mut http = settings.http("outbound_http_proxy", RouteSource::Rds(ROUTES.to_owned()));
    http.upgrades.push(connect());
    Some(Listener {
        name: format!("{}_{}", address.ip(), address.port()),
        address: Some(address),
        inspect: Inspection::default(),
        chains: vec![FilterChain {
            name: "http_proxy".to_owned(),
            condition: ChainMatch::default(),
            tls: None,
            network: Network::Http(Box::new(http)),
        }],
        default_chain: None,
        direction: Direction::Outbound,
        metadata: Metadata::default(),
        provenance: None,
    })
}

/// CONNECT, ended here.
fn connect() -> Upgrade {
    Upgrade { terminate_connect: true, ..upgrade("CONNECT") }
}

/// Makes the table of a client.
pub(super) struct TableMaker<'m> {
    pub(super) registry: &'m Registry,
    pub(super) rules: &'m Rules,
    pub(super) defaults: &'m Defaults,
    pub(super) client: Client<'m>,
    pub(super) tuner: Tuner<'m>,
}

impl TableMaker<'_> {
    /// The table of every host that the client sees.
    pub(super) fn table(&self) -> RouteConfiguration {
        let namespace = self.client.namespace;
        let seen = |s: &&Service| s.visibility.includes(namespace);
        let services: Vec<&Service> = self.registry.services().map(|(_, s)| s).filter(seen).collect();
        let mut hosts = Vec::new();
        let mut taken = HashSet::new();
        for service in &services {
            for port in &service.ports {
                let domains = with_port(&service.host, port.number);
                taken.extend(domains.iter().cloned());
                hosts.push((
                    self.virtual_host(service, port, domains),
                    aliases(service, namespace),
                    port.number,
                ));
            }
        }
        let mut virtual_hosts: Vec<VirtualHost> = Vec::new();
        for (mut host, aliases, port) in hosts {
            // A full name declared elsewhere is never taken away by somebody's short one.
            let more = aliases.iter().flat_map(|alias| with_port(alias, port));
            host.domains.extend(more.filter(|domain| taken.insert(domain.clone())));
            virtual_hosts.push(host);
        }
        for rules in self.rules.for_mesh(namespace).filter(|rules| rules.has_http()) {
            virtual_hosts.extend(self.undeclared(rules, &mut taken));
        }
        let mut table =
            RouteConfiguration { name: ROUTES.to_owned(), virtual_hosts, ..RouteConfiguration::default() };
        self.tuner.tune(&mut table);
        table
    }

    fn asker(&self, port: u16) -> Asker<'_> {
        Asker { gateway: MESH, namespace: self.client.namespace, labels: self.client.labels, port }
    }

    fn virtual_host(&self, service: &Service, port: &Port, domains: Vec<String>) -> VirtualHost {
        let rules = self.rules.for_host(&service.host, self.client.namespace);
        let asker = self.asker(port.number);
        let cluster = || cluster_name(port.number, "", &service.host);
        let mut routes = vec![self.tunnel(service, port, rules, &asker)];
        let written = rules.filter(|_| port.protocol.may_be_http()).map(|rules| rules.routes(&asker));
        // Rules of which none is for this client and port are as good as none.
        match written.filter(|routes| !routes.is_empty()) {
            Some(written) => routes.extend(written),
            None => routes.push(default_route(cluster(), self.defaults.timeout, &service.provenance)),
        }
        self.host_of(format!("{}:{}", service.host, port.number), domains, routes)
    }

    fn host_of(&self, name: String, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
        VirtualHost {
            name,
            domains,
            routes,
            retry: Some(self.defaults.retry.clone()),
            attempt_count_in_request: true,
            ..VirtualHost::default()
        }
    }

    fn tunnel(&self, service: &Service, port: &Port, rules: Option<&RuleSet>, asker: &Asker<'_>) -> Route {
        let default = || {
            let name = match port.protocol {
                Protocol::Auto => tunnel_name(port.number, "", &service.host),
                _ => cluster_name(port.number, "", &service.host),
            };
            (Target::Cluster(name), service.provenance.clone())
        };
        let written =
            rules.and_then(|rules| rules.tunnel(&service.host, port.protocol, asker, self.registry));
        let (target, provenance) = written.unwrap_or_else(default);
        tunnel_route(target, provenance)
    }

    /// Virtual hosts for the hosts of `rules` that no service declares.
    fn undeclared(&self, rules: &RuleSet, taken: &mut HashSet<String>) -> Vec<VirtualHost> {
        let mut all = Vec::new();
        for host in rules.hosts.iter().filter(|host| self.registry.find(host).is_none()) {
            let domains = match host.as_str() {
                "*" => vec!["*".to_owned()],
                wildcard if wildcard.starts_with('*') => with_port(wildcard, HTTP_PORT),
                // Nobody says which ports it has: any.
                exact => vec![exact.to_owned(), format!("{exact}:*")],
            };
            let domains: Vec<String> = domains.into_iter().filter(|d| taken.insert(d.clone())).collect();
            let routes = rules.routes(&self.asker(HTTP_PORT));
            if !domains.is_empty() && !routes.is_empty() {
                all.push(self.host_of(format!("{host}:*"), domains, routes));
            }
        }
        all
    }
}

fn tunnel_route(target: Target, provenance: Provenance) -> Route {
    let mut forward = Forward::to("");
    forward.target = target;
    forward.upgrades = vec![connect()];
    let condition = RouteMatch::path(PathMatch::Connect);
    bare_route("tunnel", condition, Action::Forward(Box::new(forward)), Some(provenance))
}

/// The other names that clients in `namespace` may use for a service.
fn aliases(service: &Service, namespace: &str) -> Vec<String> {
    let Service { name, namespace: own, .. } = service;
    if !service.is_kubernetes {
        return Vec::new();
    }
    let mut aliases = vec![format!("{name}.{own}"), format!("{name}.{own}.svc")];
    if own == namespace {
        aliases.insert(0, name.clone());
    }
    aliases
}

/// `host` as an authority: with its port, and without where plain HTTP leaves it out.
pub(super) fn with_port(host: &str, port: u16) -> Vec<String> {
    let mut domains = vec![format!("{host}:{port}")];
    if port == HTTP_PORT {
        domains.push(host.to_owned());
    }
    domains
}
