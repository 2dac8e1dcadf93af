//! `ieum exec`: runs a command as if it were in a replica of a mesh that `ieum up` runs: with its environment, so that what
//! it asks by `http_proxy` goes through that replica's sidecar.

use super::bootstrap::{APPLICATION_PORTS, GATEWAY_PORTS, PROCESS};
use super::pod::way_out;
use super::process::PROXY_VARIABLES;
use super::state;
use crate::namespaces;
use clap::Args;
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Run a command beside a workload of a mesh that `ieum up` runs.
///
/// The command has the workload's name and its way into the mesh (http_proxy), so that its requests go through the
/// sidecar and are, to everyone else, the workload's (all_proxy likewise, for what is not HTTP). Exit code: the command's;
/// 1 if there is no such workload.
#[derive(Args)]
#[command(after_help = "Examples:\n  ieum exec client -- curl http://reviews:9080/reviews/0\n  \
        ieum exec client -- curl telnet://tcp-echo:9000")]
pub(crate) struct Exec {
    /// Name of the Deployment (or namespace/name), or of one replica.
    #[arg(value_name = "WORKLOAD")]
    workload: String,
    /// State folder of the mesh, where several have such a workload.
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Program and arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A replica that is ready.
#[derive(Debug, PartialEq)]
struct Replica {
    name: String,
    namespace: String,
    workload: String,
    address: String,
    is_meshed: bool,
    /// A process in its network, if that is its own.
    process: Option<i32>,
}

impl Replica {
    /// The one of a WorkloadEntry; a gateway is none.
    fn of(entry: &Value) -> Option<Self> {
        let text = |pointer: &str| entry.pointer(pointer)?.as_str().map(str::to_owned);
        if entry.pointer("/metadata/annotations")?.get(GATEWAY_PORTS).is_some() {
            return None;
        }
        Some(Replica {
            name: text("/metadata/name")?,
            namespace: text("/metadata/namespace")?,
            workload: text("/metadata/annotations/ieum.dev~1workload")?,
            address: text("/spec/address")?,
            is_meshed: entry.pointer("/metadata/annotations")?.get(APPLICATION_PORTS).is_some(),
            process: entry
                .pointer("/metadata/annotations")?
                .get(PROCESS)
                .and_then(|pid| pid.as_str()?.parse().ok()),
        })
    }

    fn is_called(&self, name: &str) -> bool {
        let Replica { namespace, workload, .. } = self;
        [&self.name, workload, &format!("{namespace}/{workload}")].into_iter().any(|known| known == name)
    }
}

impl Exec {
    pub(crate) fn run(self) -> ExitCode {
        // Only returns when the program cannot be started.
        let problem = match self.find() {
            Ok(replica) => self.start(&replica),
            Err(problem) => problem,
        };
        eprintln!("error: {problem}");
        ExitCode::FAILURE
    }

    fn find(&self) -> Result<Replica, String> {
        let meshes = match &self.state_dir {
            Some(folder) => vec![folder.clone()],
            None => state::running(std::env::var_os("XDG_STATE_HOME").map(PathBuf::from)),
        };
        let mut known: Vec<Replica> = Vec::new();
        let mut found: Vec<(PathBuf, Replica)> = Vec::new();
        for mesh in meshes {
            let (here, others): (Vec<_>, Vec<_>) =
                replicas(&mesh).into_iter().partition(|replica| replica.is_called(&self.workload));
            known.extend(others);
            found.extend(here.into_iter().next().map(|first| (mesh, first)));
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some((_, replica)), None) => Ok(replica),
            (Some((first, _)), Some((second, _))) => Err(format!(
                "several meshes have a workload `{}`; choose by --state-dir {} or {}",
                self.workload,
                first.display(),
                second.display()
            )),
            (None, _) if known.is_empty() => {
                Err("no mesh runs with its state here; start `ieum up`, or give its --state-dir".to_owned())
            }
            (None, _) => {
                let mut names: Vec<&str> = known.iter().map(|replica| replica.workload.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                Err(format!("no workload `{}` is ready; there are: {}", self.workload, names.join(", ")))
            }
        }
    }

    fn start(&self, replica: &Replica) -> String {
        let Some((program, arguments)) = self.command.split_first() else {
            return "no command to run".to_owned();
        };
        let mut command = match std::env::current_exe() {
            Ok(own) if program == "ieum" => Command::new(own),
            _ => Command::new(program),
        };
        command.args(arguments);
        for name in PROXY_VARIABLES {
            command.env_remove(name);
        }
        if let Some(pid) = replica.process {
            let moved = namespaces::enter_world_of(pid).and_then(|()| namespaces::drop_privileges(false));
            if let Err(error) = moved {
                return format!("cannot enter the network of `{}`: {error}", replica.name);
            }
        } else if replica.is_meshed {
            let way_out = way_out(&replica.address);
            // For what is not HTTP, too: curl then asks for a tunnel.
            command.envs(
                way_out.iter().find(|(name, _)| *name == "http_proxy").map(|(_, url)| ("all_proxy", url)),
            );
            command.envs(way_out);
        }
        for (name, value) in [
            ("HOSTNAME", &replica.name),
            ("POD_NAME", &replica.name),
            ("POD_NAMESPACE", &replica.namespace),
            ("POD_IP", &replica.address),
            ("WORKLOAD_NAME", &replica.workload),
        ] {
            command.env(name, value);
        }
        format!("cannot run `{program}`: {}", command.exec())
    }
}

/// The replicas that are ready in a mesh, by name.
fn replicas(state: &Path) -> Vec<Replica> {
    let entries = std::fs::read_dir(state.join("workloads")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        Replica::of(&serde_json::from_str(&text).ok()?)
    };
    // One that cannot be read has just left.
    paths.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn entry(name: &str, workload: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop", "annotations": {
                "ieum.dev/workload": workload, APPLICATION_PORTS: "",
            }},
            "spec": {"address": "127.9.0.5"},
        })
    }

    #[test]
    fn a_replica_is_found_by_its_own_name_and_by_its_workloads() {
        let replica = Replica::of(&entry("web-v1-1a2b3-0", "web-v1")).unwrap();
        assert!(replica.is_meshed);
        for name in ["web-v1-1a2b3-0", "web-v1", "shop/web-v1"] {
            assert!(replica.is_called(name), "{name}");
        }
        assert!(!replica.is_called("web"));
    }

    #[test]
    fn who_is_not_there_is_told_with_those_who_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("workloads")).unwrap();
        let exec = |workload: &str| Exec {
            workload: workload.to_owned(),
            state_dir: Some(folder.path().to_owned()),
            command: vec!["true".to_owned()],
        };
        assert!(exec("web").find().unwrap_err().contains("no mesh runs"));
        std::fs::write(folder.path().join("workloads/a.yaml"), entry("web-0", "web").to_string()).unwrap();
        assert_eq!(exec("web").find().unwrap().address, "127.9.0.5");
        assert_eq!(exec("wbe").find().unwrap_err(), "no workload `wbe` is ready; there are: web");
    }
}
