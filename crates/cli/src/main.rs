//! `ieum`, the one binary: reads flags, calls the crate that does the work, turns the outcome into an exit code.
//! Nothing is decided here.

mod check;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A service mesh and an API gateway in one program.
#[derive(Parser)]
#[command(name = "ieum", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Check),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check(check) => check.run(),
    }
}
