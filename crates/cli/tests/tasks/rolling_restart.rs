//! What a user may do to a service under load: restart every replica, kill one. Nobody is to notice.

use crate::mesh::{Mesh, eventually, kill};
use crate::task::{Proxy, with_both_proxies};
use crate::traffic::{Http1, Http2, Traffic, bytes, stream_call};
use http::Request;

/// Three replicas of `reviews`, which speak HTTP at one port and gRPC at the other; a client; a gateway.
const MESH: &str = r#"
apiVersion: ieum.dev/v1alpha1
kind: LocalMesh
metadata: {name: rolling}
spec:
  images:
  - {image: reviews, command: [ieum, sample, echo]}
  - {image: client, command: [sleep, infinity]}
  gateways:
  - {name: ingress, labels: {istio: ingressgateway}, ports: {"80": 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}, {name: grpc, port: 7070}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  replicas: 3
  selector: {matchLabels: {app: reviews}}
  template:
    metadata:
      labels: {app: reviews}
      annotations: {kubectl.kubernetes.io/restartedAt: "2026-01-01T00:00:00Z"}
    spec:
      containers:
      - {name: web, image: reviews, ports: [{containerPort: 9080}]}
      - {name: grpc, image: reviews, ports: [{containerPort: 7070}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec: {containers: [{name: client, image: client}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: ["*"]
  gateways: [web]
  http:
  - match: [{uri: {prefix: /ieum.sample.v1.Echo/}}]
    route: [{destination: {host: reviews, port: {number: 7070}}}]
  - route: [{destination: {host: reviews, port: {number: 9080}}}]
"#;

/// Who fails is left alone, and what fails is tried elsewhere.
const RESILIENCE: &str = r#"
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 50}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews}}]
    retries: {attempts: 3, retryOn: "connect-failure,refused-stream,reset,503"}
"#;

/// Names of the replicas of `reviews` that are ready.
fn replicas(mesh: &Mesh) -> Vec<String> {
    let names = std::fs::read_dir(mesh.state().join("workloads")).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with("default.reviews-") && name.ends_with(".yaml")).collect();
    names.sort();
    names
}

fn add_reads(traffic: &mut Traffic, mesh: &Mesh) {
    let gateway = mesh.gateway_address(80);
    for _ in 0..2 {
        let client = std::sync::Arc::new(tokio::sync::Mutex::new(Http1::new(&gateway)));
        traffic.add("GET over HTTP/1.1 at the gateway", move || {
            let client = client.clone();
            async move {
                let request = || Request::get("/").header("host", "reviews").body(bytes(0)).unwrap();
                client.lock().await.exchange(request, None).await
            }
        });
    }
    let client = std::sync::Arc::new(tokio::sync::Mutex::new(Http1::new(&mesh.way_out("client"))));
    traffic.add("GET over HTTP/1.1 in the mesh", move || {
        let client = client.clone();
        async move {
            let request = || {
                let request = Request::get("http://reviews:9080/?delay=5ms").header("host", "reviews:9080");
                request.body(bytes(0)).unwrap()
            };
            client.lock().await.exchange(request, None).await
        }
    });
}

async fn add_streams(traffic: &mut Traffic, mesh: &Mesh) {
    let gateway = mesh.gateway_address(80);
    let http2 = Http2::new(&gateway).await;
    for _ in 0..2 {
        let (client, gateway) = (http2.clone(), gateway.clone());
        traffic.add("GET over HTTP/2 at the gateway", move || {
            let (mut client, gateway) = (client.clone(), gateway.clone());
            async move {
                let request = Request::get(format!("http://{gateway}/?size=20000")).body(bytes(0)).unwrap();
                client.exchange(request, Some(20000)).await
            }
        });
    }
    for _ in 0..3 {
        let (client, gateway) = (http2.clone(), gateway.clone());
        traffic.add("stream of gRPC at the gateway", move || {
            let (mut client, gateway) = (client.clone(), gateway.clone());
            async move { client.exchange(stream_call(&gateway), None).await }
        });
    }
}

fn add_writes(traffic: &mut Traffic, mesh: &Mesh) {
    const SIZE: usize = 100_000;
    let client = std::sync::Arc::new(tokio::sync::Mutex::new(Http1::new(&mesh.way_out("client"))));
    traffic.add("POST in the mesh", move || {
        let client = client.clone();
        async move {
            let request = || {
                let request = Request::post("http://reviews:9080/?mirror=1").header("host", "reviews:9080");
                request.body(bytes(SIZE)).unwrap()
            };
            client.lock().await.exchange(request, Some(SIZE)).await
        }
    });
    let client = std::sync::Arc::new(tokio::sync::Mutex::new(Http1::new(&mesh.gateway_address(80))));
    traffic.add("POST at the gateway", move || {
        let client = client.clone();
        async move {
            let request = || Request::post("/?mirror=1").header("host", "reviews").body(bytes(SIZE)).unwrap();
            client.lock().await.exchange(request, Some(SIZE)).await
        }
    });
}

mod every_replica {
    use super::*;

    with_both_proxies!(restarts_without_a_failed_request);

    async fn restarts_without_a_failed_request(proxy: Proxy) {
        let mesh = Mesh::start_text(MESH, proxy.program().as_deref(), &[]);
        let before = replicas(&mesh);
        assert_eq!(before.len(), 3, "{before:?}");
        let mut traffic = Traffic::default();
        add_reads(&mut traffic, &mesh);
        add_streams(&mut traffic, &mesh).await;
        add_writes(&mut traffic, &mesh);
        traffic.go_on(3).await;

        // What `kubectl rollout restart` writes.
        mesh.save("mesh.yaml", &MESH.replace("2026-01-01", "2026-01-02"));
        eventually("three new replicas have replaced the three old ones", || {
            let now = replicas(&mesh);
            now.len() == 3 && !now.iter().any(|name| before.contains(name))
        })
        .await;
        traffic.go_on(10).await;
        assert_eq!(traffic.failures().await, Vec::<String>::new());
    }
}

mod one_of_three {
    use super::*;

    with_both_proxies!(is_killed_without_a_failed_read);

    async fn is_killed_without_a_failed_read(proxy: Proxy) {
        let rules = MESH.replace(
            "  - route: [{destination: {host: reviews, port: {number: 9080}}}]",
            concat!(
                "  - route: [{destination: {host: reviews, port: {number: 9080}}}]\n",
                "    retries: {attempts: 3, retryOn: \"connect-failure,refused-stream,reset,503\"}"
            ),
        ) + RESILIENCE;
        let mesh = Mesh::start_text(&rules, proxy.program().as_deref(), &[]);
        let mut traffic = Traffic::default();
        add_reads(&mut traffic, &mesh);
        traffic.go_on(20).await;
        let replica = |at: usize| &mesh.ready["workloads"]["reviews"][at];
        // The application first: its sidecar is left to say so.
        kill(&replica(0)["pids"][0]);
        traffic.go_on(60).await;
        kill(&replica(1)["sidecar_pid"]);
        traffic.go_on(60).await;
        eventually("the killed ones are back", || replicas(&mesh).len() == 3).await;
        traffic.go_on(20).await;
        assert_eq!(traffic.failures().await, Vec::<String>::new());
    }
}
