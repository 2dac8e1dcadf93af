//! How much a cluster is asked at one time: requests, connections, what waits for them, retries.

use super::*;
use model::limits::RetryBudget;
use tokio::sync::Notify;

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
