//! The life of one replica: sidecar first, then its applications; published while all of them run and answer, withdrawn
//! the moment one does not; on leaving, withdrawn first, then drained, then stopped. How many there are is for `workload`.

use super::addresses::AddressError;
use super::bootstrap::{Node, Role};
use super::context::Context;
use super::door::Opened;
use super::network::{ADMIN_PORT, GATE, Network, is_listening};
use super::output::Label;
use super::plan::{Program, Proxy, Template};
use super::pod::Pod;
use super::probe;
use super::process::{Launch, Life, Process};
use ::capture::rules::{DNS_PORT, INBOUND_PORT, OUTBOUND_PORT};
use ::capture::{Own, Range, Rules};
use futures_util::future::join_all;
use std::net::{IpAddr, SocketAddr};
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
        match self.place().await {
            Ok((pod, _opened)) => {
                let pod = Arc::new(pod);
                self.run(&pod).await;
                let mut addresses = self.context.addresses();
                addresses.release(pod.address);
                pod.ports.iter().for_each(|(_, private)| addresses.release_port(*private));
                addresses.release_port(pod.admin_port);
            }
            Err(error) => {
                self.context.printer().line(&Label::plain(&self.label), &format!("cannot run: {error}"));
                self.tell(|status| status.waiting_for = error);
                self.leave.cancelled().await;
            }
        }
    }

    /// Finds a place for it, and a port by which people reach its sidecar.
    async fn place(&self) -> Result<(Pod, Option<Opened>), String> {
        match self.context.network.clone() {
            None => self.place_here().map(|pod| (pod, None)).map_err(|error| error.to_string()),
            Some(network) => self.place_apart(&network).await,
        }
    }

    /// In a network of its own, on the very ports its applications know.
    async fn place_apart(&self, network: &Arc<Network>) -> Result<(Pod, Option<Opened>), String> {
        let Template { namespace, sidecar, .. } = &*self.template;
        let mut rules =
            Rules::annotated(Own::MARK, &self.template.annotations).map_err(|error| error.to_string())?;
        if *sidecar == Proxy::Absent {
            rules = Rules { inbound_port: None, outbound_port: None, dns_port: None, ..rules };
        } else {
            rules.direct_sources = vec![IpAddr::V4(GATE)];
            rules.private_ports = vec![ADMIN_PORT];
            // The way to the control plane, which sidecars go without a mark.
            rules.outbound_except.push(Range { address: IpAddr::V4(GATE), prefix: 32 });
        }
        let name = format!("{namespace}/{}", self.name);
        let address = self.context.addresses().address(&name).map_err(|error| error.to_string())?;
        let (network, namespace) = (network.clone(), namespace.clone());
        let door = network.door.clone();
        let joined = tokio::task::spawn_blocking(move || network.join(address, &namespace, rules));
        let place = joined.await.map_err(|error| error.to_string()).flatten();
        let place = place.inspect_err(|_| self.context.addresses().release(address))?;
        let opened = match sidecar {
            Proxy::Absent => None,
            _ => door.open(0, SocketAddr::from((address, ADMIN_PORT))).await.ok(),
        };
        let mut ports: Vec<(u16, u16)> = Vec::new();
        for port in self.template.programs.iter().flat_map(|program| &program.ports) {
            if ports.iter().all(|(known, _)| *known != port.number) {
                ports.push((port.number, port.number));
            }
        }
        let pod = Pod {
            name: self.name.clone(),
            template: self.template.clone(),
            address,
            ports,
            admin_port: opened.as_ref().map_or(0, |opened| opened.port),
            place: Some(Arc::new(place)),
        };
        Ok((pod, opened))
    }

    /// At an address of this machine, on ports that are free.
    fn place_here(&self) -> Result<Pod, AddressError> {
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
        Ok(Pod {
            name: self.name.clone(),
            template: self.template.clone(),
            address,
            ports,
            admin_port,
            place: None,
        })
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
                match self.look(pod, first_pid(&processes), are_started.then_some(seen.1)).await {
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
    async fn look(&self, pod: &Pod, pid: Option<u32>, started: Option<Instant>) -> Result<(), String> {
        // What is captured is not reached past the sidecar: one looks from inside who listens.
        let inside = pid.filter(|_| pod.is_captured());
        if pod.is_meshed() {
            let admin = pod.admin();
            if probe::status(admin, "GET", "/ready").await != Some(200) {
                return Err(format!("the sidecar says at http://{admin}/ready that it is not ready"));
            }
        }
        if let Some(pid) = inside {
            for port in [OUTBOUND_PORT, INBOUND_PORT, DNS_PORT] {
                if !is_listening(pid, port) {
                    return Err(format!("the sidecar does not listen at port {port} yet"));
                }
            }
        }
        let Some(started) = started else { return Ok(()) };
        for (address, is_declared) in pod.application_addresses() {
            let is_awaited = is_declared || started.elapsed() < DOUBT;
            let listens = match inside {
                Some(pid) => is_listening(pid, address.port()),
                None => probe::accepts(address).await,
            };
            if is_awaited && !listens {
                return Err(format!(
                    "nobody listens at {address} yet: is that where the application listens?"
                ));
            }
        }
        // A Sidecar may have it listen elsewhere.
        let is_asked = pod.is_meshed() && inside.is_none() && started.elapsed() < DOUBT;
        for address in pod.served_addresses().filter(|_| is_asked) {
            if !probe::accepts(address).await {
                return Err(format!("the sidecar does not listen at {address} yet"));
            }
        }
        Ok(())
    }

    fn publish(&self, pod: &Pod, processes: &[Process]) -> bool {
        let pids = processes.iter().filter_map(|process| match *process.life.borrow() {
            Life::Running { pid, .. } => Some(pid),
            Life::Down | Life::Ended => None,
        });
        let pids: Vec<u32> = pids.collect();
        let entry = pod.entry(&pids);
        if let Err(error) = self.context.state.publish(&self.template.namespace, &self.name, &entry) {
            self.tell(|status| status.waiting_for = format!("its WorkloadEntry cannot be written: {error}"));
            return false;
        }
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
            probe::status(pod.admin(), "POST", "/drain_listeners?graceful").await;
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
                role: if pod.is_captured() { Role::Captured(&pod.ports) } else { Role::Sidecar(&pod.ports) },
                address: pod.address,
                name: &pod.name,
                namespace: &template.namespace,
                labels: &template.labels,
                service_account: &template.service_account,
                workload: &template.workload,
                trust_domain: &context.trust_domain,
                threads: template.settings.threads,
            };
            context.launch_proxy(&template.sidecar, &node, pod.admin(), pod.seat(true))
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
        let (directory, seat) = (self.context.home.clone(), pod.seat(false));
        let prepare = move || {
            let (command, variables) = (command.clone(), variables.clone());
            Ok(Launch { command, variables, directory: directory.clone(), seat: seat.clone() })
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

/// The process that was started first, if it runs.
fn first_pid(processes: &[Process]) -> Option<u32> {
    match *processes.first()?.life.borrow() {
        Life::Running { pid, .. } => Some(pid),
        Life::Down | Life::Ended => None,
    }
}
