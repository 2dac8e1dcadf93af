//! CONNECT over HTTP/2: a stream becomes a tunnel (RFC 9113, 8.5).

use crate::harness::*;

/// Listens with a route that ends CONNECT and leads to cluster `a`.
fn connecting() -> Network {
    let mut network = http("hello");
    let Network::Http(manager) = &mut network else { unreachable!() };
    let RouteSource::Inline(table) = &mut manager.routes else { unreachable!() };
    let mut forward = Forward::to("a");
    forward.upgrades = vec![Upgrade { protocol: "CONNECT".into(), enabled: true, terminate_connect: true }];
    table.virtual_hosts[0].routes.insert(
        0,
        Route {
            name: "connect".into(),
            condition: RouteMatch::path(PathMatch::Connect),
            action: Action::forward(forward),
            request_headers: Default::default(),
            response_headers: Default::default(),
            filters: None,
            metadata: Default::default(),
            provenance: None,
        },
    );
    network
}

#[test]
fn a_stream_of_http2_becomes_a_tunnel_and_ends_when_both_sides_are_done() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", connecting())])],
            vec![cluster("a", &[upstream.local_addr().unwrap()])],
        );
        let stream = TcpStream::connect(proxy.address("web").await).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::connect("shop:443").version(http::Version::HTTP_2).body(()).unwrap();
        let (answer, mut sending) = sender.send_request(request, false).unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        sending.send_data(Bytes::from_static(b"up"), true).unwrap();
        let mut up = Vec::new();
        endpoint.read_to_end(&mut up).await.unwrap();
        assert_eq!(up, b"up");
        endpoint.write_all(b"down").await.unwrap();
        drop(endpoint);
        let mut body = answer.into_body();
        let mut down = Vec::new();
        while let Some(data) = body.data().await {
            down.extend_from_slice(&data.unwrap());
        }
        assert_eq!(down, b"down");
    });
}
