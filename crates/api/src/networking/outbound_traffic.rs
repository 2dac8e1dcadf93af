//! What happens to requests for hosts that nobody declares; said by the mesh, and by a `Sidecar` for some workloads.

use crate::decode::{choice, message};

message! {
    /// What happens to requests for unknown hosts.
    pub struct OutboundTrafficPolicy {
        /// Which policy. As in protobuf, `REGISTRY_ONLY` when the block is there without it.
        pub mode: OutboundTrafficMode,
    }
}

choice! {
    /// What happens to requests for unknown hosts.
    pub enum OutboundTrafficMode {
        /// Refused.
        RegistryOnly = ("REGISTRY_ONLY", 0),
        /// Sent where they want to go.
        AllowAny = ("ALLOW_ANY", 1),
        /// Sent where they want to go, by the host they name.
        AllowAnyDynamicDns = ("ALLOW_ANY_DYNAMIC_DNS", 3),
    }
}
