//! One gateway proxy of the mesh, from its start until it is ended.

use super::bootstrap::{GATEWAY_PORTS, Node, Role, application_ports};
use super::context::Context;
use super::door::Opened;
use super::network::{ADMIN_PORT, GATE, Place};
use super::output::Label;
use super::plan;
use super::probe;
use super::process::{Life, Process, Seat};
use ::capture::{Own, Rules};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long it may take to let requests in flight finish.
const GRACE: Duration = Duration::from_secs(6);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How a gateway is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    pub(super) ready: bool,
    pub(super) waiting_for: String,
    pub(super) pid: Option<u32>,
    pub(super) admin: Option<SocketAddr>,
}

/// A gateway proxy.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) plan: plan::Gateway,
    pub(super) status: watch::Receiver<Status>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Gateway {
    /// Starts it. Ports of `plan` are real ones by now. `changed` is told whenever its status changes.
    pub(super) fn start(context: Arc<Context>, plan: plan::Gateway, changed: Arc<Notify>) -> Self {
        let (status, watched) = watch::channel(Status::default());
        let end = CancellationToken::new();
        let run = Run { context, plan: plan.clone(), status, changed, end: end.clone() };
        Gateway { plan, status: watched, end, task: tokio::spawn(run.live()) }
    }

    /// Lets requests in flight finish, then stops it.
    pub(super) async fn end(self) {
        self.end.cancel();
        // It ends within its grace.
        let _ = self.task.await;
    }
}

/// Where a gateway runs.
struct Berth {
    address: Ipv4Addr,
    admin_port: u16,
    /// Its own network, where it has one.
    place: Option<Arc<Place>>,
    /// Ports of the machine around that lead to it: those of its plan, then that of its admin pages.
    opened: Vec<Opened>,
}

impl Berth {
    /// The address it listens on.
    fn bind(&self) -> Ipv4Addr {
        if self.place.is_some() { self.address } else { Ipv4Addr::LOCALHOST }
    }

    /// The port it listens on for each port of its Gateways: the same in a network of its own.
    fn ports(&self, plan: &plan::Gateway) -> BTreeMap<u16, u16> {
        match self.place {
            Some(_) => plan.ports.keys().map(|port| (*port, *port)).collect(),
            None => plan.ports.clone(),
        }
    }

    /// Where we reach its admin pages.
    fn admin(&self) -> SocketAddr {
        match self.place {
            Some(_) => SocketAddr::from((self.address, ADMIN_PORT)),
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port)),
        }
    }

    /// Where people reach them.
    fn shown_admin(&self) -> SocketAddr {
        let port = self.opened.last().map_or(self.admin_port, |opened| opened.port);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }
}

struct Run {
    context: Arc<Context>,
    plan: plan::Gateway,
    status: watch::Sender<Status>,
    changed: Arc<Notify>,
    end: CancellationToken,
}

impl Run {
    async fn live(self) {
        match self.place().await {
            Ok(berth) => {
                self.run(&berth).await;
                let mut addresses = self.context.addresses();
                addresses.release(berth.address);
                addresses.release_port(berth.admin_port);
            }
            Err(error) => {
                self.tell(|status| status.waiting_for = error);
                self.end.cancelled().await;
            }
        }
    }

    async fn place(&self) -> Result<Berth, String> {
        let (address, admin_port) = {
            let mut addresses = self.context.addresses();
            let name = format!("gateway {}/{}", self.plan.namespace, self.plan.name);
            let place = addresses.address(&name).and_then(|address| Ok((address, addresses.port()?)));
            place.map_err(|error| error.to_string())?
        };
        let mut berth = Berth { address, admin_port, place: None, opened: Vec::new() };
        if let Some(network) = self.context.network.clone() {
            let rules = Rules {
                inbound_port: None,
                outbound_port: None,
                dns_port: None,
                direct_sources: vec![IpAddr::V4(GATE)],
                private_ports: vec![ADMIN_PORT],
                ..Rules::all(Own::MARK)
            };
            let (door, namespace) = (network.door.clone(), self.plan.namespace.clone());
            let joined = tokio::task::spawn_blocking(move || network.join(address, &namespace, rules));
            berth.place = Some(Arc::new(joined.await.map_err(|error| error.to_string()).flatten()?));
            let ports = self.plan.ports.iter().map(|(port, local)| (*local, *port));
            for (local, port) in ports.chain([(0, ADMIN_PORT)]) {
                let opened = door.open(local, SocketAddr::from((address, port))).await;
                berth.opened.push(opened.map_err(|error| format!("port {local} of 127.0.0.1: {error}"))?);
            }
        }
        Ok(berth)
    }

    async fn run(&self, berth: &Berth) {
        let admin = berth.admin();
        let woken = Arc::new(Notify::new());
        let process = self.process(berth, woken.clone());
        let mut ready: Option<Life> = None;
        while !self.end.is_cancelled() {
            let life = *process.life.borrow();
            if ready.is_some_and(|known| known != life) {
                ready = None;
                self.withdraw();
                self.tell(|status| {
                    *status = Status { waiting_for: "it is not running".to_owned(), ..Status::default() };
                });
            }
            if let (Life::Running { pid, .. }, None) = (life, ready) {
                match self.look(berth).await {
                    Ok(()) if *process.life.borrow() == life && self.publish(berth) => {
                        ready = Some(life);
                        let admin = Some(berth.shown_admin());
                        let status = Status { ready: true, pid: Some(pid), admin, ..Status::default() };
                        self.tell(|now| *now = status);
                    }
                    Ok(()) => {}
                    Err(waiting_for) => self.tell(|status| status.waiting_for = waiting_for),
                }
            }
            let pause = if ready.is_some() { Duration::from_secs(3600) } else { LOOK_INTERVAL };
            tokio::select! {
                () = woken.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.end.cancelled() => {}
            }
        }
        self.withdraw();
        probe::status(admin, "POST", "/drain_listeners?graceful").await;
        process.stop().await;
        self.context.state.forget(&format!("{}/{}", self.plan.namespace, self.plan.name));
    }

    /// Says where it is, for the Services that select it: an egress gateway is called by workloads.
    fn publish(&self, berth: &Berth) -> bool {
        let entry = entry(&self.plan, berth);
        let published = self.context.state.publish(&self.plan.namespace, &self.plan.name, &entry);
        if let Err(error) = &published {
            self.tell(|status| status.waiting_for = format!("its WorkloadEntry cannot be written: {error}"));
        }
        published.is_ok()
    }

    fn withdraw(&self) {
        if let Err(error) = self.context.state.withdraw(&self.plan.namespace, &self.plan.name) {
            let text = format!("its WorkloadEntry cannot be removed: {error}");
            self.context.printer().line(&Label::plain(&self.plan.name), &text);
        }
    }

    async fn look(&self, berth: &Berth) -> Result<(), String> {
        let admin = berth.admin();
        if probe::status(admin, "GET", "/ready").await != Some(200) {
            return Err(format!("it says at http://{admin}/ready that it is not ready"));
        }
        let ports = berth.ports(&self.plan);
        for (port, local) in ports.iter().filter(|(port, _)| self.plan.schemes.contains_key(port)) {
            let address = SocketAddr::from((berth.bind(), *local));
            if !probe::accepts(address).await {
                return Err(format!("it does not listen at {address} (port {port} of its Gateways) yet"));
            }
        }
        Ok(())
    }

    fn process(&self, berth: &Berth, changed: Arc<Notify>) -> Process {
        let label = Label::coloured(&self.plan.name, &self.plan.name);
        let (context, plan) = (self.context.clone(), self.plan.clone());
        let (ports, bind, address, admin) =
            (berth.ports(&self.plan), berth.bind(), berth.address, berth.admin());
        let seat = berth.place.clone().map(|place| Seat { place, is_sidecar: false });
        let prepare = move || {
            let node = Node {
                role: Role::Gateway(&ports, bind),
                address,
                name: &plan.name,
                namespace: &plan.namespace,
                labels: &plan.labels,
                service_account: &plan.service_account,
                workload: &plan.name,
                trust_domain: &context.trust_domain,
                threads: plan.threads,
            };
            context.launch_proxy(&plan.proxy, &node, admin, seat.clone())
        };
        Process::start(&self.context.supervision, label, GRACE, changed, prepare)
    }

    fn tell(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
        self.changed.notify_one();
    }
}

/// The WorkloadEntry of a gateway of which the ports are real ones.
fn entry(plan: &plan::Gateway, berth: &Berth) -> Value {
    let ports: Vec<(u16, u16)> = berth.ports(plan).into_iter().collect();
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": plan.name,
            "namespace": plan.namespace,
            "labels": plan.labels,
            "annotations": {
                "ieum.dev/workload": plan.name,
                GATEWAY_PORTS: application_ports(&ports),
            },
        },
        "spec": {
            "address": berth.bind().to_string(),
            "labels": plan.labels,
            "serviceAccount": plan.service_account,
        },
    })
}
