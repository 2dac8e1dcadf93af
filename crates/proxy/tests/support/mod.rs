//! A proxy of one listener in memory, and endpoints on loopback that remember what they saw.
#![allow(dead_code, unused_imports, unreachable_pub)]

pub use bytes::Bytes;
pub use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
pub use http_body_util::{BodyExt, Full};
pub use hyper::body::Incoming;
pub use hyper::service::service_fn;
pub use hyper_util::rt::TokioIo;
pub use ieum_proxy::local::Local;
pub use ieum_proxy::record::{ConnectionRecord, NodeLabels, Telemetry};
pub use ieum_proxy::request::Context;
pub use ieum_proxy::snapshot::{Config, Live, NetworkState};
pub use model::cluster::{Cluster, Discovery, Transport, UpstreamHttp};
pub use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health, LocalityEndpoints};
pub use model::field::FieldName;
pub use model::format::Template;
pub use model::header::{EditAction, HeaderEdit, HeaderEdits};
pub use model::listener::*;
pub use model::metadata::Metadata;
pub use model::path::PathNormalization;
pub use model::retry::{RetryConditions, RetryPolicy};
pub use model::route::*;
pub use std::cell::{Cell, RefCell};
pub use std::net::SocketAddr;
pub use std::rc::Rc;
pub use std::sync::Arc;
pub use std::time::Duration;
pub use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub use tokio::net::TcpListener;
pub use tokio::task::{LocalSet, spawn_local};

/// What an endpoint saw.
#[derive(Debug, Clone)]
pub struct Seen {
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub connection: usize,
}

/// An HTTP/1.1 endpoint that answers as `answer` says and remembers what it saw.
pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Rc<RefCell<Vec<Seen>>>,
}

impl Upstream {
    pub async fn start(answer: impl Fn(usize, &Seen) -> Response<Full<Bytes>> + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Rc<RefCell<Vec<Seen>>> = Rc::default();
        let (record, answer) = (seen.clone(), Rc::new(answer));
        spawn_local(async move {
            let connections = Cell::new(0);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.set(connections.get() + 1);
                let (record, answer, connection) = (record.clone(), answer.clone(), connections.get());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (record, answer) = (record.clone(), answer.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let target = parts.uri.to_string();
                        let seen = Seen { target, headers: parts.headers, body, connection };
                        record.borrow_mut().push(seen.clone());
                        let number = record.borrow().len();
                        Ok::<_, hyper::Error>(answer(number, &seen))
                    }
                });
                spawn_local(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }
}

pub fn ok(text: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(text.as_bytes())))
}

pub fn status(code: u16) -> Response<Full<Bytes>> {
    let mut response = ok("no");
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

pub fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: EndpointAddress::Socket(*address),
        hostname: String::new(),
        weight: 1,
        health: Health::Healthy,
        metadata: Metadata::default(),
    };
    let endpoints = addresses.iter().map(endpoint).collect();
    let localities = vec![LocalityEndpoints { endpoints, ..LocalityEndpoints::default() }];
    Cluster {
        connect_timeout: Duration::from_secs(1),
        ..Cluster::new(name, Discovery::Static(Assignment { cluster: name.into(), localities }))
    }
}

pub fn route(path: &str, action: Action) -> Route {
    Route {
        name: path.into(),
        condition: RouteMatch::path(PathMatch::Prefix(path.into())),
        action,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        filters: None,
        metadata: Metadata::default(),
        provenance: None,
    }
}

pub fn to(cluster: &str) -> Forward {
    Forward::to(cluster)
}

/// A proxy whose one listener serves `routes` for host `shop`.
pub struct Proxy {
    pub live: Arc<Live>,
}

impl Proxy {
    pub fn new(routes: Vec<Route>, clusters: Vec<Cluster>) -> Self {
        let live =
            Live::new(Telemetry::new(NodeLabels::from_metadata("test", &model::metadata::Value::Null)));
        let proxy = Self { live };
        proxy.configure(routes, clusters);
        proxy
    }

    pub fn configure(&self, routes: Vec<Route>, clusters: Vec<Cluster>) {
        self.configure_with(routes, clusters, |_| {});
    }

    /// The same, with a connection manager that `change` changes.
    pub fn configure_with(
        &self,
        routes: Vec<Route>,
        clusters: Vec<Cluster>,
        change: impl FnOnce(&mut HttpConnectionManager),
    ) {
        let host =
            VirtualHost { name: "shop".into(), domains: vec!["shop".into()], routes, ..Default::default() };
        let table = RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
        let mut manager = HttpConnectionManager::new(RouteSource::Inline(table));
        manager.path = PathNormalization::default();
        manager.upgrades =
            vec![Upgrade { protocol: "websocket".into(), enabled: true, terminate_connect: false }];
        change(&mut manager);
        let chain = FilterChain {
            name: "main".into(),
            condition: ChainMatch::default(),
            tls: None,
            network: Network::Http(Box::new(manager)),
        };
        let listener = Listener {
            name: "in".into(),
            address: None,
            binding: Default::default(),
            inspect: Inspection::default(),
            chains: vec![chain],
            default_chain: None,
            direction: Direction::Unspecified,
            metadata: Metadata::default(),
            provenance: None,
        };
        let config = Config {
            listeners: [("in".to_owned(), Arc::new(listener))].into(),
            clusters: clusters.into_iter().map(|c| (c.name.clone(), Arc::new(c))).collect(),
            ..Config::default()
        };
        self.live.publish(&config);
    }

    /// A client's connection; what is written to it is served.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        self.connect_as(None)
    }

    /// The same over mutual TLS, from a peer of this name.
    pub fn connect_as(&self, peer: Option<&str>) -> tokio::io::DuplexStream {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let local = Local::new(self.live.clone());
        // What a thread does now and then.
        let watched = local.clone();
        spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                watched.watch().sweep(std::time::Instant::now());
            }
        });
        let snapshot = local.snapshot();
        let NetworkState::Http(http) = &snapshot.listeners["in"].chains[0].network else { unreachable!() };
        let record = ConnectionRecord {
            id: 1,
            remote: "127.0.0.1:5".parse().unwrap(),
            local: "127.0.0.1:80".parse().unwrap(),
            direct: "127.0.0.1:5".parse().unwrap(),
            is_restored: false,
            notes: None,
            server_name: None,
            tls_version: None,
            peer_uri: peer.map(Into::into),
            own_uri: None,
            chain: "main".into(),
        };
        let context = Context::new(local.clone(), "in", Arc::new(record), snapshot.clone(), http.clone());
        spawn_local(ieum_proxy::connection::serve_http1(context, server));
        client
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect())).await.unwrap();
        spawn_local(connection);
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    pub async fn fetch(&self, path: &str) -> Response<Bytes> {
        self.send(get(path)).await
    }
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "shop").body(Full::default()).unwrap()
}

pub fn in_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs");
    });
}

/// Runs hyper's tasks on this thread.
#[derive(Clone)]
pub struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        spawn_local(async move { drop(future.await) });
    }
}
