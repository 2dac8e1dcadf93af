//! What comes in at a workload: one listener per port, at the workload's own address, and one cluster per port that
//! leads to the application.
//!
//! How strict a port is about mutual TLS decides its filter chains; what it speaks decides what is in them.

use super::Mesh;
use super::clusters::telemetry;
use super::connection::only;
use super::gateway_tls::downstream;
use super::ingress::{Ingress, Wish};
use super::policy::Policy;
use super::pools;
use super::protocol::Protocol;
use super::registry::Service;
use super::rules::bare_route;
use crate::node::ProxyNode;
use api::security::MutualTlsMode;
use model::balance::LoadBalancing;
use model::cluster::{Cluster, Discovery, Transport, UpstreamHttp};
use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health, LocalityEndpoints};
use model::listener::{ChainMatch, Direction, FilterChain, Inspection, Listener, Network, RouteSource};
use model::metadata::Metadata;
use model::provenance::Provenance;
use model::retry::{RetryConditions, RetryPolicy};
use model::route::{Action, Forward, RouteConfiguration, RouteMatch, VirtualHost};
use model::tls::{
    DownstreamTls, PeerChecks, PeerValidation, SecretSource, TlsVersions, WORKLOAD_CERTIFICATE,
    WORKLOAD_TRUST_BUNDLE,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The cluster of connections to a captured workload's ports that nothing is said of.
pub(super) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// The application is on this machine: it answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An application closes connections it finds idle; ours go first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A port of a workload.
pub(super) struct InboundPort<'m> {
    port: u16,
    application: u16,
    /// What the workload's Sidecar says of it.
    wish: Wish,
    /// Where the workload is known to the mesh.
    namespace: String,
    protocol: Protocol,
    mode: MutualTlsMode,
    services: Vec<&'m Service>,
}

/// The ports of the workload beside which `node` stands: those that services lead to, and those on which its
/// application is known to listen.
pub(super) fn ports<'m>(
    mesh: &'m Mesh,
    node: &ProxyNode,
    labels: &BTreeMap<String, String>,
) -> Vec<InboundPort<'m>> {
    let entry = node.address.and_then(|address| mesh.workloads.at(&node.namespace, address));
    let mut workload =
        entry.map(|entry| entry.as_ref().clone()).unwrap_or_else(|| super::workload::Workload {
            name: node.name.clone(),
            namespace: node.namespace.clone(),
            address: String::new(),
            labels: labels.clone(),
            ports: BTreeMap::new(),
            service_account: String::new(),
            weight: 1,
            locality: String::new(),
            has_sidecar: true,
            application_ports: BTreeMap::new(),
            gateway_ports: BTreeMap::new(),
        });
    if workload.ports.is_empty() {
        workload.ports = mesh.deployments.named_ports(&node.namespace, labels);
    }
    let told = node.application_ports.as_ref();
    workload.application_ports.extend(told.into_iter().flatten().map(|(port, local)| (*port, *local)));
    let mut found: BTreeMap<u16, (Protocol, Vec<&'m Service>)> = BTreeMap::new();
    for service in mesh.registry.of_workload(&node.namespace, labels) {
        for port in &service.ports {
            if let Some(target) = service.target(port, &workload) {
                let (_, services) = found.entry(target).or_insert((port.protocol, Vec::new()));
                if services.iter().all(|known| known.host != service.host) {
                    services.push(service);
                }
            }
        }
    }
    if let Some(told) = told {
        found.retain(|port, _| told.contains_key(port));
    }
    for port in workload.application_ports.keys() {
        found.entry(*port).or_insert((Protocol::Auto, Vec::new()));
    }
    let sidecar = mesh.scopes.sidecar(&node.namespace, labels);
    let ingress = sidecar.map(|sidecar| Ingress {
        object: &sidecar.object,
        sidecar: &sidecar.spec,
        address: node.address,
        application_ports: &workload.application_ports,
    });
    let mut wishes: BTreeMap<u16, Wish> = BTreeMap::new();
    if let Some(written) = ingress.and_then(|ingress| ingress.ports()) {
        found.retain(|port, _| written.contains_key(port));
        for (port, (protocol, wish)) in written {
            found.entry(port).or_insert_with(|| (protocol, Vec::new())).0 = protocol;
            wishes.insert(port, wish);
        }
    }
    let mut wish =
        |port: u16| wishes.remove(&port).or_else(|| Some(ingress.as_ref()?.general())).unwrap_or_default();
    let describe = |(port, (protocol, services)): (u16, (Protocol, Vec<&'m Service>))| InboundPort {
        port,
        application: workload.application_ports.get(&port).copied().unwrap_or(port),
        wish: wish(port),
        namespace: node.namespace.clone(),
        protocol,
        mode: mesh.authentication.mode(&node.namespace, labels, port),
        services,
    };
    found.into_iter().map(describe).collect()
}

/// What ports of a captured workload are like that no service leads to and of which its application says nothing.
pub(super) fn any_other<'m>(
    mesh: &'m Mesh,
    node: &ProxyNode,
    labels: &BTreeMap<String, String>,
) -> InboundPort<'m> {
    InboundPort {
        port: 0,
        wish: Wish::default(),
        namespace: node.namespace.clone(),
        application: 0,
        protocol: Protocol::Auto,
        mode: mesh.authentication.mode(&node.namespace, labels, 0),
        services: Vec::new(),
    }
}

impl InboundPort<'_> {
    /// Its number.
    pub(super) fn number(&self) -> u16 {
        self.port
    }

    fn cluster_name(&self) -> String {
        if self.port == 0 {
            return INBOUND_PASSTHROUGH.to_owned();
        }
        format!("inbound|{}||", self.port)
    }

    fn provenance(&self) -> Option<Provenance> {
        let service = self.services.first().map(|service| service.provenance.clone());
        service.or_else(|| self.wish.from.clone())
    }

    /// The listener at `address`.
    pub(super) fn listener(&self, mesh: &Mesh, address: IpAddr) -> Listener {
        let address = self.wish.bind.unwrap_or(address);
        Listener {
            name: format!("{address}_{}", self.port),
            address: Some(SocketAddr::new(address, self.port)),
            binding: Default::default(),
            inspect: Inspection {
                tls: self.mode != MutualTlsMode::Disable,
                http: self.protocol == Protocol::Auto && self.mode != MutualTlsMode::Strict,
                ..Inspection::default()
            },
            chains: self.chains(mesh),
            default_chain: None,
            direction: Direction::Inbound,
            metadata: telemetry(&self.services),
            provenance: self.provenance(),
        }
    }

    /// The chains: those of mutual TLS unless it is off, and those of plain text unless it is required.
    pub(super) fn chains(&self, mesh: &Mesh) -> Vec<FilterChain> {
        if let (MutualTlsMode::Disable, Some(server)) = (self.mode, &self.wish.tls) {
            return self.own_tls(server, mesh).into_iter().collect();
        }
        let mut chains = Vec::new();
        if self.mode != MutualTlsMode::Disable {
            self.mutual_tls(mesh, &mut chains);
        }
        if self.mode != MutualTlsMode::Strict {
            self.plain(mesh, &mut chains);
        }
        chains
    }

    /// TLS of its own, where the mesh's is off: the one chain there is, if its certificate is there.
    fn own_tls(&self, server: &api::networking::Server, mesh: &Mesh) -> Option<FilterChain> {
        let (alpn, network): (&[&str], Network) = match self.protocol {
            Protocol::Tls | Protocol::Tcp => (&[], self.tcp(mesh)),
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Auto => {
                (&["h2", "http/1.1"], self.http(mesh))
            }
        };
        let tls = downstream(server, alpn, &mesh.credentials, &self.namespace)?;
        let condition = ChainMatch::default();
        Some(FilterChain { name: "tls".to_owned(), condition, tls: Some(tls), network })
    }

    fn mutual_tls(&self, mesh: &Mesh, chains: &mut Vec<FilterChain>) {
        let tls = |protocols: &[&str]| ChainMatch {
            transport_protocol: Some("tls".to_owned()),
            application_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            ..ChainMatch::default()
        };
        let strict = self.mode == MutualTlsMode::Strict;
        let http = |condition, alpn: &[&str]| self.chain("mtls-http", condition, Some(alpn), self.http(mesh));
        let tcp = |condition| self.chain("mtls-tcp", condition, Some(&["istio"]), self.tcp(mesh));
        match self.protocol {
            // Whoever speaks TLS to a port of plain HTTP means the mesh's.
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
                chains.push(http(tls(&[]), &["h2", "http/1.1"]))
            }
            Protocol::Auto => {
                // Nothing is offered here, so that the first bytes tell the version.
                let names = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
                chains.push(http(tls(&names), &[]));
                chains.push(tcp(tls(if strict { &[] } else { &["istio"] })));
            }
            // TLS without the mesh's names is the application's own.
            Protocol::Tls | Protocol::Tcp => chains.push(tcp(tls(if strict { &[] } else { &["istio"] }))),
        }
    }

    fn plain(&self, mesh: &Mesh, chains: &mut Vec<FilterChain>) {
        let raw = |protocols: &[&str]| ChainMatch {
            transport_protocol: Some("raw_buffer".to_owned()),
            application_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            ..ChainMatch::default()
        };
        match self.protocol {
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
                let condition =
                    if self.mode == MutualTlsMode::Disable { ChainMatch::default() } else { raw(&[]) };
                chains.push(self.chain("plain-http", condition, None, self.http(mesh)));
            }
            Protocol::Auto => {
                let http = raw(&["http/1.0", "http/1.1", "h2c"]);
                chains.push(self.chain("plain-http", http, None, self.http(mesh)));
                self.plain_tcp(mesh, chains);
            }
            Protocol::Tls | Protocol::Tcp => self.plain_tcp(mesh, chains),
        }
    }

    /// Bytes, and TLS of the application's own: once a chain asks for TLS, one that asks for nothing gets none.
    fn plain_tcp(&self, mesh: &Mesh, chains: &mut Vec<FilterChain>) {
        let kind =
            |kind: &str| ChainMatch { transport_protocol: Some(kind.to_owned()), ..ChainMatch::default() };
        if self.mode != MutualTlsMode::Disable {
            chains.push(self.chain("own-tls", kind("tls"), None, self.tcp(mesh)));
        }
        chains.push(self.chain("plain-tcp", kind("raw_buffer"), None, self.tcp(mesh)));
    }

    fn chain(
        &self,
        name: &str,
        condition: ChainMatch,
        alpn: Option<&[&str]>,
        network: Network,
    ) -> FilterChain {
        let tls = alpn.map(|alpn| DownstreamTls {
            tickets: true,
            certificates: vec![SecretSource::Sds(WORKLOAD_CERTIFICATE.to_owned())],
            validation: Some(PeerValidation {
                trust: SecretSource::Sds(WORKLOAD_TRUST_BUNDLE.to_owned()),
                subject_alt_names: Vec::new(),
                checks: PeerChecks::default(),
            }),
            require_client_certificate: true,
            alpn: alpn.iter().map(|p| (*p).to_owned()).collect(),
            versions: TlsVersions::default(),
        });
        FilterChain { name: name.to_owned(), condition, tls, network }
    }

    fn tcp(&self, mesh: &Mesh) -> Network {
        let cluster = self.cluster_name();
        let mut tcp = mesh.connections.tcp(&cluster, vec![only(cluster.clone())]);
        let idle = self.wish.pool.as_ref().and_then(|pool| pool.tcp.as_ref()?.idle_timeout);
        tcp.idle_timeout = idle.or(tcp.idle_timeout);
        Network::Tcp(Box::new(tcp))
    }

    fn http(&self, mesh: &Mesh) -> Network {
        let name = self.cluster_name();
        let mut forward = Forward::to(name.clone());
        forward.retry = Some(RetryPolicy {
            conditions: RetryConditions { reset_before_request: true, ..RetryConditions::default() },
            retries: 2,
            ..RetryPolicy::default()
        });
        let action = Action::forward(forward);
        let route = bare_route("default", RouteMatch::any(), action, self.provenance());
        let routes = RouteConfiguration {
            name: name.clone(),
            virtual_hosts: vec![VirtualHost {
                name: format!("inbound|http|{}", self.port),
                domains: vec!["*".to_owned()],
                routes: vec![route],
                ..VirtualHost::default()
            }],
            ..RouteConfiguration::default()
        };
        Network::Http(Box::new(mesh.connections.http(&name, RouteSource::Inline(routes))))
    }

    /// The cluster that leads to the application.
    pub(super) fn cluster(&self) -> Cluster {
        let name = self.cluster_name();
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.application);
        let address = self.wish.to.unwrap_or(local);
        let pool = self.wish.pool.clone();
        let tcp = pool.as_ref().and_then(|pool| pool.tcp.clone()).unwrap_or_default();
        let http = pool.as_ref().and_then(|pool| pool.http.clone()).unwrap_or_default();
        let policy = Policy { connection_pool: pool, ..Policy::default() };
        let endpoint = Endpoint {
            address: EndpointAddress::Socket(address),
            hostname: String::new(),
            weight: 1,
            health: Health::Unknown,
            metadata: Metadata::default(),
        };
        let place = LocalityEndpoints { endpoints: vec![endpoint], ..LocalityEndpoints::default() };
        let discovery = Discovery::Static(Assignment { cluster: name.clone(), localities: vec![place] });
        Cluster {
            load_balancing: LoadBalancing::RoundRobin,
            limits: pools::limits(&policy).into(),
            connections: pools::connections(&policy, None).into(),
            connect_timeout: tcp.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            http: match self.protocol {
                Protocol::Http => UpstreamHttp::Http1,
                Protocol::Http2 | Protocol::Grpc => UpstreamHttp::Http2,
                Protocol::Auto | Protocol::Tls | Protocol::Tcp => UpstreamHttp::AsDownstream,
            },
            idle_timeout: Some(http.idle_timeout.unwrap_or(IDLE_TIMEOUT)).filter(|idle| !idle.is_zero()),
            transport_matches: Vec::new(),
            transport: Transport::Plain,
            metadata: telemetry(&self.services),
            provenance: self.provenance(),
            ..Cluster::new(name, discovery)
        }
    }
}
