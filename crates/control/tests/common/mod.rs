//! What the tests of the running control plane share: a plane on free ports, and xDS clients of both dialects.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::pb::google::rpc::Status;
use ieum_control::event::{Event, Report};
use ieum_control::plane::{Plane, PlaneOptions, start};
use serde_json::Value as Json;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub const SDS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

pub const BOUND: Duration = Duration::from_secs(20);
pub const SIDECAR: &str = "sidecar~127.1.0.5~web-0.default~default.svc.cluster.local";
pub const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

pub const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports:
  - {name: http, port: 9080}
";

/// A WorkloadEntry of `reviews`.
pub fn entry(name: &str, address: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\nspec:\n  address: {address}\n  \
         labels: {{app: reviews}}\n  serviceAccount: reviews\n  ports: {{http: 9080}}\n"
    )
}

/// Waits for `future`, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("it takes too long")
}

/// A plane, its folders, and what it reported.
pub struct Running {
    pub plane: Plane,
    pub folder: TempDir,
    pub events: Arc<Mutex<Vec<Event>>>,
    told: mpsc::UnboundedReceiver<String>,
}

pub fn options(folder: &Path) -> PlaneOptions {
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    PlaneOptions {
        config: vec![folder.join("config")],
        xds: free,
        xds_tls: free,
        admin: free,
        state_dir: folder.join("state"),
        join_tokens: Some(folder.join("tokens")),
        certificate_lifetime: Duration::from_secs(3600),
    }
}

/// A plane whose configuration is `files`.
pub async fn plane(files: &[(&str, &str)]) -> Running {
    plane_with(files, |options| options).await
}

pub async fn plane_with(
    files: &[(&str, &str)],
    change: impl FnOnce(PlaneOptions) -> PlaneOptions,
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join("config").join(name), text).unwrap();
    }
    let events = Arc::new(Mutex::new(Vec::new()));
    let (tell, told) = mpsc::unbounded_channel();
    let report: Report = {
        let events = events.clone();
        Arc::new(move |event: Event| {
            let _ = tell.send(event.to_string());
            events.lock().unwrap().push(event);
        })
    };
    let plane = start(change(options(folder.path())), report).await.unwrap();
    Running { plane, folder, events, told }
}

impl Running {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("config").join(name)
    }

    /// Writes a configuration file as careful programs do.
    pub fn save(&self, name: &str, text: &str) {
        let temporary = self.folder.path().join("temporary");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.path(name)).unwrap();
    }

    /// The next event that contains `text`.
    pub async fn told(&mut self, text: &str) -> String {
        let next = async {
            loop {
                let event = self.told.recv().await.unwrap();
                if event.contains(text) {
                    return event;
                }
            }
        };
        within(next).await
    }

    /// Waits until the status satisfies `condition`.
    pub async fn status(&self, condition: impl Fn(&Json) -> bool) -> Json {
        let met = async {
            loop {
                let status = self.plane.status();
                if condition(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        within(met).await
    }

    pub async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.plane.addresses().xds);
        within(Channel::from_shared(address).unwrap().connect()).await.unwrap()
    }

    pub async fn delta(&self, node: Node) -> DeltaClient {
        self.delta_with(node, None).await
    }

    /// A delta stream that shows a join token.
    pub async fn delta_with(&self, node: Node, token: Option<&str>) -> DeltaClient {
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await);
        let (requests, outgoing) = mpsc::channel(8);
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let responses = within(client.delta_aggregated_resources(request)).await.unwrap().into_inner();
        DeltaClient { requests, responses, node: Some(node) }
    }

    pub async fn sotw(&self, node: Node) -> SotwClient {
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await);
        let (requests, outgoing) = mpsc::channel(8);
        let responses = within(client.stream_aggregated_resources(ReceiverStream::new(outgoing))).await;
        SotwClient { requests, responses: responses.unwrap().into_inner(), node: Some(node) }
    }
}

/// A node with string metadata.
pub fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
    let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = metadata.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
}

pub struct DeltaClient {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    node: Option<Node>,
}

impl DeltaClient {
    pub async fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        request.node = self.node.take();
        within(self.requests.send(request)).await.unwrap();
    }

    pub async fn ask(&mut self, type_url: &str, names: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub async fn response(&mut self) -> Result<DeltaDiscoveryResponse, tonic::Status> {
        within(self.responses.message()).await.map(|response| response.expect("the stream ended"))
    }

    /// The next response, acknowledged.
    pub async fn accept(&mut self) -> DeltaDiscoveryResponse {
        let response = self.response().await.unwrap();
        self.answer(&response, None).await;
        response
    }

    pub async fn answer(&mut self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        let status = |message: &str| Status { code: 3, message: message.to_owned(), ..Status::default() };
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal.map(status),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }
}

pub struct SotwClient {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
    node: Option<Node>,
}

impl SotwClient {
    pub async fn ask(&mut self, type_url: &str, names: &[&str], answers: Option<&DiscoveryResponse>) {
        let request = DiscoveryRequest {
            type_url: type_url.to_owned(),
            node: self.node.take(),
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            response_nonce: answers.map(|a| a.nonce.clone()).unwrap_or_default(),
            version_info: answers.map(|a| a.version_info.clone()).unwrap_or_default(),
            ..DiscoveryRequest::default()
        };
        within(self.requests.send(request)).await.unwrap();
    }

    pub async fn response(&mut self) -> DiscoveryResponse {
        within(self.responses.message()).await.unwrap().expect("the stream ended")
    }
}

pub fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|r| r.name.as_str()).collect()
}

/// What the admin port answers to a GET with this `Host`.
pub async fn http_get(address: SocketAddr, host: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = within(tokio::net::TcpStream::connect(address)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    within(stream.read_to_string(&mut text)).await.unwrap();
    text
}
