//! What the sidecar of a workload whose traffic is captured is sent: it has two listeners, one for each way, to which all
//! connections come, and learns from the kernel where each was meant to go. Behind the outbound one there are listeners
//! without sockets, for each virtual address and port of a service, and for each port that speaks HTTP at any address.
//!
//! The names that applications call services by are sent along as metadata of a listener, for the sidecar to answer.

use super::Mesh;
use super::clusters::{cluster_name, tunnel_name};
use super::connection::only;
use super::inbound::{INBOUND_PASSTHROUGH, InboundPort};
use super::matches::{Asker, MESH};
use super::outbound::aliases;
use super::policy::Client;
use super::protocol::Protocol;
use super::registry::{Discovery as Found, Port, Service};
use crate::node::OUTBOUND_PORT;
use api::networking::OutboundTrafficMode;
use model::cluster::{Cluster, Discovery};
use model::endpoint::Assignment;
use model::listener::{
    Binding, ChainMatch, Direction, FilterChain, Inspection, Listener, Network, RouteSource,
};
use model::metadata::{Fields, Metadata, Value};
use model::route::{Target, WeightedCluster};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Where connections to the workload come.
const INBOUND_PORT: u16 = 15006;
/// Where questions for names come.
const DNS_PORT: u16 = 15053;

/// The cluster of connections to where nobody declares anything.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// The cluster without endpoints.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";

/// The listener whose metadata hold names, and where in them.
pub(super) const NAMES: &str = "names";
const NAMES_KEY: &str = "ieum.dev/names";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes what a captured client is sent beside what everybody is.
pub(super) struct CapturedMaker<'m> {
    pub(super) mesh: &'m Mesh,
    pub(super) client: Client<'m>,
}

/// Clusters that lead to no service.
pub(super) fn clusters() -> Vec<Cluster> {
    let original = |name: &str| Cluster {
        connect_timeout: CONNECT_TIMEOUT,
        http: model::cluster::UpstreamHttp::AsDownstream,
        ..Cluster::new(name, Discovery::OriginalDestination)
    };
    let nothing = Assignment { cluster: BLACK_HOLE.to_owned(), localities: Vec::new() };
    vec![
        original(PASSTHROUGH),
        original(INBOUND_PASSTHROUGH),
        Cluster::new(BLACK_HOLE, Discovery::Static(nothing)),
    ]
}

/// The listener for all that comes in. `other` is what ports are like that no service leads to.
pub(super) fn inbound(mesh: &Mesh, ports: &[InboundPort<'_>], other: &InboundPort<'_>) -> Listener {
    let mut chains = Vec::new();
    for port in ports {
        chains.extend(port.chains(mesh).into_iter().map(|mut chain| {
            chain.name = format!("{}-{}", port.number(), chain.name);
            chain.condition.destination_port = Some(port.number());
            chain
        }));
    }
    // Whoever calls the sidecar's own port calls it again and again.
    chains.push(blocked("inbound-blackhole", mesh, INBOUND_PORT));
    chains.extend(
        other
            .chains(mesh)
            .into_iter()
            .map(|chain| FilterChain { name: format!("passthrough-{}", chain.name), ..chain }),
    );
    Listener {
        inspect: Inspection { original_destination: true, tls: true, http: true, ..Inspection::default() },
        chains,
        ..bare("virtualInbound", unspecified(INBOUND_PORT), Direction::Inbound)
    }
}

fn blocked(name: &str, mesh: &Mesh, port: u16) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        condition: ChainMatch { destination_port: Some(port), ..ChainMatch::default() },
        tls: None,
        network: tcp(mesh, BLACK_HOLE),
    }
}

fn tcp(mesh: &Mesh, cluster: &str) -> Network {
    Network::Tcp(Box::new(mesh.connections.tcp(cluster, vec![only(cluster.to_owned())])))
}

fn unspecified(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

/// A listener with a socket for either family if its address is unspecified.
fn bare(name: &str, address: SocketAddr, direction: Direction) -> Listener {
    let more = vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port())];
    Listener {
        name: name.to_owned(),
        address: Some(address),
        binding: Binding { more, ..Binding::default() },
        inspect: Inspection::default(),
        chains: Vec::new(),
        default_chain: None,
        direction,
        metadata: Metadata::default(),
        provenance: None,
    }
}

/// The name of the table of one port of one service.
pub(super) fn table_name(service: &Service, port: &Port) -> String {
    format!("{}:{}", service.host, port.number)
}

impl<'m> CapturedMaker<'m> {
    /// What happens to connections that lead to nothing that is declared.
    pub(super) fn elsewhere(&self) -> &'static str {
        let scope = self.client.scope.and_then(|scope| scope.unknown_hosts());
        match scope.unwrap_or(self.mesh.unknown_hosts) {
            OutboundTrafficMode::AllowAny | OutboundTrafficMode::AllowAnyDynamicDns => PASSTHROUGH,
            OutboundTrafficMode::RegistryOnly => BLACK_HOLE,
        }
    }

    /// The ports of services that the client reaches.
    pub(super) fn ports(&self) -> impl Iterator<Item = (&'m Service, &'m Port)> + use<'m> {
        self.mesh.ports_of(self.client).map(|(_, service, port)| (service, port))
    }

    /// Every outbound listener.
    pub(super) fn outbound(&self) -> Vec<Listener> {
        let mut listeners = vec![self.everything(), self.names()];
        let mut http: BTreeMap<u16, ()> = BTreeMap::new();
        for (service, port) in self.ports() {
            if port.protocol.is_http() {
                http.insert(port.number, ());
                continue;
            }
            for address in self.addresses(service) {
                listeners.push(self.one(service, port, address));
            }
        }
        listeners.extend(http.into_keys().map(|port| self.http_port(port)));
        listeners
    }

    fn addresses(&self, service: &Service) -> Vec<IpAddr> {
        self.mesh.virtual_addresses.of_host(&service.host).to_vec()
    }

    /// The listener for all that goes out.
    fn everything(&self) -> Listener {
        let mut listener = bare("virtualOutbound", unspecified(OUTBOUND_PORT), Direction::Outbound);
        listener.binding.hands_over = true;
        listener.inspect.original_destination = true;
        listener.chains.push(blocked("virtualOutbound-blackhole", self.mesh, OUTBOUND_PORT));
        listener.default_chain = Some(self.rest());
        listener
    }

    /// The chain of connections that lead to nothing that is declared.
    fn rest(&self) -> FilterChain {
        FilterChain {
            name: "virtualOutbound-catchall-tcp".to_owned(),
            condition: ChainMatch::default(),
            tls: None,
            network: tcp(self.mesh, self.elsewhere()),
        }
    }

    /// The listener for one port, at any address, of services that speak HTTP there.
    fn http_port(&self, port: u16) -> Listener {
        let mut listener = unbound(format!("0.0.0.0_{port}"), unspecified(port));
        listener.inspect.http = true;
        listener.chains.push(self.http_chain(port.to_string()));
        listener.default_chain = Some(self.rest());
        listener
    }

    /// The chain of HTTP with the table `routes`.
    fn http_chain(&self, routes: String) -> FilterChain {
        let protocols = ["http/1.0", "http/1.1", "h2c"];
        let condition = ChainMatch {
            application_protocols: protocols.into_iter().map(str::to_owned).collect(),
            ..ChainMatch::default()
        };
        let prefix = format!("outbound_0.0.0.0_{routes}");
        let http = self.mesh.connections.http(&prefix, RouteSource::Rds(routes));
        FilterChain { name: "http".to_owned(), condition, tls: None, network: Network::Http(Box::new(http)) }
    }

    /// The listener for one port of one service whose protocol is not known to be HTTP.
    fn one(&self, service: &Service, port: &Port, address: IpAddr) -> Listener {
        let at = SocketAddr::new(address, port.number);
        let mut listener = unbound(format!("{address}_{}", port.number), at);
        listener.provenance = Some(service.provenance.clone());
        if port.protocol == Protocol::Auto {
            listener.inspect.http = true;
            listener.chains.push(self.http_chain(table_name(service, port)));
        }
        listener.default_chain = Some(FilterChain {
            name: "tcp".to_owned(),
            condition: ChainMatch::default(),
            tls: None,
            network: Network::Tcp(Box::new(
                self.mesh.connections.tcp(&service.host, self.targets(service, port)),
            )),
        });
        listener
    }

    /// Where the bytes of connections to a port go.
    fn targets(&self, service: &Service, port: &Port) -> Vec<WeightedCluster> {
        let Client { namespace, labels, address, .. } = self.client;
        let destinations = &service.addresses;
        let asker = Asker { gateway: MESH, namespace, labels, port: port.number, address, destinations };
        let seen = self.client.scope.and_then(|scope| scope.way(port.number)).map(|way| way.rules());
        let rules = self.mesh.rules.for_host(&service.host, namespace, seen);
        let written =
            rules.and_then(|rules| rules.tunnel(&service.host, port.protocol, &asker, &self.mesh.registry));
        match written {
            Some((Target::Weighted(clusters), _)) => clusters,
            Some((Target::Cluster(cluster), _)) => vec![only(cluster)],
            // Connections have no headers.
            Some((Target::Header(_), _)) => vec![only(BLACK_HOLE.to_owned())],
            None if port.protocol == Protocol::Auto => {
                vec![only(tunnel_name(port.number, "", &service.host))]
            }
            None => vec![only(cluster_name(port.number, "", &service.host))],
        }
    }

    /// The listener that holds names, and nothing else: it has no socket.
    fn names(&self) -> Listener {
        let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DNS_PORT);
        let mut listener = unbound(NAMES.to_owned(), at);
        listener.default_chain = Some(FilterChain { network: tcp(self.mesh, BLACK_HOLE), ..self.rest() });
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut short: BTreeMap<String, String> = BTreeMap::new();
        for (at, service) in self.mesh.registry.services() {
            let is_seen = service.visibility.includes(self.client.namespace)
                && self
                    .client
                    .scope
                    .is_none_or(|scope| service.ports.iter().any(|port| scope.reaches(at, port)));
            if !is_seen || (service.discovery == Found::None && service.host.starts_with('*')) {
                continue;
            }
            let addresses = match self.mesh.virtual_addresses.is_headless(&service.host) {
                true => service.workloads.iter().map(|workload| workload.address.clone()).collect(),
                false => self.addresses(service).iter().map(ToString::to_string).collect::<Vec<_>>(),
            };
            let addresses = addresses.join(",");
            for alias in aliases(service, self.client.namespace) {
                short.entry(alias).or_insert_with(|| addresses.clone());
            }
            names.insert(service.host.clone(), addresses);
        }
        // A full name declared elsewhere is never taken away by somebody's short one.
        for (name, addresses) in short {
            names.entry(name).or_insert(addresses);
        }
        let fields: Fields = names.into_iter().map(|(name, list)| (name, Value::String(list))).collect();
        for (name, value) in fields.iter() {
            listener.metadata.set(NAMES_KEY, name, value.clone());
        }
        listener
    }
}

/// A listener without a socket: connections that were meant for its address are handed over to it.
fn unbound(name: String, address: SocketAddr) -> Listener {
    let binding = Binding { unbound: true, ..Binding::default() };
    Listener { binding, ..bare(&name, address, Direction::Outbound) }
}
