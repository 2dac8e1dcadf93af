//! Supervision of real processes: shell scripts, run through a stand-in for `ieum exec-with-parent`.
#![allow(clippy::unwrap_used)]
use super::*;
use rustix::process::{kill_process, test_kill_process};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(20);

/// A supervision whose `ieum` runs the program after its own four arguments.
fn supervision() -> (Supervision, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ieum = folder.path().join("ieum");
    std::fs::write(&ieum, "#!/bin/sh\nshift 4\nexec \"$@\"\n").unwrap();
    std::fs::set_permissions(&ieum, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (printer, _) = Printer::start();
    (Supervision { printer, ieum, hurry: CancellationToken::new() }, folder)
}

fn shell(script: &str) -> Launch {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    Launch { command, variables: Variables::default(), directory: ".".into(), seat: None }
}

fn start(supervision: &Supervision, grace: Duration, script: &'static str) -> Process {
    let label = Label::plain("test");
    Process::start(supervision, label, grace, Arc::new(Notify::new()), move || Ok(shell(script)))
}

/// The process id of the `wanted`th start.
async fn running(process: &mut Process, wanted: u64) -> Pid {
    let is_it = |life: &Life| matches!(life, Life::Running { start, .. } if *start >= wanted);
    let life = *tokio::time::timeout(BOUND, process.life.wait_for(is_it)).await.unwrap().unwrap();
    let Life::Running { pid, .. } = life else { unreachable!("waited for it") };
    Pid::from_raw(pid as i32).unwrap()
}

fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

#[tokio::test]
async fn what_is_killed_starts_again_and_what_is_stopped_does_not() {
    let (supervision, _folder) = supervision();
    let mut process = start(&supervision, BOUND, "exec sleep 1000");
    let first = running(&mut process, 1).await;
    kill_process(first, Signal::KILL).unwrap();
    let second = running(&mut process, 2).await;
    assert!(first != second && is_alive(second) && !is_alive(first));
    let mut life = process.life.clone();
    process.stop().await;
    assert_eq!(*life.borrow_and_update(), Life::Ended);
    assert!(!is_alive(second));
}

#[tokio::test]
async fn who_does_not_stop_when_asked_is_killed_after_its_grace_with_all_it_started() {
    let (supervision, folder) = supervision();
    let note = folder.path().join("child");
    let script = format!("trap '' TERM; sleep 1000 & echo $! > {}; while :; do wait; done", note.display());
    let launch = move || Ok(shell(&script));
    let (label, changed) = (Label::plain("test"), Arc::new(Notify::new()));
    let mut process = Process::start(&supervision, label, Duration::from_millis(200), changed, launch);
    let pid = running(&mut process, 1).await;
    let child = tokio::time::timeout(BOUND, async {
        loop {
            let text = std::fs::read_to_string(&note).unwrap_or_default();
            match text.trim().parse().ok().and_then(Pid::from_raw) {
                Some(child) => break child,
                None => tokio::task::yield_now().await,
            }
        }
    });
    let child = child.await.unwrap();
    process.stop().await;
    assert!(!is_alive(pid));
    let stat = |pid: Pid| std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // Whoever adopts it may not have buried it yet.
    let is_gone = tokio::time::timeout(BOUND, async {
        while stat(child).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    });
    is_gone.await.unwrap();
}

#[tokio::test]
async fn hurry_cuts_the_grace_short() {
    let (supervision, _folder) = supervision();
    let mut process =
        start(&supervision, Duration::from_secs(3600), "trap '' TERM; while :; do sleep 1; done");
    running(&mut process, 1).await;
    let hurry = supervision.hurry.clone();
    let stopping = tokio::spawn(process.stop());
    hurry.cancel();
    tokio::time::timeout(BOUND, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_prepared_is_tried_again() {
    let (supervision, _folder) = supervision();
    let tries = AtomicUsize::new(0);
    let prepare = move || match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Err("not yet".to_owned()),
        _ => Ok(shell("exec sleep 1000")),
    };
    let (label, changed) = (Label::plain("test"), Arc::new(Notify::new()));
    let mut process = Process::start(&supervision, label, BOUND, changed, prepare);
    running(&mut process, 1).await;
    process.stop().await;
}

#[test]
fn the_environment_does_not_lead_past_the_mesh() {
    let mut launch = shell("true");
    launch.variables.set("http_proxy", "http://127.1.2.3:15001");
    let command = command(Path::new("/ieum"), &launch).unwrap();
    let set: Vec<_> = command.as_std().get_envs().collect();
    let value = |name: &str| set.iter().find(|(n, _)| *n == name).and_then(|(_, value)| *value);
    assert_eq!(value("http_proxy").unwrap(), "http://127.1.2.3:15001");
    assert!(set.iter().any(|(name, value)| *name == "HTTPS_PROXY" && value.is_none()));
    let arguments: Vec<_> = command.as_std().get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    assert_eq!(arguments[0], "exec-with-parent");
    assert_eq!(&arguments[3..], ["--", "sh", "-c", "true"]);
}
