//! What comes in at the edge: the servers of the Gateways that select a proxy, a listener per port, and the table of
//! every host that VirtualServices bind to them.
//!
//! Servers of plain HTTP on one port share a table, `http.<port>`; every HTTPS server has its own,
//! `https.<port>.<name>.<gateway>.<namespace>`, and a chain per server name.

use super::Mesh;
use super::authentication::is_subset;
use super::gateway_tls;
use super::matches::Asker;
use super::rules::{RuleSet, catch_all_last};
use super::visibility::intersection;
use crate::node::ProxyNode;
use crate::world::World;
use api::networking::{Gateway, Server};
use api::{Diagnostic, Object};
use model::listener::{
    ChainMatch, Direction, FilterChain, HttpConnectionManager, Inspection, Listener, Network, RouteSource,
};
use model::metadata::Metadata;
use model::provenance::Provenance;
use model::route::{Route, RouteConfiguration, VirtualHost};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Address where a node names none: nothing is open to others unless it is asked for.
const BIND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The first port that needs no privilege.
const FIRST_OPEN_PORT: u16 = 1024;

/// Every Gateway.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    all: Vec<Edge>,
}

/// A Gateway.
#[derive(Debug)]
struct Edge {
    /// `namespace/name`.
    name: String,
    selector: BTreeMap<String, String>,
    servers: Vec<EdgeServer>,
    object: Arc<Object>,
}

/// A server of a Gateway.
#[derive(Debug)]
pub(super) struct EdgeServer {
    /// `namespace/name` of the Gateway.
    pub(super) gateway: String,
    pub(super) spec: Server,
    pub(super) kind: ServerKind,
    /// Namespace of VirtualServices (empty for all) and host.
    pub(super) hosts: Vec<(String, String)>,
    pub(super) provenance: Provenance,
}

/// What a server does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerKind {
    /// HTTP in plain text.
    Http,
    /// HTTP in TLS.
    Https,
    /// Bytes, in TLS that ends here.
    TlsTerminated,
    /// TLS that ends at the destination, by server name.
    TlsPassthrough,
    /// Bytes.
    Tcp,
}

impl Gateways {
    pub(super) fn of(world: &World, found: &mut Vec<Diagnostic>) -> Self {
        Self { all: world.gateways().map(|(object, spec)| Edge::of(object, spec, found)).collect() }
    }

    /// The host patterns of all servers of a Gateway that VirtualServices of `namespace` may use.
    pub(super) fn hosts<'g>(&'g self, gateway: &str, namespace: &str) -> Option<Vec<&'g str>> {
        let edge = self.named(gateway)?;
        let open = |(of, _): &&(String, String)| of.is_empty() || of == namespace;
        Some(edge.servers.iter().flat_map(|s| &s.hosts).filter(open).map(|(_, host)| host.as_str()).collect())
    }

    fn named(&self, gateway: &str) -> Option<&Edge> {
        self.all.iter().find(|edge| edge.name == gateway)
    }

    /// The positions of the Gateways that select a proxy with these labels: what makes one gateway's routes another's.
    pub(super) fn selecting(&self, labels: &BTreeMap<String, String>) -> Vec<usize> {
        let selects = |(_, edge): &(usize, &Edge)| is_subset(&edge.selector, labels);
        self.all.iter().enumerate().filter(selects).map(|(at, _)| at).collect()
    }

    /// The servers of these Gateways by port. On a port of which the first server is plain text, all are.
    pub(super) fn servers(&self, chosen: &[usize]) -> BTreeMap<u16, Vec<&EdgeServer>> {
        let mut ports: BTreeMap<u16, Vec<&EdgeServer>> = BTreeMap::new();
        for server in chosen.iter().filter_map(|at| self.all.get(*at)).flat_map(|edge| &edge.servers) {
            let here = ports.entry(server.spec.port.number).or_default();
            if here.first().is_none_or(|first| first.shares_a_port_with(server)) {
                here.push(server);
            }
        }
        ports
    }

    /// Tells of servers that cannot be on a port together.
    pub(super) fn conflicts(&self, found: &mut Vec<Diagnostic>) {
        for (at, edge) in self.all.iter().enumerate() {
            for server in &edge.servers {
                let earlier =
                    self.all.iter().take(at).filter(|e| e.selector == edge.selector).flat_map(|e| &e.servers);
                let clashes = |other: &&EdgeServer| {
                    other.spec.port.number == server.spec.port.number && !other.shares_a_port_with(server)
                };
                if let Some(other) = earlier.into_iter().find(clashes) {
                    let message = format!(
                        "port {} is used already by {}, for another kind of connections; this server is not used",
                        server.spec.port.number, other.provenance
                    );
                    let mut problem =
                        edge.object.warning("spec.servers", message).help("give one of the two another port");
                    problem.line = server.provenance.line;
                    found.push(problem);
                }
            }
        }
    }
}

impl Edge {
    fn of(object: &Arc<Object>, spec: &Gateway, found: &mut Vec<Diagnostic>) -> Self {
        let namespace = object.namespace();
        let name = format!("{namespace}/{}", object.meta.name);
        let mut servers = Vec::new();
        for (index, server) in spec.servers.iter().enumerate() {
            let path = format!("spec.servers[{index}]");
            let place = super::registry::provenance(object, &path);
            let Some(kind) = ServerKind::of(server) else {
                let message =
                    format!("protocol `{}` with this TLS mode is not supported yet", server.port.protocol);
                found.push(object.warning(&path, message).help("nothing listens for this server"));
                continue;
            };
            gateway_tls::unsupported(object, server, kind, &path, found);
            let host = |written: &String| {
                let (of, host) = written.split_once('/').unwrap_or(("", written));
                let of = match of {
                    "*" => "",
                    "." => namespace,
                    other => other,
                };
                // Unlike those of rules, hosts of servers are never short names.
                (of.to_owned(), host.to_ascii_lowercase())
            };
            servers.push(EdgeServer {
                gateway: name.clone(),
                spec: server.clone(),
                kind,
                hosts: server.hosts.iter().map(host).collect(),
                provenance: place,
            });
        }
        Self { name, selector: spec.selector.clone(), servers, object: object.clone() }
    }
}

impl ServerKind {
    fn of(server: &Server) -> Option<Self> {
        use api::networking::ServerTlsMode::*;
        let mode = server.tls.as_ref().map(|tls| tls.mode);
        Some(match (server.port.protocol.to_ascii_uppercase().as_str(), mode) {
            ("HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY", _) => Self::Http,
            ("HTTPS" | "TLS", Some(Passthrough)) => Self::TlsPassthrough,
            ("HTTPS", Some(Simple | Mutual | IstioMutual | OptionalMutual)) => Self::Https,
            ("TLS" | "TCP", Some(Simple | Mutual | IstioMutual | OptionalMutual)) => Self::TlsTerminated,
            ("TCP" | "MONGO", None) => Self::Tcp,
            _ => return None,
        })
    }
}

impl EdgeServer {
    /// Chains by server name live together; plain text is alone, but for more of its kind.
    fn shares_a_port_with(&self, other: &Self) -> bool {
        use ServerKind::*;
        match (self.kind, other.kind) {
            (Http, kind) | (kind, Http) => kind == Http && self.kind == other.kind,
            (Tcp, _) | (_, Tcp) => false,
            _ => true,
        }
    }

    /// Name of the table of an HTTPS server.
    fn table_name(&self) -> String {
        let (namespace, gateway) = self.gateway.split_once('/').unwrap_or(("", &self.gateway));
        format!("https.{}.{}.{gateway}.{namespace}", self.spec.port.number, self.spec.port.name)
    }

    /// The server names of its chains; none stands for all.
    fn server_names(&self) -> Vec<String> {
        let names: Vec<String> = self.hosts.iter().map(|(_, host)| host.clone()).collect();
        if names.iter().any(|name| name == "*") { Vec::new() } else { names }
    }

    /// The hosts that `rules` and the server have in common.
    fn shared_hosts<'h>(&'h self, rules: &'h RuleSet) -> impl Iterator<Item = &'h str> {
        let of_rules = rules.object.namespace();
        let open = move |(of, _): &&(String, String)| of.is_empty() || of == of_rules;
        let hosts = self.hosts.iter().filter(open);
        hosts.flat_map(|(_, host)| rules.hosts.iter().filter_map(|written| intersection(host, written)))
    }
}

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
    pub(super) servers: BTreeMap<u16, Vec<&'m EdgeServer>>,
}

impl EdgeMaker<'_> {
    /// The listeners of `node`; `ports` are the local ones, by port of the servers.
    pub(super) fn listeners(&self, node: &ProxyNode, ports: &BTreeMap<u16, u16>) -> Vec<Listener> {
        let mut listeners = Vec::new();
        for (port, servers) in &self.servers {
            let Some(local) = local_port(*port, ports) else { continue };
            let chains: Vec<FilterChain> = match servers.first().map(|server| server.kind) {
                Some(ServerKind::Http) => vec![self.http_chain(*port)],
                _ => servers.iter().flat_map(|server| self.chains(server)).collect(),
            };
            if chains.is_empty() {
                continue;
            }
            let bind = node.bind.unwrap_or(BIND);
            listeners.push(Listener {
                name: format!("{bind}_{port}"),
                address: Some(SocketAddr::new(bind, local)),
                inspect: Inspection {
                    tls: servers.iter().any(|s| !matches!(s.kind, ServerKind::Http | ServerKind::Tcp)),
                    http: false,
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

    fn http_chain(&self, port: u16) -> FilterChain {
        let network = Network::Http(Box::new(self.edge(format!("http.{port}"))));
        FilterChain { name: "http".to_owned(), condition: ChainMatch::default(), tls: None, network }
    }

    fn chains(&self, server: &EdgeServer) -> Vec<FilterChain> {
        let condition = ChainMatch { server_names: server.server_names(), ..ChainMatch::default() };
        let name = server.table_name();
        match server.kind {
            ServerKind::Http => Vec::new(),
            ServerKind::Https => {
                let Some(tls) = gateway_tls::downstream(&server.spec, &["h2", "http/1.1"]) else {
                    return Vec::new();
                };
                let network = Network::Http(Box::new(self.edge(name.clone())));
                vec![FilterChain { name, condition, tls: Some(tls), network }]
            }
            ServerKind::TlsTerminated => match gateway_tls::downstream(&server.spec, &[]) {
                Some(tls) => self.tcp_chains(server, condition, Some(tls)),
                None => Vec::new(),
            },
            ServerKind::Tcp => self.tcp_chains(server, ChainMatch::default(), None),
            ServerKind::TlsPassthrough => self.passthrough_chains(server),
        }
    }

    fn asker<'s>(&'s self, server: &'s EdgeServer) -> Asker<'s> {
        let port = server.spec.port.number;
        Asker { gateway: &server.gateway, namespace: self.namespace, labels: self.labels, port }
    }

    /// The VirtualServices that `server` obeys.
    fn rules<'s>(&'s self, server: &'s EdgeServer) -> impl Iterator<Item = &'s RuleSet> {
        let obeys =
            |rules: &&RuleSet| rules.is_for(&server.gateway) && rules.visibility.includes(self.namespace);
        self.mesh.rules.all().filter(obeys)
    }

    /// One chain for the first TCP rule.
    fn tcp_chains(
        &self,
        server: &EdgeServer,
        condition: ChainMatch,
        tls: Option<model::tls::DownstreamTls>,
    ) -> Vec<FilterChain> {
        let asker = self.asker(server);
        let mut rules = self.rules(server).filter(|rules| server.shared_hosts(rules).next().is_some());
        let rule = rules.find_map(|rules| rules.connection_rules(None, &asker).next());
        let name = server.table_name();
        let chain = |rule: &super::rules::ConnectionRule| {
            let clusters = super::actions::weighted(&rule.destinations, asker.port);
            let network = Network::Tcp(self.mesh.connections.tcp(&name, clusters));
            FilterChain { name: name.clone(), condition, tls, network }
        };
        rule.filter(|rule| !rule.destinations.is_empty()).map(chain).into_iter().collect()
    }

    /// A chain per TLS rule, by the server names that rule and server have in common.
    fn passthrough_chains(&self, server: &EdgeServer) -> Vec<FilterChain> {
        let asker = self.asker(server);
        let mut chains: Vec<FilterChain> = Vec::new();
        for rules in self.rules(server) {
            for (rule, names) in rules.tls_rules(&asker) {
                let shared = |name: &&str| {
                    server.hosts.iter().find_map(|(_, host)| intersection(host, name)).map(str::to_owned)
                };
                let mut names: Vec<String> = names.iter().filter_map(shared).collect();
                names.retain(|name| !chains.iter().any(|chain| chain.condition.server_names.contains(name)));
                if names.is_empty() || rule.destinations.is_empty() {
                    continue;
                }
                // A name of `*` is no name at all, in a chain.
                let names = if names.iter().any(|name| name == "*") { Vec::new() } else { names };
                let clusters = super::actions::weighted(&rule.destinations, asker.port);
                let condition = ChainMatch {
                    server_names: names,
                    transport_protocol: Some("tls".to_owned()),
                    ..ChainMatch::default()
                };
                let name = format!("{}.{}", server.table_name(), chains.len());
                let network = Network::Tcp(self.mesh.connections.tcp(&name, clusters));
                chains.push(FilterChain { name, condition, tls: None, network });
            }
        }
        chains
    }

    /// The tables of all servers.
    pub(super) fn tables(&self) -> Vec<RouteConfiguration> {
        let mut tables = Vec::new();
        for (port, servers) in &self.servers {
            let plain: Vec<&EdgeServer> =
                servers.iter().copied().filter(|s| s.kind == ServerKind::Http).collect();
            if !plain.is_empty() {
                tables.push(self.table(format!("http.{port}"), &plain));
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
        RouteConfiguration {
            name,
            virtual_hosts: hosts.into_iter().map(virtual_host).collect(),
            // Clients reach the gateway at whatever port it has on this machine.
            ignore_port: true,
            ..RouteConfiguration::default()
        }
    }
}

/// Where a gateway listens for a port of its Gateways: as it says, else at the port itself where that is possible.
fn local_port(port: u16, ports: &BTreeMap<u16, u16>) -> Option<u16> {
    match ports.get(&port) {
        // 0 stands for a port that is not chosen yet.
        Some(local) => Some(*local).filter(|local| *local != 0),
        None if ports.is_empty() => Some(port),
        None => {
            Some(port).filter(|port| *port >= FIRST_OPEN_PORT && !ports.values().any(|local| local == port))
        }
    }
}

/// Tells of ports that a gateway proxy of the LocalMesh has no place for.
pub(super) fn homeless(mesh: &Mesh, world: &World, found: &mut Vec<Diagnostic>) {
    let Some(local) = world.local_mesh() else { return };
    for proxy in &local.gateways {
        let servers = mesh.gateways.servers(&mesh.gateways.selecting(&proxy.labels));
        let homeless =
            |port: &u16| proxy.ports.get(port).is_none() && local_port(*port, &proxy.ports).is_none();
        for (port, servers) in servers.iter().filter(|(port, _)| homeless(port)) {
            let Some((server, edge)) =
                servers.first().and_then(|s| Some((s, mesh.gateways.named(&s.gateway)?)))
            else {
                continue;
            };
            let message = format!(
                "gateway proxy `{}` has no local port for port {port}; nothing listens for it",
                proxy.name
            );
            let mut problem = edge.object.warning("spec.servers", message);
            problem.line = server.provenance.line;
            let help = format!("add `\"{port}\": <a free port>` to its `ports` in the LocalMesh");
            found.push(problem.help(help));
        }
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

/// Tells of rules that no server of their gateways has a host in common with.
pub(super) fn unreachable(mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    for rules in mesh.rules.all() {
        let namespace = rules.object.namespace();
        for gateway in &rules.gateways {
            let Some(hosts) = mesh.gateways.hosts(gateway, namespace) else { continue };
            let meets = |written: &String| hosts.iter().any(|host| intersection(host, written).is_some());
            for (index, host) in rules.hosts.iter().enumerate().filter(|(_, host)| !meets(host)) {
                let message =
                    format!("no server of Gateway `{gateway}` is for host `{host}`; it is not served there");
                let help = match hosts.as_slice() {
                    [] => "the Gateway has no hosts that this namespace may use".to_owned(),
                    hosts => format!("its hosts are: {}", hosts.join(", ")),
                };
                found.push(rules.object.warning(&format!("spec.hosts[{index}]"), message).help(help));
            }
        }
    }
}
