//! One supervised process: started, its output shown, started again when it dies, stopped when asked. Why it runs, and
//! what its death means for others, is for whoever started it.

use super::expand::Variables;
use super::network::Place;
use super::output::{Label, Printer};
use rustix::process::{Pid, Signal, kill_process_group};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The pause before the first restart; it doubles with each that follows soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who ran for so long starts again without delay growing.
const STABLE: Duration = Duration::from_secs(10);
/// Variables by which our own environment would send applications past the mesh.
pub(super) const PROXY_VARIABLES: [&str; 8] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// How a process is run.
#[derive(Debug)]
pub(super) struct Launch {
    /// Program and arguments; the program `ieum` is ourselves.
    pub(super) command: Vec<String>,
    /// Set on top of our own environment.
    pub(super) variables: Variables,
    pub(super) directory: PathBuf,
    /// Where it runs, if not in the same network as we.
    pub(super) seat: Option<Seat>,
}

/// A network to run in.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) place: Arc<Place>,
    /// It may mark what it sends.
    pub(super) is_sidecar: bool,
}

/// What all processes of a mesh share.
#[derive(Clone, Debug)]
pub(super) struct Supervision {
    pub(super) printer: Printer,
    /// Our own program.
    pub(super) ieum: PathBuf,
    /// No more patience with those being stopped.
    pub(super) hurry: CancellationToken,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Not running: not yet, or not just now.
    Down,
    /// Running, for the `start`th time.
    Running { pid: u32, start: u64 },
    /// Stopped for good.
    Ended,
}

/// A supervised process. Dropping it does not stop it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) life: watch::Receiver<Life>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Process {
    /// Starts it. `prepare` is asked before each start how; `changed` is told of every turn of its life. After being asked
    /// to stop it has `grace`.
    ///
    /// To be called on the thread that lives as long as we do: what is started dies with its thread.
    pub(super) fn start(
        supervision: &Supervision,
        label: Label,
        grace: Duration,
        changed: Arc<Notify>,
        prepare: impl FnMut() -> Result<Launch, String> + Send + 'static,
    ) -> Self {
        let (sender, life) = watch::channel(Life::Down);
        let stop = CancellationToken::new();
        let supervision = supervision.clone();
        let supervisor = Supervisor { supervision, label, grace, changed, sender, stop: stop.clone() };
        Process { life, stop, task: tokio::spawn(supervisor.run(prepare)) }
    }

    /// Asks it to stop and waits until it has.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // It ends by itself: the grace is bounded.
        let _ = self.task.await;
    }
}

struct Supervisor {
    supervision: Supervision,
    label: Label,
    grace: Duration,
    changed: Arc<Notify>,
    sender: watch::Sender<Life>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(self, mut prepare: impl FnMut() -> Result<Launch, String> + Send + 'static) {
        let mut pause = FIRST_PAUSE;
        let mut start = 0;
        while !self.stop.is_cancelled() {
            let begun = Instant::now();
            let end = match prepare().and_then(|launch| self.spawn(&launch)) {
                Ok(child) => {
                    start += 1;
                    match self.accompany(child, start).await {
                        Some(status) => told(&status),
                        None => break,
                    }
                }
                Err(error) => error,
            };
            self.turn(Life::Down);
            if begun.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            let seconds = pause.as_secs_f32();
            let text = format!("{end}; it starts again in {seconds} s");
            self.supervision.printer.line(&self.label, &text);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        self.turn(Life::Ended);
    }

    fn turn(&self, life: Life) {
        self.sender.send_replace(life);
        self.changed.notify_one();
    }

    fn spawn(&self, launch: &Launch) -> Result<Child, String> {
        let mut command = command(&self.supervision.ieum, launch)?;
        let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
        let Supervision { printer, .. } = &self.supervision;
        if let Some(out) = child.stdout.take() {
            tokio::spawn(printer.clone().relay(self.label.clone(), out));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(printer.clone().relay(self.label.clone(), err));
        }
        Ok(child)
    }

    /// Until it dies, or, `None`, until it was stopped.
    async fn accompany(&self, mut child: Child, start: u64) -> Option<std::io::Result<ExitStatus>> {
        let pid = child.id();
        self.turn(Life::Running { pid: pid.unwrap_or_default(), start });
        let status = tokio::select! {
            status = child.wait() => Some(status),
            () = self.stop.cancelled() => None,
        };
        if status.is_none() {
            signal(pid, Signal::TERM);
            tokio::select! {
                _ = child.wait() => {}
                () = tokio::time::sleep(self.grace) => {}
                () = self.supervision.hurry.cancelled() => {}
            }
        }
        // What it started is of its group and does not outlive it.
        signal(pid, Signal::KILL);
        let waited = child.wait().await;
        status.map(|status| status.and(waited))
    }
}

/// Sends a signal to a process and all that are of its group.
pub(super) fn signal(pid: Option<u32>, signal: Signal) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Whoever is gone already needs none.
        let _ = kill_process_group(pid, signal);
    }
}

fn told(status: &std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended by itself: {status}"),
        Err(error) => format!("was lost: {error}"),
    }
}

/// The command line: through `ieum exec-with-parent`, in a process group of its own, so that a terminal's Ctrl-C reaches
/// us alone and all are stopped in order.
fn command(ieum: &Path, launch: &Launch) -> Result<Command, String> {
    let Some((program, arguments)) = launch.command.split_first() else {
        return Err("has no command".to_owned());
    };
    let mut command = Command::new(ieum);
    command.args(["exec-with-parent", "--parent", &std::process::id().to_string()]);
    if let Some(Seat { place, is_sidecar }) = &launch.seat {
        command.arg("--network").arg(place.path()).arg("--resolver").arg(&place.resolver);
        command.args(is_sidecar.then_some("--sidecar"));
    }
    command.arg("--");
    match program.as_str() {
        "ieum" => command.arg(ieum),
        program => command.arg(program),
    };
    for name in PROXY_VARIABLES {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .envs(launch.variables.iter())
        .current_dir(&launch.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
