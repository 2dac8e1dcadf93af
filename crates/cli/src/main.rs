//! `ieum`, the one binary: reads flags, calls the crate that does the work, turns the outcome into an exit code.
//! Nothing is decided here.

mod capture;
mod check;
mod control;
mod memory;
mod namespaces;
mod parent;
mod proxy;
mod sample;
mod up;
mod runtime;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A service mesh and an API gateway in one program.
#[derive(Parser)]
#[command(name = "ieum", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Subcommand)]
enum Command {
    Capture(capture::Capture),
    Check(check::Check),
    Control(control::Control),
    Exec(up::exec::Exec),
    Proxy(proxy::Proxy),
    Run(up::run::Run),
    Sample(sample::Sample),
    Up(up::Up),
    #[command(hide = true)]
    ExecWithParent(parent::ExecWithParent),
    #[command(hide = true)]
    TryNetwork(up::world::TryNetwork),
}

fn main() -> ExitCode {
    memory::configure();
    match Arguments::parse().command {
        Command::Capture(capture) => capture.run(),
        Command::Check(check) => check.run(),
        Command::Control(control) => control.run(),
        Command::Exec(exec) => exec.run(),
        Command::Proxy(proxy) => proxy.run(),
        Command::Run(run) => run.run(),
        Command::Sample(sample) => sample.run(),
        Command::Up(up) => up.run(),
        Command::ExecWithParent(exec) => exec.run(),
        Command::TryNetwork(attempt) => attempt.run(),
    }
}
