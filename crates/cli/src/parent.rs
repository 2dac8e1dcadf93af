//! `ieum exec-with-parent`: becomes another program that does not outlive the process that started it, whatever way that
//! one ends. What `ieum up` runs everything through. Linux only, by the parent death signal, which survives `exec`.

use crate::namespaces;
use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Run a program that is killed when its parent process ends.
#[derive(Args)]
pub(crate) struct ExecWithParent {
    /// Process id of the parent: when it is not ours any more, nothing is run.
    #[arg(long)]
    parent: i32,
    /// In networks of its own, as which it may make others.
    #[arg(long)]
    new_world: bool,
    /// In the network namespace that this file stands for.
    #[arg(long)]
    network: Option<PathBuf>,
    /// In the world of this process.
    #[arg(long, conflicts_with = "network")]
    beside: Option<i32>,
    /// With the files of this folder as those that say where names are asked for.
    #[arg(long)]
    resolver: Option<PathBuf>,
    /// It may mark what it sends.
    #[arg(long)]
    sidecar: bool,
    /// Program and arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl ExecWithParent {
    /// Does not return when the program runs. Exit code 127 when it cannot, as a shell's.
    pub(crate) fn run(self) -> ExitCode {
        if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
            eprintln!("error: cannot ask to be stopped with the parent: {error}");
            return ExitCode::FAILURE;
        }
        // It may have died before the signal was asked for.
        if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(self.parent) {
            return ExitCode::FAILURE;
        }
        if let Err(error) = self.move_there() {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
        let Some((program, arguments)) = self.command.split_first() else { return ExitCode::from(127) };
        let error = Command::new(program).args(arguments).exec();
        eprintln!("error: cannot run {}: {error}", program.to_string_lossy());
        ExitCode::from(127)
    }
    fn move_there(&self) -> Result<(), String> {
        if self.new_world {
            namespaces::leave_for_new()?;
        }
        if let Some(path) = &self.network {
            namespaces::enter_network(path).map_err(|e| format!("network {}: {e}", path.display()))?;
            if let Some(folder) = &self.resolver {
                namespaces::replace_resolver(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            }
            namespaces::drop_privileges(self.sidecar)
                .map_err(|error| format!("privileges cannot be given up: {error}"))?;
        }
        if let Some(pid) = self.beside {
            namespaces::enter_world_of(pid)
                .and_then(|()| namespaces::drop_privileges(false))
                .map_err(|error| format!("cannot enter the network of process {pid}: {error}"))?;
        }
        // Changing what we may do can take it off.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| format!("cannot ask to be stopped with the parent: {error}"))?;
        Ok(())
    }
}
