//! The ADS stream over a socket: a control plane comes, goes and comes back.
#![allow(clippy::unwrap_used, missing_docs)]

use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3 as eds;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures_util::{Stream, StreamExt};
use ieum_proxy::discovery::{self, Discovery, Hub, LastGood, Scope, add_static};
use ieum_proxy::record::{NodeLabels, Telemetry};
use ieum_proxy::snapshot::Live;
use model::metadata::Value;
use prost::Message;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use xds::codec::type_url;
use xds::resources::ResourceSet;
use xds::server::DeltaStream;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane with a fixed set of resources, which notes what it is asked.
struct Plane {
    set: ResourceSet,
    asked: Arc<Mutex<Vec<DeltaDiscoveryRequest>>>,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Plane {
    type StreamAggregatedResourcesStream = Outgoing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer let-me-in");
        let (mut requests, set, asked) = (request.into_inner(), self.set.clone(), self.asked.clone());
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut stream = DeltaStream::new(1000);
            while let Some(Ok(request)) = requests.next().await {
                asked.lock().unwrap().push(request.clone());
                for response in stream.request(request, &set).unwrap() {
                    let _ = sender.send(Ok(response.message()));
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }
}

/// A cluster that asks EDS for its endpoints, and the one it has.
fn cluster(name: &str, port: u16) -> (Vec<u8>, Vec<u8>) {
    let text = format!(
        "static_resources: {{clusters: [{{name: {name}, type: EDS, eds_cluster_config: {{
         eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}]}}"
    );
    let bootstrap = xds::bootstrap::parse(&text, "boot.yaml").unwrap();
    let endpoint = eds::Endpoint { address: Some(loopback(port)), ..Default::default() };
    let endpoint = eds::LbEndpoint {
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    };
    let locality = eds::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    let assignment = eds::ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![locality],
        ..Default::default()
    };
    (bootstrap.static_clusters[0].encode_to_vec(), assignment.encode_to_vec())
}

fn loopback(port: u16) -> Address {
    let socket = SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

fn resources(clusters: &[(&str, u16)]) -> ResourceSet {
    let mut set = ResourceSet::new("7");
    for (name, port) in clusters {
        let (cluster, endpoints) = cluster(name, *port);
        set.insert(type_url::CLUSTER, name, "1", cluster);
        set.insert(type_url::ENDPOINT, name, &port.to_string(), endpoints);
    }
    set
}

/// A control plane in a thread of its own; dropping it closes every connection.
struct Served {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Port 0 takes any.
fn serve(port: u16, set: ResourceSet, asked: &Arc<Mutex<Vec<DeltaDiscoveryRequest>>>) -> Served {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let plane = Plane { set, asked: asked.clone() };
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let server = tonic::transport::Server::builder()
                .add_service(AggregatedDiscoveryServiceServer::new(plane))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                outcome = server => outcome.unwrap(),
                _ = stopped => {}
            }
        });
    });
    Served { port, stop: Some(stop), thread: Some(thread) }
}

fn follow(port: u16, file: Option<LastGood>) -> Hub {
    let bootstrap = format!(
        "
node: {{id: me, cluster: c}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {{cluster_name: plane}}
      initial_metadata: [{{key: authorization, value: Bearer let-me-in}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: plane
    connect_timeout: 1s
    load_assignment:
      cluster_name: plane
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
"
    );
    let bootstrap = xds::bootstrap::parse(&bootstrap, "boot.yaml").unwrap();
    let scope = Scope { ads: true, delta: true, clusters: true, ..Scope::default() };
    let mut discovery = Discovery::new(scope);
    add_static(&mut discovery, &bootstrap, Instant::now()).unwrap();
    let hub = Hub::new(discovery, Live::new(Telemetry::new(NodeLabels::from_metadata("me", &Value::Null))));
    let saved = file.as_ref().map(|file| file.read().unwrap().unwrap_or_default()).unwrap_or_default();
    hub.feed(|discovery, now| discovery.restore(saved, now));
    let status = Rc::new(RefCell::new(discovery::Status::default()));
    let (ads, node) = (bootstrap.ads.unwrap(), bootstrap.node.proto);
    spawn_local(discovery::follow(hub.clone(), discovery::Stream { ads, node, status }));
    if let Some(file) = file {
        let hub = hub.clone();
        spawn_local(async move { hub.keep_saved(file).await });
    }
    hub
}

/// Waits until the endpoints in force are these, by cluster.
async fn until(hub: &Hub, expected: &[(&str, u16)]) {
    let expected: Vec<(String, u16)> = expected.iter().map(|(n, p)| ((*n).to_owned(), *p)).collect();
    let live = hub.live().clone();
    let mut changes = live.changes();
    let arrived = async {
        loop {
            let snapshot = live.current();
            let all = snapshot.clusters.values().filter(|c| c.config.name != "plane");
            let mut found: Vec<(String, u16)> = all
                .map(|c| (c.config.name.clone(), c.endpoints.first().map_or(0, |e| e.address.port())))
                .collect();
            found.sort();
            if found == expected {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("the expected endpoints did not come");
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_control_plane_that_comes_back_is_asked_for_what_changed_only() {
    run(async {
        let asked = Arc::default();
        let server = serve(0, resources(&[("a", 1), ("b", 2)]), &asked);
        let port = server.port;
        let hub = follow(port, None);
        until(&hub, &[("a", 1), ("b", 2)]).await;
        assert_eq!(hub.read(|d| d.config().revision.clone()), "7");
        assert_eq!(asked.lock().unwrap()[0].node.as_ref().unwrap().id, "me");
        drop(server);
        asked.lock().unwrap().clear();
        // What is in force stays while there is nobody.
        until(&hub, &[("a", 1), ("b", 2)]).await;
        let _server = serve(port, resources(&[("a", 3), ("c", 4)]), &asked);
        until(&hub, &[("a", 3), ("c", 4)]).await;
        let held = asked.lock().unwrap()[0].initial_resource_versions.len();
        assert_eq!(held, 2, "both clusters are resumed by version");
    });
}

#[test]
fn a_proxy_that_restarts_without_a_control_plane_goes_on_with_what_it_had() {
    let directory = tempfile::tempdir().unwrap();
    let file = LastGood::new(directory.path(), "me");
    let asked = Arc::default();
    let mut port = 0;
    run(async {
        let server = serve(0, resources(&[("a", 1)]), &asked);
        port = server.port;
        until(&follow(port, Some(file.clone())), &[("a", 1)]).await;
        let written = async {
            let complete = |all: Vec<DeltaDiscoveryResponse>| {
                all.iter().filter(|r| !r.resources.is_empty()).count() == 2
            };
            while !file.read().unwrap().is_some_and(complete) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.expect("the configuration was not saved");
    });
    run(async {
        let start = Instant::now();
        let hub = follow(port, Some(file.clone()));
        until(&hub, &[("a", 1)]).await;
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(hub.read(|d| d.stage()), discovery::Stage::Complete);
    });
}
