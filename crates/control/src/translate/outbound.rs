//! What leaves a workload: one listener that applications use as their HTTP proxy, and the table of every host of the
//! mesh behind it, by authority.
//!
//! A CONNECT is ended there and its bytes go on as TCP: to a port that does not speak HTTP, or that speaks it inside of
//! the tunnel. Hosts that nobody declares are in no virtual host, so that they are answered with 404: without a
//! declaration there is nothing that could resolve them.

use super::Mesh;
use super::actions::Defaults;
use super::clusters::{cluster_name, tunnel_name};
use super::connection::{ConnectionSettings, only, upgrade};
use super::matches::{Asker, MESH};
use super::policy::Client;
use super::protocol::Protocol;
use super::registry::{Port, Registry, Service, provenance};
use super::rules::{RuleSet, Rules, bare_route, default_route};
use super::scope::{Bind, Scope, Way};
use super::tuning::Tuner;
use crate::node::{OUTBOUND_PORT, ProxyNode};
use model::listener::{ChainMatch, Direction, FilterChain, Inspection, Listener, Network, RouteSource};
use model::metadata::Metadata;
use model::provenance::Provenance;
use model::route::{
    Action, Forward, PathMatch, Route, RouteConfiguration, RouteMatch, Target, Upgrade, VirtualHost,
};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
        binding: Default::default(),
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

/// The listeners that the Sidecar of `node` asks for, besides the one for everything.
pub(super) fn bound(mesh: &Mesh, node: &ProxyNode, client: Client<'_>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    let sidecar = mesh.scopes.sidecar(client.namespace, client.labels);
    for way in client.scope.into_iter().flat_map(Scope::bound) {
        let (Some(bind), Some(port)) = (way.bind, way.port) else { continue };
        let ip = match (bind, node.address) {
            (Bind::At(ip), _) => ip,
            // On a machine with many workloads each has a loopback address of its own.
            (Bind::Loopback, Some(own)) if own.is_loopback() => own,
            (Bind::Loopback, _) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let chains = chains(mesh, way, port, client);
        let name = format!("{ip}_{port}");
        if chains.is_empty() || listeners.iter().any(|known| known.name == name) {
            continue;
        }
        listeners.push(Listener {
            name,
            address: Some(SocketAddr::new(ip, port)),
            binding: Default::default(),
            inspect: Inspection {
                tls: chains.iter().any(|chain| !chain.condition.server_names.is_empty()),
                ..Inspection::default()
            },
            chains,
            default_chain: None,
            direction: Direction::Outbound,
            metadata: Metadata::default(),
            provenance: sidecar.map(|s| provenance(&s.object, &format!("spec.egress[{}]", way.at))),
        });
    }
    listeners
}

/// One chain for HTTP; by server name for TLS; and for bytes that of the first service with the port.
fn chains(mesh: &Mesh, way: &Way, port: u16, client: Client<'_>) -> Vec<FilterChain> {
    let condition = ChainMatch::default();
    if way.speaks_http() {
        let table = table_name(way);
        let mut http = mesh.connections.http(&format!("outbound_{table}"), RouteSource::Rds(table));
        http.upgrades.push(connect());
        return vec![FilterChain {
            name: "http".to_owned(),
            condition,
            tls: None,
            network: Network::Http(Box::new(http)),
        }];
    }
    let seen = mesh.registry.services().filter(|(at, _)| way.leads_to(*at, port)).map(|(_, service)| service);
    let by_name = Protocol::parse(&way.protocol) == Some(Protocol::Tls);
    let chain = |service: &Service| {
        let Client { namespace, labels, address, .. } = client;
        let destinations = &service.addresses;
        let asker = Asker { gateway: MESH, namespace, labels, port, address, destinations };
        let rules = mesh.rules.for_host(&service.host, client.namespace, Some(way.rules()));
        let written =
            rules.and_then(|rules| rules.tunnel(&service.host, Protocol::Tcp, &asker, &mesh.registry));
        let target = written
            .map_or_else(|| Target::Cluster(cluster_name(port, "", &service.host)), |(target, _)| target);
        let clusters = match target {
            Target::Weighted(all) => all,
            other => other.clusters().map(|name| only(name.to_owned())).collect(),
        };
        let names = if by_name { vec![service.host.clone()] } else { Vec::new() };
        FilterChain {
            name: service.host.clone(),
            condition: ChainMatch { server_names: names, ..condition.clone() },
            tls: None,
            network: Network::Tcp(Box::new(mesh.connections.tcp(&service.host, clusters))),
        }
    };
    seen.take(if by_name { usize::MAX } else { 1 }).map(chain).collect()
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

/// One table in the making.
struct Table<'t> {
    name: String,
    /// The listener behind which it is, where that is not the one for everything.
    way: Option<&'t Way>,
    virtual_hosts: Vec<VirtualHost>,
    taken: HashSet<String>,
}

impl<'m> TableMaker<'m> {
    /// The table of every host that the client sees, and those of listeners that its Sidecar asks for.
    pub(super) fn tables(&self) -> Vec<RouteConfiguration> {
        let bound = self.client.scope.into_iter().flat_map(Scope::bound).filter(|way| way.speaks_http());
        let mut names = HashSet::new();
        let bound = bound.filter(|way| names.insert(table_name(way)));
        let bound: Vec<RouteConfiguration> =
            bound.map(|way| self.table(table_name(way), Some(way))).collect();
        std::iter::once(self.table(ROUTES.to_owned(), None)).chain(bound).collect()
    }

    fn table(&self, name: String, way: Option<&'m Way>) -> RouteConfiguration {
        let mut table = Table { name, way, virtual_hosts: Vec::new(), taken: HashSet::new() };
        self.add_services(&mut table);
        for rules in self.rules.for_mesh(self.client.namespace, self.seen(way, HTTP_PORT)) {
            if rules.has_http() {
                self.add_undeclared(rules, &mut table);
            }
        }
        let Table { name, virtual_hosts, .. } = table;
        let mut table = RouteConfiguration { name, virtual_hosts, ..RouteConfiguration::default() };
        self.tuner.tune(&mut table);
        table
    }

    /// The rules that are obeyed for `port`; `None` for all.
    fn seen(&self, way: Option<&'m Way>, port: u16) -> Option<&'m BTreeSet<usize>> {
        static NONE: BTreeSet<usize> = BTreeSet::new();
        let scope = self.client.scope?;
        Some(way.or_else(|| scope.way(port)).map_or(&NONE, Way::rules))
    }

    /// Whether requests for this port of a service come to the table.
    fn leads(&self, way: Option<&Way>, at: usize, port: &Port) -> bool {
        match way {
            Some(way) => way.leads_to(at, port.number),
            None => self.client.scope.is_none_or(|scope| scope.reaches(at, port)),
        }
    }

    fn add_services(&self, table: &mut Table<'m>) {
        let namespace = self.client.namespace;
        let seen = self.registry.services().filter(|(_, s)| s.visibility.includes(namespace));
        let mut hosts = Vec::new();
        for (at, service) in seen {
            for port in service.ports.iter().filter(|port| self.leads(table.way, at, port)) {
                let domains = domains(&service.host, port.number, table.way);
                table.taken.extend(domains.iter().cloned());
                let host = self.virtual_host(service, port, domains, table.way);
                hosts.push((host, aliases(service, namespace), port.number));
            }
        }
        for (mut host, aliases, port) in hosts {
            // A full name declared elsewhere is never taken away by somebody's short one.
            let more = aliases.iter().flat_map(|alias| domains(alias, port, table.way));
            host.domains.extend(more.filter(|domain| table.taken.insert(domain.clone())));
            table.virtual_hosts.push(host);
        }
    }

    fn asker<'s>(&'s self, port: u16, destinations: &'s [IpAddr]) -> Asker<'s> {
        let Client { namespace, labels, address, .. } = self.client;
        Asker { gateway: MESH, namespace, labels, port, address, destinations }
    }

    fn virtual_host(
        &self,
        service: &Service,
        port: &Port,
        domains: Vec<String>,
        way: Option<&'m Way>,
    ) -> VirtualHost {
        let seen = self.seen(way, port.number);
        let rules = self.rules.for_host(&service.host, self.client.namespace, seen);
        let asker = self.asker(port.number, &service.addresses);
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

    /// One port of a service as a virtual host, behind a listener that takes connections for any host.
    pub(super) fn host(&self, service: &Service, port: &Port, domains: Vec<String>) -> VirtualHost {
        let mut host = self.virtual_host(service, port, domains, None);
        // Nobody is asked for a tunnel.
        host.routes.retain(|route| route.condition.path != PathMatch::Connect);
        host
    }

    /// Virtual hosts for the hosts of rules that no service declares, behind a listener for `port`.
    pub(super) fn undeclared(&self, port: u16, taken: &mut HashSet<String>) -> Vec<VirtualHost> {
        let mut table =
            Table { name: String::new(), way: None, virtual_hosts: Vec::new(), taken: std::mem::take(taken) };
        for rules in self.rules.for_mesh(self.client.namespace, self.seen(None, port)) {
            if rules.has_http() {
                self.add_undeclared(rules, &mut table);
            }
        }
        *taken = table.taken;
        table.virtual_hosts
    }

    /// Adds virtual hosts for the hosts of `rules` that no service declares.
    fn add_undeclared(&self, rules: &RuleSet, table: &mut Table<'m>) {
        for host in rules.hosts.iter().filter(|host| self.registry.find(host).is_none()) {
            let domains = match host.as_str() {
                "*" => vec!["*".to_owned()],
                wildcard if wildcard.starts_with('*') => domains(wildcard, HTTP_PORT, table.way),
                // Nobody says which ports it has: any.
                exact => vec![exact.to_owned(), format!("{exact}:*")],
            };
            let domains: Vec<String> =
                domains.into_iter().filter(|domain| table.taken.insert(domain.clone())).collect();
            let routes = rules.routes(&self.asker(HTTP_PORT, &[]));
            if !domains.is_empty() && !routes.is_empty() {
                table.virtual_hosts.push(self.host_of(format!("{host}:*"), domains, routes));
            }
        }
    }
}

/// The name of the table behind a listener that a Sidecar asks for.
pub(super) fn table_name(way: &Way) -> String {
    way.port.unwrap_or_default().to_string()
}

fn tunnel_route(target: Target, provenance: Provenance) -> Route {
    let mut forward = Forward::to("");
    forward.target = target;
    forward.upgrades = vec![connect()];
    let condition = RouteMatch::path(PathMatch::Connect);
    bare_route("tunnel", condition, Action::forward(forward), Some(provenance))
}

/// The other names that clients in `namespace` may use for a service.
pub(super) fn aliases(service: &Service, namespace: &str) -> Vec<String> {
    let Service { name, namespace: own, .. } = service;
    if !service.is_kubernetes {
        let written = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        return service.addresses.iter().map(written).collect();
    }
    let mut aliases = vec![format!("{name}.{own}"), format!("{name}.{own}.svc")];
    if own == namespace {
        aliases.insert(0, name.clone());
    }
    aliases
}

/// What `host` may be called by requests for `port`: at a listener for one port the port goes without saying.
fn domains(host: &str, port: u16, way: Option<&Way>) -> Vec<String> {
    let mut domains = with_port(host, port);
    if way.is_some_and(|way| way.service_port().is_some()) && port != HTTP_PORT {
        domains.push(host.to_owned());
    }
    domains
}

/// `host` as an authority: with its port, and without where plain HTTP leaves it out.
pub(super) fn with_port(host: &str, port: u16) -> Vec<String> {
    let mut domains = vec![format!("{host}:{port}")];
    if port == HTTP_PORT {
        domains.push(host.to_owned());
    }
    domains
}
