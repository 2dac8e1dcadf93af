//! Simulated sidecars for measuring a control plane: many delta ADS streams in one process, each a connection of its own
//! and a workload of its own, that ask for what a proxy asks for and acknowledge everything they are sent.
//!
//! ```text
//! swarm --server http://127.0.0.1:15010 --sidecars 1000 --services 1000 --namespaces 20 --workloads 5
//! ```
//!
//! Prints a line of JSON when all are in step; then, for each line `change FROM TO` read from standard input, moves
//! the file FROM over the file TO, waits until every sidecar has acknowledged endpoints sent after that, and prints
//! another line. What the resources say is not looked at.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use serde_json::json;
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;
use xds::codec::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};

/// Largest response read, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 << 20;
/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(120);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What is to be simulated.
struct Plan {
    server: String,
    sidecars: usize,
    services: usize,
    namespaces: usize,
    workloads: usize,
}

impl Plan {
    fn read() -> Outcome<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let mut options: HashMap<&str, &str> = HashMap::new();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return Err("every option takes a value".into()) };
            options.insert(name, value);
        }
        let number = |name: &str, default: usize| match options.get(name) {
            Some(text) => text.parse().map_err(|_| format!("{name} is not a number: {text}")),
            None => Ok(default),
        };
        Ok(Self {
            server: (*options.get("--server").ok_or("--server is missing")?).to_owned(),
            sidecars: number("--sidecars", 1000)?,
            services: number("--services", 1000)?,
            namespaces: number("--namespaces", 20)?.max(1),
            workloads: number("--workloads", 5)?.max(1),
        })
    }

    /// The sidecar of the workload that stands for `at`: one of each service before the second of any.
    fn node(&self, at: usize) -> Node {
        let (service, replica) = (at % self.services, at / self.services % self.workloads);
        let namespace = format!("ns-{}", service % self.namespaces);
        let address = format!("127.{}.{}.{}", 10 + replica, service / 250, service % 250 + 1);
        Node {
            id: format!(
                "sidecar~{address}~service-{service}-{replica}.{namespace}~{namespace}.svc.cluster.local"
            ),
            ..Node::default()
        }
    }
}

/// What all sidecars count together.
#[derive(Default)]
struct Counts {
    /// Sidecars that have everything they asked for.
    in_step: Cell<usize>,
    /// Endpoints acknowledged since the last change.
    endpoints: Cell<usize>,
    responses: Cell<usize>,
    bytes: Cell<usize>,
    first_ack: Cell<Option<Instant>>,
    last_ack: Cell<Option<Instant>>,
    changed: Notify,
}

/// One simulated sidecar.
struct Sidecar {
    counts: Rc<Counts>,
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    /// Types answered once.
    seen: BTreeSet<String>,
    /// Clusters whose endpoints were asked for and have not come.
    open: BTreeSet<String>,
    /// It has everything it asked for.
    is_in_step: bool,
}

impl Sidecar {
    async fn run(endpoint: Endpoint, node: Node, counts: Rc<Counts>) -> Outcome<()> {
        let channel = endpoint.connect().await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut sidecar =
            Self { counts, requests, seen: BTreeSet::new(), open: BTreeSet::new(), is_in_step: false };
        let first = DeltaDiscoveryRequest { node: Some(node), ..wildcard(CLUSTER) };
        sidecar.requests.send(first)?;
        sidecar.requests.send(wildcard(LISTENER))?;
        let answer = client.delta_aggregated_resources(UnboundedReceiverStream::new(outgoing)).await?;
        let mut responses = answer.into_inner();
        while let Some(response) = responses.message().await? {
            sidecar.take(response)?;
        }
        Err("the stream ended".into())
    }

    fn take(&mut self, response: DeltaDiscoveryResponse) -> Outcome<()> {
        let counts = &self.counts;
        counts.responses.set(counts.responses.get() + 1);
        counts.bytes.set(counts.bytes.get() + response.encoded_len());
        self.requests.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        })?;
        if response.type_url == ENDPOINT {
            counts.endpoints.set(counts.endpoints.get() + 1);
            counts.first_ack.set(counts.first_ack.get().or(Some(Instant::now())));
            counts.last_ack.set(Some(Instant::now()));
        }
        let is_first = self.seen.insert(response.type_url.clone());
        let names = response.resources.into_iter().map(|resource| resource.name);
        match response.type_url.as_str() {
            // Long answers come in pieces, those about clusters before those about listeners.
            CLUSTER if !self.is_in_step => {
                let names: Vec<String> = names.filter(|name| name.starts_with("outbound|")).collect();
                self.open.extend(names.iter().cloned());
                self.requests.send(named(ENDPOINT, names))?;
            }
            LISTENER if is_first => self.requests.send(named(ROUTE, vec!["http_proxy".to_owned()]))?,
            ENDPOINT => names.for_each(|name| {
                self.open.remove(&name);
            }),
            _ => {}
        }
        if !self.is_in_step && self.seen.len() == 4 && self.open.is_empty() {
            self.is_in_step = true;
            counts.in_step.set(counts.in_step.get() + 1);
        }
        counts.changed.notify_one();
        Ok(())
    }
}

fn wildcard(type_url: &str) -> DeltaDiscoveryRequest {
    named(type_url, vec!["*".to_owned()])
}

fn named(type_url: &str, names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    }
}

impl Counts {
    async fn wait(&self, what: &str, until: impl Fn(&Self) -> bool) -> Outcome<()> {
        let reached = async {
            while !until(self) {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(BOUND, reached).await.map_err(|_| format!("{what}: not within {BOUND:?}").into())
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn print(line: &serde_json::Value) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn swarm(plan: Plan) -> Outcome<()> {
    let counts = Rc::new(Counts::default());
    let endpoint = Endpoint::from_shared(plan.server.clone())?.initial_stream_window_size(1 << 20);
    let start = Instant::now();
    for at in 0..plan.sidecars {
        let (endpoint, node, counts) = (endpoint.clone(), plan.node(at), counts.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = Sidecar::run(endpoint, node, counts).await {
                eprintln!("a sidecar ended: {error}");
                std::process::exit(1);
            }
        });
    }
    counts.wait("not all sidecars are in step", |c| c.in_step.get() == plan.sidecars).await?;
    print(&json!({
        "synced_ms": ms(start.elapsed()), "responses": counts.responses.get(), "bytes": counts.bytes.get(),
    }))?;
    let (lines, mut wanted) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    while let Some(line) = wanted.recv().await {
        let [_, from, to] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err("change FROM TO".into());
        };
        [&counts.endpoints, &counts.responses, &counts.bytes].iter().for_each(|count| count.set(0));
        [&counts.first_ack, &counts.last_ack].iter().for_each(|at| at.set(None));
        let start = Instant::now();
        std::fs::rename(from, to)?;
        counts.wait("not all have the change", |c| c.endpoints.get() >= plan.sidecars).await?;
        let after = |at: &Cell<Option<Instant>>| at.get().map(|at| ms(at - start));
        print(&json!({
            "first_ack_ms": after(&counts.first_ack), "last_ack_ms": after(&counts.last_ack),
            "responses": counts.responses.get(), "bytes": counts.bytes.get(),
        }))?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let plan = Plan::read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, swarm(plan))
}
