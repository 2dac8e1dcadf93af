//! `ieum up --capture netns`, as seen from outside: the mesh runs in networks of its own, in a process that this one starts
//! and ends with; this one keeps the door.

use super::door::Door;
use super::network::write_resolver;
use super::ports::ControlPorts;
use super::{Up, folder, plan, ports, state};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use tokio::process::Command;

/// How applications come to send what they send through their sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Capture {
    /// They are told to, by `http_proxy`.
    Proxy,
    /// They need not know: each is in a network of its own, whose rules send everything through the sidecar.
    Netns,
}

/// The ports of the control plane, for the mesh inside: `15010,15012,15014`.
pub(super) fn control_ports(text: &str) -> Result<ControlPorts, String> {
    let ports: Vec<u16> = text.split(',').filter_map(|port| port.parse().ok()).collect();
    let [xds, xds_tls, admin] = ports[..] else { return Err("expected three ports".to_owned()) };
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Ok(ControlPorts { xds: at(xds), xds_tls: at(xds_tls), admin: at(admin) })
}

/// Whether there can be a mesh in a world of its own; if not, why, and what to do.
pub(super) async fn find_possible() -> Result<(), String> {
    let ieum = std::env::current_exe().map_err(|e| format!("cannot find our own program: {e}"))?;
    let mut command = Command::new(&ieum);
    command
        .args(["exec-with-parent", "--parent", &std::process::id().to_string(), "--new-world", "--"])
        .arg(&ieum)
        .arg("try-network")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("cannot start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().find_map(|line| line.strip_prefix("error: "));
    Err(why.unwrap_or("it is not said why").to_owned())
}

/// Try what a mesh in a world of its own needs, in one that is thrown away.
#[derive(clap::Args)]
pub(crate) struct TryNetwork {}

impl TryNetwork {
    pub(crate) fn run(self) -> ExitCode {
        match super::network::try_out() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs the mesh in a world of its own until it ends.
pub(super) async fn run(up: &Up, stops: &mut super::mesh::Stops) -> Result<ExitCode, String> {
    let objects = folder::Folder::open(&up.folder)?.objects();
    let (plan, _) = plan::plan(&objects, &up.proxy_program);
    // Ports are free, or not, out here.
    let control = ports::control_ports(up.port_base).map_err(|error| error.to_string())?;
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut flag = |name: &str, value: OsString| arguments.extend([OsString::from(name), value]);
    for gateway in plan.gateways.values() {
        let ports = ports::gateway_ports(gateway, up.port_base, &up.gateway_port);
        for (port, local) in ports.map_err(|error| error.to_string())? {
            flag("--gateway-port", format!("{}:{port}={local}", gateway.name).into());
        }
    }
    let root = up.state_path();
    state::make_private(&root).map_err(|error| format!("state folder {}: {error}", root.display()))?;
    let root = root.canonicalize().map_err(|error| format!("state folder {}: {error}", root.display()))?;
    flag("--state-dir", root.clone().into());
    let ControlPorts { xds, xds_tls, admin } = control;
    flag("--inside", format!("{},{},{}", xds.port(), xds_tls.port(), admin.port()).into());
    let resolver = write_resolver(&root.join("resolver"), None)?;
    let told = |error: std::io::Error| format!("the way into the mesh cannot be made: {error}");
    let door = Arc::new(Door::new(&root).map_err(told)?);
    tokio::spawn(door.serve_outside().map_err(told)?);
    let status = accompany(inner(&resolver, &arguments)?, stops).await?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn inner(resolver: &Path, arguments: &[OsString]) -> Result<Command, String> {
    let ieum = std::env::current_exe().map_err(|e| format!("cannot find our own program: {e}"))?;
    let mut command = Command::new(&ieum);
    command
        .args(["exec-with-parent", "--parent", &std::process::id().to_string(), "--new-world", "--resolver"])
        .arg(resolver)
        .arg("--")
        .arg(&ieum)
        .args(arguments)
        // A terminal's Ctrl-C reaches us alone, and we pass it on.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// Passes signals on until it ends.
async fn accompany(mut command: Command, stops: &mut super::mesh::Stops) -> Result<ExitStatus, String> {
    let mut child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(|error| format!("lost sight of the mesh: {error}")),
            () = stops.next() => {
                if let Some(pid) = pid {
                    // Whoever is gone already needs none.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        }
    }
}
