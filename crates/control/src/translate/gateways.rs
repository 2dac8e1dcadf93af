//! Gateways: which of them select a proxy, what their servers do, which of them share a port, and what is wrong with
//! them. What a proxy is sent for them is `edge`'s.

use super::Mesh;
use super::authentication::is_subset;
use super::credentials::Credentials;
use super::gateway_tls;
use super::rules::RuleSet;
use super::visibility::intersection;
use crate::world::World;
use api::networking::{Gateway, Server};
use api::{Diagnostic, Object};
use model::provenance::Provenance;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

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
    /// TLS that ends at the destination, which its server name names as Istio's proxies do.
    AutoPassthrough,
    /// Bytes.
    Tcp,
}

/// Where servers listen: at a port and, if they say so, an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) port: u16,
    pub(super) bind: Option<IpAddr>,
}

impl Gateways {
    pub(super) fn of(world: &World, credentials: &Credentials, found: &mut Vec<Diagnostic>) -> Self {
        let edge = |(object, spec)| Edge::of(object, spec, credentials, found);
        Self { all: world.gateways().map(edge).collect() }
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

    /// The servers of these Gateways by where they listen. Where the first server is plain text, all are.
    pub(super) fn servers(&self, chosen: &[usize]) -> BTreeMap<Spot, Vec<&EdgeServer>> {
        let mut spots: BTreeMap<Spot, Vec<&EdgeServer>> = BTreeMap::new();
        for server in chosen.iter().filter_map(|at| self.all.get(*at)).flat_map(|edge| &edge.servers) {
            let here = spots.entry(server.spot()).or_default();
            let fits = here.first().is_none_or(|first| first.shares_a_port_with(server));
            if fits && !here.iter().any(|known| known.takes_names_of(server)) {
                here.push(server);
            }
        }
        spots
    }

    /// Tells of servers that cannot be on a port together.
    pub(super) fn conflicts(&self, found: &mut Vec<Diagnostic>) {
        for (at, edge) in self.all.iter().enumerate() {
            for (index, server) in edge.servers.iter().enumerate() {
                let others = self.all.iter().take(at).filter(|e| e.selector == edge.selector);
                let earlier = others.flat_map(|e| &e.servers).chain(edge.servers.iter().take(index));
                let here = || earlier.clone().filter(|other| other.spot() == server.spot());
                let port = server.spec.port.number;
                let (message, help) = if let Some(other) = here().find(|o| !o.shares_a_port_with(server)) {
                    let from = &other.provenance;
                    let message = format!(
                        "port {port} is used already by {from}, for another kind of connections; this server is not used"
                    );
                    (message, "give one of the two another port")
                } else if let Some(other) = here().find(|other| other.takes_names_of(server)) {
                    let name = server.hosts.first().map_or("", |(_, host)| host);
                    let from = &other.provenance;
                    let message = format!(
                        "connections for `{name}` at port {port} go to {from} already; this server is not used"
                    );
                    (message, "servers with TLS on one port need distinct hosts")
                } else {
                    continue;
                };
                let mut problem = edge.object.warning("spec.servers", message).help(help);
                problem.line = server.provenance.line;
                found.push(problem);
            }
        }
    }
}

impl Edge {
    fn of(
        object: &Arc<Object>,
        spec: &Gateway,
        credentials: &Credentials,
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let namespace = object.namespace();
        let name = format!("{namespace}/{}", object.meta.name);
        let mut servers = Vec::new();
        for (index, server) in spec.servers.iter().enumerate() {
            let path = format!("spec.servers[{index}]");
            let place = super::registry::provenance(object, &path);
            if server.bind.starts_with("unix:") {
                let message =
                    "sockets in the file system are not supported yet; nothing listens for this server";
                found.push(
                    object.warning(&format!("{path}.bind"), message).help("write an IP address, or nothing"),
                );
                continue;
            }
            let Some(kind) = ServerKind::of(server) else {
                let message =
                    format!("protocol `{}` with this TLS mode is not supported yet", server.port.protocol);
                found.push(object.warning(&path, message).help("nothing listens for this server"));
                continue;
            };
            if matches!(kind, ServerKind::Https | ServerKind::TlsTerminated) {
                gateway_tls::unsupported(object, server, (&path, credentials), found);
            }
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
            ("HTTPS" | "TLS", Some(AutoPassthrough)) => Self::AutoPassthrough,
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

    /// Whether connections that are told apart by server name cannot be told apart from those of `other`.
    fn takes_names_of(&self, other: &Self) -> bool {
        let is_by_name = |kind| !matches!(kind, ServerKind::Http | ServerKind::Tcp);
        let has = |name: &String| self.hosts.iter().any(|(_, host)| host == name);
        is_by_name(self.kind) && is_by_name(other.kind) && other.hosts.iter().any(|(_, host)| has(host))
    }

    /// Where it listens.
    pub(super) fn spot(&self) -> Spot {
        Spot { port: self.spec.port.number, bind: self.spec.bind.parse().ok() }
    }

    /// Name of the table of an HTTPS server.
    pub(super) fn table_name(&self) -> String {
        let (namespace, gateway) = self.gateway.split_once('/').unwrap_or(("", &self.gateway));
        format!("https.{}.{}.{gateway}.{namespace}", self.spec.port.number, self.spec.port.name)
    }

    /// The server names of its chains; none stands for all.
    pub(super) fn server_names(&self) -> Vec<String> {
        let names: Vec<String> = self.hosts.iter().map(|(_, host)| host.clone()).collect();
        if names.iter().any(|name| name == "*") { Vec::new() } else { names }
    }

    /// The hosts that `rules` and the server have in common.
    pub(super) fn shared_hosts<'h>(&'h self, rules: &'h RuleSet) -> impl Iterator<Item = &'h str> {
        let of_rules = rules.object.namespace();
        let open = move |(of, _): &&(String, String)| of.is_empty() || of == of_rules;
        let hosts = self.hosts.iter().filter(open);
        hosts.flat_map(|(_, host)| rules.hosts.iter().filter_map(|written| intersection(host, written)))
    }
}

/// Where a gateway listens for a port of its Gateways: as it says, else at the port itself where that is possible.
pub(super) fn local_port(port: u16, ports: &BTreeMap<u16, u16>) -> Option<u16> {
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
            |port: u16| !proxy.ports.contains_key(&port) && local_port(port, &proxy.ports).is_none();
        for (Spot { port, .. }, servers) in servers.iter().filter(|(spot, _)| homeless(spot.port)) {
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
