//! A proxy with its threads, and clients that send raw bytes; with the names that its tests need.
#![allow(unused_imports)]

pub(crate) use bytes::Bytes;
pub(crate) use http_body_util::{BodyExt, Full};
pub(crate) use ieum_proxy::record::{NodeLabels, Telemetry};
pub(crate) use ieum_proxy::snapshot::{Config, Live};
pub(crate) use ieum_proxy::worker::{self, Options, Workers};
pub(crate) use model::cluster::{Cluster, Discovery};
pub(crate) use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health, LocalityEndpoints};
pub(crate) use model::listener::*;
pub(crate) use model::metadata::{Metadata, Value};
pub(crate) use model::route::*;
pub(crate) use model::tls::{CertificatePair, DownstreamTls, SecretSource};
pub(crate) use std::net::SocketAddr;
pub(crate) use std::sync::Arc;
pub(crate) use std::time::Duration;
pub(crate) use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub(crate) use tokio::net::{TcpListener, TcpStream};

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) live: Arc<Live>,
    pub(crate) workers: Workers,
}

impl Proxy {
    pub(crate) fn start(concurrency: usize, listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Self {
        let telemetry = Telemetry::new(NodeLabels::from_metadata("test", &Value::Null));
        let live = Live::new(telemetry);
        let proxy = Self {
            workers: worker::start(
                live.clone(),
                &Options { concurrency, max_connections: Some(64), tidy: None },
            ),
            live,
        };
        proxy.configure(listeners, clusters);
        proxy
    }

    pub(crate) fn configure(&self, listeners: Vec<Listener>, clusters: Vec<Cluster>) {
        self.live.publish(&Config {
            listeners: listeners.into_iter().map(|l| (l.name.clone(), Arc::new(l))).collect(),
            clusters: clusters.into_iter().map(|c| (c.name.clone(), Arc::new(c))).collect(),
            ..Config::default()
        });
    }

    /// Where the listener of that name listens, as soon as it does.
    pub(crate) async fn address(&self, name: &str) -> SocketAddr {
        let found = |all: &Vec<worker::ListenerStatus>| {
            all.iter().find(|s| s.name == name && s.bound.is_ok()).map(|s| s.address)
        };
        let mut changes = self.workers.listener_changes();
        let statuses = changes.wait_for(|all| found(all).is_some()).await.unwrap();
        found(&statuses).unwrap()
    }

    pub(crate) async fn connect(&self, name: &str) -> TcpStream {
        TcpStream::connect(self.address(name).await).await.unwrap()
    }

    /// Waits until the metric of that name and labels is `count`: threads count a moment after a client knows.
    pub(crate) async fn counts(&self, series: &str, count: u64) {
        loop {
            let text = self.live.telemetry().prometheus();
            let value = text.lines().find_map(|l| l.strip_prefix(series)?.trim().parse().ok());
            if value == Some(count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.workers.stop();
        self.workers.join();
    }
}

pub(crate) fn listener(name: &str, chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.into(),
        address: Some("127.0.0.1:0".parse().unwrap()),
        binding: Default::default(),
        inspect: Inspection::default(),
        chains,
        default_chain: None,
        direction: Direction::Unspecified,
        metadata: Metadata::default(),
        provenance: None,
    }
}

pub(crate) fn chain(name: &str, network: Network) -> FilterChain {
    FilterChain { name: name.into(), condition: ChainMatch::default(), tls: None, network }
}

/// Answers every request with `text`; `/to-a` goes to cluster `a`.
pub(crate) fn http(text: &str) -> Network {
    let route = |path: &str, action| Route {
        name: path.into(),
        condition: RouteMatch::path(PathMatch::Prefix(path.into())),
        action,
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: None,
        metadata: Metadata::default(),
        provenance: None,
    };
    let routes = vec![
        route("/to-a", Action::forward(Forward::to("a"))),
        route("/", Action::Respond(DirectResponse { status: 200, body: text.into() })),
    ];
    let host = VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..Default::default() };
    let table = RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
    let mut manager = HttpConnectionManager::new(RouteSource::Inline(table));
    manager.upgrades =
        vec![Upgrade { protocol: "websocket".into(), enabled: true, terminate_connect: false }];
    Network::Http(Box::new(manager))
}

pub(crate) fn tcp(cluster: &str) -> Network {
    let weighted = WeightedCluster { cluster: cluster.into(), weight: 1, ..WeightedCluster::default() };
    Network::Tcp(Box::new(TcpProxy {
        stat_prefix: "t".into(),
        clusters: vec![weighted],
        ..TcpProxy::default()
    }))
}

pub(crate) fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: EndpointAddress::Socket(*address),
        hostname: String::new(),
        weight: 1,
        health: Health::Healthy,
        metadata: Metadata::default(),
    };
    let localities = vec![LocalityEndpoints {
        endpoints: addresses.iter().map(endpoint).collect(),
        ..LocalityEndpoints::default()
    }];
    Cluster {
        connect_timeout: Duration::from_secs(1),
        ..Cluster::new(name, Discovery::Static(Assignment { cluster: name.into(), localities }))
    }
}

/// Reads one answer: its head and as much body as it announces.
pub(crate) async fn answer(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    loop {
        text.push(stream.read_u8().await.unwrap());
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// All that comes until the end. A reset counts as one: what came before it is lost to real clients.
pub(crate) async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// What a client gets that says `text` and listens until the end.
pub(crate) async fn say(proxy: &Proxy, text: &str) -> String {
    let mut stream = proxy.connect("web").await;
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

pub(crate) fn in_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs");
    });
}

pub(crate) fn web(concurrency: usize) -> Proxy {
    Proxy::start(concurrency, vec![listener("web", vec![chain("main", http("hello"))])], vec![])
}
