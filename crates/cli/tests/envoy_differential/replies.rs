//! What answers of the proxy's own are made to look like, and edits in order. The configuration is in `shaping.yaml`.

use super::case::{Case, get, send};

pub(crate) fn cases() -> Vec<Case> {
    [mapped(), all(), mutations()].into_iter().flatten().collect()
}

fn mapped() -> Vec<Case> {
    let own = "the words of the answer are our own";
    let at = |case: Case| case.at(|at| at.paths);
    vec![
        at(get("an answer that is not mapped", "/direct", &[])).status(200).body("hello"),
        at(get("an answer mapped by status and header", "/direct-503", &["x-map: yes"]))
            .status(418)
            .body("mapped")
            .header("x-mapped", "/direct-503"),
        at(get("an answer mapped by status", "/direct-503", &[]))
            .status(503)
            .body("five")
            .header("x-mapped", "large"),
        at(get("a request without a route", "/nowhere", &[])).status(410).seen(&[]),
        at(get("a request for another host", "/direct", &["Host: other.test"])).status(410),
        at(get("a failure mapped by header", "/dead", &["x-map: yes"])).status(418).body("mapped"),
        at(get("a failure mapped by status", "/empty", &[])).status(503).body("five"),
        at(get("one of two headers", "/direct", &["x-or: b"]))
            .status(200)
            .body("<b>hello</b> 200")
            .header("content-type", "text/html; charset=UTF-8"),
        at(get("an answer made empty", "/direct", &["x-empty: 1"])).status(200).body(""),
        at(get("an answer of the upstream", "/one", &["x-answer: status=503", "x-map: yes"])).status(503),
        at(get("an answer mapped by grpc status", "/direct-404", &[])).status(404).body("not found"),
        at(get("a redirect is mapped", "/redirect", &["x-or: a"])).status(301),
        at(get("a fault that is mapped", "/fault", &["x-map: yes"]))
            .status(418)
            .body("mapped")
            .header("x-edited", "by the route"),
        at(send(
            "a failure for grpc",
            "POST",
            "/dead",
            &["content-type: application/grpc", "x-map: yes"],
            "x",
        ))
        .status(200)
        .header("grpc-message", "mapped"),
        at(send(
            "a failure for grpc that is not mapped",
            "POST",
            "/nowhere",
            &["content-type: application/grpc"],
            "x",
        ))
        .status(200)
        .differs(own),
    ]
}

fn all() -> Vec<Case> {
    let at = |case: Case| case.at(|at| at.unescaped);
    vec![
        at(get("every answer in json", "/direct", &[]))
            .status(200)
            .header("content-type", "application/problem+json"),
        at(get("a redirect in json", "/redirect", &[])).status(301),
        at(get("a failure in json", "/nowhere", &[]))
            .own()
            .status(404)
            .header("content-type", "application/problem+json"),
        at(get("not the upstream's", "/one", &[])).status(200).body("one\n"),
    ]
}

fn mutations() -> Vec<Case> {
    let at = |case: Case| case.at(|at| at.dropping);
    let specific = |case: Case| case.at(|at| at.proxied);
    let hidden = "x-answer: header=x-hidden:1";
    vec![
        at(get(
            "edits of a filter",
            "/x",
            &["x-gone: 1", "x-secret-a: 1", "x-secret-b: 2", "x-open: 1", hidden],
        ))
        .seen_header("x-gone", "")
        .seen_header("x-secret-a", "")
        .seen_header("x-open", "1")
        .seen_header("x-own", "table")
        .header("x-answered", "200")
        .no_header("x-hidden"),
        at(get(
            "edits of a route before those of its table",
            "/route?over=1&gone=1&added=0&over=2",
            &["x-there: a"],
        ))
        .seen_header("x-own", "table")
        .seen_header("x-there", "a+")
        .header("x-route", "/route?added=0&added=a%2B&over=new"),
        at(get("edits to a header that is absent", "/route", &[])).seen_header("x-there", ""),
        at(get("edits to a query", "/query?there=1&x", &[])).status(200),
        at(get("edits to no query", "/query", &[])).status(200),
        at(get("edits that are off", "/off", &["x-gone: 1"]))
            .seen_header("x-gone", "1")
            .no_header("x-answered"),
        at(get("edits of a direct answer", "/direct", &[])).body("here").header("x-answered", "200"),
        specific(get("edits of a table before those of its route", "/route", &["x-there: a"]))
            .seen_header("x-own", "route"),
    ]
}
