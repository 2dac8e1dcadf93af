//! Which endpoint a request is sent to, and when it is sent to none: limits, outliers, affinity, subsets, priorities.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use ieum_proxy::health;
use model::affinity::{AffinityCookie, HashPolicy, HashSource};
use model::balance::{Fallback, LoadBalancing, MAGLEV_SIZE, SubsetSelector, Subsets};
use model::health::{HealthCheck, HttpProbe, Probe};
use model::limits::RetryBudget;
use model::metadata::Value;
use model::outlier::{OutlierDetection, Trigger};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use support::*;
use tokio::sync::Notify;

fn forwarding(forward: Forward) -> Vec<Route> {
    vec![route("/", Action::forward(forward))]
}

/// An endpoint that answers when it is told to, and says when it was asked.
async fn slow() -> (SocketAddr, Rc<Notify>, Rc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, go): (Rc<Notify>, Rc<Notify>) = Default::default();
    let (tell, wait) = (asked.clone(), go.clone());
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tell, wait) = (tell.clone(), wait.clone());
            let service = service_fn(move |_: Request<Incoming>| {
                let (tell, wait) = (tell.clone(), wait.clone());
                async move {
                    tell.notify_one();
                    wait.notified().await;
                    Ok::<_, hyper::Error>(ok("slow"))
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            spawn_local(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, asked, go)
}

#[test]
fn a_request_beyond_the_limit_is_answered_at_once_and_the_next_is_served_when_there_is_room() {
    in_time(async {
        let (address, asked, go) = slow().await;
        let mut limited = cluster("a", &[address]);
        Arc::make_mut(&mut limited.limits).default.requests = Some(1);
        let proxy = Rc::new(Proxy::new(forwarding(to("a")), vec![limited]));
        let other = proxy.clone();
        let first = spawn_local(async move { other.fetch("/").await });
        asked.notified().await;
        let refused = proxy.fetch("/").await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["x-envoy-overloaded"], "true");
        assert_eq!(refused.headers()["x-ieum-reason"], "upstream_reset_before_response_started{overflow}");
        assert!(String::from_utf8_lossy(refused.body()).contains("overflow"));
        go.notify_one();
        assert_eq!(first.await.unwrap().status(), 200);
        go.notify_one();
        assert_eq!(proxy.fetch("/").await.status(), 200);
    });
}

#[test]
fn priorities_have_limits_of_their_own() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let mut limited = cluster("a", &[upstream.address]);
        Arc::make_mut(&mut limited.limits).default.requests = Some(0);
        let high = Forward { priority: model::limits::Priority::High, ..to("a") };
        let mut routes = vec![route("/high", Action::forward(high))];
        routes.extend(forwarding(to("a")));
        let proxy = Proxy::new(routes, vec![limited]);
        assert_eq!(proxy.fetch("/").await.status(), 503);
        assert_eq!(proxy.fetch("/high").await.status(), 200);
    });
}

#[test]
fn at_the_limit_of_connections_a_request_waits_for_one_and_only_so_many_wait() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let mut limited = cluster("a", &[upstream.address]);
        Arc::make_mut(&mut limited.limits).default.connections = Some(1);
        Arc::make_mut(&mut limited.limits).default.pending = Some(1);
        let proxy = Proxy::new(forwarding(to("a")), vec![limited]);
        let local = Local::new(proxy.live.clone());
        let state = proxy.live.current().clusters["a"].clone();
        let lease = || local.pools().lease(&state, &state.endpoints[0], Version::HTTP_11);
        let first = lease().await.unwrap();
        let mut second = Box::pin(lease());
        poll_fn(|cx| {
            assert!(second.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let third = lease().await;
        let refused = third.err().expect("nobody else may wait").to_string();
        assert_eq!(refused, "the cluster's limit `max_pending_requests` is reached");
        // Nothing was sent on it: it is closed, and its place is free.
        drop(first);
        assert!(second.await.is_ok());
    });
}

#[test]
fn retries_beyond_the_budget_are_not_made() {
    in_time(async {
        let upstream = Upstream::start(|_, _| status(503)).await;
        let policy = RetryPolicy { conditions: RetryConditions::parse("5xx").0, ..RetryPolicy::default() };
        let mut limited = cluster("a", &[upstream.address]);
        Arc::make_mut(&mut limited.limits).default.retry_budget =
            Some(RetryBudget { percent: 20.0, minimum: 0, ..RetryBudget::default() });
        let routes = forwarding(Forward { retry: Some(policy), ..to("a") });
        let proxy = Proxy::new(routes.clone(), vec![limited.clone()]);
        assert_eq!(proxy.fetch("/").await.status(), 503);
        assert_eq!(upstream.seen().len(), 1);
        Arc::make_mut(&mut limited.limits).default.retry_budget =
            Some(RetryBudget { percent: 20.0, minimum: 1, ..RetryBudget::default() });
        proxy.configure(routes.clone(), vec![limited.clone()]);
        proxy.fetch("/").await;
        assert_eq!(upstream.seen().len(), 3);
        // Half of those that began lately: of the first alone none, of two one.
        let interval = Duration::from_secs(3600);
        Arc::make_mut(&mut limited.limits).default.retry_budget =
            Some(RetryBudget { percent: 50.0, minimum: 0, interval });
        proxy.configure(routes, vec![limited]);
        for seen in [4, 6] {
            assert_eq!(proxy.fetch("/").await.status(), 503);
            assert_eq!(upstream.seen().len(), seen);
        }
    });
}

#[test]
fn a_connection_serves_no_more_requests_than_it_may() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("hello")).await;
        let mut limited = cluster("a", &[upstream.address]);
        Arc::make_mut(&mut limited.connections).max_requests = Some(2);
        let proxy = Proxy::new(forwarding(to("a")), vec![limited]);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
        spawn_local(connection);
        for _ in 0..5 {
            let answer = sender.send_request(get("/")).await.unwrap();
            answer.into_body().collect().await.unwrap();
        }
        let connections: Vec<usize> = upstream.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(connections, [1, 1, 2, 2, 3]);
    });
}

#[test]
fn an_endpoint_that_fails_is_left_out_whatever_is_configured_meanwhile_and_comes_back() {
    in_time(async {
        let bad = Upstream::start(|_, _| status(500)).await;
        let good = Upstream::start(|_, _| ok("good")).await;
        let rule = OutlierDetection {
            consecutive_5xx: Some(Trigger { count: 3, enforced: 100 }),
            max_percent: 50,
            interval: Duration::from_millis(50),
            base_ejection: Duration::from_millis(600),
            ..OutlierDetection::default()
        };
        let clusters = || {
            vec![Cluster {
                load_balancing: LoadBalancing::RoundRobin,
                outlier_detection: Some(rule.into()),
                ..cluster("a", &[bad.address, good.address])
            }]
        };
        let proxy = Proxy::new(forwarding(to("a")), clusters());
        spawn_local(health::follow(proxy.live.clone()));
        let is_out = || {
            let snapshot = proxy.live.current();
            let state = &snapshot.clusters["a"];
            state.endpoints.iter().any(|e| e.address == bad.address && e.is_ejected(&state.config))
        };
        while !is_out() {
            proxy.fetch("/").await;
        }
        let asked = bad.seen().len();
        assert!((3..=4).contains(&asked), "{asked}");
        proxy.configure(forwarding(to("a")), clusters());
        while is_out() {
            let answer = proxy.fetch("/").await;
            assert!(answer.status() == 200 || !is_out());
        }
        while bad.seen().len() == asked {
            proxy.fetch("/").await;
        }
    });
}

#[test]
fn a_request_is_refused_with_the_reason_why_no_endpoint_can_be_used() {
    in_time(async {
        let proxy = Proxy::new(forwarding(to("a")), vec![cluster("a", &[])]);
        assert_eq!(proxy.fetch("/").await.headers()["x-ieum-reason"], "no_healthy_upstream");
        let mut sick = cluster("a", &["127.0.0.1:1".parse().unwrap()]);
        if let Discovery::Static(assignment) = &mut sick.discovery {
            assignment.localities[0].endpoints[0].health = Health::Unhealthy;
        }
        proxy.configure(forwarding(to("a")), vec![sick]);
        let state = proxy.live.current().clusters["a"].clone();
        let wanted = "none of the 1 endpoints of cluster `a` is healthy: 1 unhealthy by discovery";
        assert_eq!(state.describe_absence(), wanted);
    });
}

/// Four endpoints that answer with their numbers, behind a cluster that hashes.
async fn four() -> (Vec<Upstream>, Cluster) {
    let mut all = Vec::new();
    for name in ["0", "1", "2", "3"] {
        all.push(Upstream::start(move |_, _| ok(name)).await);
    }
    let addresses: Vec<SocketAddr> = all.iter().map(|upstream| upstream.address).collect();
    let hashing = Cluster { load_balancing: LoadBalancing::Maglev(MAGLEV_SIZE), ..cluster("a", &addresses) };
    (all, hashing)
}

fn hashed(source: HashSource) -> Vec<Route> {
    forwarding(Forward { hash_policies: vec![HashPolicy { source, terminal: false }], ..to("a") })
}

#[test]
fn requests_with_the_same_header_go_to_the_same_endpoint() {
    in_time(async {
        let (_upstreams, hashing) = four().await;
        let proxy = Proxy::new(hashed(HashSource::Header("x-user".parse().unwrap())), vec![hashing]);
        let mut used = BTreeSet::new();
        for user in 0..12 {
            let mut answers = BTreeSet::new();
            for _ in 0..3 {
                let request = Request::get("/").header("host", "shop").header("x-user", user.to_string());
                answers.insert(proxy.send(request.body(Full::default()).unwrap()).await.into_body());
            }
            assert_eq!(answers.len(), 1);
            used.extend(answers);
        }
        assert!(used.len() > 1);
    });
}

#[test]
fn a_client_without_the_cookie_is_given_one_that_leads_it_back() {
    in_time(async {
        let (_upstreams, hashing) = four().await;
        let cookie = AffinityCookie {
            name: "user".into(),
            ttl: Some(Duration::from_secs(60)),
            path: "/".into(),
            attributes: vec![("SameSite".into(), "Lax".into())],
        };
        let proxy = Proxy::new(hashed(HashSource::Cookie(cookie)), vec![hashing]);
        for _ in 0..4 {
            let first = proxy.fetch("/").await;
            let given = first.headers()["set-cookie"].to_str().unwrap();
            assert!(given.ends_with("; Max-Age=60; Path=/; SameSite=Lax; HttpOnly"), "{given}");
            let (pair, _) = given.split_once(';').unwrap();
            for _ in 0..5 {
                let request = Request::get("/").header("host", "shop").header("cookie", pair);
                let again = proxy.send(request.body(Full::default()).unwrap()).await;
                assert_eq!(again.body(), first.body());
                assert!(!again.headers().contains_key("set-cookie"));
            }
        }
    });
}

#[test]
fn a_route_may_ask_for_a_subset_of_endpoints() {
    in_time(async {
        let (_upstreams, mut subsets) = four().await;
        subsets.load_balancing = LoadBalancing::RoundRobin;
        Arc::make_mut(&mut subsets.spread).subsets = Some(Subsets {
            fallback: Fallback::None,
            selectors: vec![SubsetSelector {
                keys: ["version".to_owned()].into(),
                ..SubsetSelector::default()
            }],
            ..Subsets::default()
        });
        if let Discovery::Static(assignment) = &mut subsets.discovery {
            for (at, endpoint) in assignment.localities[0].endpoints.iter_mut().enumerate() {
                endpoint.metadata.set("envoy.lb", "version", if at < 2 { "v1" } else { "v2" });
            }
        }
        let asking = |version: &str| {
            let subset = [("version".to_owned(), Value::from(version))].into();
            forwarding(Forward { subset, ..to("a") })
        };
        let proxy = Proxy::new(asking("v2"), vec![subsets.clone()]);
        for _ in 0..8 {
            assert!(["2", "3"].contains(&std::str::from_utf8(proxy.fetch("/").await.body()).unwrap()));
        }
        proxy.configure(asking("v3"), vec![subsets]);
        assert_eq!(proxy.fetch("/").await.status(), 503);
    });
}

#[test]
fn the_next_priority_takes_over_when_the_first_has_nothing_healthy() {
    in_time(async {
        let (first, second) =
            (Upstream::start(|_, _| ok("first")).await, Upstream::start(|_, _| ok("second")).await);
        let with = |health: Health| {
            let mut two = cluster("a", &[first.address]);
            if let Discovery::Static(assignment) = &mut two.discovery {
                assignment.localities[0].endpoints[0].health = health;
                let other = cluster("b", &[second.address]);
                let Discovery::Static(mut more) = other.discovery else { unreachable!() };
                more.localities[0].priority = 1;
                assignment.localities.append(&mut more.localities);
            }
            vec![two]
        };
        let proxy = Proxy::new(forwarding(to("a")), with(Health::Healthy));
        assert_eq!(proxy.fetch("/").await.body().as_ref(), b"first");
        proxy.configure(forwarding(to("a")), with(Health::Unhealthy));
        assert_eq!(proxy.fetch("/").await.body().as_ref(), b"second");
    });
}

fn checked(name: &str, addresses: &[SocketAddr], probe: Probe) -> Cluster {
    let (soon, second) = (Duration::from_millis(10), Duration::from_secs(1));
    let check = HealthCheck {
        no_traffic_interval: soon,
        unhealthy_interval: soon,
        ..HealthCheck::new(probe, second, soon)
    };
    Cluster { health_checks: vec![check], ..cluster(name, addresses) }
}

/// What health checks have found out about the endpoints of cluster `a`.
fn found(proxy: &Proxy) -> Vec<Option<bool>> {
    let snapshot = proxy.live.current();
    snapshot.clusters["a"].endpoints.iter().map(|endpoint| endpoint.vitals.passes_checks()).collect()
}

async fn until(proxy: &Proxy, wanted: &[bool]) {
    let wanted: Vec<Option<bool>> = wanted.iter().copied().map(Some).collect();
    while found(proxy) != wanted {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn http_probe() -> Probe {
    Probe::Http(HttpProbe {
        host: "check.test".into(),
        path: "/healthz".into(),
        method: Method::GET,
        http2: false,
        expected: vec![(200, 201)],
        retriable: vec![],
        service: None,
        headers: vec![("x-check".parse().unwrap(), "yes".parse().unwrap())],
    })
}

#[test]
fn only_endpoints_that_pass_their_health_check_get_requests() {
    in_time(async {
        let is_well = Rc::new(Cell::new(false));
        let told = is_well.clone();
        let sick = Upstream::start(move |_, seen| match (seen.target.as_str(), told.get()) {
            ("/healthz", false) => status(503),
            _ => ok("sick"),
        });
        let (sick, well) = (sick.await, Upstream::start(|_, _| ok("well")).await);
        let clusters = vec![Cluster {
            load_balancing: LoadBalancing::RoundRobin,
            ..checked("a", &[sick.address, well.address], http_probe())
        }];
        let proxy = Proxy::new(forwarding(to("a")), clusters);
        assert_eq!(proxy.fetch("/").await.status(), 200, "nothing is known yet");
        spawn_local(health::follow(proxy.live.clone()));
        until(&proxy, &[false, true]).await;
        let asked = |name| sick.seen().iter().filter(|seen| seen.target == name).count();
        let before = asked("/");
        for _ in 0..6 {
            assert_eq!(proxy.fetch("/").await.body().as_ref(), b"well");
        }
        assert_eq!(asked("/"), before);
        let check = sick.seen().into_iter().find(|seen| seen.target == "/healthz").unwrap();
        assert_eq!(
            (&check.headers["host"], &check.headers["x-check"]),
            (&"check.test".parse().unwrap(), &"yes".parse().unwrap())
        );
        is_well.set(true);
        until(&proxy, &[true, true]).await;
        while asked("/") == before {
            proxy.fetch("/").await;
        }
    });
}

#[test]
fn an_endpoint_that_serves_over_grpc_says_so() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Rc::new(Cell::new(2_u8));
        let said = status.clone();
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let said = said.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let said = said.get();
                    async move {
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        let body = request.into_body().collect().await?.to_bytes();
                        assert_eq!(&body[..], b"\0\0\0\0\x05\x0a\x03abc");
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, said]);
                        let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
                        Ok::<_, hyper::Error>(Response::new(body))
                    }
                });
                let http = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                let connection = http.serve_connection(TokioIo::new(stream), service);
                spawn_local(async move { drop(connection.await) });
            }
        });
        let probe = Probe::Grpc { service: "abc".into(), authority: String::new() };
        let proxy = Proxy::new(forwarding(to("a")), vec![checked("a", &[address], probe)]);
        spawn_local(health::follow(proxy.live.clone()));
        until(&proxy, &[false]).await;
        status.set(1);
        until(&proxy, &[true]).await;
    });
}

#[test]
fn a_connection_and_the_bytes_awaited_are_enough_for_a_check_over_tcp() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let mut ping = [0; 4];
                    stream.read_exact(&mut ping).await.unwrap();
                    stream.write_all(b"+PONG\r\n").await.unwrap();
                });
            }
        });
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let probe = Probe::Tcp { send: b"PING".to_vec(), receive: vec![b"PONG".to_vec()] };
        let proxy = Proxy::new(forwarding(to("a")), vec![checked("a", &[address, dead], probe)]);
        spawn_local(health::follow(proxy.live.clone()));
        until(&proxy, &[true, false]).await;
        assert_eq!(found(&proxy), [Some(true), Some(false)]);
        proxy.configure(forwarding(to("a")), vec![cluster("a", &[dead])]);
        assert_eq!(proxy.live.current().clusters["a"].usable(), 1, "nothing is checked any more");
    });
}

#[test]
fn a_client_may_name_the_endpoint_where_the_cluster_says_so() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("named")).await;
        let mut named = Cluster::new("a", Discovery::OriginalDestination);
        Arc::make_mut(&mut named.spread).destination_header = Some("x-to".parse().unwrap());
        let proxy = Proxy::new(forwarding(to("a")), vec![named]);
        let request = Request::get("/").header("host", "shop").header("x-to", upstream.address.to_string());
        let answer = proxy.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.body().as_ref(), b"named");
        assert_eq!(proxy.fetch("/").await.status(), 503);
    });
}

#[test]
fn a_cluster_of_clusters_uses_the_first_that_is_healthy() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("second")).await;
        let all = Cluster::new("a", Discovery::Aggregate(vec!["b".into(), "nobody".into(), "c".into()]));
        let clusters = vec![all, cluster("b", &[]), cluster("c", &[upstream.address])];
        let proxy = Proxy::new(forwarding(to("a")), clusters);
        assert_eq!(proxy.fetch("/").await.body().as_ref(), b"second");
        let itself = Cluster::new("a", Discovery::Aggregate(vec!["a".into()]));
        proxy.configure(forwarding(to("a")), vec![itself]);
        assert_eq!(proxy.fetch("/").await.status(), 503);
    });
}

/// An HTTP/2 endpoint, frame by frame, that answers the first request it ever gets with the frame `farewell` and every
/// other with 200.
async fn unwilling(farewell: &'static [u8]) -> (SocketAddr, Rc<Cell<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Rc<Cell<u32>> = Rc::default();
    let count = asked.clone();
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = count.clone();
            spawn_local(async move {
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                stream.read_exact(&mut [0; 24]).await.unwrap();
                let mut head = [0; 9];
                while stream.read_exact(&mut head).await.is_ok() {
                    let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                    stream.read_exact(&mut content).await.unwrap();
                    let (kind, has_ended) = (head[3], head[4] & 1 == 1);
                    if kind == 1 && count.replace(count.get() + 1) == 0 {
                        stream.write_all(farewell).await.unwrap();
                    } else if kind <= 1 && has_ended && count.get() > 1 {
                        let mut answer = vec![0, 0, 1, 1, 5];
                        answer.extend_from_slice(&head[5..]);
                        answer.push(0x88);
                        stream.write_all(&answer).await.unwrap();
                    }
                }
            });
        }
    });
    (address, asked)
}

#[test]
fn a_request_that_an_endpoint_did_not_begin_with_is_sent_again_though_it_is_a_post() {
    let refused: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    let goaway: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for farewell in [refused, goaway] {
        in_time(async move {
            let (address, asked) = unwilling(farewell).await;
            let policy = RetryPolicy {
                conditions: RetryConditions::parse("refused-stream").0,
                back_off_base: Duration::from_millis(1),
                ..RetryPolicy::default()
            };
            let clusters = vec![Cluster { http: UpstreamHttp::Http2, ..cluster("a", &[address]) }];
            let proxy = Proxy::new(forwarding(Forward { retry: Some(policy), ..to("a") }), clusters);
            let request = Request::post("/").header("host", "shop").body(Full::from("once")).unwrap();
            let answer = proxy.send(request).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(asked.get(), 2);
        });
    }
}

#[test]
fn every_endpoint_is_tried_before_one_again() {
    let addresses: Vec<SocketAddr> = (1..=5).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
    let proxy = Proxy::new(vec![], vec![cluster("a", &addresses)]);
    let state = proxy.live.current().clusters["a"].clone();
    for random in 0..200_u64 {
        let random = random.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut tried = Vec::new();
        for _ in 0..5 {
            let picked = state.pick_avoiding(random, &tried, 1).unwrap();
            assert!(!tried.contains(&picked.id));
            tried.push(picked.id);
        }
        assert!(state.pick_avoiding(random, &tried, 1).is_some(), "one again rather than none");
    }
}
