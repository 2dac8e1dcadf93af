//! How long connections to endpoints are used, how many requests share one, and how their silence is noticed.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use model::cluster::{Connections, Pings};
use support::*;

fn over(connections: Connections, http: UpstreamHttp, address: SocketAddr) -> Proxy {
    let clusters = vec![Cluster { connections: connections.into(), http, ..cluster("a", &[address]) }];
    Proxy::new(vec![route("/", Action::forward(to("a")))], clusters)
}

/// An HTTP/2 endpoint that tells which of its connections a request came on.
async fn numbering() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |_: Request<Incoming>| async move {
                Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(number.to_string()))))
            });
            let http = hyper::server::conn::http2::Builder::new(Here);
            spawn_local(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[test]
fn a_connection_that_is_old_gets_no_other_request() {
    in_time(async {
        for (age, used) in [(Duration::from_nanos(1), [1, 2, 3]), (Duration::from_secs(3600), [1, 1, 1])] {
            let connections = Connections { max_duration: Some(age), ..Connections::default() };
            let upstream = Upstream::start(|_, _| ok("hello")).await;
            let proxy = over(connections, UpstreamHttp::Http1, upstream.address);
            let client = proxy.connect();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
            spawn_local(connection);
            for _ in used {
                let answer = sender.send_request(get("/")).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
            }
            assert_eq!(upstream.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>(), used);

            let proxy = over(connections, UpstreamHttp::Http2, numbering().await);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
            spawn_local(connection);
            for number in used {
                let answer = sender.send_request(get("/")).await.unwrap();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, number.to_string());
            }
        }
    });
}

#[test]
fn no_more_requests_share_a_connection_than_the_cluster_says() {
    in_time(async {
        for (max_streams, made) in [(None, 1), (Some(2), 2), (Some(1), 3)] {
            let connections = Connections { max_streams, ..Connections::default() };
            let proxy = over(connections, UpstreamHttp::Http2, numbering().await);
            let local = Local::new(proxy.live.clone());
            let state = proxy.live.current().clusters["a"].clone();
            let lease = || local.pools().lease(&state, &state.endpoints[0], Version::HTTP_11);
            let leases = [lease().await.unwrap(), lease().await.unwrap(), lease().await.unwrap()];
            assert_eq!(local.pools().connections(), made);
            drop(leases);
            drop(lease().await.unwrap());
            assert_eq!(local.pools().connections(), made, "there is room again");
        }
    });
}

#[test]
fn an_endpoint_that_answers_no_ping_is_given_up_when_the_cluster_says() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // It reads, and says nothing.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let moment = Duration::from_millis(20);
        let pings = Some(Pings { interval: moment, timeout: moment });
        let connections = Connections { pings, ..Connections::default() };
        let proxy = over(connections, UpstreamHttp::Http2, address);
        let answer = proxy.fetch("/").await;
        assert_eq!(answer.status(), 503);
        assert!(answer.headers()["x-ieum-reason"].to_str().unwrap().starts_with("upstream_reset"));
    });
}

#[test]
fn when_endpoints_come_or_go_connections_are_made_anew_where_the_cluster_says_so() {
    in_time(async {
        for (renews, used) in [(false, [1, 1, 1]), (true, [1, 1, 2])] {
            let upstream = Upstream::start(|_, _| ok("hello")).await;
            let with = |priorities: u32, weight: u32| {
                let mut changed = cluster("a", &[upstream.address]);
                Arc::make_mut(&mut changed.spread).renews_connections = renews;
                if let Discovery::Static(assignment) = &mut changed.discovery {
                    assignment.localities[0].endpoints[0].weight = weight;
                    let mut more = assignment.localities[0].clone();
                    more.endpoints[0].address = EndpointAddress::Socket("127.0.0.1:1".parse().unwrap());
                    assignment.localities.extend(
                        (1..priorities).map(|priority| LocalityEndpoints { priority, ..more.clone() }),
                    );
                }
                vec![changed]
            };
            let routes = || vec![route("/", Action::forward(to("a")))];
            let proxy = Proxy::new(routes(), with(1, 1));
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(proxy.connect())).await.unwrap();
            spawn_local(connection);
            for clusters in [with(1, 1), with(1, 2), with(2, 2)] {
                proxy.configure(routes(), clusters);
                let answer = sender.send_request(get("/")).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
            }
            assert_eq!(upstream.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>(), used);
        }
    });
}
