//! The same bootstrap in real Envoy 1.40 and in `ieum proxy`, the same requests to both: status, headers, body and what
//! the upstreams saw must be the same. What is not compared is in `testing::differential::NORMALIZED`; where the two
//! differ on purpose, the case says why and `docs/differences.md` tells users.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Command;

use case::{Case, Listeners};
use testing::differential::{Maker, Outcome, difference};
use testing::exchange::Connection;
use testing::process::{Process, free_port, free_ports};
use testing::upstream::Upstream;

mod ads;
mod answers;
mod balancing;
mod bench;
mod casing;
mod case;
mod failing;
mod framing;
mod headers;
mod matching;
mod network;
mod on_demand;
mod original;
mod protocols;
mod replies;
mod rewriting;
mod shaping;
mod traffic;

/// A proxy with upstreams of its own, so that what they saw is known to come from it.
struct Side {
    name: &'static str,
    listeners: Listeners,
    upstreams: [Upstream; 2],
    _folder: tempfile::TempDir,
    process: Process,
}

impl Side {
    fn start(name: &'static str, bootstrap: &str, command: impl FnOnce(&str) -> Command) -> Self {
        let upstreams = [Upstream::start("one"), Upstream::start("two")];
        let [admin, main, paths, unescaped, tcp, strict, dropping, proxied] = free_ports();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let ports = [
            ("ADMIN", admin),
            ("MAIN", main),
            ("PATHS", paths),
            ("UNESCAPED", unescaped),
            ("TCP", tcp),
            ("STRICT", strict),
            ("DROPPING", dropping),
            ("PROXIED", proxied),
            ("ONE", upstreams[0].address.port()),
            ("TWO", upstreams[1].address.port()),
            ("DEAD", free_port()),
        ];
        let fill =
            |text: String, (name, port): (&str, u16)| text.replace(&format!("@{name}@"), &port.to_string());
        let bootstrap = ports.into_iter().fold(bootstrap.to_owned(), fill);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bootstrap.yaml");
        std::fs::write(&file, bootstrap).unwrap();
        let mut process = Process::start(name, &mut command(file.to_str().unwrap()));
        let listeners = Listeners {
            main: at(main),
            paths: at(paths),
            unescaped: at(unescaped),
            tcp: at(tcp),
            strict: at(strict),
            dropping: at(dropping),
            proxied: at(proxied),
        };
        for address in [at(main), at(paths), at(unescaped), at(tcp)] {
            process.wait_for_port(address);
        }
        process.wait_for_ok(at(admin), "/ready");
        let side = Self { name, listeners, upstreams, _folder: folder, process };
        // The TCP listener's probe may have reached an upstream; it sent no request.
        side.take_seen();
        side
    }

    fn envoy(bootstrap: &str) -> Self {
        Self::start("envoy", bootstrap, testing::peers::envoy_with)
    }

    fn ieum(bootstrap: &str) -> Self {
        Self::start("ieum", bootstrap, |bootstrap| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ieum"));
            command.args(["proxy", "--bootstrap", bootstrap]);
            command
        })
    }

    fn run(&self, case: &Case) -> Outcome {
        let answers = (case.play)(&self.listeners);
        Outcome { answers, seen: self.take_seen() }
    }

    fn take_seen(&self) -> Vec<testing::upstream::Seen> {
        self.upstreams.iter().flat_map(Upstream::take_seen).collect()
    }
}

const BOOTSTRAP: &str = include_str!("bootstrap.yaml");

/// Runs cases at both proxies and fails with all that is wrong.
fn compare(cases: Vec<Case>) {
    compare_in(BOOTSTRAP, cases);
}

/// The same with another configuration.
fn compare_in(bootstrap: &str, cases: Vec<Case>) {
    let (envoy, ieum) = (Side::envoy(bootstrap), Side::ieum(bootstrap));
    let mut wrong = Vec::new();
    for case in &cases {
        let (theirs, ours) = std::thread::scope(|scope| {
            let ours = scope.spawn(|| ieum.run(case));
            (envoy.run(case), ours.join())
        });
        let Ok(ours) = ours else {
            wrong.push(format!("{}: no answer from ieum in time", case.name));
            continue;
        };
        judge(case, &envoy, &theirs, &mut wrong);
        let found = difference(&ours.text(case.maker), &theirs.text(case.maker));
        match (found, case.differs) {
            (None, None) => judge(case, &ieum, &ours, &mut wrong),
            (Some(_), Some(_)) => {}
            (Some(found), None) => wrong.push(format!("{}: (- envoy, + ieum)\n{found}", case.name)),
            (None, Some(reason)) => wrong.push(format!("{}: no longer differs ({reason})", case.name)),
        }
    }
    let (count, all, said) = (wrong.len(), cases.len(), ieum.process.printed());
    assert!(wrong.is_empty(), "{count} of {all} cases:\n{}\nieum said:\n{said}", wrong.join("\n"));
}

fn judge(case: &Case, side: &Side, outcome: &Outcome, wrong: &mut Vec<String>) {
    let faults: Vec<String> = case.checks.iter().filter_map(|check| check(outcome).err()).collect();
    if !faults.is_empty() {
        let (name, text) = (side.name, outcome.text(Maker::Route));
        wrong.push(format!("{} at {name}: {}\n{text}", case.name, faults.join("; ")));
    }
}

#[test]
fn requests_are_matched_as_envoy_does() {
    compare(matching::cases());
}

#[test]
fn requests_are_rewritten_as_envoy_does() {
    compare(rewriting::cases());
}

#[test]
fn headers_are_changed_as_envoy_does() {
    compare(headers::cases());
}

#[test]
fn redirects_and_direct_responses_are_those_of_envoy() {
    compare(answers::cases());
}

#[test]
fn timeouts_retries_and_failures_are_those_of_envoy() {
    compare(failing::cases());
}

#[test]
fn messages_are_framed_as_envoy_does() {
    compare(framing::cases());
}

#[test]
fn protocols_meet_as_in_envoy() {
    compare(protocols::cases());
}

#[test]
fn weights_are_kept_as_in_envoy() {
    const REQUESTS: usize = 2000;
    for side in [Side::envoy(BOOTSTRAP), Side::ieum(BOOTSTRAP)] {
        let mut connection = Connection::open(side.listeners.main);
        let request = case::request("split", "GET", "/split", &[], "");
        let second = (0..REQUESTS).filter(|_| {
            connection.send(&request);
            connection.read_answer(false).body == b"two\n"
        });
        let share = 100.0 * second.count() as f64 / REQUESTS as f64;
        // Four and a half standard deviations.
        assert!((share - 20.0).abs() < 4.0, "{}: {share} % instead of 20 %", side.name);
    }
}

#[test]
fn faults_mirrors_origins_and_limits_are_those_of_envoy() {
    compare(traffic::cases());
}

#[test]
fn endpoints_are_picked_limited_and_left_out_as_in_envoy() {
    compare(balancing::cases());
}

#[test]
fn requests_and_answers_are_shaped_as_by_envoy() {
    compare_in(shaping::BOOTSTRAP, shaping::cases());
}

#[test]
fn answers_are_mapped_and_edited_as_by_envoy() {
    compare_in(shaping::BOOTSTRAP, replies::cases());
}

#[test]
fn retries_leave_out_what_envoy_leaves_out_and_sessions_stay_as_with_envoy() {
    for side in [Side::envoy(shaping::BOOTSTRAP), Side::ieum(shaping::BOOTSTRAP)] {
        for path in ["/retry-canary", "/retry-metadata"] {
            let (again, retried) = shaping::left_out(&side, path);
            assert_eq!((again, retried), (0, 40), "{} {path}", side.name);
        }
        for (path, header) in [("/session", "set-cookie"), ("/header-session", "x-stay")] {
            let (reached, given) = shaping::session(&side, path, header);
            assert!(!given.is_empty(), "{} {path}", side.name);
            assert!(reached.iter().all(|whom| *whom == reached[0]), "{} {path}: {reached:?}", side.name);
        }
    }
}
