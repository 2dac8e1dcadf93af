//! A running mesh, as a table of contents: read the folder, start the control plane, then gateways and workloads, tell when
//! all is ready, follow changes of the folder, stop everything in order. How one part runs is in that part's file.

use super::context::Context;
use super::folder::Folder;
use super::gateway::Gateway;
use super::guest::Guests;
use super::output::Label;
use super::plan::Proxy;
use super::plan::{self, Key, Plan};
use super::ports::ControlPorts;
use super::ports::{GatewayPort, gateway_ports};
use super::probe;
use super::process::{Life, Process};
use super::state;
use super::summary::Summary;
use super::workload::Replicas;
use api::{Diagnostic, Object};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// How long the control plane may take to end its streams.
const CONTROL_GRACE: Duration = Duration::from_secs(3);
/// How often one looks whether the control plane is ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A control plane that died so often before it was ever ready will not become so.
const FUTILE_STARTS: u64 = 3;
/// After so long it is told what is being waited for, and again after each such time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a mesh is run, beyond what its [`Context`] knows.
pub(super) struct Options {
    pub(super) port_base: u16,
    pub(super) gateway_ports: Vec<GatewayPort>,
    /// Patterns of names, each with another program as proxy.
    pub(super) proxies: Vec<(String, Vec<String>)>,
    pub(super) json: bool,
}

/// The signals that end a mesh.
pub(super) struct Stops([Signal; 3]);

impl Stops {
    /// Listens from now on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Stops([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        let Stops([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Runs the mesh until a signal.
pub(super) async fn run(
    context: Arc<Context>,
    options: Options,
    folder: Folder,
    mut stops: Stops,
) -> Result<(), String> {
    let changed = Arc::new(Notify::new());
    let control = context.control();
    let control =
        Process::start(&context.supervision, Label::plain("control"), CONTROL_GRACE, changed.clone(), {
            let (command, directory) = (control.command, control.directory);
            move || {
                let (command, directory) = (command.clone(), directory.clone());
                Ok(super::process::Launch { command, variables: Default::default(), directory, seat: None })
            }
        });
    let guests = Guests::welcome(context.clone())?;
    let objects = folder.objects();
    let (sender, changes) = mpsc::channel(1);
    let watching = tokio::spawn(follow(folder, sender));
    let mut mesh = Mesh {
        context,
        options,
        control,
        changed,
        plan: Plan::default(),
        told: BTreeSet::new(),
        workloads: BTreeMap::new(),
        gateways: BTreeMap::new(),
        guests,
        ending: JoinSet::new(),
        ending_keys: BTreeSet::new(),
    };
    let outcome = tokio::select! {
        ready = mesh.await_control() => ready,
        () = stops.next() => Ok(false),
    };
    let outcome = match outcome {
        Ok(true) => {
            mesh.follow_plan(&objects);
            mesh.keep(changes, &mut stops).await;
            Ok(())
        }
        other => other.map(|_| ()),
    };
    watching.abort();
    mesh.stop(&mut stops).await;
    outcome
}

async fn follow(mut folder: Folder, changes: mpsc::Sender<Vec<Arc<Object>>>) {
    loop {
        folder.change().await;
        if changes.send(folder.objects()).await.is_err() {
            return;
        }
    }
}

/// What is ending: its kind tells apart what may have one name.
type Ending = (&'static str, Key);

struct Mesh {
    context: Arc<Context>,
    options: Options,
    control: Process,
    changed: Arc<Notify>,
    plan: Plan,
    /// Problems told already.
    told: BTreeSet<Diagnostic>,
    workloads: BTreeMap<Key, Replicas>,
    /// With the plan they were started for, in which ports may not be real ones yet.
    gateways: BTreeMap<Key, (plan::Gateway, Gateway)>,
    guests: Guests,
    ending: JoinSet<Ending>,
    ending_keys: BTreeSet<Ending>,
}

impl Mesh {
    /// Waits until the control plane serves. An error when it never will.
    async fn await_control(&self) -> Result<bool, String> {
        let ControlPorts { admin, xds, xds_tls } = self.context.ports;
        loop {
            if let Life::Running { start, .. } = *self.control.life.borrow()
                && start > FUTILE_STARTS
            {
                return Err("the control plane does not start; what it said is above".to_owned());
            }
            let is_ready = probe::status(admin, "GET", "/ready").await == Some(200)
                && probe::accepts(xds).await
                && probe::accepts(xds_tls).await
                && self.context.state.roots().exists();
            if is_ready {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Follows changes until a signal.
    async fn keep(&mut self, mut changes: mpsc::Receiver<Vec<Arc<Object>>>, stops: &mut Stops) {
        let mut is_told = false;
        let mut patience = tokio::time::interval(PATIENCE);
        patience.tick().await;
        loop {
            if !is_told && self.waiting_for().is_empty() {
                is_told = self.arrived().await.is_none();
                if is_told {
                    self.tell_ready();
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL), if !is_told => {}
                Some(objects) = changes.recv() => self.follow_plan(&objects),
                Some(ended) = self.ending.join_next() => {
                    if let Ok(key) = ended {
                        self.ending_keys.remove(&key);
                        self.start_missing();
                    }
                }
                _ = patience.tick(), if !is_told => self.tell_waiting().await,
                () = stops.next() => return,
            }
        }
    }

    fn follow_plan(&mut self, objects: &[Arc<Object>]) {
        let (plan, diagnostics) = plan::plan(objects, &self.options.proxies);
        for diagnostic in &diagnostics {
            if !self.told.contains(diagnostic) {
                self.context.printer().say(&diagnostic.to_string());
            }
        }
        self.told = diagnostics.into_iter().collect();
        if plan.trust_domain != self.context.trust_domain {
            self.context
                .printer()
                .say("the trust domain has changed: start `ieum up` again to use the new one");
        }
        self.guests.offer(plan.services.clone());
        self.plan = plan;
        self.end_surplus();
        for (key, replicas) in &self.workloads {
            if let Some(workload) = self.plan.workloads.get(key) {
                replicas.want(workload.clone());
            }
        }
        self.start_missing();
    }

    fn end_surplus(&mut self) {
        let surplus: Vec<Key> =
            self.workloads.keys().filter(|key| !self.plan.workloads.contains_key(*key)).cloned().collect();
        for key in surplus {
            if let Some(replicas) = self.workloads.remove(&key) {
                let ending = ("workload", key);
                self.ending_keys.insert(ending.clone());
                self.ending.spawn(async move {
                    replicas.end().await;
                    ending
                });
            }
        }
        let differs = |key: &Key, started: &plan::Gateway| {
            self.plan.gateways.get(key).is_none_or(|wanted| !wanted.is_same_process(started))
        };
        let surplus: Vec<Key> = self
            .gateways
            .iter()
            .filter(|(key, (started, _))| differs(key, started))
            .map(|(key, _)| key.clone())
            .collect();
        for key in surplus {
            if let Some((_, gateway)) = self.gateways.remove(&key) {
                let ending = ("gateway", key);
                self.ending_keys.insert(ending.clone());
                self.ending.spawn(async move {
                    gateway.end().await;
                    ending
                });
            }
        }
    }

    /// Starts what is planned and does not run; what has just been ended must be gone first.
    fn start_missing(&mut self) {
        for (key, wanted) in &self.plan.gateways {
            let is_ending = self.ending_keys.contains(&("gateway", key.clone()));
            if self.gateways.contains_key(key) || is_ending {
                continue;
            }
            match gateway_ports(wanted, self.options.port_base, &self.options.gateway_ports) {
                Ok(ports) => {
                    let real = plan::Gateway { ports, ..wanted.clone() };
                    let gateway = Gateway::start(self.context.clone(), real, self.changed.clone());
                    self.gateways.insert(key.clone(), (wanted.clone(), gateway));
                }
                Err(error) => self.context.printer().say(&format!("error: {error}")),
            }
        }
        for (key, wanted) in &self.plan.workloads {
            let is_ending = self.ending_keys.contains(&("workload", key.clone()));
            if !self.workloads.contains_key(key) && !is_ending {
                let replicas =
                    Replicas::start(self.context.clone(), key, wanted.clone(), self.changed.clone());
                self.workloads.insert(key.clone(), replicas);
            }
        }
    }

    /// What is not ready yet; nothing when all is.
    fn waiting_for(&self) -> Vec<String> {
        let mut waiting = Vec::new();
        for ((_, name), (_, gateway)) in &self.gateways {
            let status = gateway.status.borrow();
            if !status.ready {
                waiting.push(format!("gateway {name}: {}", status.waiting_for));
            }
        }
        for ((_, name), replicas) in &self.workloads {
            let view = replicas.view();
            if !view.is_settled {
                let reason = view.replicas.iter().find(|status| !status.ready).map(|s| s.waiting_for.clone());
                waiting.push(format!(
                    "{name}: {}",
                    reason.unwrap_or_else(|| "replicas are changing".to_owned())
                ));
            }
        }
        waiting
    }

    /// What has been written and is not in force everywhere yet.
    async fn arrived(&self) -> Option<String> {
        let sidecars = self.plan.workloads.values().filter(|w| w.template.sidecar != Proxy::Absent);
        let proxies = sidecars.map(|workload| workload.replicas).sum::<usize>() + self.gateways.len();
        self.context.arrived(proxies).await
    }

    async fn tell_waiting(&self) {
        let mut waiting = self.waiting_for();
        if waiting.is_empty() {
            waiting.extend(self.arrived().await);
        }
        for waiting in waiting {
            self.context.printer().say(&format!("waiting: {waiting}"));
        }
    }

    fn tell_ready(&self) {
        let control_pid = match *self.control.life.borrow() {
            Life::Running { pid, .. } => Some(pid),
            Life::Down | Life::Ended => None,
        };
        let gateways = self.gateways.values();
        let views = self.workloads.iter().map(|(key, replicas)| (key, replicas.view().replicas));
        let summary = Summary {
            folder: &self.context.folder,
            ports: self.context.ports,
            control_pid,
            gateways: gateways.map(|(_, g)| (&g.plan, g.status.borrow().clone())).collect(),
            workloads: views.collect(),
        };
        // Folders of replicas of earlier runs, whose names will not come again.
        let pods = summary.workloads.values().flatten().filter_map(|status| status.pod.as_ref());
        let mut names: BTreeSet<_> =
            pods.map(|pod| state::proxy_name(&pod.template.namespace, &pod.name)).collect();
        names.extend(summary.gateways.iter().map(|(g, _)| state::proxy_name(&g.namespace, &g.name)));
        names.extend(self.guests.proxies());
        self.context.state.retain_proxies(&names);
        let text = if self.options.json { summary.json().to_string() } else { summary.text() };
        // A closed standard output is no reason to stop.
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Stops everything: gateways first, so that nothing new comes in, the control plane last. A further signal hurries.
    async fn stop(self, stops: &mut Stops) {
        let Mesh { context, control, workloads, gateways, guests, mut ending, .. } = self;
        context.printer().say("stopping; once more Ctrl-C to hurry");
        let hurry = context.supervision.hurry.clone();
        let orderly = async {
            join_all(gateways.into_values().map(|(_, gateway)| gateway.end())).await;
            context.closing.cancel();
            guests.end().await;
            join_all(workloads.into_values().map(Replicas::end)).await;
            while ending.join_next().await.is_some() {}
            control.stop().await;
        };
        tokio::pin!(orderly);
        loop {
            tokio::select! {
                () = &mut orderly => return,
                () = stops.next() => {
                    context.closing.cancel();
                    hurry.cancel();
                }
            }
        }
    }
}
