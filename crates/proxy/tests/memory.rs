//! What a route and a cluster take in memory once they are in force, counted in allocated bytes, which are the same on every
//! machine. A change that makes them dearer by more than 3 % fails here; one that makes them cheaper lowers the number.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use ieum_proxy::discovery::{self, ASSIGNMENT, CLUSTER, LISTENER, ROUTES, Response, SECRET, Scope};
use model::cluster::TransportMatch;
use model::matcher::StringMatch;
use model::metadata::{Fields, Value};
use model::provenance::Provenance;
use model::tls::*;
use std::time::Instant;
use support::*;
use xds::codec;

/// Bytes of one of ten thousand routes.
const PER_ROUTE: f64 = 600.0;
/// Bytes of one of two thousand clusters with an endpoint each.
const PER_CLUSTER: f64 = 5200.0;

/// What a control plane sends, and what it was taken for.
struct World {
    discovery: discovery::Discovery,
    live: Arc<Live>,
}

impl World {
    fn new() -> Self {
        let scope = Scope { ads: true, delta: true, listeners: true, clusters: true, identity: false };
        let node = NodeLabels::from_metadata("test", &Value::Null);
        Self { discovery: discovery::Discovery::new(scope), live: Live::new(Telemetry::new(node)) }
    }

    fn receive(&mut self, type_url: &str, resources: Vec<(String, Vec<u8>)>) {
        let resource = |(name, value): (String, Vec<u8>)| Resource {
            name,
            version: "0123456789abcdef01234567".to_owned(),
            resource: Some(Any { type_url: type_url.to_owned(), value }),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            resources: resources.into_iter().map(resource).collect(),
            // What is asked for and not there is said not to be there.
            removed_resources: if type_url == SECRET {
                vec!["default".into(), "ROOTCA".into()]
            } else {
                Vec::new()
            },
            ..DeltaDiscoveryResponse::default()
        };
        self.discovery.receive(Response::Delta(response), Instant::now());
        if self.discovery.take_output().changed {
            self.live.publish(self.discovery.config());
        }
    }

    /// Everything that serves `routes` and `clusters`.
    fn configured(routes: usize, clusters: usize) -> Self {
        let mut world = Self::new();
        let names =
            || (0..clusters.max(1)).map(|n| format!("outbound|80||other-{n}.default.svc.cluster.local"));
        world
            .receive(CLUSTER, names().map(|n| (n.clone(), codec::encode_cluster(&cluster_of(&n)))).collect());
        let endpoints = names().map(|n| (n.clone(), codec::encode_endpoints(&endpoints_of(&n))));
        world.receive(ASSIGNMENT, endpoints.collect());
        world.receive(SECRET, Vec::new());
        world.receive(LISTENER, vec![("in".to_owned(), codec::encode_listener(&listener()))]);
        world.receive(ROUTES, vec![("http.80".to_owned(), codec::encode_routes(&table(routes)))]);
        world.discovery.rest();
        let snapshot = world.live.current();
        assert_eq!((snapshot.clusters.len(), snapshot.listeners.len()), (clusters.max(1), 1));
        world
    }
}

fn provenance(line: usize) -> Option<Provenance> {
    let resource = "VirtualService default/app".into();
    Some(Provenance { resource, file: "/etc/ieum/config/rules.yaml".into(), line: line as u32 })
}

fn cluster_of(name: &str) -> Cluster {
    let host = name.rsplit('|').next().unwrap();
    let trust = SecretSource::Sds("ROOTCA".into());
    let id = SanMatch {
        kind: Some(SanKind::Uri),
        matcher: StringMatch::exact("spiffe://cluster.local/ns/default/sa/default"),
    };
    let tls = UpstreamTls {
        certificate: Some(SecretSource::Sds("default".into())),
        validation: Some(Arc::new(PeerValidation {
            trust,
            subject_alt_names: vec![id],
            checks: PeerChecks::default(),
        })),
        sni: Some(format!("outbound_.80_._.{host}")),
        alpn: ["istio-http/1.1", "istio", "http/1.1"].map(str::to_owned).into(),
        versions: TlsVersions::default(),
    };
    let mut metadata = Metadata::default();
    let service = [("host", host), ("name", "other"), ("namespace", "default")];
    let service: Fields = service.map(|(key, value)| (key.to_owned(), value.into())).into();
    metadata.set("istio", "services", Value::List(vec![Value::Struct(service)]));
    let labels = Fields::from([("tlsMode".to_owned(), "istio".into())]);
    Cluster {
        transport_matches: vec![TransportMatch {
            name: "tlsMode-istio".into(),
            labels,
            transport: Transport::Tls(Box::new(tls)),
        }],
        metadata,
        provenance: provenance(1),
        ..Cluster::new(name, Discovery::Eds(name.to_owned()))
    }
}

fn endpoints_of(name: &str) -> Assignment {
    let mut metadata = Metadata::default();
    metadata.set("istio", "workload", "app-1;default;app;latest;Kubernetes");
    let endpoint = Endpoint {
        address: EndpointAddress::Socket(SocketAddr::from(([127, 0, 0, 1], 8080))),
        hostname: String::new(),
        weight: 1,
        health: Health::Healthy,
        metadata,
    };
    let localities = vec![LocalityEndpoints { endpoints: vec![endpoint], ..LocalityEndpoints::default() }];
    Assignment { cluster: name.to_owned(), localities }
}

fn listener() -> Listener {
    let manager = HttpConnectionManager::new(RouteSource::Rds("http.80".into()));
    let chain = FilterChain {
        name: "main".into(),
        condition: ChainMatch::default(),
        tls: None,
        network: Network::Http(Box::new(manager)),
    };
    Listener {
        name: "in".into(),
        address: Some(SocketAddr::from(([127, 0, 0, 1], 80))),
        binding: Binding::default(),
        inspect: Inspection::default(),
        chains: vec![chain],
        default_chain: None,
        direction: Direction::Unspecified,
        metadata: Metadata::default(),
        provenance: None,
    }
}

fn table(routes: usize) -> RouteConfiguration {
    let mut metadata = Metadata::default();
    let config = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/app";
    metadata.set("istio", "config", config);
    let route = |n: usize| Route {
        name: format!("default/app/http[{n}]"),
        condition: RouteMatch::path(PathMatch::Exact(format!("/other/{n}"))),
        metadata: metadata.clone(),
        provenance: provenance(n),
        ..route("", Action::forward(to("outbound|80||other-0.default.svc.cluster.local")))
    };
    let host = VirtualHost {
        name: "*:80".into(),
        domains: vec!["*".into()],
        routes: (0..routes).map(route).collect(),
        ..VirtualHost::default()
    };
    RouteConfiguration { name: "http.80".into(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

/// Bytes that a configuration of this size keeps.
fn kept(routes: usize, clusters: usize) -> f64 {
    let mut world = None;
    let counted = allocation_counter::measure(|| world = Some(World::configured(routes, clusters)));
    drop(world);
    counted.bytes_current as f64
}

#[test]
fn a_route_takes_no_more_memory_than_it_did() {
    // What is made once is made.
    drop(World::configured(1, 1));
    let route = (kept(10_000, 0) - kept(0, 0)) / 10_000.0;
    println!("{route} bytes a route");
    assert!(route <= PER_ROUTE * 1.03, "{route} bytes a route, {PER_ROUTE} before");
}

#[test]
fn a_cluster_takes_no_more_memory_than_it_did() {
    drop(World::configured(1, 1));
    let cluster = (kept(0, 2_000) - kept(0, 0)) / 2_000.0;
    println!("{cluster} bytes a cluster");
    assert!(cluster <= PER_CLUSTER * 1.03, "{cluster} bytes a cluster, {PER_CLUSTER} before");
}
