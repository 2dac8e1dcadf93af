//! Lives of connections: how they are let in, told apart, used, and how they end.

use crate::harness::*;

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
