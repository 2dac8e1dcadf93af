//! What is added to requests and answers, and taken from them.

use super::case::{Case, get, send};

pub(crate) fn cases() -> Vec<Case> {
    [rules(), what_proxies_do()].into_iter().flatten().collect()
}

fn rules() -> Vec<Case> {
    let full: &[&str] = &[
        "x-a: value",
        "x-append: sent",
        "x-absent: sent",
        "x-over: sent",
        "x-over-existing: sent",
        "x-drop: sent",
        "x-drop-vhost: sent",
    ];
    vec![
        get("request headers added by route, host and table", "/headers", &[])
            .seen_header("x-all", "all")
            .seen_header("x-vhost", "main")
            .seen_header("x-absent", "added")
            .seen_header("x-over", "over")
            .seen_header("x-over-existing", "")
            .seen_header("x-append", "added"),
        get("request headers beside those sent", "/headers", full)
            .seen_header("x-append", "sent|added")
            .seen_header("x-absent", "sent")
            .seen_header("x-over", "over")
            .seen_header("x-over-existing", "over")
            .seen_header("x-drop", "")
            .seen_header("x-drop-vhost", "")
            .seen_header("x-from", "from value by GET at 127.0.0.1 %")
            .seen_header("x-protocol", "HTTP/1.1")
            .seen_header("x-first", "value")
            .seen_header("x-cut", "va"),
        get(
            "response headers beside those of the upstream",
            "/headers",
            &["x-answer: header=x-up:theirs header=x-up-append:theirs header=x-secret:1 status=201"],
        )
        .status(201)
        .header("x-up", "over")
        .header("x-code", "201")
        .header("x-vhost", "main")
        .no_header("x-secret"),
        get("headers by destination", "/weighted", &["x-drop-destination: 1", "x-answer: header=x-secret:1"])
            .route("weighted")
            .body("two\n")
            .header("x-destination", "two")
            .no_header("x-secret")
            .seen_header("x-destination", "two")
            .seen_header("x-drop-destination", ""),
        get("cluster by header", "/by-header", &["x-cluster: two"]).status(200).body("two\n"),
    ]
}

fn what_proxies_do() -> Vec<Case> {
    vec![
        get("forwarding is told", "/plain", &[])
            .seen_header("x-forwarded-proto", "http"),
        get("forwarding before us is kept", "/plain", &["X-Forwarded-For: 10.0.0.1"])
            .status(200),
        get("forwarding as the listener without an edge sees it", "/plain", &["X-Forwarded-For: 10.0.0.1"])
            .at(|at| at.unescaped)
            .seen_header("x-forwarded-for", "10.0.0.1"),
        get("headers with capitals, underscores and repeated", "/plain", &["X-Many: 1", "x-MANY: 2", "x_under: 1"])
            .seen_header("x-many", "1|2"),
        get("hop by hop headers stay on their hop", "/plain", &[
            "Connection: keep-alive, x-hop",
            "x-hop: 1",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "TE: gzip",
        ])
        .status(200).differs("`Connection` may name hop-by-hop headers only: 400"),
        get("hop by hop headers that are named", "/plain", &[
            "Connection: keep-alive, TE",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "TE: gzip",
        ])
        .status(200),
        get("an offer to speak http 2", "/plain", &[
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ])
        .status(200),
        get("te trailers is passed on", "/plain", &["TE: trailers", "Connection: TE"]).status(200),
        get("hop by hop headers of an answer", "/plain", &[
            "x-answer: header=connection:x-hop header=x-hop:1 header=keep-alive:timeout=5 header=proxy-connection:x",
        ])
        .status(200),
        get("a server header of the upstream", "/plain", &["x-answer: header=server:upstream"]).header("server", "peer"),
        get("cookies", "/plain", &["Cookie: a=1; b=2", "x-answer: header=set-cookie:a=1 header=set-cookie:b=2"])
            .seen_header("cookie", "a=1; b=2"),
        get("user agent and accept are left alone", "/plain", &["User-Agent: test/1", "Accept: */*", "Accept-Encoding: gzip"])
            .seen_header("user-agent", "test/1"),
        get("a value with spaces around it", "/plain", &["x-space:   a b   "]).seen_header("x-space", "a b"),
        get("a request id that a client made up", "/plain", &["x-request-id: made-up"]).status(200),
        get("internal headers that a client made up", "/plain", &[
            "x-envoy-original-path: /secret",
            "x-envoy-decorator-operation: x",
            "x-envoy-internal: true",
        ])
        .status(200)
        .seen_header("x-envoy-original-path", "")
        .seen_header("x-envoy-decorator-operation", ""),
        send("a content type is left alone", "POST", "/plain", &["Content-Type: text/x; a=b", "x-answer: echo"], "body")
            .seen_header("content-type", "text/x; a=b")
            .body("body"),
    ]
}
