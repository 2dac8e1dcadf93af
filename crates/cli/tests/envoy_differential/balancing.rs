//! Which endpoint gets a request, and when none does: limits, hashes, subsets, panic, priorities, outliers. Endpoints that
//! are hashed have keys of their own, so that the same request goes to the same one at both proxies.

use super::case::{Case, get, play, request, talk};
use std::time::Duration;
use testing::exchange::exchange;

pub(crate) fn cases() -> Vec<Case> {
    [limits(), hashes(), subsets(), health(), elsewhere(), outliers()].into_iter().flatten().collect()
}

const HOST: &str = "Host: balance.test";

fn limits() -> Vec<Case> {
    let overflow =
        |name, target| get(name, target, &[HOST]).refused(503).header("x-envoy-overloaded", "true");
    vec![
        overflow("no request more than the limit", "/limited"),
        get("the other priority has its own limits", "/limited-high", &[HOST]).status(200),
        overflow("what the limit refuses is not tried again", "/limited-retry"),
        overflow("no request may wait for a connection", "/limited-pending"),
        get("no retry more than the limit", "/no-retries", &[HOST, "x-answer: status=503"])
            .status(503)
            .seen(&["/no-retries"]),
    ]
}

/// Many keys at once: those that see them are compared.
fn many(name: &'static str, at: impl Fn(usize) -> (String, Vec<String>) + Send + Sync + 'static) -> Case {
    play(name, move |listeners| {
        let send = |number| {
            let (target, lines) = at(number);
            let lines: Vec<&str> = [HOST].into_iter().chain(lines.iter().map(String::as_str)).collect();
            exchange(listeners.main, &request(name, "GET", &target, &lines, ""))
        };
        (0..24).map(send).collect()
    })
}

fn by_header(name: &'static str, target: &'static str) -> Case {
    many(name, move |number| (format!("{target}?{number}"), vec![format!("x-user: user-{number}")]))
}

fn hashes() -> Vec<Case> {
    let both = |number: usize| {
        vec![format!("x-user: user-{}", number % 4), format!("x-group: group-{}", number / 4)]
    };
    vec![
        by_header("keys on a ring", "/ring"),
        by_header("keys on a ring by the other hash", "/ring-murmur"),
        by_header("keys in a table", "/maglev"),
        by_header("keys in a table with weights", "/maglev-heavy"),
        many("keys from the query", |number| (format!("/maglev-query?a=b&user={number}"), vec![])),
        many("keys from a cookie", |number| {
            (format!("/maglev-cookie?{number}"), vec![format!("cookie: a=b; user=\"{number}\"; c=d")])
        }),
        many("keys from a header of several lines", |number| {
            let lines = vec![format!("x-user: {number}"), "x-user: more".to_owned()];
            (format!("/maglev?{number}"), lines)
        }),
        many("keys from two headers", move |number| (format!("/maglev-two?{number}"), both(number))),
        many("keys where the first policy is enough", move |number| {
            (format!("/maglev-terminal?{number}"), both(number))
        }),
        many("a missing first policy leaves the second", |number| {
            (format!("/maglev-terminal?{number}"), vec![format!("x-group: group-{number}")])
        }),
    ]
}

fn subsets() -> Vec<Case> {
    vec![
        get("a subset", "/subset-1", &[HOST]).body("one\n"),
        get("another subset", "/subset-2", &[HOST]).body("two\n"),
        get("a subset that is not there", "/subset-3", &[HOST]).refused(503),
        get("no subset asked for", "/subset-none", &[HOST]).refused(503),
        get("a subset by another key", "/subset-other-key", &[HOST]).refused(503),
        get("the default subset", "/subset-default", &[HOST]).body("two\n"),
        get("the weighted cluster says more than its route", "/subset-weighted", &[HOST]).body("two\n"),
    ]
}

fn health() -> Vec<Case> {
    vec![
        get("in panic health is not looked at", "/sick", &[HOST]).body("one\n"),
        get("without panic nothing is used", "/sick-calm", &[HOST]).refused(503),
        many("half is enough to be calm", |number| (format!("/sick-half?{number}"), vec![])),
        get("degraded is better than nothing", "/degraded", &[HOST]).body("one\n"),
        get("the next priority", "/failover", &[HOST]).body("two\n"),
        get("the first cluster of several", "/aggregate", &[HOST]).body("two\n"),
        get("the first healthy cluster of several", "/aggregate-second", &[HOST]).body("two\n"),
        get("a destination that nobody names", "/destination", &[HOST]).refused(503),
        get("a destination that is none", "/destination", &[HOST, "x-to: nowhere"]).refused(503),
        get("a destination that is dead", "/destination", &[HOST, "x-to: 127.0.0.1:1"]).refused(503),
        get("from a source of the cluster's own", "/bound", &[HOST])
            .status(200)
            .header("x-from", "127.0.0.9"),
        many("a locality without a weight gets nothing", |number| (format!("/locality?{number}"), vec![])),
    ]
}

fn elsewhere() -> Vec<Case> {
    let fail = |name, target, seen| get(name, target, &[HOST, "x-answer: status=503"]).status(503).seen(seen);
    vec![
        fail("another try leaves the priority", "/elsewhere-at-once", &["/elsewhere-at-once"; 2])
            .body("two\n"),
        fail("priorities are left after two tries each", "/elsewhere", &["/elsewhere"; 4]).body("two\n"),
        fail("when all priorities were left the first is back", "/elsewhere-all", &["/elsewhere-all"; 6])
            .body("one\n"),
    ]
}

/// Sends answers of these statuses, and one more request when what they lead to has happened.
fn after(name: &'static str, target: &'static str, statuses: &'static [u16]) -> Case {
    talk(name, move |connection| {
        for status in statuses {
            let script = format!("x-answer: status={status}");
            connection.send(&request(name, "GET", target, &[HOST, &script], ""));
            connection.read_answer(false);
        }
        // Another thread decides.
        std::thread::sleep(Duration::from_millis(300));
        connection.send(&request(name, "GET", target, &[HOST], ""));
        vec![connection.read_answer(false)]
    })
}

fn outliers() -> Vec<Case> {
    vec![
        after("errors that are not in a row", "/outlier", &[500, 500, 200, 500, 500]).status(200),
        after("errors in a row", "/outlier", &[500, 503, 501]).own().status(503),
        after("errors that are no gateway errors", "/outlier-split", &[502, 500, 502]).status(200),
        after("gateway errors in a row", "/outlier-split", &[502, 504]).own().status(503),
    ]
}
