//! A response on a delta stream. What is in it is decided by `server`; the bytes of resources are shared, not copied.

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message;

use crate::resources::{Names, Piece};

/// A response whose resources are shared with other streams.
#[derive(Clone, Debug)]
pub struct DeltaResponse {
    /// Everything but the resources.
    rest: DeltaDiscoveryResponse,
    /// `resources` fields as they go onto the wire.
    resources: Vec<Bytes>,
    /// Names of the resources.
    changed: Vec<Names>,
}

impl DeltaResponse {
    /// One that carries these pieces, besides what `rest` says.
    pub(crate) fn new(rest: DeltaDiscoveryResponse, pieces: Vec<Piece>) -> Self {
        let (mut resources, mut changed) = (Vec::new(), Vec::new());
        for Piece { wire, names } in pieces {
            resources.extend(wire);
            changed.push(names);
        }
        Self { rest, resources, changed }
    }

    /// The type of its resources.
    pub fn type_url(&self) -> &str {
        &self.rest.type_url
    }

    /// Its number on the stream.
    pub fn nonce(&self) -> &str {
        &self.rest.nonce
    }

    /// The version of the whole set.
    pub fn version(&self) -> &str {
        &self.rest.system_version_info
    }

    /// How many resources it carries or removes.
    pub fn size(&self) -> usize {
        self.changed.iter().map(|names| names.len()).sum::<usize>() + self.rest.removed_resources.len()
    }

    /// Names of the resources it carries.
    pub fn changed(&self) -> &[Names] {
        &self.changed
    }

    /// Names that it says are gone.
    pub fn removed(&self) -> &[String] {
        &self.rest.removed_resources
    }

    /// The encoded message in parts, of which those with resources are shared. Protobuf leaves the order of fields open.
    pub fn into_parts(self) -> Vec<Bytes> {
        let mut parts = vec![Bytes::from(self.rest.encode_to_vec())];
        parts.extend(self.resources);
        parts
    }

    /// As one message.
    pub fn message(&self) -> DeltaDiscoveryResponse {
        let whole = self.clone().into_parts().concat();
        DeltaDiscoveryResponse::decode(whole.as_slice()).unwrap_or_default()
    }
}
