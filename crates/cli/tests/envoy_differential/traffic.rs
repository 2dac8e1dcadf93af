//! Faults, mirrors, requests of other origins' pages, and limits on the time of streams.

use super::case::{Case, get, http2, play, request, send, talk};

use testing::exchange::{Request2, exchange};

pub(crate) fn cases() -> Vec<Case> {
    [faults(), mirrors(), origins(), limits(), edges()].into_iter().flatten().collect()
}

fn faults() -> Vec<Case> {
    vec![
        get("a fault for all", "/fault-abort", &[]).refused(418).body("fault filter abort"),
        get("a fault for none", "/fault-none", &[]).status(200),
        get("a fault where a header matches", "/fault-header", &["x-fail: yes"]).refused(503),
        get("no fault where a header does not match", "/fault-header", &["x-fail: no"]).status(200),
        get("a fault for another cluster", "/fault-cluster", &[]).status(200),
        get("a fault on a direct response", "/fault-direct", &[]).refused(500),
        get("a fault that a route switches off", "/fault-off", &["x-everywhere: 1"]).status(200),
        get("a fault of the filter itself", "/plain", &["x-everywhere: 1"]).refused(503),
        get("a delay", "/fault-delay", &[]).status(200).seen(&["/fault-delay"]),
        get("a delay and then an abort", "/fault-both", &[]).refused(502),
        get("a fault of gRPC for a request of another kind", "/fault-grpc", &[]).own().status(200).seen(&[]),
        send("a fault of gRPC", "POST", "/fault-grpc", &["content-type: application/grpc"], "x")
            .own()
            .status(200)
            .header("grpc-status", "14")
            .header("grpc-message", "fault filter abort"),
        send("a fault of HTTP for gRPC", "POST", "/fault-abort", &["content-type: application/grpc"], "x")
            .own()
            .status(200)
            .header("grpc-status", "2"),
        get("a fault that is asked for", "/fault-asked", &["x-envoy-fault-abort-request: 501"]).refused(501),
        get("a fault that is not asked for", "/fault-asked", &[]).status(200),
        get("a status that is none", "/fault-asked", &["x-envoy-fault-abort-request: 999"]).status(200),
        get(
            "a share of nothing is asked for",
            "/fault-asked",
            &["x-envoy-fault-abort-request: 501", "x-envoy-fault-abort-request-percentage: 0"],
        )
        .status(200),
        get(
            "more than the configured share is asked for",
            "/fault-asked-none",
            &["x-envoy-fault-abort-request: 501", "x-envoy-fault-abort-request-percentage: 100"],
        )
        .status(200),
        get("a delay that is asked for", "/fault-asked", &["x-envoy-fault-delay-request: 20"]).status(200),
        get(
            "faults are asked for where they are fixed",
            "/fault-none",
            &["x-envoy-fault-abort-request: 501"],
        )
        .status(200),
        http2("a fault over http 2", |head| {
            let uri = "http://main.test/fault-abort";
            Request2 { head: head.uri(uri).body(()).unwrap(), body: Vec::new(), trailers: None }
        })
        .refused(418),
    ]
}

fn mirrors() -> Vec<Case> {
    let slow = "x-answer: delay=250";
    let unnamed = "a copy does not name the proxy that made it in x-forwarded-for";
    vec![
        get("a mirror", "/mirror?a=b", &[slow])
            .status(200)
            .body("one\n")
            .seen(&["/mirror?a=b"; 2])
            .differs(unnamed),
        send("a mirror of a body", "POST", "/mirror", &[slow], "body")
            .status(200)
            .seen(&["/mirror"; 2])
            .differs(unnamed),
        get("a mirror with the same host", "/mirror-host", &[slow])
            .status(200)
            .seen(&["/mirror-host"; 2])
            .differs(unnamed),
        get("a mirror of nothing", "/mirror-none", &[slow]).status(200).seen(&["/mirror-none"]),
        get("a mirror that is dead", "/mirror-dead", &[]).status(200).seen(&["/mirror-dead"]),
        get("a mirror that does not exist", "/mirror-header", &["x-mirror: nobody"]).status(200),
        get("a mirror by header", "/mirror-header", &["x-mirror: two", slow])
            .status(200)
            .seen(&["/mirror-header"; 2])
            .differs(unnamed),
        get("a mirror of the rewritten request", "/mirror-rewritten/x", &[slow])
            .status(200)
            .seen(&["/there/x"; 2])
            .differs(unnamed),
    ]
}

fn origins() -> Vec<Case> {
    const FIRST: &str = "Access-Control-Request-Method: PUT";
    let ask = |name, path, lines: &[&str]| send(name, "OPTIONS", path, lines, "");
    vec![
        ask("a preflight", "/cors", &["Origin: https://a.test", FIRST])
            .status(200)
            .seen(&[])
            .header("access-control-allow-methods", "GET, PUT"),
        ask("a preflight by suffix", "/cors", &["Origin: https://x.b.test", FIRST]).status(200).seen(&[]),
        ask("a preflight of a stranger", "/cors", &["Origin: https://c.test", FIRST])
            .status(200)
            .seen(&["/cors"]),
        ask(
            "a preflight of a stranger that is not passed on",
            "/cors-strict",
            &["Origin: https://c.test", FIRST],
        )
        .status(200)
        .seen(&[]),
        ask("no preflight without a method", "/cors", &["Origin: https://a.test"]).seen(&["/cors"]),
        ask("no preflight without an origin", "/cors", &[FIRST]).seen(&["/cors"]),
        ask(
            "a preflight into a private network",
            "/cors-private",
            &["Origin: https://a.test", FIRST, "Access-Control-Request-Private-Network: true"],
        )
        .header("access-control-allow-private-network", "true"),
        ask("a preflight into a public network", "/cors-private", &["Origin: https://a.test", FIRST])
            .no_header("access-control-allow-private-network"),
        ask("a preflight where any may ask", "/cors-any", &["Origin: null", FIRST])
            .header("access-control-allow-origin", "null"),
        get("another origin's request", "/cors", &["Origin: https://a.test"])
            .header("access-control-allow-origin", "https://a.test")
            .header("access-control-expose-headers", "x-shown")
            .header("access-control-allow-credentials", "true"),
        get(
            "what the upstream grants is overruled",
            "/cors",
            &["Origin: https://a.test", "x-answer: header=access-control-allow-origin:*"],
        )
        .header("access-control-allow-origin", "https://a.test"),
        get("a stranger's request", "/cors", &["Origin: https://c.test"])
            .no_header("access-control-allow-origin"),
        get("a route without a policy", "/plain", &["Origin: https://a.test"])
            .no_header("access-control-allow-origin"),
        get("another origin's request that fails", "/cors-dead", &["Origin: https://a.test"])
            .refused(503)
            .header("access-control-allow-origin", "https://a.test"),
        get("another origin's request that is answered here", "/cors-direct", &["Origin: https://a.test"])
            .status(200)
            .no_header("access-control-allow-origin"),
        get("a policy for no request", "/cors-never", &["Origin: https://a.test"])
            .no_header("access-control-allow-origin"),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        get("silence", "/idle", &["x-answer: delay=3000"]).own().status(504).seen(&["/idle"]),
        get("silence that is short enough", "/idle", &["x-answer: delay=10"]).status(200),
        talk("a request that does not go on", |connection| {
            let mut bytes = request("a request that does not go on", "POST", "/idle", &[], "0123456789");
            bytes.truncate(bytes.len() - 5);
            connection.send(&bytes);
            vec![connection.read_answer(false)]
        })
        .own()
        .status(408),
        get("an exchange that takes too long", "/max-duration", &["x-answer: delay=3000"])
            .own()
            .status(504)
            .seen(&["/max-duration"]),
        get("a time that no grpc client asks for", "/grpc-timeout", &["x-answer: delay=10"]).status(200),
        send(
            "a time that a grpc client asks for",
            "POST",
            "/grpc-timeout",
            &["content-type: application/grpc", "grpc-timeout: 100m", "x-answer: delay=3000"],
            "x",
        )
        .own()
        .status(200)
        .header("grpc-status", "4"),
        send(
            "a longer time than is allowed",
            "POST",
            "/grpc-timeout",
            &["content-type: application/grpc", "grpc-timeout: 1H", "x-answer: delay=3000"],
            "x",
        )
        .own()
        .status(200)
        .header("grpc-status", "4"),
    ]
}

fn edges() -> Vec<Case> {
    let said = |name: &'static str, header: &'static [u8]| {
        play(name, move |at| {
            let request = request(name, "GET", "/plain", &[], "");
            vec![exchange(at.proxied, &[header, &request].concat())]
        })
    };
    let binary: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x0a\0\0\x02\x03\xe8\0\x50";
    vec![
        get("escaped slashes are decoded by a redirect", "/plain%2Fx%5Cy?q=%2F", &[])
            .at(|at| at.strict)
            .own()
            .status(307)
            .header("location", "/plain/x/y?q=%2F")
            .seen(&[]),
        get("no redirect without an escaped slash", "/plain/%41", &[]).at(|at| at.strict).status(200),
        get("an underscore is refused", "/plain", &["x_a: b"]).at(|at| at.strict).refused(400),
        get("an underscore is dropped", "/plain", &["x_a: b", "x-b: c"])
            .at(|at| at.dropping)
            .status(200)
            .seen_header("x_a", "")
            .seen_header("x-b", "c"),
        get("an underscore is kept", "/plain", &["x_a: b"]).status(200).seen_header("x_a", "b"),
        said("a client told in text", b"PROXY TCP4 203.0.113.7 10.0.0.2 1000 80\r\n")
            .status(200)
            .seen_header("x-forwarded-for", "203.0.113.7"),
        said("a client told in binary", binary).status(200).seen_header("x-forwarded-for", "10.1.2.3"),
        said("a client not told", b"PROXY UNKNOWN\r\n").status(200),
        said("no header in front", b"").status(200),
    ]
}
