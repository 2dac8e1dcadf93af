//! Requests through the request stage: from a client's connection in memory to real endpoints on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use support::*;

#[test]
fn a_request_reaches_its_cluster_and_the_answer_comes_back() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let proxy =
            Proxy::new(vec![route("/", Action::forward(to("a")))], vec![cluster("a", &[upstream.address])]);
        let request = Request::post("/x/../y?q=1").header("host", "shop").header("x-a", "b");
        let answer = proxy.send(request.body(Full::from("body")).unwrap()).await;
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"hello"[..]));
        let seen = &upstream.seen()[0];
        assert_eq!((seen.target.as_str(), seen.body.as_ref()), ("/y?q=1", &b"body"[..]));
        assert_eq!(seen.headers["host"], "shop");
        assert_eq!(seen.headers["x-a"], "b");
        assert_eq!(seen.headers["x-request-id"].len(), 36);
        assert_eq!(seen.headers["x-forwarded-proto"], "http");
    });
}

#[test]
fn our_own_answers_carry_a_reason_and_the_request_id() {
    in_time(async {
        let proxy = Proxy::new(
            vec![
                route("/gone", Action::forward(to("nowhere"))),
                route("/empty", Action::forward(to("empty"))),
            ],
            vec![cluster("empty", &[])],
        );
        for (path, host, status, reason) in [
            ("/a", "other", 404, "virtual_host_not_found"),
            ("/a", "shop", 404, "route_not_found"),
            ("/gone", "shop", 503, "cluster_not_found"),
            ("/empty", "shop", 503, "no_healthy_upstream"),
            ("/%00", "shop", 400, "path_normalization_failed"),
        ] {
            let request = Request::get(path).header("host", host).header("x-request-id", "the-id");
            let answer = proxy.send(request.body(Full::default()).unwrap()).await;
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers()["x-ieum-reason"], reason);
            assert_eq!(answer.headers()["x-request-id"], "the-id");
            assert!(String::from_utf8_lossy(answer.body()).contains("the-id"));
        }
    });
}

#[test]
fn a_connection_to_an_endpoint_is_used_again() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let proxy =
            Proxy::new(vec![route("/", Action::forward(to("a")))], vec![cluster("a", &[upstream.address])]);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
        spawn_local(connection);
        for _ in 0..5 {
            let answer = sender.send_request(get("/")).await.unwrap();
            answer.into_body().collect().await.unwrap();
        }
        let connections: Vec<usize> = upstream.seen().iter().map(|s| s.connection).collect();
        assert_eq!(connections, [1; 5]);
    });
}

#[test]
fn a_retried_request_is_sent_again_with_its_whole_body() {
    in_time(async {
        let upstream = Upstream::start(|n, _| if n < 3 { status(503) } else { ok("third") }).await;
        let policy = RetryPolicy {
            conditions: RetryConditions::parse("5xx").0,
            retries: 2,
            back_off_base: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let forward = Forward { retry: Some(policy), ..to("a") };
        let proxy =
            Proxy::new(vec![route("/", Action::forward(forward))], vec![cluster("a", &[upstream.address])]);
        let request = Request::post("/").header("host", "shop").body(Full::from("all of it")).unwrap();
        let answer = proxy.send(request).await;
        assert_eq!(answer.body().as_ref(), b"third");
        let bodies: Vec<Bytes> = upstream.seen().into_iter().map(|s| s.body).collect();
        assert_eq!(bodies, ["all of it"; 3]);
    });
}

#[test]
fn a_body_that_goes_on_after_the_answer_began_is_sent_once() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"one\r\n") {
                stream.read_buf(&mut seen).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await.unwrap();
            while !seen.ends_with(b"0\r\n\r\n") {
                stream.read_buf(&mut seen).await.unwrap();
            }
            stream.write_all(b"k").await.unwrap();
            seen
        });
        let conditions = RetryConditions::parse("connect-failure").0;
        let policy = RetryPolicy { conditions, retries: 2, ..RetryPolicy::default() };
        let forward = Forward { retry: Some(policy), ..to("a") };
        let proxy = Proxy::new(vec![route("/", Action::forward(forward))], vec![cluster("a", &[address])]);
        let mut client = proxy.connect();
        let head = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        for more in ["3\r\ntwo\r\n", "5\r\nthree\r\n", "0\r\n\r\n"] {
            while !answer.ends_with(b"\r\n\r\no") {
                client.read_buf(&mut answer).await.unwrap();
            }
            client.write_all(more.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let seen = upstream.await.unwrap();
        let body = String::from_utf8_lossy(&seen).split_once("\r\n\r\n").unwrap().1.to_owned();
        let pieces: Vec<&str> = body.split("\r\n").filter(|line| line.len() > 1).collect();
        assert_eq!(pieces.concat(), "onetwothree", "{body:?}");
    });
}

#[test]
fn the_last_answer_is_passed_on_when_no_try_is_left() {
    in_time(async {
        let upstream = Upstream::start(|_, _| status(503)).await;
        let policy = RetryPolicy { conditions: RetryConditions::parse("5xx").0, ..RetryPolicy::default() };
        let forward = Forward { retry: Some(policy), ..to("a") };
        let proxy =
            Proxy::new(vec![route("/", Action::forward(forward))], vec![cluster("a", &[upstream.address])]);
        let answer = proxy.fetch("/").await;
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (503, &b"no"[..]));
        assert_eq!(upstream.seen().len(), 2);
    });
}

#[test]
fn a_dead_endpoint_is_avoided_by_the_retry() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("alive")).await;
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let policy = RetryPolicy {
            conditions: RetryConditions::parse("connect-failure").0,
            retries: 2,
            avoid_previous_hosts: true,
            host_picks: 1,
            back_off_base: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let forward = Forward { retry: Some(policy), ..to("a") };
        let proxy = Proxy::new(
            vec![route("/", Action::forward(forward))],
            vec![cluster("a", &[dead, upstream.address])],
        );
        for _ in 0..20 {
            assert_eq!(proxy.fetch("/").await.body().as_ref(), b"alive");
        }
    });
}

#[test]
fn a_route_timeout_answers_504() {
    in_time(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forward = Forward { timeout: Some(Duration::from_millis(50)), ..to("a") };
        let proxy = Proxy::new(
            vec![route("/", Action::forward(forward))],
            vec![cluster("a", &[silent.local_addr().unwrap()])],
        );
        let answer = proxy.fetch("/").await;
        assert_eq!(answer.status(), 504);
        assert_eq!(answer.headers()["x-ieum-reason"], "response_timeout");
    });
}

#[test]
fn paths_authorities_and_headers_are_rewritten_as_the_route_says() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let forward = Forward {
            path_rewrite: Some(PathRewrite::Prefix("/new".into())),
            host_rewrite: Some(HostRewrite::Literal("inner".into())),
            ..to("a")
        };
        let mut rule = route("/old", Action::forward(forward));
        let set = |name: &str, value: &str| HeaderEdit {
            name: FieldName::parse(name).unwrap(),
            value: Template::parse(value).unwrap(),
            action: EditAction::OverwriteOrAdd,
            keep_empty: false,
        };
        rule.request_headers =
            HeaderEdits { remove: vec!["x-gone".parse().unwrap()], add: vec![set("x-m", "%REQ(:method)%")] };
        rule.response_headers = HeaderEdits { remove: vec![], add: vec![set("x-answer", "yes")] };
        let proxy = Proxy::new(vec![rule], vec![cluster("a", &[upstream.address])]);
        let request = Request::get("/old/a?b").header("host", "shop").header("x-gone", "1");
        let answer = proxy.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.headers()["x-answer"], "yes");
        let seen = &upstream.seen()[0];
        assert_eq!(seen.target, "/new/a?b");
        assert_eq!(seen.headers["host"], "inner");
        assert_eq!(seen.headers["x-m"], "GET");
        assert_eq!(seen.headers["x-envoy-original-path"], "/old/a?b");
        assert!(!seen.headers.contains_key("x-gone"));
    });
}

#[test]
fn a_change_of_configuration_applies_to_the_next_request_of_an_open_connection() {
    in_time(async {
        let (one, two) = (Upstream::start(|_, _| ok("one")).await, Upstream::start(|_, _| ok("two")).await);
        let routes = || vec![route("/", Action::forward(to("a")))];
        let proxy = Proxy::new(routes(), vec![cluster("a", &[one.address])]);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
        spawn_local(connection);
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let answer = sender.send_request(get("/")).await.unwrap();
            bodies.push(answer.into_body().collect().await.unwrap().to_bytes());
            proxy.configure(routes(), vec![cluster("a", &[two.address])]);
        }
        assert_eq!(bodies, ["one", "two"]);
    });
}

#[test]
fn a_websocket_upgrade_becomes_a_tunnel_and_an_unknown_one_is_ignored() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap();
            let text = String::from_utf8_lossy(&head[..n]).to_ascii_lowercase();
            assert!(text.contains("upgrade: websocket") && text.contains("connection: upgrade"), "{text}");
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut byte = [0; 4];
            stream.read_exact(&mut byte).await.unwrap();
            stream.write_all(&byte).await.unwrap();
        });
        let plain = Upstream::start(|_, s| match s.headers.contains_key("upgrade") {
            true => status(500),
            false => ok("ignored"),
        });
        let plain = plain.await;
        let proxy = Proxy::new(
            vec![route("/ws", Action::forward(to("ws"))), route("/", Action::forward(to("plain")))],
            vec![cluster("ws", &[address]), cluster("plain", &[plain.address])],
        );
        let mut client = proxy.connect();
        client
            .write_all(b"GET /ws HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let mut answer = vec![0; 4096];
        let n = client.read(&mut answer).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer[..n]));
        client.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        client.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"ping");

        let request = Request::get("/").header("host", "shop").header("connection", "upgrade");
        let answer = proxy.send(request.header("upgrade", "h2c").body(Full::default()).unwrap()).await;
        assert_eq!(answer.body().as_ref(), b"ignored");
    });
}

#[test]
fn connect_is_ended_here_where_the_route_says_so_and_refused_elsewhere() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"server first").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            stream.write_all(&rest).await.unwrap();
        });
        let forward = Forward {
            upgrades: vec![Upgrade { protocol: "CONNECT".into(), enabled: true, terminate_connect: true }],
            ..to("tcp")
        };
        let mut rule = route("/", Action::forward(forward));
        rule.condition.path = PathMatch::Connect;
        let proxy = Proxy::new(vec![rule], vec![cluster("tcp", &[address])]);
        let mut client = proxy.connect();
        client.write_all(b"CONNECT shop HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"server first") {
            let mut byte = [0];
            client.read_exact(&mut byte).await.unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 200"));
        client.write_all(b"echo").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"echo");
    });
}

#[test]
fn an_http2_endpoint_gets_trailers_and_gives_them() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.version(), Version::HTTP_2);
                assert_eq!(request.method(), Method::POST);
                let body = request.into_body().collect().await?;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let full = Full::new(body.to_bytes()).with_trailers(async move { Some(Ok(trailers)) });
                Ok::<_, hyper::Error>(Response::new(full))
            });
            hyper::server::conn::http2::Builder::new(Here)
                .serve_connection(TokioIo::new(stream), service)
                .await
                .unwrap();
        });
        let proxy = Proxy::new(
            vec![route("/", Action::forward(to("g")))],
            vec![Cluster { http: UpstreamHttp::Http2, ..cluster("g", &[address]) }],
        );
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
        spawn_local(connection);
        let request = Request::post("/s/m").header("host", "shop").header("te", "trailers");
        let answer = sender.send_request(request.body(Full::<Bytes>::from("abc")).unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "abc");
    });
}
