//! Which route takes a request.

use super::case::{Case, get, raw, request, send};

pub(crate) fn cases() -> Vec<Case> {
    [paths(), headers(), the_rest(), hosts()].into_iter().flatten().collect()
}

fn paths() -> Vec<Case> {
    vec![
        get("uri exact", "/exact", &[]).route("exact").seen(&["/exact"]),
        get("uri exact with a query", "/exact?a=b&c", &[]).route("exact").seen(&["/exact?a=b&c"]),
        get("uri exact is not a prefix", "/exact/more", &[]).refused(404),
        get("uri exact minds case", "/EXACT", &[]).refused(404),
        get("uri exact ignoring case", "/cAsE", &[]).route("case").seen(&["/cAsE"]),
        get("uri prefix ignoring case", "/pREFIX-cASE/x", &[]).route("prefix-case"),
        get("uri prefix", "/prefix/a/b", &[]).route("prefix").seen(&["/prefix/a/b"]),
        get("uri prefix is a prefix of text", "/prefixed", &[]).route("prefix"),
        get("uri regex", "/item/12", &[]).route("regex"),
        get("uri regex with a query", "/item/12?x=y", &[]).route("regex").seen(&["/item/12?x=y"]),
        get("uri regex takes all or nothing", "/item/12/more", &[]).refused(404),
        get("uri prefix by segments", "/sep/a", &[]).route("sep"),
        get("uri prefix by segments itself", "/sep", &[]).route("sep"),
        get("uri prefix by segments with a query", "/sep?a", &[]).route("sep"),
        get("uri prefix by segments is not of text", "/separate", &[]).refused(404),
        get("no route", "/nowhere", &[]).refused(404),
    ]
}

fn headers() -> Vec<Case> {
    vec![
        get("header exact", "/hm", &["X-A: one"]).route("header-exact"),
        get("header exact fails", "/hm", &["x-a: two"]).route("header-none").body("two\n"),
        get("header exact of two lines", "/hm", &["x-a: one", "x-a: two"]).route("header-exact"),
        get("header exact of a list", "/hm", &["x-j: one,two"]).route("header-joined"),
        get("header exact of a list in two lines", "/hm", &["x-j: one", "x-j: two"]).route("header-none"),
        get("header inverted of two lines", "/hm-not", &["x-i: yes", "x-i: nay"]).route("header-none"),
        get("header in range of two lines", "/hm", &["x-g: 1", "x-g: 11"]).route("header-range"),
        get("header prefix", "/hm", &["x-b: prefixed"]).route("header-prefix"),
        get("header suffix and contains", "/hm", &["x-c: suffix", "x-c2: amidst"])
            .route("header-suffix-contains"),
        get("header suffix alone", "/hm", &["x-c: suffix"]).route("header-none"),
        get("header regex", "/hm", &["x-d: v12"]).route("header-regex"),
        get("header regex takes all", "/hm", &["x-d: v12x"]).route("header-none"),
        get("header present", "/hm", &["x-e: any"]).route("header-present"),
        get("header present and empty", "/hm", &["x-e:"]).route("header-present"),
        get("header ignoring case", "/hm", &["x-f: loud"]).route("header-ignore-case"),
        get("header in range", "/hm", &["x-g: 10"]).route("header-range"),
        get("header at the end of a range", "/hm", &["x-g: 20"]).route("header-none"),
        get("header not a number for a range", "/hm", &["x-g: ten"]).route("header-none"),
        get("header absent", "/hm-absent", &[]).route("header-absent"),
        get("header absent fails", "/hm-absent", &["x-i: x"]).route("header-none"),
        get("header inverted", "/hm-not", &["x-i: yes"]).route("header-not"),
        get("header inverted fails", "/hm-not", &["x-i: nay"]).route("header-none"),
        get("header inverted on an absent one", "/hm-not", &[]).route("header-none"),
        get("header inverted on an absent one seen as empty", "/hm-empty", &[]).route("header-not-empty"),
    ]
}

fn the_rest() -> Vec<Case> {
    vec![
        send("method", "POST", "/method", &[], "x").route("method-post"),
        send("method by regex", "PATCH", "/method", &[], "x").route("method-put"),
        get("method of another kind", "/method", &[]).refused(404),
        get("authority", "/authority", &[]).route("authority"),
        get("scheme", "/scheme", &[]).route("scheme"),
        get("scheme that a client claims", "/scheme", &["x-forwarded-proto: https"]).status(200),
        get("query parameters", "/query?b=2&a=1", &[]).route("query-both"),
        get("query parameter without a value", "/query?a=1&b", &[]).route("query-both"),
        get("query parameter missing", "/query?a=1", &[]).refused(404),
        get("query parameter by regex", "/query?r=xxx", &[]).route("query-regex"),
        get("query parameter by prefix", "/query?p=prefix", &[]).route("query-prefix"),
        get("query parameter percent encoded", "/query?%61=1&b=2", &[]).status(404).own(),
        get("query parameter given twice", "/query?p=other&p=prefix", &[]).status(404).own(),
    ]
}

fn hosts() -> Vec<Case> {
    let to = |name, host: &str| get(name, "/any", &[&format!("Host: {host}")]);
    vec![
        to("host exact", "exact.test").route("exact-host"),
        to("host in capitals", "EXACT.Test").route("exact-host").seen_header("host", "EXACT.Test"),
        to("host with a port that is named", "exact.test:8080").route("exact-host"),
        to("host with a port that is not named", "exact.test:81").refused(404),
        to("host by suffix", "a.wild.test").route("wild-host"),
        to("host by the longer suffix", "a.deep.wild.test").route("deep-wild-host"),
        to("host by suffix needs something before it", "wild.test").refused(404),
        to("host by prefix", "prefix.anything").route("prefix-host"),
        to("host unknown", "unknown.test").refused(404),
        raw(
            "host in the request line",
            request("host-in-line", "GET", "http://exact.test/any?x=1", &["Host: other.test"], ""),
        )
        .route("exact-host")
        .seen(&["/any?x=1"])
        .seen_header("host", "exact.test"),
    ]
}
