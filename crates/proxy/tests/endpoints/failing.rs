//! Endpoints that fail: left out, told, and what may be sent to another.

use super::*;
use ieum_proxy::health;
use model::balance::LoadBalancing;
use model::outlier::{OutlierDetection, Trigger};

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
