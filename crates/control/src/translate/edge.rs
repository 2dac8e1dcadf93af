//! What comes in at the edge: a listener per port of the servers that a proxy has, and the table of every host that
//! VirtualServices bind to them.
//!
//! Servers of plain HTTP on one port share a table, `http.<port>`; every HTTPS server has its own,
//! `https.<port>.<name>.<gateway>.<namespace>`, and a chain per server name.

use super::Mesh;
use super::actions::weighted;
use super::auto_passthrough;
use super::connection_rules::{ConnectionCondition, ConnectionRule};
use super::gateway_tls::downstream;
use super::gateways::{EdgeServer, ServerKind, Spot, local_port};
use super::matches::Asker;
use super::policy::Client;
use super::rules::{RuleSet, catch_all_last};
use super::tuning::Tuner;
use super::visibility::intersection;
use crate::node::ProxyNode;
use model::cluster::Cluster;
use model::listener::{
    ChainMatch, Direction, FilterChain, HttpConnectionManager, Inspection, Listener, Network, RouteSource,
};
use model::metadata::Metadata;
use model::route::{Route, RouteConfiguration, VirtualHost};
use model::tls::DownstreamTls;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Address where a node names none: nothing is open to others unless it is asked for.
const BIND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A host of a table in the making.
struct EdgeHost<'r> {
    name: String,
    redirects: bool,
    from: Vec<&'r RuleSet>,
    routes: Vec<Route>,
}

impl<'r> EdgeHost<'r> {
    /// The host of that name among `hosts`, made when it is not there.
    fn of<'h>(hosts: &'h mut Vec<Self>, name: &str) -> &'h mut Self {
        let at = hosts.iter().position(|known| known.name == name).unwrap_or_else(|| {
            hosts.push(Self {
                name: name.to_owned(),
                redirects: false,
                from: Vec::new(),
                routes: Vec::new(),
            });
            hosts.len() - 1
        });
        &mut hosts[at]
    }

    /// Adds the routes of `rules`; two servers for one host do not make two of each.
    fn add(&mut self, rules: &'r RuleSet, asker: &Asker<'_>) {
        if !self.from.iter().any(|known| std::ptr::eq(*known, rules)) {
            self.from.push(rules);
            self.routes.extend(rules.routes(asker));
        }
    }
}

/// What a gateway proxy is sent, but for clusters.
pub(super) struct EdgeMaker<'m> {
    pub(super) mesh: &'m Mesh,
    pub(super) namespace: &'m str,
    pub(super) labels: &'m BTreeMap<String, String>,
    pub(super) servers: BTreeMap<Spot, Vec<&'m EdgeServer>>,
}

impl EdgeMaker<'_> {
    /// The listeners of `node`; `ports` are the local ones, by port of the servers. `all` are the clusters it is sent.
    pub(super) fn listeners(
        &self,
        node: &ProxyNode,
        ports: &BTreeMap<u16, u16>,
        all: &[Arc<Cluster>],
    ) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for (spot, servers) in &self.servers {
            let Some(local) = local_port(spot.port, ports) else { continue };
            let chains: Vec<FilterChain> = match servers.first().map(|server| server.kind) {
                Some(ServerKind::Http) => vec![self.http_chain(*spot)],
                _ => servers.iter().flat_map(|server| self.chains(server, all)).collect(),
            };
            let (port, bind) = (spot.port, spot.bind.or(node.bind).unwrap_or(BIND));
            // Where a server asks for the address that others have anyway, the first are there already.
            let is_taken = listeners.iter().any(|l| l.address == Some(SocketAddr::new(bind, local)));
            if chains.is_empty() || is_taken {
                continue;
            }
            listeners.push(Listener {
                name: format!("{bind}_{port}"),
                address: Some(SocketAddr::new(bind, local)),
                binding: Default::default(),
                inspect: Inspection {
                    tls: servers.iter().any(|s| !matches!(s.kind, ServerKind::Http | ServerKind::Tcp)),
                    http: false,
                    ..Inspection::default()
                },
                chains,
                default_chain: None,
                direction: Direction::Outbound,
                metadata: Metadata::default(),
                provenance: servers.first().map(|server| server.provenance.clone()),
            });
        }
        listeners
    }

    fn edge(&self, table: String) -> HttpConnectionManager {
        let prefix = format!("outbound_{table}");
        HttpConnectionManager { edge: true, ..self.mesh.connections.http(&prefix, RouteSource::Rds(table)) }
    }

    /// Whether a server passes on TLS to whatever destination it names.
    pub(super) fn passes_all(&self) -> bool {
        self.servers.values().flatten().any(|server| server.kind == ServerKind::AutoPassthrough)
    }

    fn http_chain(&self, spot: Spot) -> FilterChain {
        let network = Network::Http(Box::new(self.edge(plain_table(spot))));
        FilterChain { name: "http".to_owned(), condition: ChainMatch::default(), tls: None, network }
    }

    fn chains(&self, server: &EdgeServer, all: &[Arc<Cluster>]) -> Vec<FilterChain> {
        let condition = ChainMatch { server_names: server.server_names(), ..ChainMatch::default() };
        let name = server.table_name();
        match server.kind {
            ServerKind::Http => Vec::new(),
            ServerKind::Https => {
                let Some(tls) = self.tls(server, &["h2", "http/1.1"]) else {
                    return Vec::new();
                };
                let network = Network::Http(Box::new(self.edge(name.clone())));
                vec![FilterChain { name, condition, tls: Some(tls), network }]
            }
            ServerKind::TlsTerminated => match self.tls(server, &[]) {
                Some(tls) => self.tcp_chains(server, condition, Some(tls)),
                None => Vec::new(),
            },
            ServerKind::Tcp => self.tcp_chains(server, ChainMatch::default(), None),
            ServerKind::TlsPassthrough => self.passthrough_chains(server),
            ServerKind::AutoPassthrough => auto_passthrough::chains(server, all, &self.mesh.connections),
        }
    }

    fn tls(&self, server: &EdgeServer, alpn: &[&str]) -> Option<DownstreamTls> {
        downstream(&server.spec, alpn, &self.mesh.credentials, self.namespace)
    }

    fn tuner(&self) -> Tuner<'_> {
        let client = Client {
            namespace: self.namespace,
            labels: self.labels,
            locality: "",
            scope: None,
            address: None,
        };
        Tuner { registry: &self.mesh.registry, policies: &self.mesh.policies, client }
    }

    /// Bytes, to the destinations of `rule`.
    fn tcp(&self, name: &str, rule: &ConnectionRule, port: u16) -> Network {
        let clusters = weighted(&rule.destinations, port);
        let tuner = self.tuner();
        let idle = tuner.idle(clusters.iter().map(|one| one.cluster.as_str()));
        let tunnel = tuner.tunnel(clusters.iter().map(|one| one.cluster.as_str()));
        let mut proxy = self.mesh.connections.tcp(name, clusters);
        proxy.tunnel = tunnel;
        proxy.idle_timeout = idle.or(proxy.idle_timeout).filter(|idle| !idle.is_zero());
        Network::Tcp(Box::new(proxy))
    }

    fn asker<'s>(&'s self, server: &'s EdgeServer) -> Asker<'s> {
        let port = server.spec.port.number;
        Asker {
            gateway: &server.gateway,
            namespace: self.namespace,
            labels: self.labels,
            port,
            address: None,
            destinations: &[],
        }
    }

    /// The VirtualServices that `server` obeys.
    fn rules<'s>(&'s self, server: &'s EdgeServer) -> impl Iterator<Item = &'s RuleSet> {
        let obeys =
            |rules: &&RuleSet| rules.is_for(&server.gateway) && rules.visibility.includes(self.namespace);
        self.mesh.rules.all().filter(obeys)
    }

    /// A chain per condition of TCP rules, until one takes all; the narrowest ranges of addresses count first.
    fn tcp_chains(
        &self,
        server: &EdgeServer,
        condition: ChainMatch,
        tls: Option<DownstreamTls>,
    ) -> Vec<FilterChain> {
        let asker = self.asker(server);
        let table = server.table_name();
        let mut chains: Vec<FilterChain> = Vec::new();
        let rules = self.rules(server).filter(|rules| server.shared_hosts(rules).next().is_some());
        for (rule, asked) in rules.flat_map(|rules| rules.tcp_rules(&asker).collect::<Vec<_>>()) {
            let condition = within(asked, condition.clone());
            let takes_all = asked.destinations.is_empty() && asked.sources.is_empty();
            if !rule.destinations.is_empty() && chains.iter().all(|chain| chain.condition != condition) {
                let name = match chains.len() {
                    0 => table.clone(),
                    more => format!("{table}.{more}"),
                };
                let network = self.tcp(&name, rule, asker.port);
                chains.push(FilterChain { name, condition, tls: tls.clone(), network });
            }
            if takes_all {
                break;
            }
        }
        chains
    }

    /// A chain per condition of TLS rules, by the server names that it and server have in common.
    fn passthrough_chains(&self, server: &EdgeServer) -> Vec<FilterChain> {
        let asker = self.asker(server);
        let mut chains: Vec<FilterChain> = Vec::new();
        for (rule, asked) in self.rules(server).flat_map(|rules| rules.tls_rules(&asker).collect::<Vec<_>>())
        {
            let shared = |name: &String| {
                server.hosts.iter().find_map(|(_, host)| intersection(host, name)).map(str::to_owned)
            };
            let blank = ChainMatch { transport_protocol: Some("tls".to_owned()), ..ChainMatch::default() };
            let mut condition = within(asked, blank);
            // A name of `*` is no name at all, in a chain.
            let is_taken = |name: &String| {
                let same =
                    chains.iter().filter(|chain| chain.condition.destinations == condition.destinations);
                same.map(|chain| &chain.condition.server_names).any(|known| match name.as_str() {
                    "*" => known.is_empty(),
                    _ => known.contains(name),
                })
            };
            let mut names: Vec<String> = asked.names.iter().filter_map(shared).collect();
            names.retain(|name| !is_taken(name));
            if names.is_empty() || rule.destinations.is_empty() {
                continue;
            }
            let takes_all = names.iter().any(|name| name == "*");
            condition.server_names = if takes_all { Vec::new() } else { names };
            let name = format!("{}.{}", server.table_name(), chains.len());
            let network = self.tcp(&name, rule, asker.port);
            chains.push(FilterChain { name, condition, tls: None, network });
        }
        chains
    }

    /// The tables of all servers.
    pub(super) fn tables(&self) -> Vec<RouteConfiguration> {
        let mut tables = Vec::new();
        for (spot, servers) in &self.servers {
            let plain: Vec<&EdgeServer> =
                servers.iter().copied().filter(|s| s.kind == ServerKind::Http).collect();
            if !plain.is_empty() {
                tables.push(self.table(plain_table(*spot), &plain));
            }
            for server in servers.iter().filter(|s| s.kind == ServerKind::Https) {
                let table = self.table(server.table_name(), &[*server]);
                // Two servers of one name would be one table; the first has it.
                if tables.iter().all(|known: &RouteConfiguration| known.name != table.name) {
                    tables.push(table);
                }
            }
        }
        tables
    }

    fn table<'s>(&'s self, name: String, servers: &[&'s EdgeServer]) -> RouteConfiguration {
        let mut hosts: Vec<EdgeHost<'s>> = Vec::new();
        for server in servers {
            let asker = self.asker(server);
            let redirects = server.kind == ServerKind::Http
                && server.spec.tls.as_ref().is_some_and(|tls| tls.https_redirect);
            for rules in self.rules(server).filter(|rules| !rules.routes(&asker).is_empty()) {
                for name in unique(server.shared_hosts(rules)) {
                    let host = EdgeHost::of(&mut hosts, name);
                    host.add(rules, &asker);
                    host.redirects |= redirects;
                }
            }
            // Also where no rule says anything.
            for (_, name) in server.hosts.iter().filter(|_| redirects) {
                EdgeHost::of(&mut hosts, name).redirects = true;
            }
        }
        let port = servers.first().map_or(0, |server| server.spec.port.number);
        let virtual_host = |mut host: EdgeHost<'_>| {
            catch_all_last(&mut host.routes);
            VirtualHost {
                name: format!("{}:{port}", host.name),
                domains: vec![host.name],
                routes: host.routes,
                retry: Some(self.mesh.defaults.retry.clone()),
                require_tls: host.redirects,
                attempt_count_in_request: true,
                ..VirtualHost::default()
            }
        };
        let mut table = RouteConfiguration {
            name,
            virtual_hosts: hosts.into_iter().map(virtual_host).collect(),
            // Clients reach the gateway at whatever port it has on this machine.
            ignore_port: true,
            ..RouteConfiguration::default()
        };
        self.tuner().tune(&mut table);
        table
    }
}

/// `condition`, and what a rule asks of addresses.
fn within(asked: &ConnectionCondition, condition: ChainMatch) -> ChainMatch {
    let (destinations, sources) = (asked.destinations.clone(), asked.sources.clone());
    ChainMatch { destinations, sources, ..condition }
}

/// Name of the table of servers in plain text.
fn plain_table(spot: Spot) -> String {
    match spot.bind {
        None => format!("http.{}", spot.port),
        Some(bind) => format!("http.{}.{bind}", spot.port),
    }
}

fn unique<'h>(hosts: impl Iterator<Item = &'h str>) -> Vec<&'h str> {
    let mut all = Vec::new();
    for host in hosts {
        if !all.contains(&host) {
            all.push(host);
        }
    }
    all
}
