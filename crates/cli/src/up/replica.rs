//! The life of one replica: sidecar first, then its applications; published while all of them run and answer, withdrawn
//! the moment one does not; on leaving, withdrawn first, then drained, then stopped. How many there are is for `workload`.

use super::context::Context;
use super::member::{GRACE, LOOK_INTERVAL, Member};
use super::output::Label;
use super::plan::{Program, Template};
use super::pod::Pod;
use super::process::{Launch, Life, Process};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How a replica is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    pub(super) ready: bool,
    /// What is being waited for, when not ready.
    pub(super) waiting_for: String,
    /// Its place, once it has one.
    pub(super) pod: Option<Arc<Pod>>,
    /// Process ids: of the sidecar, if there is one, then of the applications.
    pub(super) pids: Vec<u32>,
}

/// A replica that runs until it is told to leave.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) template: Arc<Template>,
    pub(super) status: watch::Receiver<Status>,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

impl Replica {
    /// Starts one. `changed` is told whenever its status changes.
    pub(super) fn start(
        context: Arc<Context>,
        template: Arc<Template>,
        name: String,
        label: String,
        changed: Arc<Notify>,
    ) -> Self {
        let (status, watched) = watch::channel(Status::default());
        let leave = CancellationToken::new();
        let member = Member { context, template: template.clone(), name: name.clone(), label, ports: None };
        let run = Run { member, status, changed, leave: leave.clone() };
        Replica { name, template, status: watched, leave, task: tokio::spawn(run.live()) }
    }

    /// Whether it takes requests.
    pub(super) fn is_ready(&self) -> bool {
        self.status.borrow().ready
    }

    /// Lets it leave, and waits until it is gone.
    pub(super) async fn leave(self) {
        self.leave.cancel();
        // Its end is bounded by the grace of its processes.
        let _ = self.task.await;
    }
}

struct Run {
    member: Member,
    status: watch::Sender<Status>,
    changed: Arc<Notify>,
    leave: CancellationToken,
}

impl Run {
    async fn live(self) {
        match self.member.place().await {
            Ok((pod, _opened)) => {
                let pod = Arc::new(pod);
                self.run(&pod).await;
                self.member.release(&pod);
            }
            Err(error) => {
                let label = Label::plain(&self.member.label);
                self.member.context.printer().line(&label, &format!("cannot run: {error}"));
                self.tell(|status| status.waiting_for = error);
                self.leave.cancelled().await;
            }
        }
    }

    async fn run(&self, pod: &Arc<Pod>) {
        self.tell(|status| status.pod = Some(pod.clone()));
        let woken = Arc::new(Notify::new());
        let mut processes: Vec<Process> = Vec::new();
        processes.extend(pod.is_meshed().then(|| self.member.sidecar(pod, woken.clone())));
        // The applications start when their way out is there.
        let mut are_started = false;
        let mut published: Option<Vec<u64>> = None;
        let mut seen = (None, Instant::now());
        while !self.leave.is_cancelled() {
            let starts = starts(&processes);
            if seen.0 != starts {
                seen = (starts.clone(), Instant::now());
            }
            if published.is_some() && starts != published {
                self.withdraw();
                published = None;
            }
            if starts.is_some() && published.is_none() {
                match self.look(pod, first_pid(&processes), are_started.then_some(seen.1)).await {
                    Ok(()) if !are_started => {
                        let programs = self.member.template.programs.iter();
                        processes
                            .extend(programs.map(|program| self.application(pod, program, woken.clone())));
                        are_started = true;
                        continue;
                    }
                    // Who died while we looked is seen in the next round.
                    Ok(()) if starts == self::starts(&processes) => {
                        if self.publish(pod, &processes) {
                            published = starts;
                        }
                    }
                    Ok(()) => {}
                    Err(waiting_for) => self.tell(|status| status.waiting_for = waiting_for),
                }
            }
            let pause = if published.is_some() { Duration::from_secs(3600) } else { LOOK_INTERVAL };
            tokio::select! {
                () = woken.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.leave.cancelled() => {}
            }
        }
        self.depart(pod, processes).await;
    }

    /// What is still missing before the applications can start, or, when they run since `started`, before requests can
    /// be taken.
    async fn look(&self, pod: &Pod, pid: Option<u32>, started: Option<Instant>) -> Result<(), String> {
        self.member.look_at_sidecar(pod, pid).await?;
        match started {
            Some(started) => self.member.look_at_application(pod, pid, started).await,
            None => Ok(()),
        }
    }

    fn publish(&self, pod: &Pod, processes: &[Process]) -> bool {
        let pids = processes.iter().filter_map(|process| match *process.life.borrow() {
            Life::Running { pid, .. } => Some(pid),
            Life::Down | Life::Ended => None,
        });
        let pids: Vec<u32> = pids.collect();
        if let Err(error) = self.member.publish(pod, &pids) {
            self.tell(|status| status.waiting_for = error);
            return false;
        }
        self.tell(|status| {
            status.ready = true;
            status.waiting_for.clear();
            status.pids = pids;
        });
        true
    }

    fn withdraw(&self) {
        self.member.withdraw();
        self.tell(|status| {
            status.ready = false;
            "one of its processes is not running".clone_into(&mut status.waiting_for);
        });
    }

    async fn depart(&self, pod: &Pod, mut processes: Vec<Process>) {
        // When everything stops nobody needs to be told.
        if !self.member.context.closing.is_cancelled() {
            self.withdraw();
            self.member.drain(pod).await;
        }
        let applications = processes.split_off(usize::from(pod.is_meshed()).min(processes.len()));
        join_all(applications.into_iter().map(Process::stop)).await;
        join_all(processes.into_iter().map(Process::stop)).await;
        self.member.forget();
    }

    fn application(&self, pod: &Arc<Pod>, program: &Program, changed: Arc<Notify>) -> Process {
        let Member { context, template, label, .. } = &self.member;
        let name = match template.programs.len() {
            1 => label.clone(),
            _ => format!("{} {}", label, program.name),
        };
        let label = Label::coloured(&name, &template.workload);
        let variables = pod.variables(program);
        let command: Vec<String> = program.command.iter().map(|part| variables.expand(part)).collect();
        let (directory, seat) = (context.home.clone(), pod.seat(false));
        let prepare = move || {
            let (command, variables) = (command.clone(), variables.clone());
            Ok(Launch { command, variables, directory: directory.clone(), seat: seat.clone() })
        };
        Process::start(&context.supervision, label, GRACE, changed, prepare)
    }

    fn tell(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
        self.changed.notify_one();
    }
}

/// For the how-many-th time each runs; `None` when one does not.
fn starts(processes: &[Process]) -> Option<Vec<u64>> {
    processes
        .iter()
        .map(|process| match *process.life.borrow() {
            Life::Running { start, .. } => Some(start),
            Life::Down | Life::Ended => None,
        })
        .collect()
}

/// The process that was started first, if it runs.
fn first_pid(processes: &[Process]) -> Option<u32> {
    match *processes.first()?.life.borrow() {
        Life::Running { pid, .. } => Some(pid),
        Life::Down | Life::Ended => None,
    }
}
