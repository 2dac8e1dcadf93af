//! What every part of a running mesh needs to know: settings, addresses, state, and how processes are run.

use super::addresses::Addresses;
use super::bootstrap::{self, Node, Role};
use super::expand::Variables;
use super::network::{GATE, Network};
use super::output::Printer;
use super::plan::Proxy;
use super::ports::ControlPorts;
use super::probe;
use super::process::{Launch, Seat, Supervision};
use super::progress;
use super::state::{ProxyFolder, State};
use identity::spiffe::SpiffeId;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The name by which proxies know the control plane.
const CA_NAME: &str = "istiod.istio-system.svc";

/// There are many sidecars on one machine; Istio gives them as many.
const SIDECAR_THREADS: u32 = 2;

/// Shared by all parts of a mesh.
#[derive(Debug)]
pub(super) struct Context {
    /// The folder with the mesh's configuration, as it was given.
    pub(super) folder: PathBuf,
    /// The same, absolute: where applications run.
    pub(super) home: PathBuf,
    pub(super) state: State,
    pub(super) addresses: Mutex<Addresses>,
    pub(super) supervision: Supervision,
    pub(super) ports: ControlPorts,
    /// Where workloads are in networks of their own.
    pub(super) network: Option<Arc<Network>>,
    pub(super) trust_domain: String,
    pub(super) certificate_lifetime: Option<Duration>,
    /// The whole mesh is being stopped: nobody needs to be told that a part leaves.
    pub(super) closing: CancellationToken,
}

impl Context {
    pub(super) fn addresses(&self) -> MutexGuard<'_, Addresses> {
        // Every change is a single insertion or removal.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn printer(&self) -> &Printer {
        &self.supervision.printer
    }

    /// Writes what a proxy needs for its next start, and says how it is started.
    pub(super) fn launch_proxy(
        &self,
        proxy: &Proxy,
        node: &Node,
        admin: SocketAddr,
        seat: Option<Seat>,
    ) -> Result<Launch, String> {
        let files = self.state.proxy(node.namespace, node.name);
        let identity = SpiffeId::new(&self.trust_domain, node.namespace, node.service_account)
            .map_err(|e| format!("has no identity: {e}"))?;
        let holder = format!("{}/{}", node.namespace, node.name);
        let xds = self.seen_by_proxies(self.ports.xds);
        let launch = |command: Vec<String>| Launch {
            command,
            variables: Variables::default(),
            directory: self.home.clone(),
            seat: seat.clone(),
        };
        match proxy {
            Proxy::Other(command) => {
                let token = self.state.mint(&holder, identity, true)?;
                files.write_bootstrap(&bootstrap::bootstrap(node, admin, xds, Some(&token)))?;
                let mut variables = Variables::default();
                variables.set("BOOTSTRAP", text(&files.bootstrap()));
                variables.set("ADMIN_PORT", admin.port().to_string());
                Ok(launch(command.iter().map(|argument| variables.expand(argument)).collect()))
            }
            Proxy::Own | Proxy::Absent => {
                let token = self.state.mint(&holder, identity, false)?;
                files.write_join_token(&token)?;
                files.write_bootstrap(&bootstrap::bootstrap(node, admin, xds, None))?;
                let mut command = self.own_proxy(&files);
                let default = matches!(node.role, Role::Sidecar(_)).then_some(SIDECAR_THREADS);
                // None at all, as one per core is called in files, is what the proxy does by itself.
                if let Some(threads) = node.threads.or(default).filter(|threads| *threads > 0) {
                    command.extend(["--concurrency".to_owned(), threads.to_string()]);
                }
                Ok(launch(command))
            }
        }
    }

    /// Where proxies find what we find at `address`.
    fn seen_by_proxies(&self, address: SocketAddr) -> SocketAddr {
        match self.network {
            Some(_) => SocketAddr::new(IpAddr::V4(GATE), address.port()),
            None => address,
        }
    }

    fn own_proxy(&self, files: &ProxyFolder) -> Vec<String> {
        let mut command = vec!["ieum".to_owned(), "proxy".to_owned()];
        let mut flag = |name: &str, value: String| command.extend([name.to_owned(), value]);
        flag("--bootstrap", text(&files.bootstrap()));
        flag("--ca", self.seen_by_proxies(self.ports.xds_tls).to_string());
        flag("--ca-roots", text(&self.state.roots()));
        flag("--ca-name", CA_NAME.to_owned());
        flag("--join-token-file", text(&files.join_token()));
        flag("--state-dir", text(&files.state()));
        if let Some(lifetime) = self.certificate_lifetime {
            flag("--identity-lifetime", seconds(lifetime));
        }
        command
    }

    /// What has been written and is not in force everywhere yet, where there are at least so many proxies.
    pub(super) async fn arrived(&self, proxies: usize) -> Option<String> {
        let Some((200, status)) = probe::page(self.ports.admin, "GET", "/status").await else {
            return Some("the control plane does not answer".to_owned());
        };
        let (files, _) = control::source::read(&[self.folder.clone(), self.state.workloads()]);
        progress::pending(&status, files.len(), proxies)
    }

    /// How the control plane is started: from here, so that it names files as the user does.
    pub(super) fn control(&self) -> Launch {
        let mut command = vec!["ieum".to_owned(), "control".to_owned()];
        let mut flag = |name: &str, value: String| command.extend([name.to_owned(), value]);
        flag("--config", text(&self.folder));
        flag("--config", text(&self.state.workloads()));
        flag("--join-tokens", text(&self.state.join_tokens()));
        flag("--state-dir", text(&self.state.control()));
        flag("--xds", self.ports.xds.to_string());
        flag("--xds-tls", self.ports.xds_tls.to_string());
        flag("--admin", self.ports.admin.to_string());
        if let Some(lifetime) = self.certificate_lifetime {
            flag("--certificate-lifetime", seconds(lifetime));
        }
        Launch { command, variables: Variables::default(), directory: PathBuf::from("."), seat: None }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs().max(1))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
