//! How requests and answers are shaped: retries, rewrites, faults, copies, sessions, values. The configuration is in
//! `shaping.yaml`.

use super::case::{Case, get, play, request, send};
use testing::exchange::{Answer, Connection, exchange};
use testing::upstream::Seen;

pub(crate) const BOOTSTRAP: &str = include_str!("shaping.yaml");

pub(crate) fn cases() -> Vec<Case> {
    [retries(), rewrites(), faults_and_copies(), guards(), values(), hosts(), heads()]
        .into_iter()
        .flatten()
        .collect()
}

fn retries() -> Vec<Case> {
    let twice = "x-answer: status=503;status=200";
    let grpc = |name, status: &str| {
        let answer = format!("x-answer: header=grpc-status:{status};header=grpc-status:0");
        send(name, "POST", "/retry-grpc", &["content-type: application/grpc", &answer], "x")
    };
    vec![
        get("a retry that a header allows", "/retry-asked", &["x-retry: yes", twice])
            .status(200)
            .header("x-envoy-attempt-count", "2"),
        get("a retry that another header allows", "/retry-asked", &["x-again: 1", twice]).status(200),
        get("a retry that no header allows", "/retry-asked", &["x-retry: no", twice])
            .status(503)
            .header("x-envoy-attempt-count", "1"),
        paused("a retry after a pause", "/retry-reset", "status=503 header=retry-after:1;status=200", 1000)
            .status(200),
        paused(
            "a retry after too long a pause",
            "/retry-reset",
            "status=503 header=retry-after:3;status=200",
            0,
        )
        .status(200),
        paused("a retry after no pause", "/retry-reset", "status=503 header=retry-after:soon;status=200", 0)
            .status(200),
        get("a retry of a silent try", "/retry-idle", &["x-answer: delay=1500;status=200"])
            .status(200)
            .seen(&["/retry-idle"; 2]),
        get("a silent try", "/retry-no-idle", &["x-answer: delay=1500"])
            .own()
            .status(504)
            .seen(&["/retry-no-idle"]),
        get(
            "a retry that the answer asks for",
            "/retry-headers",
            &["x-answer: header=x-once-more:yes;status=200"],
        )
        .status(200)
        .seen(&["/retry-headers"; 2]),
        get(
            "a retry that the answer does not ask for",
            "/retry-headers",
            &["x-answer: header=x-once-more:no"],
        )
        .seen(&["/retry-headers"]),
        get(
            "a header that asks where that is not a condition",
            "/retry-headers-unnamed",
            &["x-answer: header=x-once-more:yes"],
        )
        .seen(&["/retry-headers-unnamed"]),
        grpc("grpc cancelled", "1").seen(&["/retry-grpc"; 2]),
        grpc("grpc deadline exceeded", "4").seen(&["/retry-grpc"; 2]),
        grpc("grpc resource exhausted", "8").seen(&["/retry-grpc"; 2]),
        grpc("grpc internal", "13").seen(&["/retry-grpc"; 2]),
        grpc("grpc unavailable", "14").seen(&["/retry-grpc"; 2]),
        grpc("grpc unknown", "2").seen(&["/retry-grpc"]),
        grpc("grpc not found", "5").seen(&["/retry-grpc"]),
        get(
            "rate limited",
            "/retry-limited",
            &["x-answer: status=429 header=x-envoy-ratelimited:true;status=200"],
        )
        .seen(&["/retry-limited"; 2]),
        get("not rate limited", "/retry-limited", &["x-answer: status=429"]).seen(&["/retry-limited"]),
        get("a conflict", "/retry-4xx", &["x-answer: status=409;status=200"]).seen(&["/retry-4xx"; 2]),
        get("no conflict", "/retry-4xx", &["x-answer: status=404"]).seen(&["/retry-4xx"]),
        get("a gateway's error", "/retry-gateway", &["x-answer: status=502;status=200"])
            .seen(&["/retry-gateway"; 2]),
        get("no gateway's error", "/retry-gateway", &["x-answer: status=500"]).seen(&["/retry-gateway"]),
    ]
}

/// A request whose answer takes at least so many milliseconds, and not many more than two seconds.
fn paused(name: &'static str, path: &'static str, answers: &'static str, least: u128) -> Case {
    play(name, move |at| {
        let start = std::time::Instant::now();
        let line = format!("x-answer: {answers}");
        let answer = exchange(at.main, &request(name, "GET", path, &[&line], ""));
        let took = start.elapsed().as_millis();
        assert!(took >= least && took < least + 2000, "{name} took {took} ms");
        vec![answer]
    })
}

fn rewrites() -> Vec<Case> {
    vec![
        get("a host from the path", "/host-path/shop/x?q=1", &[]).seen_header("host", "shop.made.test"),
        get("a host from a path that does not match", "/host-path/", &[]),
        get("a host from the path as it came", "/host-path-prefix/shop/x", &[])
            .seen(&["/short/shop/x"])
            .seen_header("host", "shop.made.test"),
        get("a path from a template", "/tpl/de/a/b?q=1", &[]).seen(&["/x/a/b/de?q=1"]),
        get("a path from a template with nothing in it", "/tpl/de/", &[]),
        get("a path that is no template's", "/tpl/de", &[]).seen(&["/tpl/de"]),
        get("one segment", "/seg/a/end", &[]).route("segment"),
        get("two segments", "/seg/a/b/end", &[]).status(404).body("no segment"),
        get("a segment with escapes", "/seg/a%20b/end?x=/y", &[]).route("segment"),
        get("a suffix", "/media/a/b.m3u8", &[]).seen(&["/list/a/b"]),
        get("another suffix", "/media/a/b.ts", &[]).seen(&["/media/a/b.ts"]),
        get("a path and a host made per request", "/made?q=1", &["x-part: p"])
            .seen(&["/from/p?q=1"])
            .seen_header("host", "p.host.test"),
        get("a redirect made per request", "/redirect-made?q=1", &["x-part: p"])
            .status(301)
            .header("location", "http://main.test/from/p?q=1"),
    ]
}

const NODE_B: &str = "x-envoy-downstream-service-node: node-b";

fn faults_and_copies() -> Vec<Case> {
    let slow = "x-answer: delay=250";
    let unnamed = "a copy does not name the proxy that made it in x-forwarded-for";
    vec![
        get("an abort in other words", "/abort-body", &[]).status(503).body("out of order").seen(&[]),
        get("an abort of a node that an edge does not believe", "/abort-nodes", &[NODE_B]).status(200),
        get("an abort of one node", "/abort-nodes", &[NODE_B]).at(|at| at.paths).refused(418),
        get("no abort of another node", "/abort-nodes", &["x-envoy-downstream-service-node: node-c"])
            .status(200),
        get("no abort of no node", "/abort-nodes", &[]).at(|at| at.paths).status(200),
        get("a copy for another host", "/mirror-host", &[slow])
            .seen(&["/mirror-host"; 2])
            .seen_header("host", "main.test|copy.test")
            .differs(unnamed),
        get("a copy that is edited", "/mirror-edits", &[slow, "x-gone: 1", "x-secret-a: 1", "x-stays: 1"])
            .seen(&["/mirror-edits"; 2])
            .seen_header("x-gone", "1")
            .seen_header("x-secret-a", "1")
            .seen_header("x-stays", "1|1")
            .seen_header("x-copy", "of /mirror-edits")
            .differs(unnamed),
    ]
}

fn guards() -> Vec<Case> {
    let unsigned = "an answer to a health check does not tell the cluster of the proxy itself";
    let post = |name, lines: &[&str]| send(name, "POST", "/csrf", lines, "x");
    vec![
        get("a health check", "/healthz", &[]).own().status(200).seen(&[]).differs(unsigned),
        get("a health check of a cluster without endpoints", "/healthz-empty", &[])
            .refused(503)
            .differs(unsigned),
        get("a health check of a cluster with one", "/healthz-one", &[])
            .own()
            .status(200)
            .seen(&[])
            .differs(unsigned),
        get("no health check", "/healthz/x", &[]).status(200).seen(&["/healthz/x"]),
        post("a form of the site itself", &["Origin: http://main.test"]).status(200),
        post("a form of the site by referer", &["Referer: http://main.test/form"]).status(200),
        post("a form of a friend", &["Origin: https://a.friend.test"]).status(200),
        post("a form of a stranger", &["Origin: https://evil.test"]).refused(403),
        post("a form of nobody", &[]).refused(403),
        post("a form of a page without an origin", &["Origin: null"]).refused(403),
        get("a stranger may ask", "/csrf", &["Origin: https://evil.test"]).status(200),
        send("a form where nobody minds", "POST", "/plain", &["Origin: https://evil.test"], "x").status(200),
        send("a body that is small enough", "POST", "/buffer", &[], "0123456789")
            .status(200)
            .seen_body("0123456789"),
        send("a body that is too large", "POST", "/buffer", &[], "0123456789x").refused(413),
        send(
            "a body in chunks that is too large",
            "POST",
            "/buffer",
            &["Transfer-Encoding: chunked"],
            "8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n",
        )
        .refused(413),
        send(
            "a body in chunks that is put together",
            "POST",
            "/buffer",
            &["Transfer-Encoding: chunked"],
            "4\r\n0123\r\n4\r\n4567\r\n0\r\n\r\n",
        )
        .status(200)
        .seen_body("01234567")
        .seen_header("content-length", "8"),
    ]
}

fn values() -> Vec<Case> {
    vec![
        get(
            "values that are there",
            "/values?a=1&b=2",
            &["x-appended: one", "x-absent: old", "x-over: old", "x-there: old", "x-long: 0123456789"],
        )
        .seen_header("x-appended", "one|more")
        .seen_header("x-absent", "old")
        .seen_header("x-over", "new")
        .seen_header("x-there", "new")
        .seen_header("x-empty", "")
        .seen_header("x-query", "1")
        .seen_header("x-cut", "0123")
        .seen_header("x-percent", "100%"),
        get("values that are absent", "/values", &["x-answer: status=404"])
            .seen_header("x-appended", "more")
            .seen_header("x-absent", "new")
            .seen_header("x-there", "")
            .header("x-code", "404 via_upstream"),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |name, host: &str| get(name, "/hosts", &[&format!("Host: {host}")]).at(|at| at.tcp);
    vec![
        host("a port is taken off", "main.test:8080").status(200).seen_header("host", "main.test"),
        host("a dot is taken off", "main.test.").status(200).seen_header("host", "main.test"),
        host("a dot and a port are taken off", "main.test.:80").status(200).seen_header("host", "main.test"),
        host("another host", "other.test:80").own().status(404),
        get(
            "forwarding headers are left alone",
            "/x",
            &["x-forwarded-client-cert: Hash=1", "x-forwarded-for: 192.0.2.1"],
        )
        .at(|at| at.tcp)
        .seen_header("x-forwarded-client-cert", "Hash=1")
        .seen_header("x-forwarded-for", "192.0.2.1")
        .seen_header("x-request-id", ""),
        get("a client's certificate is not told", "/x", &["x-forwarded-client-cert: Hash=1"])
            .seen_header("x-forwarded-client-cert", ""),
        play("a matching port is taken off", |at| {
            let host = format!("Host: main.test:{}", at.strict.port());
            vec![exchange(at.strict, &request("a matching port is taken off", "GET", "/x", &[&host], ""))]
        })
        .status(200)
        .seen_header("host", "main.test"),
        get("another port is kept", "/x", &["Host: main.test:1"]).at(|at| at.strict).own().status(404),
        get("via", "/x", &["via: 1.1 before", "x-answer: header=via:1.1-behind"])
            .seen_header("via", "1.1 before, shaper")
            .header("via", "1.1-behind, shaper"),
    ]
}

fn heads() -> Vec<Case> {
    let large = format!("x-large: {}", "x".repeat(2100));
    let many: Vec<String> = (0..14).map(|n| format!("x-n-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let strict = |case: Case| case.at(|at| at.strict);
    vec![
        strict(get("a head that is small enough", "/x", &["x-from: plain"])).status(200),
        strict(get("a head that is too large", "/x", &[&large])).own().garbled().status(431),
        strict(get("too many headers", "/x", &many)).own().garbled().status(431),
        strict(get("a route by a header that is made early", "/x", &["x-from: special"])).body("special"),
        strict(get("a header that is dropped early", "/x", &["x-gone: 1"])).seen_header("x-gone", ""),
    ]
}

/// Asks `path` often and returns how many of the requests that were tried again reached the first upstream more than
/// once, out of how many.
pub(crate) fn left_out(side: &super::Side, path: &str) -> (usize, usize) {
    let (mut again, mut retried) = (0, 0);
    for number in 0..40 {
        let name = format!("{path}-{number}");
        let answer: Answer = {
            let mut connection = Connection::open(side.listeners.main);
            let line = "x-answer: status=503;status=503;status=503";
            connection.send(&request(&name, "GET", path, &[line], ""));
            connection.read_answer(false)
        };
        assert_eq!(answer.status, 503, "{path}");
        let seen: Vec<Seen> = side.take_seen();
        let first = seen.iter().filter(|seen| seen.upstream == "one").count();
        retried += usize::from(seen.len() == 3);
        again += usize::from(first > 1);
    }
    (again, retried)
}

/// Begins a session and goes on with it. Returns whom the requests reached, and what the client was given.
pub(crate) fn session(side: &super::Side, path: &str, header: &str) -> (Vec<String>, String) {
    let ask = |lines: &[&str]| {
        let mut connection = Connection::open(side.listeners.main);
        connection.send(&request("session", "GET", path, lines, ""));
        let answer = connection.read_answer(false);
        let seen: Vec<String> = side.take_seen().into_iter().map(|seen| seen.upstream).collect();
        (answer, seen.join(","))
    };
    let (first, begun) = ask(&[]);
    let given = first.header(header).unwrap_or_default().to_owned();
    let carried = match header {
        "set-cookie" => format!("Cookie: {}", given.split(';').next().unwrap_or_default()),
        name => format!("{name}: {given}"),
    };
    let mut reached = vec![begun];
    for _ in 0..20 {
        let (answer, whom) = ask(&[&carried]);
        assert_eq!(answer.header(header), None, "it is carried already");
        reached.push(whom);
    }
    (reached, given)
}
