//! Timeouts, retries, and what cannot be reached.

use testing::exchange::Connection;

use super::case::{Case, get, request, send, talk};

pub(crate) fn cases() -> Vec<Case> {
    [out_of_reach(), timeouts(), retries(), broken()].into_iter().flatten().collect()
}

fn out_of_reach() -> Vec<Case> {
    vec![
        get("no endpoint", "/empty", &[]).refused(503),
        get("an endpoint that does not listen", "/dead", &[]).refused(503),
        get("a cluster that does not exist", "/by-header", &["x-cluster: nobody"]).refused(503),
        get("a cluster that is not named", "/by-header", &[]).refused(503),
        send("no endpoint for a body", "POST", "/empty", &[], "body").refused(503),
    ]
}

fn timeouts() -> Vec<Case> {
    vec![
        get("timeout", "/timeout", &["x-answer: delay=1000"]).own().status(504).seen(&["/timeout"]),
        get("timeout that is not reached", "/timeout", &["x-answer: delay=10"]).status(200),
        get("timeout of none", "/timeout-never", &["x-answer: delay=300"]).status(200),
        get(
            "timeout that a client outside asks for",
            "/timeout-never",
            &["x-envoy-upstream-rq-timeout-ms: 100", "x-answer: delay=300"],
        )
        .status(200),
    ]
}

fn retries() -> Vec<Case> {
    vec![
        get("retry until it works", "/retry-5xx", &["x-answer: status=503;status=500;status=200"])
            .status(200)
            .seen(&["/retry-5xx", "/retry-5xx", "/retry-5xx"]),
        get("retries run out", "/retry-5xx", &["x-answer: status=503"])
            .status(503)
            .body("one\n")
            .seen(&["/retry-5xx"; 3]),
        get("no retry of what is not named", "/retry-5xx", &["x-answer: status=404"])
            .status(404)
            .seen(&["/retry-5xx"]),
        get("retry of a gateway error", "/retry-gateway", &["x-answer: status=502;status=200"]).status(200),
        get(
            "no retry of an error that is no gateway error",
            "/retry-gateway",
            &["x-answer: status=500;status=200"],
        )
        .status(500),
        get("retry of a status code", "/retry-codes", &["x-answer: status=429;status=200"]).status(200),
        get("no retry of another status code", "/retry-codes", &["x-answer: status=503;status=200"])
            .status(503),
        get("retry of a conflict", "/retry-4xx", &["x-answer: status=409;status=200"]).status(200),
        get("retry of a reset", "/retry-reset", &["x-answer: reset;status=200"])
            .status(200)
            .seen(&["/retry-reset"; 2]),
        get("retry of a reset by 5xx", "/retry-5xx", &["x-answer: reset;status=200"]).status(200),
        send("retry with a body", "POST", "/retry-5xx", &["x-answer: status=503;echo"], "the body")
            .status(200)
            .body("the body")
            .seen(&["/retry-5xx"; 2]),
        get("timeout of each try", "/retry-try-timeout", &["x-answer: delay=1000;status=200"])
            .status(200)
            .seen(&["/retry-try-timeout"; 2]),
        get("timeout of each try runs out", "/retry-try-timeout", &["x-answer: delay=1000"])
            .own()
            .status(504),
        get("timeout of all tries", "/retry-overall", &["x-answer: delay=1000"]).own().status(504),
        get("retry of a connection at another endpoint", "/retry-connect", &[])
            .status(200)
            .seen(&["/retry-connect"]),
        get("retry of a connection at another endpoint again", "/retry-connect", &[]).status(200),
        get("no retry without a policy", "/plain", &["x-answer: status=503"])
            .status(503)
            .body("one\n")
            .seen(&["/plain"]),
        get(
            "retries that a client outside asks for",
            "/plain",
            &["x-envoy-retry-on: 5xx", "x-answer: status=503;status=200"],
        )
        .status(503),
    ]
}

fn broken() -> Vec<Case> {
    vec![
        get("a reset before an answer", "/plain", &["x-answer: reset"]).own().status(503),
        get("an answer that breaks off", "/plain", &["x-answer: partial length=5000"]).status(200),
        talk("a client that leaves in the middle of its body", |connection: &mut Connection| {
            let whole = request("client-leaves", "POST", "/plain", &[], "0123456789");
            connection.send(&whole[..whole.len() - 5]);
            connection.finish();
            vec![connection.read_answer(false)]
        })
        .own()
        .differs("a client that ends its half in the middle of a body is told so: 400"),
    ]
}
