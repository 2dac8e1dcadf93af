//! The real Envoy as a gateway, told nothing but where our ADS is: it takes everything it is sent, over both dialects, and
//! serves what the files say. Passed over where `make peers` has not been run.
#![allow(clippy::unwrap_used)]

mod common;

use ca::tokens::{TokenLine, random_token};
use common::*;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ID: &str = "router~127.0.0.1~ingress.default~default.svc.cluster.local";

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

fn bootstrap(xds: SocketAddr, api_type: &str, port: u16, token: &str) -> String {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": ID, "cluster": "ingress", "metadata": {
            "NAME": "ingress", "NAMESPACE": "default", "SERVICE_ACCOUNT": "ingress",
            "LABELS": {"istio": "ingress"}, "PORTS": {"80": port}, "BIND": "127.0.0.1",
        }},
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

async fn follow(api_type: &str, dialect: &str) {
    let Some(envoy) = envoy() else {
        eprintln!("passed over: `make peers` has not been run");
        return;
    };
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
    let line = TokenLine {
        token: random_token().unwrap(),
        identity: "spiffe://cluster.local/ns/default/sa/ingress".parse().unwrap(),
        reusable: true,
    };
    std::fs::write(running.folder.path().join("tokens"), line.to_json() + "\n").unwrap();
    let port = free_port();
    let file = running.folder.path().join("envoy.json");
    std::fs::write(&file, bootstrap(running.plane.addresses().xds, api_type, port, &line.token)).unwrap();
    let mut command = Command::new(envoy);
    command.args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning", "-c"]).arg(&file);
    let _envoy = Process(command.stdout(Stdio::null()).spawn().unwrap());

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = answered(address, "x-rule: one").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    running.save("rule.yaml", &rule("two"));
    answered(address, "x-rule: two").await;
    running.save("other.yaml", &SERVICE.replace("reviews", "ratings"));
    let revision = running.plane.revision_after(running.plane.revision().saturating_sub(1)).await;
    let status = running
        .status(|s| {
            s["proxies"][0]["served_revision"].as_u64() >= Some(revision)
                || s["proxies"][0]["rejections"][0].is_object()
        })
        .await;
    assert_eq!(status["ca"]["issued_over_sds"], 1, "it asked for its certificate and got it: {status:#}");
    let proxy = &status["proxies"][0];
    assert_eq!(proxy["rejections"], json!([]), "{status:#}");
    assert_eq!(
        (proxy["dialect"].as_str(), proxy["no_certificate"].as_str()),
        (Some(dialect), None),
        "{status:#}"
    );
}

#[tokio::test]
async fn envoy_follows_over_delta() {
    follow("DELTA_GRPC", "delta").await;
}

#[tokio::test]
async fn envoy_follows_over_state_of_the_world() {
    follow("GRPC", "sotw").await;
}
