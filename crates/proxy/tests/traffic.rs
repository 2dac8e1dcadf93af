//! Faults, mirrors, cross-origin requests and limits on time, from a client's connection in memory to real endpoints.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use http_body_util::StreamBody;
use hyper::body::Frame;
use model::cors::Cors;
use model::fault::{Abort, AbortAnswer, Delay, DelayTime, Fault};
use model::filter::Placed;
use model::matcher::StringMatch;
use std::convert::Infallible;
use std::time::Instant;
use support::*;

const ALL: Fraction = Fraction::ALL;

fn with_filters(forward: Forward, filters: FilterSettings) -> Route {
    Route { filters: filters.boxed(), ..route("/", Action::forward(forward)) }
}

/// A proxy with the filters for faults and cross-origin requests.
fn filtering(routes: Vec<Route>, clusters: Vec<Cluster>) -> Proxy {
    let proxy = Proxy::new(vec![], vec![]);
    proxy.configure_with(routes, clusters, |manager| {
        manager.filters.cors = Some(Placed::new(()));
        manager.filters.fault = Some(Box::new(Placed::new(Fault::default())));
    });
    proxy
}

fn faulty(fault: Fault) -> FilterSettings {
    FilterSettings { fault: Some(Setting::Use(fault)), ..FilterSettings::default() }
}

fn aborting(answer: AbortAnswer) -> Fault {
    Fault { abort: Some(Abort::new(answer, ALL)), ..Fault::default() }
}

fn name(response: &Response<Bytes>, header: &str) -> String {
    response.headers().get(header).map_or(String::new(), |v| v.to_str().unwrap().to_owned())
}

#[test]
fn a_fault_answers_before_any_endpoint_is_asked_and_says_so() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let a = || vec![cluster("a", &[upstream.address])];
        let proxy = filtering(vec![with_filters(to("a"), faulty(aborting(AbortAnswer::Http(418))))], a());
        let answer = proxy.fetch("/").await;
        assert_eq!(answer.status(), 418);
        assert_eq!(name(&answer, "x-ieum-reason"), "fault_filter_abort");
        let off = FilterSettings { fault: Some(Setting::Disabled), ..FilterSettings::default() };
        proxy.configure_with(vec![with_filters(to("a"), off)], a(), |manager| {
            manager.filters.fault = Some(Box::new(Placed::new(aborting(AbortAnswer::Http(500)))));
        });
        assert_eq!(proxy.fetch("/").await.status(), 200, "a route may switch the filter off");
        assert_eq!(upstream.seen().len(), 1);
    });
}

#[test]
fn a_grpc_fault_is_told_in_grpcs_own_way() {
    in_time(async {
        let proxy = filtering(vec![with_filters(to("a"), faulty(aborting(AbortAnswer::Grpc(14))))], vec![]);
        let request = Request::post("/s/M").header("host", "shop").header("content-type", "application/grpc");
        let answer = proxy.send(request.body(Full::default()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), name(&answer, "grpc-status").as_str()), (200, "14"));
    });
}

#[test]
fn a_delayed_request_arrives_later_and_too_many_delays_are_not_put_in() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let delay = Delay { time: DelayTime::Fixed(Duration::from_millis(80)), share: ALL };
        let fault = Fault { delay: Some(delay), max_active: Some(1), ..Fault::default() };
        let proxy =
            filtering(vec![with_filters(to("a"), faulty(fault))], vec![cluster("a", &[upstream.address])]);
        let start = Instant::now();
        let timed = || async {
            assert_eq!(proxy.fetch("/").await.status(), 200);
            start.elapsed()
        };
        let (first, second) = tokio::join!(timed(), timed());
        assert!(first.max(second) >= Duration::from_millis(80));
        assert!(first.min(second) < Duration::from_millis(80), "{first:?} {second:?}");
    });
}

fn mirrored(mirrors: &[&str]) -> Forward {
    let mirrors = mirrors.iter().map(|cluster| Mirror {
        target: MirrorTarget::Cluster((*cluster).to_owned()),
        share: None,
        keep_host: false,
        trace_sampled: None,
        host: None,
        edits: Vec::new(),
    });
    Forward { mirrors: mirrors.collect(), ..to("a") }
}

#[test]
fn mirrors_see_the_same_request_with_their_own_host() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let shadows = [Upstream::start(|_, _| status(500)).await, Upstream::start(|_, _| ok("x")).await];
        let proxy = Proxy::new(
            vec![route("/", Action::forward(mirrored(&["b", "c", "unknown"])))],
            vec![
                cluster("a", &[upstream.address]),
                cluster("b", &[shadows[0].address]),
                cluster("c", &[shadows[1].address]),
            ],
        );
        let body = vec![b'x'; 100_000];
        let request = Request::post("/p?q").header("host", "shop").header("x-a", "b");
        let answer = proxy.send(request.body(Full::from(body.clone())).unwrap()).await;
        assert_eq!(answer.body().as_ref(), b"hello");
        for shadow in &shadows {
            while shadow.seen().is_empty() {
                tokio::task::yield_now().await;
            }
            let seen = &shadow.seen()[0];
            assert_eq!(
                (seen.target.as_str(), &seen.headers["host"]),
                ("/p?q", &"shop-shadow".parse().unwrap())
            );
            assert_eq!(seen.headers["x-a"], "b");
            assert!(seen.body == body);
        }
        assert_eq!(upstream.seen()[0].headers["host"], "shop");
    });
}

#[test]
fn a_dead_and_a_silent_mirror_change_nothing() {
    in_time(async {
        let upstream = Upstream::start(|_, seen| {
            assert_eq!(seen.body.len(), 4_000_000);
            ok("hello")
        })
        .await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let proxy = Proxy::new(
            vec![route("/", Action::forward(mirrored(&["silent", "dead"])))],
            vec![
                cluster("a", &[upstream.address]),
                cluster("silent", &[silent.local_addr().unwrap()]),
                cluster("dead", &[dead]),
            ],
        );
        for _ in 0..3 {
            let request = Request::post("/").header("host", "shop");
            let answer = proxy.send(request.body(Full::from(vec![0; 4_000_000])).unwrap()).await;
            assert_eq!(answer.status(), 200);
        }
    });
}

fn asking(method: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri("/").header("host", "shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

#[test]
fn preflights_are_answered_here_and_grants_are_put_into_answers() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let cors = Cors {
            origins: vec![StringMatch::exact("https://a.test")],
            methods: "GET,POST".into(),
            headers: "x-a".into(),
            expose: "x-b".into(),
            max_age: "60".into(),
            credentials: true,
            ..Cors::default()
        };
        let settings = |cors| FilterSettings { cors: Some(Setting::Use(cors)), ..FilterSettings::default() };
        let a = || vec![cluster("a", &[upstream.address])];
        let proxy = filtering(vec![with_filters(to("a"), settings(cors.clone()))], a());
        let first = [("origin", "https://a.test"), ("access-control-request-method", "POST")];
        let answer = proxy.send(asking("OPTIONS", &first)).await;
        assert_eq!((answer.status().as_u16(), upstream.seen().len()), (200, 0));
        for (header, value) in [
            ("access-control-allow-origin", "https://a.test"),
            ("access-control-allow-methods", "GET,POST"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-max-age", "60"),
            ("access-control-allow-credentials", "true"),
        ] {
            assert_eq!(name(&answer, header), value);
        }
        let answer = proxy.send(asking("GET", &first[..1])).await;
        assert_eq!(name(&answer, "access-control-allow-origin"), "https://a.test");
        assert_eq!(name(&answer, "access-control-expose-headers"), "x-b");
        let other = [("origin", "https://b.test"), ("access-control-request-method", "POST")];
        let answer = proxy.send(asking("OPTIONS", &other)).await;
        assert_eq!((answer.body().as_ref(), upstream.seen().len()), (&b"hello"[..], 2), "it is passed on");
        assert_eq!(name(&answer, "access-control-allow-origin"), "");
        let strict = Cors { forward_unmatched: false, ..cors };
        proxy.configure_with(vec![with_filters(to("a"), settings(strict))], a(), |manager| {
            manager.filters.cors = Some(Placed::new(()));
        });
        let answer = proxy.send(asking("OPTIONS", &other)).await;
        assert_eq!(
            (answer.status().as_u16(), upstream.seen().len()),
            (200, 2),
            "it is answered with nothing"
        );
    });
}

/// An endpoint that takes requests and never answers.
async fn silence() -> (TcpListener, Cluster) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = cluster("a", &[listener.local_addr().unwrap()]);
    (listener, cluster)
}

#[test]
fn an_exchange_on_which_nothing_moves_is_ended() {
    in_time(async {
        let (_listener, a) = silence().await;
        let forward = Forward { idle_timeout: Some(Duration::from_millis(50)), ..to("a") };
        let proxy = Proxy::new(vec![route("/", Action::forward(forward))], vec![a]);
        let answer = proxy.fetch("/").await;
        assert_eq!(answer.status(), 504);
        assert_eq!(name(&answer, "x-ieum-reason"), "stream_idle_timeout");

        // A request that does not come in as a whole is its client's fault.
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
        spawn_local(connection);
        let begun = futures_util::stream::once(async {
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"begun")))
        });
        let body = futures_util::StreamExt::chain(begun, futures_util::stream::pending());
        let request = Request::post("/").header("host", "shop").body(StreamBody::new(body)).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 408);
    });
}

#[test]
fn an_exchange_ends_when_it_takes_longer_than_any_may_and_a_grpc_client_may_say_how_long() {
    in_time(async {
        let (_listener, a) = silence().await;
        let forward = Forward { max_duration: Some(Duration::from_millis(50)), ..to("a") };
        let grpc = GrpcTimeout { max: None, offset: Duration::ZERO };
        let asked = Forward { grpc_timeout: Some(grpc), ..to("a") };
        let proxy = Proxy::new(
            vec![route("/asked", Action::forward(asked)), route("/", Action::forward(forward))],
            vec![a],
        );
        let answer = proxy.fetch("/").await;
        assert_eq!(answer.status(), 504);
        assert_eq!(name(&answer, "x-ieum-reason"), "max_duration_timeout");
        let request = Request::post("/asked")
            .header("host", "shop")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "50m");
        let answer = proxy.send(request.body(Full::default()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), name(&answer, "grpc-status").as_str()), (200, "4"));
    });
}

#[test]
fn an_answer_that_stalls_is_broken_off() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let a = cluster("a", &[listener.local_addr().unwrap()]);
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun";
            tokio::io::AsyncWriteExt::write_all(&mut stream, begun).await.unwrap();
            std::future::pending::<()>().await;
        });
        let forward = Forward { idle_timeout: Some(Duration::from_millis(50)), ..to("a") };
        let proxy = Proxy::new(vec![route("/", Action::forward(forward))], vec![a]);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
        spawn_local(connection);
        let answer = sender.send_request(get("/")).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect().await.is_err());
    });
}

#[test]
fn only_a_peer_of_the_mesh_is_told_that_no_application_began_with_its_request() {
    in_time(async {
        const UNPROCESSED: &str = "x-ieum-unprocessed";
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let upstream = Upstream::start(|_, _| {
            let mut answer = status(503);
            answer.headers_mut().insert(UNPROCESSED, "1".parse().unwrap());
            answer
        })
        .await;
        let policy =
            RetryPolicy { conditions: RetryConditions::parse("refused-stream").0, ..RetryPolicy::default() };
        let retried = Forward { retry: Some(policy), ..to("b") };
        let proxy = Proxy::new(
            vec![route("/dead", Action::forward(to("a"))), route("/", Action::forward(retried))],
            vec![cluster("a", &[dead]), cluster("b", &[upstream.address])],
        );
        let answer = proxy.fetch("/dead").await;
        assert_eq!((answer.status().as_u16(), name(&answer, UNPROCESSED).as_str()), (503, ""));
        let peer = proxy.connect_as(Some("spiffe://cluster.local/ns/a/sa/b"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(peer)).await.unwrap();
        spawn_local(connection);
        let answer = sender.send_request(get("/dead")).await.unwrap();
        assert_eq!(answer.headers()[UNPROCESSED], "1");
        // An endpoint that did not prove who it is is not believed, and nobody else is told what it says.
        let answer = proxy.fetch("/").await;
        assert_eq!((answer.status().as_u16(), name(&answer, UNPROCESSED).as_str()), (503, ""));
        assert_eq!(upstream.seen().len(), 1);
    });
}
