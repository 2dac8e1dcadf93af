//! Answers that routes give themselves.

use super::case::{Case, get, raw, request, send};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        get("redirect to a host", "/redirect-host?x=1", &[])
            .refused(301)
            .header("location", "http://other.test/redirect-host?x=1"),
        get("redirect to a path with a query", "/redirect-path?y=2", &[])
            .refused(302)
            .header("location", "http://main.test/there?x=1"),
        get("redirect to a path keeps the query", "/redirect-plain?y=2", &[])
            .refused(301)
            .header("location", "http://main.test/there?y=2"),
        get("redirect of a prefix", "/redirect-prefix/a/b?x=1", &[])
            .refused(307)
            .header("location", "http://main.test/there/a/b?x=1"),
        get("redirect by regex", "/redirect-regex/a/b?x=1", &[])
            .refused(303)
            .header("location", "http://main.test/a/b/there?x=1"),
        get("redirect to https", "/redirect-https", &[])
            .refused(308)
            .header("location", "https://main.test/redirect-https"),
        get("redirect to a scheme, host and port", "/redirect-scheme", &[])
            .refused(301)
            .header("location", "https://other.test:8443/redirect-scheme"),
        get("redirect without the query", "/redirect-strip?x=1", &[])
            .refused(301)
            .header("location", "http://other.test/redirect-strip"),
        get("redirect where tls is required", "/a?b=c", &["Host: secure.test"])
            .refused(301)
            .header("location", "https://secure.test/a?b=c")
            .differs("headers that the table adds are in this answer too"),
        send("redirect of a post with a body", "POST", "/redirect-host", &[], "body").refused(301),
        get("direct response", "/direct", &[])
            .status(418)
            .body("a teapot\n")
            .header("content-type", "text/plain")
            .header("x-route", "direct")
            .seen(&[]),
        get("direct response without a body", "/direct-empty", &[]).status(204).seen(&[]),
        get("direct response with its own type", "/direct-json", &[])
            .status(200)
            .body("{}")
            .header("content-type", "application/json"),
        raw("direct response to a head", request("direct-head", "HEAD", "/direct", &[], ""))
            .status(418)
            .body("")
            .header("content-length", "9"),
        send("direct response to a post", "POST", "/direct", &[], "body")
            .status(418)
            .body("a teapot\n")
            .own(),
    ]
}
