//! Health checks over HTTP, gRPC and TCP.

use super::*;
use ieum_proxy::health;
use model::balance::LoadBalancing;
use model::health::{HealthCheck, HttpProbe, Probe};

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
