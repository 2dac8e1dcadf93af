//! One member of the mesh, whoever runs its application: its place, its sidecar, the WorkloadEntry by which others learn
//! of it, and how it takes its leave. When which of it happens is for `replica` and `guest`.

use super::addresses::AddressError;
use super::bootstrap::{Node, Role};
use super::context::Context;
use super::door::Opened;
use super::network::{ADMIN_PORT, GATE, Network, is_listening};
use super::output::Label;
use super::plan::{Proxy, Template};
use super::pod::Pod;
use super::probe;
use super::process::Process;
use ::capture::rules::{DNS_PORT, INBOUND_PORT, OUTBOUND_PORT};
use ::capture::{Own, Range, Rules};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a process may take to stop when asked.
pub(super) const GRACE: Duration = Duration::from_secs(6);
/// How often one looks whether a member is ready.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// For the others to learn that a member leaves, before its sidecar stops listening.
const FAREWELL: Duration = Duration::from_millis(500);
/// For requests in flight once the sidecar stopped listening.
const DRAIN: Duration = Duration::from_secs(1);
/// How long one waits for somebody to listen on a port that only a Service speaks of.
const DOUBT: Duration = Duration::from_secs(2);

/// One member of the mesh.
pub(super) struct Member {
    pub(super) context: Arc<Context>,
    pub(super) template: Arc<Template>,
    pub(super) name: String,
    /// What people see of its name.
    pub(super) label: String,
    /// Its ports, each with the one where its application listens, where that is not ours to say.
    pub(super) ports: Option<Vec<(u16, u16)>>,
}

impl Member {
    /// Finds a place for it, and a port by which people reach its sidecar.
    pub(super) async fn place(&self) -> Result<(Pod, Option<Opened>), String> {
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
        let mut ports: Vec<(u16, u16)> = self.ports.clone().unwrap_or_default();
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
        let mut ports = self.ports.clone().unwrap_or_default();
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

    /// Gives its place back.
    pub(super) fn release(&self, pod: &Pod) {
        let mut addresses = self.context.addresses();
        addresses.release(pod.address);
        pod.ports.iter().for_each(|(_, private)| addresses.release_port(*private));
        addresses.release_port(pod.admin_port);
    }

    /// Starts its sidecar.
    pub(super) fn sidecar(&self, pod: &Arc<Pod>, changed: Arc<Notify>) -> Process {
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

    /// What is still missing before the application can start, the sidecar being process `pid`.
    pub(super) async fn look_at_sidecar(&self, pod: &Pod, pid: Option<u32>) -> Result<(), String> {
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
        Ok(())
    }

    /// What is still missing before requests can be taken, when all runs since `started`.
    pub(super) async fn look_at_application(
        &self,
        pod: &Pod,
        pid: Option<u32>,
        started: Instant,
    ) -> Result<(), String> {
        // What is captured is not reached past the sidecar: one looks from inside who listens.
        let inside = pid.filter(|_| pod.is_captured());
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

    /// Says that it takes requests.
    pub(super) fn publish(&self, pod: &Pod, pids: &[u32]) -> Result<(), String> {
        let published = self.context.state.publish(&self.template.namespace, &self.name, &pod.entry(pids));
        published.map_err(|error| format!("its WorkloadEntry cannot be written: {error}"))
    }

    /// Says that it does not.
    pub(super) fn withdraw(&self) {
        if let Err(error) = self.context.state.withdraw(&self.template.namespace, &self.name) {
            let text = format!("its WorkloadEntry cannot be removed: {error}");
            self.context.printer().line(&Label::plain(&self.label), &text);
        }
    }

    /// Lets what is on its way to a withdrawn member arrive, and what is in flight finish.
    pub(super) async fn drain(&self, pod: &Pod) {
        if pod.is_meshed() {
            self.pause(FAREWELL).await;
            probe::status(pod.admin(), "POST", "/drain_listeners?graceful").await;
            self.pause(self.template.settings.drain.unwrap_or(DRAIN)).await;
        }
    }

    /// Forgets what is kept of it, once all its processes have ended.
    pub(super) fn forget(&self) {
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
}
