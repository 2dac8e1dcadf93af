//! What recording costs a request: nanoseconds from `begin` to `finish`, with metrics, with traces and peer metadata, with
//! an access log. Run it with `cargo run --release -p ieum-proxy --example record_cost`.

use ieum_proxy::record::{ConnectionRecord, NodeLabels, Recorder, RequestRecord, Telemetry, UpstreamRecord};
use model::cluster::{Cluster, Discovery};
use model::endpoint::{Endpoint, EndpointAddress, Health};
use model::format::Template;
use model::listener::{
    AccessLog, Direction, HttpConnectionManager, Inspection, Listener, LogFormat, RouteSource, Tracing,
};
use model::metadata::{Fields, Metadata, Value};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 200_000;
const FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" %UPSTREAM_HOST%\n";

fn main() -> Result<(), Box<dyn Error>> {
    let log = AccessLog::new("/dev/null", LogFormat::Text(Template::parse(FORMAT)?));
    let tracing = Some(Tracing { random_sampling_percent: 1.0 });
    measure("nothing", false, None, vec![])?;
    measure("metrics", true, None, vec![])?;
    measure("metrics and traces", true, tracing, vec![])?;
    measure("metrics, traces and log", true, tracing, vec![log])
}

fn measure(
    what: &str,
    stats: bool,
    tracing: Option<Tracing>,
    logs: Vec<AccessLog>,
) -> Result<(), Box<dyn Error>> {
    let metadata = Value::Struct(Fields::from([("WORKLOAD_NAME".to_owned(), Value::from("productpage-v1"))]));
    let node = NodeLabels::from_metadata("sidecar~127.1.0.1~a.default~default.svc.cluster.local", &metadata);
    let telemetry = Telemetry::new(node);
    let mut manager = HttpConnectionManager::new(RouteSource::Rds("r".into()));
    (manager.stats, manager.tracing, manager.access_logs) = (stats, tracing, logs);
    let recorder = Recorder::http(&telemetry, &manager, &listener());
    let connection = Arc::new(ConnectionRecord {
        id: 1,
        remote: ([127, 0, 0, 1], 50_000).into(),
        local: ([127, 0, 0, 1], 15_001).into(),
        direct: ([127, 0, 0, 1], 50_000).into(),
        is_restored: false,
        notes: None,
        server_name: None,
        tls_version: None,
        peer_uri: None,
        own_uri: None,
        chain: "c".into(),
    });
    let (cluster, upstream) = (cluster(), upstream());
    let mut sent = http::HeaderMap::new();
    for (name, value) in [("user-agent", "curl/8.0"), ("accept", "*/*"), ("x-request-id", "id-1")] {
        sent.insert(name, value.parse()?);
    }
    let answer = http::HeaderMap::new();
    let mut spent = Duration::ZERO;
    let mut started = Instant::now();
    for round in 0..ROUNDS {
        if round % 1_000 == 0 {
            // The writer's thread must not fall behind: losing lines is cheaper than keeping them.
            spent += started.elapsed();
            telemetry.flush_logs();
            started = Instant::now();
        }
        let request = RequestRecord {
            method: &http::Method::GET,
            target: "/reviews/0",
            authority: "reviews:9080",
            scheme: "http",
            version: http::Version::HTTP_11,
            headers: &sent,
            id: "id-1",
            client: connection.remote,
        };
        let mut exchange = recorder.begin(&connection, &request);
        exchange.cluster = Some(Arc::clone(&cluster));
        exchange.upstream = Some(upstream.clone());
        exchange.edit_request(&mut sent, u64::from(round));
        exchange.answered(200, &answer);
        exchange.bytes_sent = 295;
        exchange.finish();
    }
    println!("{what}: {} ns a request", (spent / ROUNDS).as_nanos());
    telemetry.flush_logs();
    Ok(())
}

fn listener() -> Listener {
    Listener {
        name: "l".into(),
        address: None,
        binding: Default::default(),
        inspect: Inspection::default(),
        chains: vec![],
        default_chain: None,
        direction: Direction::Outbound,
        metadata: Metadata::default(),
        provenance: None,
    }
}

fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster {
        connect_timeout: Duration::from_secs(10),
        ..Cluster::new("outbound|9080||reviews.default.svc.cluster.local", Discovery::OriginalDestination)
    })
}

fn upstream() -> UpstreamRecord {
    let address = ([127, 1, 0, 5], 9080).into();
    let mut metadata = Metadata::default();
    metadata.set("istio", "workload", "reviews-v3;default;reviews;v3;Kubernetes");
    UpstreamRecord {
        address,
        endpoint: Arc::new(Endpoint {
            address: EndpointAddress::Socket(address),
            hostname: String::new(),
            weight: 1,
            health: Health::Healthy,
            metadata,
        }),
        local: None,
        peer_uri: Some("spiffe://cluster.local/ns/default/sa/bookinfo-reviews".into()),
    }
}
