//! The life of one replica: sidecar first, then its applications; published while all of them run and answer, withdrawn
//! the moment one does not; on leaving, withdrawn first, then drained, then stopped. How many there are is for `workload`.

use super::addresses::AddressError;
use super::bootstrap::{Node, Role};
use super::context::Context;
use super::output::Label;
use super::plan::{Program, Proxy, Template};
use super::pod::Pod;
use super::probe;
use super::process::{Launch, Life, Process};
use futures_util::future::join_all;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a process may take to stop when asked.
const GRACE: Duration = Duration::from_secs(6);
/// For the others to learn that a replica leaves, before its sidecar stops listening.
const FAREWELL: Duration = Duration::from_millis(500);
/// For requests in flight once the sidecar stopped listening.
const DRAIN: Duration = Duration::from_secs(1);
/// How often one looks whether a replica is ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long one waits for somebody to listen on a port that only a Service speaks of.
const DOUBT: Duration = Duration::from_secs(2);

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
        let run = Run {
            context,
            template: template.clone(),
            name: name.clone(),
            label,
            status,
            changed,
            leave: leave.clone(),
        };
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
    context: Arc<Context>,
    template: Arc<Template>,
    name: String,
    label: String,
    status: watch::Sender<Status>,
    changed: Arc<Notify>,
    leave: CancellationToken,
}

impl Run {
    async fn live(self) {
        match self.place() {
            Ok(pod) => {
                let pod = Arc::new(pod);
                self.run(&pod).await;
                let mut addresses = self.context.addresses();
                addresses.release(pod.address);
                pod.ports.iter().for_each(|(_, private)| addresses.release_port(*private));
                addresses.release_port(pod.admin_port);
            }
            Err(error) => {
                self.context.printer().line(&Label::plain(&self.label), &format!("cannot run: {error}"));
                self.tell(|status| status.waiting_for = error.to_string());
                self.leave.cancelled().await;
            }
        }
    }

    fn place(&self) -> Result<Pod, AddressError> {
        let mut addresses = self.context.addresses();
        let address = addresses.address(&format!("{}/{}", self.template.namespace, self.name))?;
        let mut ports = Vec::new();
        for port in self.template.programs.iter().flat_map(|program| &program.ports) {
            if ports.iter().any(|(known, _)| *known == port.number) {
                continue;
            }
            // Clients have Services for their names only, often at port 80.
            if let (false, Err(error)) = (port.is_declared, addresses.try_port(port.number)) {
                let text = format!("port {}, which only a Service names, is left out: {error}", port.number);
                self.context.printer().line(&Label::plain(&self.label), &text);
                continue;
            }
            let private = match self.template.sidecar {
                Proxy::Absent => port.number,
                _ => addresses.port()?,
            };
            ports.push((port.number, private));
        }
        let admin_port = addresses.port()?;
        Ok(Pod { name: self.name.clone(), template: self.template.clone(), address, ports, admin_port })
    }

    async fn run(&self, pod: &Arc<Pod>) {
        self.tell(|status| status.pod = Some(pod.clone()));
        let woken = Arc::new(Notify::new());
        let mut processes: Vec<Process> = Vec::new();
        processes.extend(pod.is_meshed().then(|| self.sidecar(pod, woken.clone())));
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
                self.withdraw(pod);
                published = None;
            }
            if starts.is_some() && published.is_none() {
                match self.look(pod, are_started.then_some(seen.1)).await {
                    Ok(()) if !are_started => {
                        let programs = self.template.programs.iter();
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
    async fn look(&self, pod: &Pod, started: Option<Instant>) -> Result<(), String> {
        if pod.is_meshed() {
            let admin = admin_address(pod);
            if probe::status(admin, "GET", "/ready").await != Some(200) {
                return Err(format!("the sidecar says at http://{admin}/ready that it is not ready"));
            }
        }
        let Some(started) = started else { return Ok(()) };
        for (address, is_declared) in pod.application_addresses() {
            let is_awaited = is_declared || started.elapsed() < DOUBT;
            if is_awaited && !probe::accepts(address).await {
                return Err(format!(
                    "nobody listens at {address} yet: is that where the application listens?"
                ));
            }
        }
        // A Sidecar may have it listen elsewhere.
        for address in pod.served_addresses().filter(|_| pod.is_meshed() && started.elapsed() < DOUBT) {
            if !probe::accepts(address).await {
                return Err(format!("the sidecar does not listen at {address} yet"));
            }
        }
        Ok(())
    }

    fn publish(&self, pod: &Pod, processes: &[Process]) -> bool {
        if let Err(error) = self.context.state.publish(&self.template.namespace, &self.name, &pod.entry()) {
            self.tell(|status| status.waiting_for = format!("its WorkloadEntry cannot be written: {error}"));
            return false;
        }
        let pids = processes.iter().filter_map(|process| match *process.life.borrow() {
            Life::Running { pid, .. } => Some(pid),
            Life::Down | Life::Ended => None,
        });
        let pids = pids.collect();
        self.tell(|status| {
            status.ready = true;
            status.waiting_for.clear();
            status.pids = pids;
        });
        true
    }

    fn withdraw(&self, pod: &Pod) {
        if let Err(error) = self.context.state.withdraw(&self.template.namespace, &pod.name) {
            let text = format!("its WorkloadEntry cannot be removed: {error}");
            self.context.printer().line(&Label::plain(&self.label), &text);
        }
        self.tell(|status| {
            status.ready = false;
            "one of its processes is not running".clone_into(&mut status.waiting_for);
        });
    }

    async fn depart(&self, pod: &Pod, mut processes: Vec<Process>) {
        // When everything stops nobody needs to be told.
        let is_closing = self.context.closing.is_cancelled();
        if !is_closing {
            self.withdraw(pod);
        }
        if pod.is_meshed() && !is_closing {
            self.pause(FAREWELL).await;
            probe::status(admin_address(pod), "POST", "/drain_listeners?graceful").await;
            self.pause(self.template.settings.drain.unwrap_or(DRAIN)).await;
        }
        let applications = processes.split_off(usize::from(pod.is_meshed()).min(processes.len()));
        join_all(applications.into_iter().map(Process::stop)).await;
        join_all(processes.into_iter().map(Process::stop)).await;
        self.context.state.forget(&format!("{}/{}", self.template.namespace, self.name));
        if !self.context.closing.is_cancelled() {
            self.context.state.proxy(&self.template.namespace, &self.name).remove();
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.context.closing.cancelled() => {}
        }
    }

    fn sidecar(&self, pod: &Arc<Pod>, changed: Arc<Notify>) -> Process {
        let label = Label::coloured(&format!("{} proxy", self.label), &self.template.workload);
        let (context, pod) = (self.context.clone(), pod.clone());
        let prepare = move || {
            let template = &pod.template;
            let node = Node {
                role: Role::Sidecar(&pod.ports),
                address: pod.address,
                name: &pod.name,
                namespace: &template.namespace,
                labels: &template.labels,
                service_account: &template.service_account,
                workload: &template.workload,
                trust_domain: &context.trust_domain,
                threads: template.settings.threads,
            };
            context.launch_proxy(&template.sidecar, &node, pod.admin_port)
        };
        Process::start(&self.context.supervision, label, GRACE, changed, prepare)
    }

    fn application(&self, pod: &Arc<Pod>, program: &Program, changed: Arc<Notify>) -> Process {
        let name = match self.template.programs.len() {
            1 => self.label.clone(),
            _ => format!("{} {}", self.label, program.name),
        };
        let label = Label::coloured(&name, &self.template.workload);
        let variables = pod.variables(program);
        let command: Vec<String> = program.command.iter().map(|part| variables.expand(part)).collect();
        let directory = self.context.home.clone();
        let prepare = move || {
            let (command, variables) = (command.clone(), variables.clone());
            Ok(Launch { command, variables, directory: directory.clone() })
        };
        Process::start(&self.context.supervision, label, GRACE, changed, prepare)
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

fn admin_address(pod: &Pod) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, pod.admin_port))
}
