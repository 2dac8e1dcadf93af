//! The last good configuration on disk: what was accepted from the control plane, as it was received, so that a
//! restarted proxy serves at once and needs no control plane for it. Blocking; called off the data path.
//!
//! One file: a line that names the format, a SHA-256 over the rest, the node's id, then responses with their length
//! before each. It can hold private keys, so only its owner can read it.

use aws_lc_rs::digest;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use identity::private_file;
use prost::Message;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

const FORMAT: &[u8] = b"ieum last good configuration 1\n";
const DIGEST_BYTES: usize = 32;
/// Largest file read. A mesh of ten thousand services takes a few dozen megabytes.
const MAX_BYTES: u64 = 512 << 20;

/// Where the configuration of one proxy is kept.
#[derive(Debug, Clone)]
pub struct LastGood {
    path: PathBuf,
    node: String,
}

impl LastGood {
    /// In `directory`, for the node with this id.
    pub fn new(directory: &Path, node: &str) -> Self {
        Self { path: directory.join("last-good-config.bin"), node: node.to_owned() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file, whole or not at all.
    pub fn write(&self, responses: &[DeltaDiscoveryResponse]) -> io::Result<()> {
        private_file::write(&self.path, &encode(&self.node, responses))
    }

    /// What was kept; `None` when there is no file.
    pub fn read(&self) -> Result<Option<Vec<DeltaDiscoveryResponse>>, LastGoodError> {
        let file = match private_file::read(&self.path, MAX_BYTES) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LastGoodError::Unreadable(error)),
        };
        decode(&self.node, &file.content).map(Some)
    }
}

/// Why a kept configuration is not used.
#[derive(Debug)]
pub enum LastGoodError {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// It is not such a file, or of another version.
    Format,
    /// It is not what was written.
    Checksum,
    /// It was written for another node.
    Node(String),
    /// A response in it is broken.
    Broken(prost::DecodeError),
}

impl fmt::Display for LastGoodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::Format => write!(f, "it is of an unknown format"),
            Self::Checksum => write!(f, "its checksum is wrong"),
            Self::Node(node) => write!(f, "it belongs to the node `{}`", node.escape_debug()),
            Self::Broken(error) => write!(f, "it is broken: {error}"),
        }
    }
}

impl std::error::Error for LastGoodError {}

fn encode(node: &str, responses: &[DeltaDiscoveryResponse]) -> Vec<u8> {
    let length: usize = responses.iter().map(|r| r.encoded_len() + 10).sum();
    let mut body = Vec::with_capacity(length + node.len() + 10);
    prost::encoding::encode_varint(node.len() as u64, &mut body);
    body.extend_from_slice(node.as_bytes());
    for response in responses {
        prost::encoding::encode_varint(response.encoded_len() as u64, &mut body);
        // A vector grows as needed.
        let _ = response.encode(&mut body);
    }
    let digest = digest::digest(&digest::SHA256, &body);
    [FORMAT, digest.as_ref(), &body].concat()
}

fn decode(node: &str, content: &[u8]) -> Result<Vec<DeltaDiscoveryResponse>, LastGoodError> {
    let rest = content.strip_prefix(FORMAT).ok_or(LastGoodError::Format)?;
    let (expected, mut body) = rest.split_at_checked(DIGEST_BYTES).ok_or(LastGoodError::Format)?;
    if digest::digest(&digest::SHA256, body).as_ref() != expected {
        return Err(LastGoodError::Checksum);
    }
    let length = prost::encoding::decode_varint(&mut body).map_err(LastGoodError::Broken)?;
    let length = usize::try_from(length).map_err(|_| LastGoodError::Format)?;
    let (written_for, mut body) = body.split_at_checked(length).ok_or(LastGoodError::Format)?;
    if written_for != node.as_bytes() {
        return Err(LastGoodError::Node(String::from_utf8_lossy(written_for).into_owned()));
    }
    let mut responses = Vec::new();
    while !body.is_empty() {
        let response = DeltaDiscoveryResponse::decode_length_delimited(&mut body);
        responses.push(response.map_err(LastGoodError::Broken)?);
    }
    Ok(responses)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use envoy_types::pb::envoy::service::discovery::v3::Resource;

    fn responses() -> Vec<DeltaDiscoveryResponse> {
        let resource = Resource { name: "a".into(), version: "7".into(), ..Resource::default() };
        let first = DeltaDiscoveryResponse { resources: vec![resource], ..DeltaDiscoveryResponse::default() };
        vec![first, DeltaDiscoveryResponse { type_url: "t".into(), ..DeltaDiscoveryResponse::default() }]
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = LastGood::new(directory.path(), "node");
        assert!(file.read().unwrap().is_none());
        file.write(&responses()).unwrap();
        assert_eq!(file.read().unwrap().unwrap(), responses());
    }

    #[test]
    fn a_damaged_byte_anywhere_makes_it_unusable() {
        let good = encode("node", &responses());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode("node", &bad).is_err(), "byte {at}");
        }
        assert!((0..good.len()).all(|length| decode("node", &good[..length]).is_err()));
    }

    #[test]
    fn the_configuration_of_another_node_is_not_used() {
        let written = encode("one", &responses());
        assert!(matches!(decode("two", &written), Err(LastGoodError::Node(node)) if node == "one"));
    }
}
