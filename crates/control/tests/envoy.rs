//! The real Envoy as a gateway and as a sidecar, told nothing but where our ADS is: it takes everything it is sent, over both
//! dialects, and serves what the files say. Passed over where `make peers` has not been run.
#![allow(clippy::unwrap_used)]

mod common;

use ca::tokens::{TokenLine, random_token};
use common::*;
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GATEWAY_ID: &str = "router~127.0.0.1~ingress.default~default.svc.cluster.local";

fn envoy() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.peers/venv/bin/envoy");
    path.exists().then_some(path)
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn bootstrap(xds: SocketAddr, api_type: &str, node: &Json, token: &str) -> String {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": node,
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type, "transport_api_version": "V3",
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": "xds"},
                    "initial_metadata": [{"key": "authorization", "value": format!("Bearer {token}")}],
                }],
            },
            "lds_config": ads, "cds_config": ads,
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": xds.ip().to_string(), "port_value": xds.port()}},
            }}]}]},
        }]},
    })
    .to_string()
}

/// The example's own says STRICT, and the test speaks plaintext.
const PERMISSIVE: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  mtls: {mode: PERMISSIVE}
";

const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingress}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ['*']
";

fn rule(header: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web}}\nspec:\n  hosts: ['*']\n  \
         gateways: [web]\n  http:\n  - headers: {{response: {{set: {{x-rule: {header}}}}}}}\n    route:\n    \
         - destination: {{host: reviews, port: {{number: 9080}}}}\n"
    )
}

/// A workload without a sidecar, which answers everything with 200.
async fn workload() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
                }
            });
        }
    });
    address
}

/// Asks until the answer contains `text`.
async fn answered(address: SocketAddr, text: &str) -> String {
    let asked = async {
        loop {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                let answer = http_get(address, "shop.example", "/").await;
                if answer.contains(text) {
                    return answer;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within(asked).await
}

/// Envoy as `node`, with a join token for `account`; `None` where there is no Envoy.
fn start_envoy(running: &Running, api_type: &str, node: &Json, account: &str) -> Option<Process> {
    let Some(envoy) = envoy() else {
        eprintln!("passed over: `make peers` has not been run");
        return None;
    };
    let identity = format!("spiffe://cluster.local/ns/default/sa/{account}");
    let line =
        TokenLine { token: random_token().unwrap(), identity: identity.parse().unwrap(), reusable: true };
    std::fs::write(running.folder.path().join("tokens"), line.to_json() + "\n").unwrap();
    let file = running.folder.path().join("envoy.json");
    std::fs::write(&file, bootstrap(running.plane.addresses().xds, api_type, node, &line.token)).unwrap();
    let mut command = Command::new(envoy);
    command.args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error", "-c"]).arg(&file);
    Some(Process(command.stdout(Stdio::null()).spawn().unwrap()))
}

/// Waits until the proxy runs `revision`, and asserts that it refused nothing and got its certificate.
async fn serves(running: &Running, revision: u64, dialect: &str) {
    let settled = |status: &Json| {
        let proxy = &status["proxies"][0];
        proxy["served_revision"].as_u64() >= Some(revision) || proxy["rejections"][0].is_object()
    };
    let status = running.status(settled).await;
    let proxy = &status["proxies"][0];
    assert_eq!(proxy["rejections"], json!([]), "{status:#}");
    assert_eq!((proxy["dialect"].as_str(), proxy["no_certificate"].as_str()), (Some(dialect), None));
    assert_eq!(status["ca"]["issued_over_sds"], 1, "it asked for its certificate and got it: {status:#}");
}

async fn follow_as_gateway(api_type: &str, dialect: &str) {
    let upstream = workload().await;
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: r\n  labels: {{sidecar.istio.io/inject: \
         'false'}}\n  annotations: {{sidecar.istio.io/inject: 'false'}}\nspec:\n  address: 127.0.0.1\n  labels: {{app: \
         reviews}}\n  serviceAccount: reviews\n  ports: {{http: {}}}\n",
        upstream.port()
    );
    let service = SERVICE.replace("port: 9080", "port: 9080, targetPort: http");
    let files = [
        ("service.yaml", service.as_str()),
        ("r.yaml", &entry),
        ("gateway.yaml", GATEWAY),
        ("rule.yaml", &rule("one")),
    ];
    let running = plane(&files).await;
    let port = free_port();
    let node = json!({"id": GATEWAY_ID, "cluster": "ingress", "metadata": {
        "NAME": "ingress", "NAMESPACE": "default", "SERVICE_ACCOUNT": "ingress",
        "LABELS": {"istio": "ingress"}, "PORTS": {"80": port}, "BIND": "127.0.0.1",
    }});
    let Some(_envoy) = start_envoy(&running, api_type, &node, "ingress") else { return };

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = answered(address, "x-rule: one").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    running.save("rule.yaml", &rule("two"));
    answered(address, "x-rule: two").await;
    let revision = running.plane.revision();
    running.save("other.yaml", &SERVICE.replace("reviews", "ratings"));
    let revision = within(running.plane.revision_after(revision)).await;
    serves(&running, revision, dialect).await;
}

async fn follow_as_sidecar(api_type: &str, dialect: &str) {
    let application = workload().await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookinfo");
    let (address, port) = ([127, 1, 77, if dialect == "delta" { 1 } else { 2 }], free_port());
    let ip = std::net::IpAddr::from(address);
    let service = SERVICE.replace("reviews", "shop").replace("9080", &port.to_string());
    let entry = entry("shop", &ip.to_string()).replace("reviews", "shop").replace("9080", &port.to_string());
    let running = plane_with(
        &[("shop.yaml", service.as_str()), ("entry.yaml", &entry), ("plain.yaml", PERMISSIVE)],
        |mut options| {
            options.config.push(example);
            options
        },
    )
    .await;
    let node = json!({"id": format!("sidecar~{ip}~shop-0.default~default.svc.cluster.local"), "cluster": "shop", "metadata": {
        "NAME": "shop-0", "NAMESPACE": "default", "SERVICE_ACCOUNT": "shop", "LABELS": {"app": "shop"},
        "OUTBOUND": format!("{ip}:15001"),
        "ANNOTATIONS": {"ieum.dev/application-ports": format!("{port}={}", application.port())},
    }});
    let Some(_envoy) = start_envoy(&running, api_type, &node, "shop") else { return };
    let answer = answered(SocketAddr::from((address, port)), "HTTP/1.1 200").await;
    assert!(answer.ends_with("hello"), "{answer}");
    serves(&running, running.plane.revision(), dialect).await;
}

#[tokio::test]
async fn envoy_is_a_gateway_over_delta() {
    follow_as_gateway("DELTA_GRPC", "delta").await;
}

#[tokio::test]
async fn envoy_is_a_gateway_over_state_of_the_world() {
    follow_as_gateway("GRPC", "sotw").await;
}

#[tokio::test]
async fn envoy_is_a_sidecar_over_delta() {
    follow_as_sidecar("DELTA_GRPC", "delta").await;
}

#[tokio::test]
async fn envoy_is_a_sidecar_over_state_of_the_world() {
    follow_as_sidecar("GRPC", "sotw").await;
}
