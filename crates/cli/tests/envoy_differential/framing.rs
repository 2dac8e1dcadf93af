//! Where a message ends, what it may contain, and whether the connection lives on.

use super::case::{Case, get, raw, request, send, talk};

pub(crate) fn cases() -> Vec<Case> {
    [bodies(), connections(), refused()].into_iter().flatten().collect()
}

fn bodies() -> Vec<Case> {
    let big = "0123456789abcdef".repeat(65_536);
    let chunked = ["Transfer-Encoding: chunked", "x-answer: echo"];
    vec![
        raw("head", request("head", "HEAD", "/plain", &[], ""))
            .status(200)
            .body("")
            .header("content-length", "4"),
        get("no content", "/plain", &["x-answer: status=204"]).status(204).body(""),
        get("not modified", "/plain", &["x-answer: status=304 header=etag:1"])
            .status(304)
            .header("etag", "1"),
        get("an empty answer", "/plain", &["x-answer: length=0"])
            .status(200)
            .body("")
            .header("content-length", "0"),
        get("an answer in chunks", "/plain", &["x-answer: chunked length=40000"]).status(200),
        get("a big answer", "/plain", &["x-answer: length=3000000"]).status(200),
        send("a body in chunks", "POST", "/plain", &chunked, "4\r\nbody\r\n3;x=y\r\n at\r\n0\r\n\r\n")
            .status(200)
            .seen_body("body at"),
        send(
            "a body in chunks with trailers",
            "POST",
            "/plain",
            &chunked,
            "4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n",
        )
        .status(200)
        .seen_body("body"),
        send("a big body", "POST", "/plain", &["x-answer: echo"], &big).status(200),
        send("an empty body", "POST", "/plain", &["Content-Length: 0"], "").status(200),
        send("a body with a get", "GET", "/plain", &[], "body").status(200).seen_body("body"),
        send("a delete with a body", "DELETE", "/plain", &[], "body").status(200),
        send("a method nobody knows", "FROBNICATE", "/plain", &[], "")
            .own()
            .differs("any method that is a token is passed on"),
        get("options", "/plain", &[]).status(200),
        raw("options of everything", "OPTIONS * HTTP/1.1\r\nHost: main.test\r\n\r\n").own(),
        get("an answer with trailers", "/plain", &["TE: trailers", "x-answer: trailer=x-sum:1"]).status(200),
    ]
}

fn connections() -> Vec<Case> {
    let plain = |name: &str, lines: &[&str]| request(name, "GET", "/plain", lines, "");
    let (keep, last) = (plain("keep", &[]), plain("last", &["Connection: close"]));
    let twice = [keep.clone(), plain("second", &[])].concat();
    vec![
        talk("two requests, one after the other", move |connection| {
            connection.send(&keep);
            let first = connection.read_answer(false);
            connection.send(&keep);
            vec![first, connection.read_answer(false)]
        })
        .status(200)
        .seen(&["/plain", "/plain"]),
        talk("two requests at once", move |connection| {
            connection.send(&twice);
            vec![connection.read_answer(false), connection.read_answer(false)]
        })
        .status(200)
        .seen(&["/plain", "/plain"]),
        talk("connection close", move |connection| {
            connection.send(&last);
            let answer = connection.read_answer(false);
            assert!(connection.is_closed());
            vec![answer]
        })
        .status(200)
        .header("connection", "close"),
        talk("expect continue", |connection| {
            let whole =
                request("expect", "POST", "/plain", &["Expect: 100-continue", "x-answer: echo"], "body");
            connection.send(&whole[..whole.len() - 4]);
            let interim = connection.read_interim();
            connection.send(b"body");
            let mut answer = connection.read_answer(false);
            answer.interim.extend(interim);
            vec![answer]
        })
        .status(200)
        .seen_body("body"),
        raw("http 1.0", "GET /plain HTTP/1.0\r\nHost: main.test\r\n\r\n").status(200).body("one\n"),
        talk("http 1.0 kept alive", |connection| {
            let request = "GET /plain HTTP/1.0\r\nHost: main.test\r\nConnection: keep-alive\r\n\r\n";
            connection.send(request.as_bytes());
            let first = connection.read_answer(false);
            connection.send(request.as_bytes());
            vec![first, connection.read_answer(false)]
        })
        .status(200),
        raw(
            "http 1.0 gets no chunks",
            "GET /plain HTTP/1.0\r\nHost: main.test\r\nx-answer: chunked length=10\r\n\r\n",
        )
        .status(200)
        .body("abcdefghij"),
        raw("http 1.0 without a host", "GET /plain HTTP/1.0\r\n\r\n")
            .own()
            .differs("HTTP/1.0 needs no host: it is routed as a request for none"),
        raw("an empty line before a request", "\r\nGET /plain HTTP/1.1\r\nHost: main.test\r\n\r\n")
            .status(200),
    ]
}

fn refused() -> Vec<Case> {
    let post = |name, lines: &str, body: &str| {
        raw(name, format!("POST /plain HTTP/1.1\r\nHost: main.test\r\n{lines}\r\n{body}"))
            .refused(400)
            .garbled()
    };
    let line = |name, line: &str| {
        raw(name, format!("GET /plain HTTP/1.1\r\nHost: main.test\r\n{line}\r\n\r\n")).garbled()
    };
    let unknown = |name, line: &str| {
        raw(name, format!("POST /plain HTTP/1.1\r\nHost: main.test\r\n{line}\r\n0\r\n\r\n"))
            .refused(501)
            .garbled()
            .differs("any coding but `chunked` alone is 400")
    };
    let long = "a".repeat(70_000);
    let many: Vec<String> = (0..200).map(|at| format!("x-{at}: 1")).collect();
    vec![
        post("a length and chunks", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("two lengths", "Content-Length: 4\r\nContent-Length: 5\r\n", "body!"),
        post("a list of lengths", "Content-Length: 4, 4\r\n", "body"),
        post("a length with a sign", "Content-Length: +4\r\n", "body"),
        post("a length that is no number", "Content-Length: four\r\n", "body"),
        unknown("a coding that is not known", "Transfer-Encoding: gzip\r\n"),
        unknown("chunked twice", "Transfer-Encoding: chunked, chunked\r\n"),
        raw("a chunk size that is no number", {
            let lines = "Host: main.test\r\nTransfer-Encoding: chunked\r\n";
            format!("POST /plain HTTP/1.1\r\n{lines}\r\nx\r\nbody\r\n0\r\n\r\n")
        })
        .refused(400),
        raw(
            "chunks over http 1.0",
            "POST /plain HTTP/1.0\r\nHost: main.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .own()
        .garbled()
        .differs("HTTP/1.0 knows no chunks: 400"),
        raw("no host", "GET /plain HTTP/1.1\r\n\r\n").refused(400).garbled(),
        raw("two hosts", "GET /plain HTTP/1.1\r\nHost: main.test\r\nHost: other.test\r\n\r\n")
            .own()
            .garbled()
            .differs("two hosts are 400, whatever routes there are"),
        line("a folded header", "x-a: 1\r\n folded").differs("folded headers are 400"),
        line("a space before the colon", "x-a : 1"),
        line("a name with a space", "x a: 1"),
        line("a line without a colon", "x-a"),
        line("a header with nul", "x-a: a\0b"),
        line("a header of many bytes", &format!("x-a: {long}")),
        line("many headers", &many.join("\r\n")),
        raw("bare line feeds", "GET /plain HTTP/1.1\nHost: main.test\n\n")
            .own()
            .garbled()
            .differs("lines end with CR LF: 400"),
        raw("a method with a bad character", "G@T /plain HTTP/1.1\r\nHost: main.test\r\n\r\n")
            .own()
            .garbled(),
        raw("a version that does not exist", "GET /plain HTTP/1.7\r\nHost: main.test\r\n\r\n")
            .own()
            .garbled()
            .differs("only HTTP/1.0 and HTTP/1.1 are known: 400"),
        raw("a target without a slash", "GET plain HTTP/1.1\r\nHost: main.test\r\n\r\n").own(),
        raw("a target with a control character", "GET /plain\x01 HTTP/1.1\r\nHost: main.test\r\n\r\n")
            .own()
            .garbled(),
        raw("not http at all", "\x16\x03\x01\x02\x00\r\n\r\n").own().garbled(),
        raw("connect", "CONNECT main.test:80 HTTP/1.1\r\nHost: main.test:80\r\n\r\n").own(),
    ]
}
