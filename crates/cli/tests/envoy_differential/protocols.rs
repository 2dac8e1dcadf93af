//! HTTP/2 on either side, gRPC, upgrades, and bytes passed on.

use http::HeaderMap;
use testing::exchange::{Answer, Connection, Request2, exchange};

use super::case::{Case, get, http2, play, request, send, talk};

pub(crate) fn cases() -> Vec<Case> {
    [second(), upgrades(), bytes()].into_iter().flatten().collect()
}

fn plain(head: http::request::Builder, path: &str) -> Request2 {
    let head = head.uri(format!("http://main.test{path}")).body(()).expect("a request");
    Request2 { head, body: Vec::new(), trailers: None }
}

fn second() -> Vec<Case> {
    vec![
        http2("http 2 to http 1", |head| plain(head, "/exact?x=1")).route("exact").seen(&["/exact?x=1"]),
        http2("http 2 to http 2", |head| plain(head, "/h2up/x")).route("h2up").seen(&["/h2up/x"]),
        http2("http 2 with a body", |head| {
            let request = plain(head.method("POST").header("x-answer", "echo"), "/h2up");
            Request2 { body: b"body".repeat(30_000), ..request }
        })
        .route("h2up"),
        http2("http 2 with a body to http 1", |head| {
            let request = plain(head.method("POST").header("x-answer", "echo"), "/exact");
            Request2 { body: b"body".to_vec(), ..request }
        })
        .body("bodybody".get(..4).unwrap_or_default()),
        http2("http 2 to an unknown host", |head| {
            let head = head.uri("http://unknown.test/").body(()).expect("a request");
            Request2 { head, body: Vec::new(), trailers: None }
        })
        .refused(404),
        http2("http 2 cookies in crumbs", |head| {
            plain(head.header("cookie", "a=1").header("cookie", "b=2"), "/exact")
        })
        .seen_header("cookie", "a=1; b=2"),
        http2("http 2 head", |head| plain(head.method("HEAD"), "/exact")).status(200).body(""),
        http2("http 2 direct response", |head| plain(head, "/direct")).status(418).body("a teapot\n"),
        http2("http 2 timeout", |head| plain(head.header("x-answer", "delay=1000"), "/timeout"))
            .own()
            .status(504),
        http2("http 2 with trailers", |head| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "1".parse().expect("a value"));
            let request = plain(head.method("POST").header("x-answer", "echo trailer=x-back:1"), "/h2up");
            Request2 { body: b"body".to_vec(), trailers: Some(trailers), ..request }
        })
        .route("h2up"),
        http2("grpc", |head| {
            let head =
                head.method("POST").header("content-type", "application/grpc").header("te", "trailers");
            let answer =
                "header=content-type:application/grpc trailer=grpc-status:0 trailer=grpc-message:fine echo";
            Request2 {
                body: b"\0\0\0\0\x02hi".to_vec(),
                ..plain(head.header("x-answer", answer), "/h2up/S/M")
            }
        })
        .route("h2up"),
        http2("grpc to no endpoint", |head| {
            let head =
                head.method("POST").header("content-type", "application/grpc").header("te", "trailers");
            Request2 { body: b"\0\0\0\0\0".to_vec(), ..plain(head, "/empty") }
        })
        .own()
        .status(200)
        .header("grpc-status", "14"),
        http2("grpc that finds no route", |head| {
            let head = head.method("POST").header("content-type", "application/grpc");
            Request2 { body: b"\0\0\0\0\0".to_vec(), ..plain(head, "/nowhere") }
        })
        .own()
        .status(200),
        get("http 1 to http 2", "/h2up/a?b", &["Connection: keep-alive"]).route("h2up").seen(&["/h2up/a?b"]),
        send(
            "http 1 in chunks to http 2",
            "POST",
            "/h2up",
            &["Transfer-Encoding: chunked"],
            "4\r\nbody\r\n0\r\n\r\n",
        )
        .route("h2up")
        .seen_body("body"),
    ]
}

fn upgrade(connection: &mut Connection, name: &str, path: &str, protocol: &str, answer: &str) -> Vec<Answer> {
    let upgrade = format!("Upgrade: {protocol}");
    let lines =
        ["Connection: Upgrade", &upgrade, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: a2V5", answer];
    connection.send(&request(name, "GET", path, &lines, ""));
    vec![connection.read_answer(false)]
}

fn upgrades() -> Vec<Case> {
    vec![
        talk("websocket", |connection| {
            let mut answers = upgrade(connection, "websocket", "/plain", "websocket", "x-answer: upgrade");
            connection.send(b"ping");
            answers[0].body = connection.read_bytes(4);
            answers
        })
        .status(101)
        .body("ping"),
        talk("websocket that the upstream refuses", |connection| {
            upgrade(connection, "refused", "/plain", "websocket", "x-answer: status=403")
        })
        .status(403)
        .body("one\n")
        .differs("the connection lives on"),
        talk("websocket where the route refuses it", |connection| {
            upgrade(connection, "off", "/upgrade-off", "websocket", "x-answer: status=200")
        })
        .refused(403)
        .differs("an upgrade that is not allowed is left out of the request"),
        talk("an upgrade that nobody allowed", |connection| {
            upgrade(connection, "unknown", "/plain", "frobnicate", "x-answer: status=200")
        })
        .own()
        .differs("an upgrade that is not allowed is left out of the request"),
    ]
}

fn bytes() -> Vec<Case> {
    vec![
        play("tcp", |at| {
            let mut request =
                request("tcp", "GET", "/tcp", &["X-Kept: As-It-Is", "x-answer: header=X-Back:1"], "");
            request.extend(b"");
            vec![exchange(at.tcp, &request)]
        })
        .status(200)
        .seen(&["/tcp"])
        .seen_header("x-forwarded-for", ""),
        play("tcp half closed", |at| {
            let mut connection = Connection::open(at.tcp);
            connection.send(&request("tcp-half", "GET", "/tcp", &["Connection: close"], ""));
            connection.finish();
            let answer = connection.read_answer(false);
            assert!(connection.is_closed());
            vec![answer]
        })
        .status(200),
    ]
}
