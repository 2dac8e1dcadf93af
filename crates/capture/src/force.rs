//! Rules in force: handed to nftables' own program, `nft`, which every distribution has and which speaks to the kernel in
//! the version that fits it.

use crate::rules::Rules;
use crate::script::{cleaning, script};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where `nft` is where the search path does not say: users other than root have no `sbin` in it.
const PLACES: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"];

/// Why rules are not in force.
#[derive(Debug)]
pub enum CaptureError {
    /// There is no `nft`.
    Missing,
    /// It cannot be run.
    Run(io::Error),
    /// It, or the kernel, refused: what it said.
    Refused(String),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(
                f,
                "capture needs the program `nft`, which is not installed; install nftables (Debian, Ubuntu: `apt install \
                 nftables`, Fedora: `dnf install nftables`, Arch: `pacman -S nftables`)"
            ),
            Self::Run(_) => write!(f, "nft cannot be run"),
            Self::Refused(said) if said.contains("Operation not permitted") => write!(
                f,
                "nft may not change the rules of this network namespace: {said}; it takes root, or CAP_NET_ADMIN in it"
            ),
            Self::Refused(said) => write!(f, "nft refused the rules: {said}"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Run(error) => Some(error),
            Self::Missing | Self::Refused(_) => None,
        }
    }
}

/// Puts `rules` in force in the network namespace of this thread, in place of those that were.
pub fn apply(rules: &Rules) -> Result<(), CaptureError> {
    run(&script(rules))
}

/// Takes all rules of ours away from the network namespace of this thread.
pub fn clean() -> Result<(), CaptureError> {
    run(&cleaning())
}

/// Hands `script` to `nft` in the network namespace of this thread.
pub fn run(script: &str) -> Result<(), CaptureError> {
    let mut child = start()?;
    let written = match child.stdin.take() {
        // Closed after this, so that it sees the end.
        Some(mut input) => input.write_all(script.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(CaptureError::Run)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
        return Err(CaptureError::Refused(first.trim().to_owned()));
    }
    written.map_err(CaptureError::Run)
}

fn start() -> Result<std::process::Child, CaptureError> {
    let spawn = |program: &Path| {
        let mut command = Command::new(program);
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn()
    };
    for program in std::iter::once("nft").chain(PLACES) {
        match spawn(Path::new(program)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome.map_err(CaptureError::Run),
        }
    }
    Err(CaptureError::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_refused_is_told_with_what_to_do() {
        assert!(CaptureError::Missing.to_string().contains("apt install nftables"));
        let refused = CaptureError::Refused("Operation not permitted".to_owned());
        assert!(refused.to_string().contains("CAP_NET_ADMIN"));
    }
}
