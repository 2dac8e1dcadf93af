//! Clusters and their endpoints: one per port of a service, and one per port and subset that DestinationRules name.
//! Names are Istio's, `outbound|<port>|<subset>|<host>`. What comes in at a workload is `inbound`'s.

use super::authentication::{Authentication, is_subset};
use super::balancing::{load_balancing, slow_start};
use super::credentials::Credentials;
use super::localities::{Order, places};
use super::policy::{Chosen, Policies, Policy};
use super::pools::{connections, error_statuses, limits, outlier_detection, panic_threshold};
use super::protocol::Protocol;
use super::registry::{Discovery, Port, Service};
use super::scope::Ports;
use super::upstream_tls::{Reach, TLS_MODE, TLS_MODE_ISTIO};
use super::workload::Workload;
use api::networking::{
    ClientTlsMode, H2UpgradePolicy, HttpSettings, LocalityLoadBalancerSetting, ProxyProtocolVersion,
    TcpKeepalive,
};
use api::security::MutualTlsMode;
use model::balance::{LoadBalancing, Spread};
use model::cluster::{self, Cluster, ProxyVersion, TRANSPORT_MATCH_NAMESPACE, Transport, UpstreamHttp};
use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health};
use model::metadata::{Metadata, Value};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time to connect where nobody says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without requests is closed after this where nobody says otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A cluster and, where it asks for them by name, its endpoints.
#[derive(Debug, Clone)]
pub(crate) struct ClusterSet {
    pub(crate) clusters: Vec<Arc<Cluster>>,
    pub(crate) endpoints: Vec<Arc<Assignment>>,
}

impl ClusterSet {
    /// Of the same, what is about these ports.
    pub(super) fn narrowed(set: &Arc<Self>, ports: &Ports) -> Arc<Self> {
        let is_seen = |name: &str| port_of(name).is_none_or(|port| ports.include(port));
        let is_whole = *ports == Ports::All || set.clusters.iter().all(|cluster| is_seen(&cluster.name));
        if is_whole {
            return set.clone();
        }
        Arc::new(Self {
            clusters: set.clusters.iter().filter(|cluster| is_seen(&cluster.name)).cloned().collect(),
            endpoints: set.endpoints.iter().filter(|one| is_seen(&one.cluster)).cloned().collect(),
        })
    }

    /// The same, with what is equal in `known` taken from there.
    pub(super) fn sharing(mut self, known: &Self) -> Self {
        share(&mut self.clusters, &known.clusters);
        share(&mut self.endpoints, &known.endpoints);
        self
    }
}

fn share<T: PartialEq>(made: &mut [Arc<T>], known: &[Arc<T>]) {
    for one in made {
        if let Some(known) = known.iter().find(|known| *known == one) {
            *one = known.clone();
        }
    }
}

/// Settings of the mesh that clusters depend on.
#[derive(Debug, Clone, Default)]
pub(super) struct ClusterSettings {
    pub(super) trust_domain: String,
    /// First parts of identities that are as good.
    pub(super) trust_domain_aliases: Vec<String>,
    pub(super) auto_mtls: bool,
    /// HTTP/1.1 is sent on as HTTP/2.
    pub(super) upgrades: bool,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalive: Option<TcpKeepalive>,
    /// Preferences by locality where no rule has any.
    pub(super) locality: Option<LocalityLoadBalancerSetting>,
}

/// The name of a cluster.
pub(super) fn cluster_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The port in a cluster's name.
fn port_of(name: &str) -> Option<u16> {
    name.split('|').nth(1)?.parse().ok()
}

/// The name of the cluster that carries a tunnel's bytes to a port of which it is not known what it speaks.
pub(super) fn tunnel_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound-tunnel|{port}|{subset}|{host}")
}

/// Makes the clusters of services.
pub(super) struct ClusterMaker<'m> {
    pub(super) settings: &'m ClusterSettings,
    pub(super) policies: &'m Policies,
    pub(super) authentication: &'m Authentication,
    pub(super) credentials: &'m Credentials,
    /// For gRPC libraries: no TLS, and only what they know.
    pub(super) grpc: bool,
}

/// One cluster to make.
struct Part<'p> {
    service: &'p Service,
    port: &'p Port,
    subset: &'p str,
    /// Labels of the subset.
    labels: &'p BTreeMap<String, String>,
    /// The rules that count.
    chosen: &'p Chosen,
}

impl ClusterMaker<'_> {
    /// The clusters of `service` under the DestinationRules that count.
    pub(super) fn of(&self, service: &Service, chosen: &Chosen) -> ClusterSet {
        let mut set = ClusterSet { clusters: Vec::new(), endpoints: Vec::new() };
        let none = BTreeMap::new();
        if service.discovery == Discovery::None {
            return set;
        }
        for port in &service.ports {
            let (policy, from) = self.policies.policy(chosen, None, port.number);
            let from = from.unwrap_or_else(|| service.provenance.clone());
            self.add(&Part { service, port, subset: "", labels: &none, chosen }, &policy, from, &mut set);
            for (subset, from) in self.policies.subsets(chosen) {
                let (policy, _) = self.policies.policy(chosen, Some(subset), port.number);
                let part = Part { service, port, subset: &subset.name, labels: &subset.labels, chosen };
                self.add(&part, &policy, from, &mut set);
            }
        }
        set
    }

    fn add(
        &self,
        part: &Part<'_>,
        policy: &Policy,
        from: model::provenance::Provenance,
        set: &mut ClusterSet,
    ) {
        let Part { service, port, subset, .. } = part;
        let name = cluster_name(port.number, subset, &service.host);
        let order = Order::of(part.chosen.client.as_ref(), policy, self.settings.locality.as_ref())
            .filter(|_| !self.grpc);
        let assignment = self.assignment(part, &name, order.as_ref());
        let discovery = match service.discovery {
            Discovery::Known => cluster::Discovery::Eds(name.clone()),
            Discovery::DnsOne => cluster::Discovery::LogicalDns(assignment.clone()),
            // Of names that are looked up, libraries know one a cluster.
            Discovery::Dns if self.grpc => cluster::Discovery::LogicalDns(first_of(&assignment)),
            Discovery::Dns | Discovery::None => cluster::Discovery::StrictDns(assignment.clone()),
        };
        let pool = policy.connection_pool.clone().unwrap_or_default();
        let tcp = pool.tcp.unwrap_or_default();
        let http = pool.http.unwrap_or_default();
        let version = upstream_http(port.protocol, policy, &http, self.settings.upgrades);
        let Some((transport_matches, transport)) = self.transports(part, policy, Some(version)) else {
            return;
        };
        let load_balancing = self.load_balancing(policy);
        let cluster = Cluster {
            load_balancing,
            spread: Arc::new(Spread {
                weighted_localities: order.as_ref().is_some_and(Order::is_weighted),
                ..self.spread(policy, load_balancing)
            }),
            limits: limits(policy).into(),
            outlier_detection: policy.outlier_detection.as_ref().map(|given| outlier_detection(given).into()),
            error_statuses: error_statuses(policy.outlier_detection.as_ref()),
            connections: connections(policy, self.settings.keepalive.as_ref()).into(),
            connect_timeout: tcp.connect_timeout.or(self.settings.connect_timeout).unwrap_or(CONNECT_TIMEOUT),
            http: version,
            idle_timeout: Some(http.idle_timeout.unwrap_or(IDLE_TIMEOUT)).filter(|idle| !idle.is_zero()),
            transport_matches,
            transport,
            proxy_header: policy.proxy_protocol.as_ref().filter(|_| !self.grpc).map(|header| {
                match header.version {
                    ProxyProtocolVersion::V1 => ProxyVersion::V1,
                    ProxyProtocolVersion::V2 => ProxyVersion::V2,
                }
            }),
            metadata: telemetry(&[service]),
            provenance: Some(from),
            ..Cluster::new(name, discovery)
        };
        if port.protocol == Protocol::Auto
            && !self.grpc
            && let Some((transport_matches, transport)) = self.transports(part, policy, None)
        {
            let name = tunnel_name(port.number, subset, &service.host);
            set.clusters.push(Arc::new(Cluster { name, transport_matches, transport, ..cluster.clone() }));
        }
        set.clusters.push(Arc::new(cluster));
        if service.discovery == Discovery::Known {
            set.endpoints.push(Arc::new(assignment));
        }
    }

    /// Transports for HTTP of this version, or for bytes; `None` when their secrets are not there. No cluster then: one
    /// that waits for ever would keep a proxy from being ready.
    fn transports(
        &self,
        part: &Part<'_>,
        policy: &Policy,
        http: Option<UpstreamHttp>,
    ) -> Option<(Vec<cluster::TransportMatch>, Transport)> {
        if self.grpc {
            return Some((Vec::new(), Transport::Plain));
        }
        let reach = Reach {
            service: part.service,
            port: part.port,
            subset: part.subset,
            trust_domain: &self.settings.trust_domain,
            aliases: &self.settings.trust_domain_aliases,
            auto_mtls: self.settings.auto_mtls,
            credentials: self.credentials,
            secrets_of: Some(self.policies.namespace(part.chosen)).filter(|_| part.chosen.may_have_secrets),
            http: http.filter(|_| part.port.protocol.may_be_http()),
        };
        reach.transports(policy)
    }

    fn load_balancing(&self, policy: &Policy) -> LoadBalancing {
        // All gRPC libraries know this one, and few any other.
        if self.grpc { LoadBalancing::RoundRobin } else { load_balancing(policy) }
    }

    fn spread(&self, policy: &Policy, load_balancing: LoadBalancing) -> Spread {
        if self.grpc {
            return Spread::default();
        }
        Spread {
            panic_threshold: panic_threshold(policy.outlier_detection.as_ref()),
            slow_start: slow_start(policy.load_balancer.as_ref(), load_balancing),
            ..Spread::default()
        }
    }

    fn assignment(&self, part: &Part<'_>, name: &str, order: Option<&Order<'_>>) -> Assignment {
        let mut found: BTreeMap<(usize, &str), Vec<Endpoint>> = BTreeMap::new();
        for workload in part.service.workloads.iter().filter(|w| is_subset(part.labels, &w.labels)) {
            if let Some(endpoint) = self.endpoint(part, workload) {
                let distance = order.map_or(0, |order| order.distance(workload));
                found.entry((distance, &workload.locality)).or_default().push(endpoint);
            }
        }
        let mut localities = places(found);
        if let Some(order) = order {
            order.share_out(&mut localities);
        }
        Assignment { cluster: name.to_owned(), localities }
    }

    fn endpoint(&self, part: &Part<'_>, workload: &Workload) -> Option<Endpoint> {
        let port = part.service.target(part.port, workload)?;
        let by_name = matches!(part.service.discovery, Discovery::Dns | Discovery::DnsOne);
        let address = match workload.address.parse() {
            Ok(ip) => EndpointAddress::Socket(SocketAddr::new(ip, port)),
            Err(_) if by_name => EndpointAddress::Name(workload.address.clone(), port),
            // A name that nobody resolves, or a Unix socket; `unsupported` tells.
            Err(_) => return None,
        };
        let mut metadata = Metadata::default();
        let mode = || self.authentication.mode(&workload.namespace, &workload.labels, port);
        if workload.has_sidecar && mode() != MutualTlsMode::Disable {
            metadata.set(TRANSPORT_MATCH_NAMESPACE, TLS_MODE, TLS_MODE_ISTIO);
        }
        metadata.set("istio", "workload", workload.telemetry());
        Some(Endpoint {
            address,
            hostname: String::new(),
            weight: workload.weight,
            health: Health::Healthy,
            metadata,
        })
    }
}

/// The first endpoint alone.
fn first_of(assignment: &Assignment) -> Assignment {
    let mut assignment = assignment.clone();
    assignment.localities.truncate(1);
    assignment.localities.iter_mut().for_each(|place| place.endpoints.truncate(1));
    assignment
}

fn upstream_http(protocol: Protocol, policy: &Policy, http: &HttpSettings, of_mesh: bool) -> UpstreamHttp {
    let upgrades = match http.h2_upgrade_policy {
        H2UpgradePolicy::Default => of_mesh,
        own => own == H2UpgradePolicy::Upgrade,
    };
    let own_tls = policy
        .tls
        .as_ref()
        .is_some_and(|tls| matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual));
    match protocol {
        Protocol::Http2 | Protocol::Grpc => UpstreamHttp::Http2,
        Protocol::Http | Protocol::Auto if http.use_client_protocol => UpstreamHttp::AsDownstream,
        Protocol::Http | Protocol::Auto if upgrades => UpstreamHttp::Http2,
        // By ALPN, such a destination was offered HTTP/1.1 at most.
        Protocol::Auto | Protocol::Tls | Protocol::Tcp if own_tls => UpstreamHttp::Http1,
        Protocol::Auto | Protocol::Tls | Protocol::Tcp => UpstreamHttp::AsDownstream,
        Protocol::Http => UpstreamHttp::Http1,
    }
}

/// What telemetry reads of the services behind a cluster.
pub(super) fn telemetry(services: &[&Service]) -> Metadata {
    let describe = |service: &&Service| {
        let fields = [("host", &service.host), ("name", &service.name), ("namespace", &service.namespace)];
        Value::Struct(
            fields.into_iter().map(|(key, value)| (key.to_owned(), value.as_str().into())).collect(),
        )
    };
    let mut metadata = Metadata::default();
    if !services.is_empty() {
        metadata.set("istio", "services", Value::List(services.iter().map(describe).collect()));
    }
    metadata
}
