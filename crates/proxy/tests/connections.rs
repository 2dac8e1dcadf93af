//! Connections through the threads that serve them: real sockets on loopback, raw bytes in, raw bytes out.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use ieum_proxy::record::{NodeLabels, Telemetry};
use ieum_proxy::snapshot::{Config, Live};
use ieum_proxy::worker::{self, Options, Workers};
use model::cluster::{Cluster, Discovery};
use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health, LocalityEndpoints};
use model::listener::*;
use model::metadata::{Metadata, Value};
use model::route::*;
use model::tls::{CertificatePair, DownstreamTls, SecretSource};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A running proxy.
struct Proxy {
    live: Arc<Live>,
    workers: Workers,
}

impl Proxy {
    fn start(concurrency: usize, listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Self {
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

    fn configure(&self, listeners: Vec<Listener>, clusters: Vec<Cluster>) {
        self.live.publish(&Config {
            listeners: listeners.into_iter().map(|l| (l.name.clone(), Arc::new(l))).collect(),
            clusters: clusters.into_iter().map(|c| (c.name.clone(), Arc::new(c))).collect(),
            ..Config::default()
        });
    }

    /// Where the listener of that name listens, as soon as it does.
    async fn address(&self, name: &str) -> SocketAddr {
        let found = |all: &Vec<worker::ListenerStatus>| {
            all.iter().find(|s| s.name == name && s.bound.is_ok()).map(|s| s.address)
        };
        let mut changes = self.workers.listener_changes();
        let statuses = changes.wait_for(|all| found(all).is_some()).await.unwrap();
        found(&statuses).unwrap()
    }

    async fn connect(&self, name: &str) -> TcpStream {
        TcpStream::connect(self.address(name).await).await.unwrap()
    }

    /// Waits until the metric of that name and labels is `count`: threads count a moment after a client knows.
    async fn counts(&self, series: &str, count: u64) {
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

fn listener(name: &str, chains: Vec<FilterChain>) -> Listener {
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

fn chain(name: &str, network: Network) -> FilterChain {
    FilterChain { name: name.into(), condition: ChainMatch::default(), tls: None, network }
}

/// Answers every request with `text`; `/to-a` goes to cluster `a`.
fn http(text: &str) -> Network {
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

fn tcp(cluster: &str) -> Network {
    let weighted = WeightedCluster { cluster: cluster.into(), weight: 1, ..WeightedCluster::default() };
    Network::Tcp(Box::new(TcpProxy {
        stat_prefix: "t".into(),
        clusters: vec![weighted],
        ..TcpProxy::default()
    }))
}

fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
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
async fn answer(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
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
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// What a client gets that says `text` and listens until the end.
async fn say(proxy: &Proxy, text: &str) -> String {
    let mut stream = proxy.connect("web").await;
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

fn in_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs");
    });
}

fn web(concurrency: usize) -> Proxy {
    Proxy::start(concurrency, vec![listener("web", vec![chain("main", http("hello"))])], vec![])
}

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    in_time(async {
        let proxy = web(2);
        let mut stream = proxy.connect("web").await;
        stream.write_all(format!("{GET}{GET}").as_bytes()).await.unwrap();
        for _ in 0..2 {
            assert!(answer(&mut stream).await.ends_with("\r\n\r\nhello"));
        }
        for byte in GET.as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.contains("connection: close"));
        proxy.counts("ieum_connections_total{listener=\"web\"}", 1).await;
    });
}

#[test]
fn a_client_is_told_which_rule_of_framing_it_broke_after_the_answers_it_is_due() {
    in_time(async {
        let proxy = web(1);
        let smuggled =
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        let text = say(&proxy, smuggled).await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(text.contains("x-ieum-reason: framing.content_length_with_transfer_encoding\r\n"), "{text}");
        assert!(text.contains("connection: close\r\n"), "{text}");

        let text = say(&proxy, &format!("{GET}{smuggled}")).await;
        let (first, second) = text.split_once("hello").unwrap();
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(second.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");

        for (request, reason) in [
            ("GET / HTTP/1.1\nhost: a\n\n", "framing.bare_line_break"),
            ("GET / HTTP/1.1\r\n\r\n", "framing.host_missing"),
            ("GET <> HTTP/1.1\r\nhost: a\r\n\r\n", "framing.target"),
            (
                &format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(70_000)),
                "request_headers_too_large",
            ),
        ] {
            let text = say(&proxy, request).await;
            assert!(text.contains(&format!("x-ieum-reason: {reason}\r\n")), "{reason}: {text}");
            assert_eq!(text.matches("HTTP/1.1 4").count(), 1, "{text}");
        }
    });
}

#[test]
fn a_broken_chunk_ends_the_request_and_the_connection() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", http("hello"))])],
            vec![cluster("a", &[upstream.local_addr().unwrap()])],
        );
        let mut client = proxy.connect("web").await;
        let head = "POST /to-a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"abc\r\n") {
            seen.push(endpoint.read_u8().await.unwrap());
        }
        client.write_all(b"3\nxyz\r\n0\r\n\r\n").await.unwrap();
        let mut after = Vec::new();
        let _ = endpoint.read_to_end(&mut after).await;
        assert!(!after.windows(3).any(|w| w == b"xyz"), "what is behind the fault goes nowhere");
        let mut text = Vec::new();
        let _ = client.read_to_end(&mut text).await;
        assert!(text.windows(8).filter(|w| w == b"HTTP/1.1").count() <= 1);
    });
}

#[test]
fn tunnel_bytes_wait_for_the_endpoint_to_agree() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", http("hello"))])],
            vec![cluster("a", &[upstream.local_addr().unwrap()])],
        );
        let ask = "GET /to-a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let mut client = proxy.connect("web").await;
        client.write_all(format!("{ask}early").as_bytes()).await.unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(endpoint.read_u8().await.unwrap());
        }
        let mut early = [0; 1];
        let waited = tokio::time::timeout(Duration::from_millis(50), endpoint.peek(&mut early)).await;
        assert!(waited.is_err(), "nothing comes before the endpoint agreed");
        endpoint
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhi",
            )
            .await
            .unwrap();
        let mut five = [0; 5];
        endpoint.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"early");
        assert!(answer(&mut client).await.starts_with("HTTP/1.1 101 "));
        let mut two = [0; 2];
        client.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"hi");
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut endpoint).await, "");
        drop(endpoint);
        assert_eq!(rest(&mut client).await, "");

        // Refused, what follows is the next request.
        let asked = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
        let text =
            say(&proxy, &format!("{asked}GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        // What follows a refused CONNECT is not.
        let text = say(&proxy, &format!("CONNECT b:1 HTTP/1.1\r\nhost: b:1\r\n\r\n{GET}")).await;
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    });
}

#[test]
fn http2_is_known_by_its_preface_and_by_alpn() {
    in_time(async {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let mut secure = chain("secure", http("secret"));
        secure.condition.server_names = vec!["a.example".into()];
        secure.tls = Some(DownstreamTls {
            tickets: true,
            certificates: vec![SecretSource::Inline(CertificatePair {
                chain_pem: certificate.pem().into_bytes(),
                key_pem: key.serialize_pem().into_bytes(),
            })],
            validation: None,
            require_client_certificate: false,
            alpn: vec!["h2".into(), "http/1.1".into()],
            versions: Default::default(),
        });
        let mut plain = chain("plain", http("hello"));
        plain.condition.transport_protocol = Some("raw_buffer".into());
        let proxy = Proxy::start(2, vec![listener("web", vec![secure, plain])], vec![]);

        assert_eq!(fetch_http2(proxy.connect("web").await).await, "hello");
        let text = say(&proxy, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(text.ends_with("hello"));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let config = |alpn: &[u8]| {
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            tokio_rustls::TlsConnector::from(Arc::new(config))
        };
        let name = |n: &str| rustls_pki_types::ServerName::try_from(n.to_owned()).unwrap();
        let tls = config(b"h2").connect(name("a.example"), proxy.connect("web").await).await.unwrap();
        assert_eq!(fetch_http2(tls).await, "secret");
        let mut tls =
            config(b"http/1.1").connect(name("a.example"), proxy.connect("web").await).await.unwrap();
        tls.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut tls).await.ends_with("secret"));

        let refused = config(b"h2").connect(name("b.example"), proxy.connect("web").await).await;
        assert!(refused.is_err(), "no chain takes this name");
        let series = "ieum_connections_refused_total{listener=\"web\",reason=\"no_filter_chain\"}";
        proxy.counts(series, 1).await;
    });
}

async fn fetch_http2(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> String {
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/").body(Full::<Bytes>::default()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body();
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[test]
fn bytes_of_tcp_pass_and_a_dead_endpoint_is_passed_over() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Bound, so that nobody else gets the port, and deaf.
        let deaf = tokio::net::TcpSocket::new_v4().unwrap();
        deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let dead = deaf.local_addr().unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", tcp("a"))])],
            vec![cluster("a", &[dead, upstream.local_addr().unwrap()])],
        );
        for _ in 0..4 {
            let mut client = proxy.connect("web").await;
            client.write_all(b"ping").await.unwrap();
            client.shutdown().await.unwrap();
            let (mut endpoint, _) = upstream.accept().await.unwrap();
            assert_eq!(rest(&mut endpoint).await, "ping");
            endpoint.write_all(b"pong").await.unwrap();
            drop(endpoint);
            assert_eq!(rest(&mut client).await, "pong");
        }
        proxy.configure(vec![listener("web", vec![chain("main", tcp("gone"))])], vec![]);
        let mut client = proxy.connect("web").await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    });
}

#[test]
fn a_change_reaches_open_connections_and_closes_none() {
    in_time(async {
        let proxy = web(2);
        let address = proxy.address("web").await;
        let mut stream = proxy.connect("web").await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.ends_with("hello"));

        proxy.configure(vec![listener("web", vec![chain("main", http("changed"))])], vec![]);
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.ends_with("changed"));
        assert_eq!(proxy.address("web").await, address, "the socket stays");

        // Renamed, it keeps its socket; removed, it goes on for those who are there, and tells them.
        proxy.configure(vec![listener("other", vec![chain("main", http("renamed"))])], vec![]);
        assert_eq!(proxy.address("other").await, address);
        proxy.configure(vec![], vec![]);
        proxy.workers.listener_changes().wait_for(Vec::is_empty).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        let mut last = answer(&mut stream).await;
        if !last.contains("connection: close") {
            // The threads hear of it a moment later than we do.
            stream.write_all(GET.as_bytes()).await.unwrap();
            last = answer(&mut stream).await;
        }
        assert!(last.contains("connection: close"), "{last}");
        assert_eq!(rest(&mut stream).await, "");
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_busy_address_is_told_and_taken_as_soon_as_it_is_free() {
    in_time(async {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let mut busy = listener("web", vec![chain("main", http("hello"))]);
        busy.address = Some(address);
        let proxy = Proxy::start(2, vec![busy], vec![]);
        let mut changes = proxy.workers.listener_changes();
        let failed = changes.wait_for(|all| all.iter().any(|s| s.bound.is_err())).await.unwrap().clone();
        assert_eq!(failed[0].bound, Err(format!("{address} is in use by another process")));
        drop(other);
        assert_eq!(proxy.address("web").await, address);
        assert!(say(&proxy, "GET / HTTP/1.0\r\n\r\n").await.ends_with("hello"));
    });
}

#[test]
fn a_leaving_proxy_tells_its_clients_and_closes_what_rests() {
    in_time(async {
        let proxy = web(2);
        let mut resting = proxy.connect("web").await;
        resting.write_all(GET.as_bytes()).await.unwrap();
        answer(&mut resting).await;
        let mut silent = proxy.connect("web").await;
        let client = async {
            // Until the last moment requests are answered.
            let text = loop {
                let mut stream = proxy.connect("web").await;
                stream.write_all(GET.as_bytes()).await.unwrap();
                let text = answer(&mut stream).await;
                if text.contains("connection: close") {
                    break text;
                }
            };
            assert!(text.ends_with("hello"));
            assert_eq!(rest(&mut resting).await, "");
            assert_eq!(rest(&mut silent).await, "");
        };
        tokio::join!(proxy.workers.drain(Duration::from_secs(20)), client);
        assert!(proxy.workers.is_idle());
    });
}

#[test]
fn more_connections_than_allowed_are_closed_and_counted() {
    in_time(async {
        let proxy = web(1);
        let mut open = Vec::new();
        for _ in 0..64 {
            let mut stream = proxy.connect("web").await;
            stream.write_all(GET.as_bytes()).await.unwrap();
            answer(&mut stream).await;
            open.push(stream);
        }
        let mut one_more = proxy.connect("web").await;
        let _ = one_more.read_to_end(&mut Vec::new()).await;
        let series = "ieum_connections_refused_total{listener=\"web\",reason=\"too_many_connections\"}";
        proxy.counts(series, 1).await;
        drop(open);
    });
}

#[test]
fn a_request_ends_when_its_client_goes_away() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", http("hello"))])],
            vec![cluster("a", &[upstream.local_addr().unwrap()])],
        );
        let mut client = proxy.connect("web").await;
        client.write_all(b"GET /to-a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        endpoint.read_u8().await.unwrap();
        drop(client);
        // The endpoint learns of it, whatever it was about to answer.
        let _ = endpoint.read_to_end(&mut Vec::new()).await;
    });
}

#[test]
fn no_bytes_bring_a_thread_down() {
    in_time(async {
        let mut plain = chain("plain", http("hello"));
        plain.condition.transport_protocol = Some("raw_buffer".into());
        let mut inspected = listener("web", vec![plain]);
        inspected.inspect = Inspection { tls: true, http: true, ..Inspection::default() };
        let proxy = Proxy::start(1, vec![inspected], vec![]);
        let mut random = 7u64;
        let mut byte = || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 56) as u8
        };
        let begins: [&[u8]; 6] = [
            b"",
            b"GET / HTTP/1.1\r\nhost: a\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x00\xc8\x01",
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        ];
        for round in 0..120 {
            let mut bytes = begins[round % begins.len()].to_vec();
            bytes.extend((0..200).map(|_| byte()));
            let mut client = proxy.connect("web").await;
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
        assert!(say(&proxy, "GET / HTTP/1.0\r\n\r\n").await.ends_with("hello"));
        proxy.counts("ieum_panics_total", 0).await;
    });
}

#[test]
fn a_connection_lives_as_long_as_its_listener_says() {
    in_time(async {
        let mut limited = http("hello");
        if let Network::Http(manager) = &mut limited {
            manager.max_requests_per_connection = Some(2);
            manager.request_headers_timeout = Some(Duration::from_millis(50));
        }
        let proxy = Proxy::start(1, vec![listener("web", vec![chain("main", limited)])], vec![]);
        let text = say(&proxy, &GET.repeat(3)).await;
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        assert_eq!(text.matches("connection: close").count(), 1, "{text}");
        let text = say(&proxy, "GET / HTTP/1.1\r\nho").await;
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
        assert!(text.contains("x-ieum-reason: request_header_timeout\r\n"), "{text}");

        let mut short = http("hello");
        if let Network::Http(manager) = &mut short {
            manager.max_connection_duration = Some(Duration::from_millis(50));
        }
        proxy.configure(vec![listener("web", vec![chain("main", short)])], vec![]);
        assert_eq!(say(&proxy, "").await, "", "it is closed while it rests");

        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut passing = tcp("a");
        if let Network::Tcp(proxy) = &mut passing {
            proxy.max_duration = Some(Duration::from_millis(50));
        }
        let clusters = vec![cluster("a", &[upstream.local_addr().unwrap()])];
        proxy.configure(vec![listener("web", vec![chain("main", passing)])], clusters);
        let mut client = proxy.connect("web").await;
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(rest(&mut endpoint).await, "x");
        assert_eq!(rest(&mut client).await, "");
    });
}

#[test]
fn what_a_load_balancer_says_of_a_connection_counts_as_its_ends() {
    in_time(async {
        let mut proxied = listener("web", vec![chain("main", http("hello"))]);
        proxied.inspect.proxy_protocol = Some(ProxyHeader { optional: false, keeps_tlvs: false });
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = cluster("a", &[upstream.local_addr().unwrap()]);
        if let Network::Http(manager) = &mut proxied.chains[0].network {
            manager.edge = true;
        }
        let proxy = Proxy::start(1, vec![proxied], vec![cluster]);
        let mut client = proxy.connect("web").await;
        let told = b"PROXY TCP4 10.1.2.3 10.0.0.2 1000 80\r\nGET /to-a HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(told).await.unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(endpoint.read_u8().await.unwrap());
        }
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("x-forwarded-for: 10.1.2.3\r\n"), "{seen}");
        assert_eq!(say(&proxy, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await, "", "it is closed");
        let series = "ieum_connections_refused_total{listener=\"web\",reason=\"bad_proxy_protocol\"}";
        proxy.counts(series, 1).await;
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once_and_clients_that_speak_first_choose_their_chain() {
    in_time(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut bytes = chain("bytes", tcp("db"));
        bytes.condition.transport_protocol = Some("raw_buffer".into());
        let mut web = chain("web", http("hello"));
        web.condition.application_protocols = vec!["http/1.1".into()];
        let mut detecting = listener("any", vec![bytes, web]);
        detecting.inspect = Inspection { tls: true, http: true, ..Inspection::default() };
        let clusters = vec![cluster("db", &[server.local_addr().unwrap()])];
        let proxy = Proxy::start(1, vec![detecting], clusters);
        let address = proxy.address("any").await;
        let greeting = async {
            loop {
                let (mut client, _) = server.accept().await.unwrap();
                client.write_all(b"welcome").await.unwrap();
                spawn_greeted(client);
            }
        };
        let clients = async {
            // The second time it is known.
            for limit in [Duration::from_millis(500), Duration::from_millis(500)] {
                let start = std::time::Instant::now();
                let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
                let mut heard = [0; 7];
                client.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"welcome");
                assert!(start.elapsed() < limit, "{:?}", start.elapsed());
                client.write_all(b"ping").await.unwrap();
                client.read_exact(&mut heard[..4]).await.unwrap();
                assert_eq!(&heard[..4], b"ping");
            }
        };
        tokio::select! {
            () = greeting => {}
            () = clients => {}
        }
    });
}

/// Says back what it hears.
fn spawn_greeted(mut client: tokio::net::TcpStream) {
    tokio::spawn(async move {
        let (mut from, mut to) = client.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
}
