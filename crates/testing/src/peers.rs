//! Programs by others, where `make peers` puts them. One that is missing fails the test that needs it: a test that
//! passes because it did nothing says something that is not so.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The real Envoy.
pub fn envoy() -> PathBuf {
    installed("envoy")
}

/// How it is started with the bootstrap in `file`, beside others on this machine.
pub fn envoy_with(file: &str) -> Command {
    let mut command = Command::new(envoy());
    command.args(["-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warn"]);
    command
}

/// A Python with `grpcio` and the xDS protos.
pub fn python() -> PathBuf {
    installed("python")
}

fn installed(program: &str) -> PathBuf {
    // Of the crate whose test runs, whichever it is: all are two folders below the root.
    let manifest =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let root = Path::new(&manifest).ancestors().nth(2).unwrap_or(Path::new("."));
    let path = root.join(".peers/venv/bin").join(program);
    assert!(path.exists(), "`{program}` is not installed for the tests: run `make peers`");
    path
}
