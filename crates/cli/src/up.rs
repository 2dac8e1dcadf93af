//! `ieum up`: a local mesh from a folder, without root, Kubernetes or containers. This reads flags and makes ready what a
//! mesh needs; `mesh` runs it.

use crate::runtime;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

pub(crate) mod exec;
pub(crate) mod run;
pub(crate) mod world;
mod mesh;
mod summary;
mod workload;
mod replica;
mod guest;
mod member;
mod gateway;
mod ports;
mod context;
mod network;
mod door;
mod sockets;
mod link;
mod bootstrap;
mod pod;
mod state;
mod process;
mod output;
mod probe;
mod progress;
mod addresses;
mod invitation;
mod folder;
mod plan;
mod proxy_settings;
mod expand;

/// Run a mesh on this machine from a folder of Kubernetes and Istio YAML.
///
/// Every replica of a Deployment becomes a process with a sidecar of its own, as the folder's LocalMesh says: which
/// command stands in for which image, which gateways there are. Changes of the files apply as they are saved. Ctrl-C
/// stops everything. Exit code: 0 stopped, 1 cannot run, 2 usage.
#[derive(Args)]
#[command(after_help = "Examples:\n  ieum up examples/bookinfo\n  \
        ieum up examples/bookinfo --json | jq -r .gateways.ingress\n  \
        ieum up a --capture proxy        applications call others by http_proxy\n  \
        ieum up a --port-base 16000      a second mesh beside one at 15000\n  \
        ieum up a --proxy-program 'reviews-*=envoy -c $(BOOTSTRAP) --disable-hot-restart'\n\n\
        A command sees PORT and HOST (where to listen), PORT_<number or name> for each port, POD_NAME,\n\
        POD_NAMESPACE, POD_IP and the container's own variables; with --capture proxy http_proxy, the way into the mesh.")]
pub(crate) struct Up {
    /// Folder of YAML files.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print one JSON line when all is ready instead of the summary for people.
    #[arg(long)]
    json: bool,
    /// Moves all ports: xDS is at N+10 and N+12, the status page at N+14, gateways as far from where they are written.
    /// 0 takes any that are free.
    #[arg(long, value_name = "N", default_value_t = ports::DEFAULT_BASE)]
    port_base: u16,
    /// Local port for a listener port of a gateway (of all gateways without NAME); may be given several times.
    #[arg(long, value_name = "[NAME:]PORT=LOCAL")]
    gateway_port: Vec<ports::GatewayPort>,
    /// Folder for what the mesh keeps [default: $XDG_STATE_HOME/ieum/..., or .ieum/... here].
    #[arg(long, value_name = "FOLDER", overrides_with = "state_dir")]
    state_dir: Option<PathBuf>,
    /// Another program as proxy of workloads or gateways, `*` for any text in their name; may be given several times.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = proxy_program)]
    proxy_program: Vec<(String, Vec<String>)>,
    /// How what applications send gets to their sidecars [default: netns where this machine lets us, else proxy].
    #[arg(long, value_enum, value_name = "HOW")]
    capture: Option<world::Capture>,
    /// Set where this is the mesh in its own world: the ports of the control plane.
    #[arg(long, hide = true, value_parser = world::control_ports)]
    inside: Option<ports::ControlPorts>,
}

fn proxy_program(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
    let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    match command.is_empty() || name.is_empty() {
        true => Err("expected NAME=COMMAND".to_owned()),
        false => Ok((name.to_owned(), command)),
    }
}

impl Up {
    pub(crate) fn run(self) -> ExitCode {
        // One thread: what is started dies with the thread that started it, so that thread must be the process's own.
        let (printer, printing) = output::Printer::start();
        // What relays output ends with its process; nothing else is left.
        let outcome = runtime::block_on(async {
            // Before anything is started, so that no signal goes by unnoticed.
            let mut stops =
                mesh::Stops::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
            if self.capture == Some(world::Capture::Netns) && self.has_other_sidecars() {
                return Err("`--capture netns` takes our own sidecars: other programs answer no names; choose `--capture proxy`"
                    .to_owned());
            }
            if self.inside.is_none() && self.capture().await == world::Capture::Netns {
                drop(printer);
                return world::run(&self, &mut stops).await;
            }
            self.serve(printer, stops).await.map(|()| ExitCode::SUCCESS)
        });
        printing.finish();
        runtime::exit_code(outcome)
    }

    async fn serve(self, printer: output::Printer, stops: mesh::Stops) -> Result<(), String> {
        let folder = folder::Folder::open(&self.folder)?;
        let (plan, _) = plan::plan(&folder.objects(), &self.proxy_program);
        if plan.workloads.is_empty() && plan.gateways.is_empty() {
            return Err(format!(
                "nothing to run in {}: it takes a Deployment, and a LocalMesh that says what process stands in for its \
                 images; `ieum check {}` tells what is there",
                self.folder.display(),
                self.folder.display()
            ));
        }
        let context = Arc::new(self.prepare(&plan, printer).await?);
        let options = mesh::Options {
            port_base: self.port_base,
            gateway_ports: self.gateway_port,
            proxies: self.proxy_program,
            json: self.json,
        };
        mesh::run(context, options, folder, stops).await
    }

    /// As asked for, or else as this machine lets us.
    async fn capture(&self) -> world::Capture {
        if let Some(capture) = self.capture {
            return capture;
        }
        if self.has_other_sidecars() {
            // They answer no names.
            eprintln!(
                "note: traffic is not captured where sidecars are other programs; applications are given http_proxy"
            );
            return world::Capture::Proxy;
        }
        match world::find_possible().await {
            Ok(()) => world::Capture::Netns,
            Err(why) => {
                eprintln!(
                    "note: traffic is not captured here, applications are given http_proxy instead: {why}"
                );
                world::Capture::Proxy
            }
        }
    }

    /// What is wrong with the folder is told when it is read for good.
    fn has_other_sidecars(&self) -> bool {
        let Ok(folder) = folder::Folder::open(&self.folder) else { return false };
        let (plan, _) = plan::plan(&folder.objects(), &self.proxy_program);
        plan.workloads.values().any(|workload| matches!(workload.template.sidecar, plan::Proxy::Other(_)))
    }

    /// Where the mesh keeps what it keeps.
    fn state_path(&self) -> PathBuf {
        let state_home = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let default = || state::default_path(&self.folder, self.port_base, state_home);
        self.state_dir.clone().unwrap_or_else(default)
    }

    /// Everything that can fail before the first process runs, does so here.
    async fn prepare(&self, plan: &plan::Plan, printer: output::Printer) -> Result<context::Context, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut home = self.folder.canonicalize().map_err(|e| format!("{}: {e}", self.folder.display()))?;
        if !home.is_dir() {
            home.pop();
        }
        let ieum = std::env::current_exe().map_err(|e| format!("cannot find our own program: {e}"))?;
        let state = state::State::open(&self.state_path())?;
        let control_ports = match self.inside {
            Some(ports) => ports,
            None => ports::control_ports(self.port_base).map_err(|e| text(&e))?,
        };
        let network = match self.inside {
            Some(ports) => Some(network::Network::start(state.root(), ports).await?),
            None => None,
        };
        for gateway in plan.gateways.values() {
            ports::gateway_ports(gateway, self.port_base, &self.gateway_port).map_err(|e| text(&e))?;
        }
        let seed = state.root().display().to_string();
        let addresses = match network {
            Some(_) => addresses::Addresses::of_our_own(network::BLOCK),
            None => addresses::Addresses::claim(&seed).map_err(|e| text(&e))?,
        };
        for (template, port) in plan.workloads.values().flat_map(|w| ports_of(&w.template)) {
            addresses.try_port(port).map_err(|error| unavailable(port, template, &error))?;
        }
        Ok(context::Context {
            folder: self.folder.clone(),
            home,
            state,
            addresses: Mutex::new(addresses),
            supervision: process::Supervision { printer, ieum, hurry: CancellationToken::new() },
            ports: control_ports,
            network,
            trust_domain: plan.trust_domain.clone(),
            certificate_lifetime: plan.certificate_lifetime,
            closing: CancellationToken::new(),
        })
    }
}

/// Why a replica of `workload` cannot listen on `port`, and what to do.
fn unavailable(port: u16, workload: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "port {port} is in use on all addresses of this machine, and {workload} needs it on one of its own; stop \
             what listens there (`ss -ltnp 'sport = :{port}'` tells), or let it listen on one address only"
        ),
        std::io::ErrorKind::PermissionDenied => format!(
            "port {port} of {workload} needs privileges here; write a containerPort and targetPort of 1024 or more, or \
             allow it: `sysctl net.ipv4.ip_unprivileged_port_start={port}`"
        ),
        _ => format!("port {port} of {workload} cannot be listened on: {error}"),
    }
}

/// Each port at which a workload says it is reached, with the workload's name.
fn ports_of(template: &plan::Template) -> impl Iterator<Item = (&str, u16)> {
    let outbound = (template.sidecar != plan::Proxy::Absent).then_some(bootstrap::OUTBOUND_PORT);
    let ports = template.programs.iter().flat_map(|program| &program.ports).filter(|port| port.is_declared);
    ports.map(|port| port.number).chain(outbound).map(|port| (template.workload.as_str(), port))
}
