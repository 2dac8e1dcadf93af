//! One gateway proxy of the mesh, from its start until it is ended.

use super::bootstrap::{GATEWAY_PORTS, Node, Role, application_ports};
use super::context::Context;
use super::output::Label;
use super::plan;
use super::probe;
use super::process::{Life, Process};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
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

struct Run {
    context: Arc<Context>,
    plan: plan::Gateway,
    status: watch::Sender<Status>,
    changed: Arc<Notify>,
    end: CancellationToken,
}

impl Run {
    async fn live(self) {
        let place = {
            let mut addresses = self.context.addresses();
            let name = format!("gateway {}/{}", self.plan.namespace, self.plan.name);
            addresses.address(&name).and_then(|address| Ok((address, addresses.port()?)))
        };
        match place {
            Ok((address, admin_port)) => {
                self.run(address, admin_port).await;
                let mut addresses = self.context.addresses();
                addresses.release(address);
                addresses.release_port(admin_port);
            }
            Err(error) => {
                self.tell(|status| status.waiting_for = error.to_string());
                self.end.cancelled().await;
            }
        }
    }

    async fn run(&self, address: Ipv4Addr, admin_port: u16) {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port));
        let woken = Arc::new(Notify::new());
        let process = self.process(address, admin_port, woken.clone());
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
                match self.look(admin).await {
                    Ok(()) if *process.life.borrow() == life && self.publish() => {
                        ready = Some(life);
                        let status =
                            Status { ready: true, pid: Some(pid), admin: Some(admin), ..Status::default() };
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
    fn publish(&self) -> bool {
        let published = self.context.state.publish(&self.plan.namespace, &self.plan.name, &entry(&self.plan));
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

    async fn look(&self, admin: SocketAddr) -> Result<(), String> {
        if probe::status(admin, "GET", "/ready").await != Some(200) {
            return Err(format!("it says at http://{admin}/ready that it is not ready"));
        }
        for (port, local) in self.plan.ports.iter().filter(|(port, _)| self.plan.schemes.contains_key(port)) {
            if !probe::accepts(SocketAddr::from((Ipv4Addr::LOCALHOST, *local))).await {
                return Err(format!(
                    "it does not listen at 127.0.0.1:{local} (port {port} of its Gateways) yet"
                ));
            }
        }
        Ok(())
    }

    fn process(&self, address: Ipv4Addr, admin_port: u16, changed: Arc<Notify>) -> Process {
        let label = Label::coloured(&self.plan.name, &self.plan.name);
        let (context, plan) = (self.context.clone(), self.plan.clone());
        let prepare = move || {
            let node = Node {
                role: Role::Gateway(&plan.ports),
                address,
                name: &plan.name,
                namespace: &plan.namespace,
                labels: &plan.labels,
                service_account: &plan.service_account,
                workload: &plan.name,
                trust_domain: &context.trust_domain,
                threads: plan.threads,
            };
            context.launch_proxy(&plan.proxy, &node, admin_port)
        };
        Process::start(&self.context.supervision, label, GRACE, changed, prepare)
    }

    fn tell(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
        self.changed.notify_one();
    }
}

/// The WorkloadEntry of a gateway of which the ports are real ones.
fn entry(plan: &plan::Gateway) -> Value {
    let ports: Vec<(u16, u16)> = plan.ports.iter().map(|(port, local)| (*port, *local)).collect();
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
            "address": Ipv4Addr::LOCALHOST.to_string(),
            "labels": plan.labels,
            "serviceAccount": plan.service_account,
        },
    })
}
