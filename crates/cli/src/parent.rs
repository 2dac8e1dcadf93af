//! `ieum exec-with-parent`: becomes another program that does not outlive the process that started it, whatever way that
//! one ends. What `ieum up` runs everything through. Linux only, by the parent death signal, which survives `exec`.

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Run a program that is killed when its parent process ends.
#[derive(Args)]
pub(crate) struct ExecWithParent {
    /// Process id of the parent: when it is not ours any more, nothing is run.
    #[arg(long)]
    parent: i32,
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
        let Some((program, arguments)) = self.command.split_first() else { return ExitCode::from(127) };
        let error = Command::new(program).args(arguments).exec();
        eprintln!("error: cannot run {}: {error}", program.to_string_lossy());
        ExitCode::from(127)
    }
}
