//! The tools of the tests, tested: an upstream that answers as told, a client that reads what is there, a comparison
//! that sees what it should.
#![allow(clippy::unwrap_used)]

use ieum_testing::differential::{Maker, Outcome, difference};
use ieum_testing::exchange::{Answer, Connection, Request2, exchange, exchange2};
use ieum_testing::process::{Process, free_ports};
use ieum_testing::upstream::Upstream;

fn ask(upstream: &Upstream, answer: &str) -> Answer {
    let request = format!("GET /a?b HTTP/1.1\r\nHost: h\r\nx-case: c\r\nx-answer: {answer}\r\n\r\n");
    exchange(upstream.address, request.as_bytes())
}

#[test]
fn an_upstream_answers_as_told_and_remembers() {
    let upstream = Upstream::start("one");
    let script = "status=503;chunked length=5 trailer=x-t:1 header=x-a:1";
    assert_eq!(ask(&upstream, script).status, 503);
    let second = ask(&upstream, script);
    assert_eq!(
        (second.status, second.body.as_slice(), second.header("x-a")),
        (200, &b"abcde"[..], Some("1"))
    );
    assert!(ask(&upstream, "partial length=5").broken);
    assert_eq!(ask(&upstream, "reset").status, 0);
    let seen = upstream.take_seen();
    assert_eq!((seen.len(), seen[0].target.as_str(), seen[0].method.as_str()), (4, "/a?b", "GET"));
    assert!(upstream.take_seen().is_empty());
}

#[test]
fn an_upstream_upgrades_and_speaks_http_2() {
    let upstream = Upstream::start("one");
    let mut connection = Connection::open(upstream.address);
    connection.send(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nx-answer: upgrade\r\n\r\n",
    );
    assert_eq!(connection.read_answer(false).status, 101);
    connection.send(b"ping");
    assert_eq!(connection.read_bytes(4), b"ping");
    let head = http::Request::post("http://h/x").header("x-answer", "echo trailer=x-t:1").body(()).unwrap();
    let answer = exchange2(upstream.address, Request2 { head, body: b"body".to_vec(), trailers: None });
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"body"[..]));
    assert_eq!(answer.trailers, [("x-t".to_owned(), "1".to_owned())]);
}

#[test]
fn a_comparison_sees_all_but_what_is_listed() {
    let outcome = |headers: &[(&str, &str)], body: &str| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = Answer { status: 200, headers, body: body.as_bytes().to_vec(), ..Answer::default() };
        Outcome { answers: vec![answer], ..Outcome::default() }
    };
    let a = outcome(&[("x-a", "1"), ("date", "today"), ("x-envoy-internal", "true")], "body");
    let b = outcome(&[("date", "tomorrow"), ("x-a", "1"), ("x-request-id", "5")], "body");
    assert_eq!(difference(&a.text(Maker::Route), &b.text(Maker::Route)), None);
    let other = outcome(&[("date", "today"), ("x-a", "2")], "words");
    let found = difference(&other.text(Maker::Route), &a.text(Maker::Route)).unwrap();
    assert!(
        found.contains("-   x-a: 1") && found.contains("+   x-a: 2") && found.contains("words"),
        "{found}"
    );
    assert!(!difference(&other.text(Maker::Proxy), &a.text(Maker::Proxy)).unwrap().contains("words"));
}

#[test]
fn a_process_ends_with_its_owner_and_ports_differ() {
    let mut process =
        Process::start("sleep", std::process::Command::new("sh").args(["-c", "echo up; sleep 60"]));
    process.wait_for_line("up");
    let folder = std::path::PathBuf::from(format!("/proc/{}", process.id()));
    assert!(process.ended().is_none() && process.printed() == "up\n");
    let was_there = folder.exists();
    drop(process);
    assert!(!was_there || !folder.exists());
    let ports: [u16; 3] = free_ports();
    assert!(ports[0] != ports[1] && ports[1] != ports[2]);
}
