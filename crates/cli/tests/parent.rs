//! `ieum exec-with-parent`: what it runs does not outlive its parent.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const IEUM: &str = env!("CARGO_BIN_EXE_ieum");

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_program_is_killed_when_its_parent_is() {
    let script = format!("{IEUM} exec-with-parent --parent $$ -- sh -c 'echo $$; exec sleep 1000' & wait");
    let mut parent = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().parse().unwrap();
    assert!(is_running(pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while is_running(pid) {
        assert!(Instant::now() < end, "the program outlives its parent");
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_run_when_the_parent_is_gone_already() {
    // Our parent is not process 1.
    let output =
        Command::new(IEUM).args(["exec-with-parent", "--parent", "1", "--", "echo", "ran"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
}

#[test]
fn a_program_that_is_not_there_is_told_as_shells_do() {
    let own = std::process::id().to_string();
    let output =
        Command::new(IEUM).args(["exec-with-parent", "--parent", &own, "--", "/no/such"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot run /no/such"));
}
