//! A workload's identity on disk: chain, key and roots in one private file, so that they always belong together.
//! It is what lets a workload restart without its CA and without a join token.

use crate::private_file;
use model::tls::CertificatePair;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the file within a state directory.
const FILE_NAME: &str = "workload-identity.json";
/// Largest file read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What a workload needs to be itself.
#[derive(Clone)]
pub(crate) struct SavedIdentity {
    pub(crate) pair: CertificatePair,
    /// Trusted authorities, concatenated PEM.
    pub(crate) roots_pem: Vec<u8>,
    /// When the certificate was received; its `not_before` is earlier.
    pub(crate) obtained: SystemTime,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Stored {
    chain: String,
    key: String,
    roots: String,
    obtained_unix_ms: u64,
}

/// Where the identity of `state_dir` is kept.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

/// Reads what [`save`] wrote, and whether others could have read it. `None` when there is nothing. Blocking.
pub(crate) fn load(state_dir: &Path) -> Result<Option<(SavedIdentity, bool)>, LoadError> {
    let file = match private_file::read(&path(state_dir), MAX_BYTES) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(LoadError::Io(e)),
    };
    // The parser's message could quote key material, so only its position is kept.
    let stored: Stored =
        serde_json::from_slice(&file.content).map_err(|e| LoadError::Malformed { line: e.line() })?;
    let identity = SavedIdentity {
        pair: CertificatePair { chain_pem: stored.chain.into_bytes(), key_pem: stored.key.into_bytes() },
        roots_pem: stored.roots.into_bytes(),
        obtained: UNIX_EPOCH
            .checked_add(Duration::from_millis(stored.obtained_unix_ms))
            .unwrap_or(UNIX_EPOCH),
    };
    Ok(Some((identity, file.was_exposed)))
}

/// Writes the identity whole or not at all. Blocking.
pub(crate) fn save(state_dir: &Path, identity: &SavedIdentity) -> io::Result<()> {
    let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
    let obtained = identity.obtained.duration_since(UNIX_EPOCH).unwrap_or_default();
    let stored = Stored {
        chain: text(&identity.pair.chain_pem),
        key: text(&identity.pair.key_pem),
        roots: text(&identity.roots_pem),
        obtained_unix_ms: u64::try_from(obtained.as_millis()).unwrap_or(u64::MAX),
    };
    private_file::write(&path(state_dir), &serde_json::to_vec_pretty(&stored)?)
}

/// A saved identity that cannot be used.
#[derive(Debug)]
pub(crate) enum LoadError {
    Io(io::Error),
    Malformed { line: usize },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "{e}"),
            Self::Malformed { line } => write!(f, "not a saved identity, at line {line}"),
        }
    }
}
