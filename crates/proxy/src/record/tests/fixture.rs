//! The parts of a mesh that recorders are tried on: productpage calls reviews.

use crate::record::{ConnectionRecord, NodeLabels, RequestRecord, RouteTaken, UpstreamRecord};
use http::{HeaderMap, HeaderName, Method, Version};
use model::cluster::{Cluster, Discovery, Transport};
use model::endpoint::{Endpoint, EndpointAddress, Health};
use model::format::Template;
use model::listener::*;
use model::metadata::{Fields, Metadata, Value};
use model::provenance::Provenance;
use model::route::*;
use model::routing::RouteTable;
use model::tls::{SecretSource, UpstreamTls};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn node(workload: &str, version: &str) -> NodeLabels {
    let object = |fields: &[(&str, &str)]| {
        Value::Struct(fields.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect())
    };
    let mut metadata = Fields::from([
        ("LABELS".to_owned(), object(&[("app", workload), ("version", version)])),
        ("WORKLOAD_NAME".to_owned(), format!("{workload}-{version}").into()),
        ("SERVICE_ACCOUNT".to_owned(), format!("bookinfo-{workload}").into()),
    ]);
    metadata.insert("CLUSTER_ID".to_owned(), "Kubernetes".into());
    let id = format!("sidecar~127.1.0.5~{workload}-{version}-0.default~default.svc.cluster.local");
    NodeLabels::from_metadata(&id, &Value::Struct(metadata))
}

pub(super) fn listener(direction: Direction) -> Listener {
    Listener {
        name: "l".into(),
        address: None,
        binding: Default::default(),
        inspect: Inspection::default(),
        chains: vec![],
        default_chain: None,
        direction,
        metadata: Metadata::default(),
        provenance: Some(Provenance { resource: "Gateway default/g".into(), file: "".into(), line: 0 }),
    }
}

pub(super) fn manager(logs: Vec<AccessLog>) -> HttpConnectionManager {
    let mut manager = HttpConnectionManager::new(RouteSource::Rds("r".into()));
    manager.stats = true;
    manager.tracing = Some(Tracing { random_sampling_percent: 100.0 });
    manager.access_logs = logs;
    manager
}

pub(super) fn connection(peer_uri: Option<&str>) -> Arc<ConnectionRecord> {
    Arc::new(ConnectionRecord {
        id: 7,
        remote: "127.1.0.9:50000".parse().unwrap(),
        local: "127.1.0.5:9080".parse().unwrap(),
        direct: "127.1.0.9:50000".parse().unwrap(),
        is_restored: false,
        notes: None,
        server_name: Some("outbound_.9080_._.reviews".into()),
        tls_version: peer_uri.map(|_| "TLSv1.3"),
        peer_uri: peer_uri.map(Into::into),
        own_uri: peer_uri.map(|_| "spiffe://cluster.local/ns/default/sa/bookinfo-reviews".into()),
        chain: "mtls".into(),
    })
}

pub(super) fn cluster(name: &str) -> Arc<Cluster> {
    let tls = UpstreamTls {
        certificate: Some(SecretSource::Sds("default".into())),
        validation: None,
        sni: None,
        alpn: vec![],
        versions: Default::default(),
    };
    let mut cluster = Cluster {
        connect_timeout: Duration::from_secs(10),
        transport: Transport::Tls(Box::new(tls)),
        ..Cluster::new(name, Discovery::OriginalDestination)
    };
    let service =
        [("host", "reviews.default.svc.cluster.local"), ("name", "reviews"), ("namespace", "default")];
    let service = service.map(|(k, v)| (k.to_owned(), Value::from(v)));
    let services = Value::List(vec![Value::Struct(Fields::from(service))]);
    cluster.metadata.set("istio", "services", services);
    Arc::new(cluster)
}

pub(super) fn upstream(peer_uri: Option<&str>) -> UpstreamRecord {
    let mut metadata = Metadata::default();
    metadata.set("istio", "workload", "reviews-v3;default;reviews;v3;Kubernetes");
    UpstreamRecord {
        address: "127.1.0.5:9080".parse().unwrap(),
        endpoint: Arc::new(Endpoint {
            address: EndpointAddress::Socket("127.1.0.5:9080".parse().unwrap()),
            hostname: String::new(),
            weight: 1,
            health: Health::Healthy,
            metadata,
        }),
        local: Some("127.0.0.1:40000".parse().unwrap()),
        peer_uri: peer_uri.map(Into::into),
    }
}

pub(super) fn route() -> RouteTaken {
    let route = Route {
        name: "reviews-route".into(),
        condition: RouteMatch::any(),
        action: Action::forward(Forward::to("c")),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: None,
        metadata: Metadata::default(),
        provenance: Some(Provenance {
            resource: "VirtualService default/reviews".into(),
            file: "reviews.yaml".into(),
            line: 12,
        }),
    };
    let host = VirtualHost { domains: vec!["*".into()], routes: vec![route], ..Default::default() };
    let config = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    RouteTaken { table: Arc::new(RouteTable::compile(config).unwrap()), host: 0, route: 0 }
}

pub(super) fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

pub(super) fn request<'a>(headers: &'a HeaderMap) -> RequestRecord<'a> {
    RequestRecord {
        method: &Method::GET,
        target: "/reviews/0?x=\"y\"",
        authority: "reviews:9080",
        scheme: "http",
        version: Version::HTTP_2,
        headers,
        id: "id-1",
        client: "10.0.0.1:1234".parse().unwrap(),
    }
}

pub(super) const CALLER: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage";
pub(super) const SERVER: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";

pub(super) fn text_log(path: &Path, format: &str) -> AccessLog {
    AccessLog::new(path.to_str().unwrap(), LogFormat::Text(Template::parse(format).unwrap()))
}
