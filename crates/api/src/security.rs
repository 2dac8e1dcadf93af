//! Istio's security resources, `security.istio.io` v1 and v1beta1, as far as they are read.

use std::collections::BTreeMap;

use crate::decode::{choice, message};

message! {
    /// Labels that workloads have.
    pub struct WorkloadSelector {
        /// All of them.
        pub match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// Whether workloads take connections without mutual TLS.
    pub struct PeerAuthentication {
        /// The workloads; all of the namespace when absent.
        pub selector: Option<WorkloadSelector>,
        /// For all ports.
        pub mtls: Option<MutualTls>,
        /// By port of the workload.
        pub port_level_mtls: BTreeMap<u16, MutualTls>,
    }
}

message! {
    /// Mutual TLS as a server.
    pub struct MutualTls {
        /// How strict.
        pub mode: MutualTlsMode,
    }
}

choice! {
    /// How strict a server is about mutual TLS.
    pub enum MutualTlsMode {
        /// As the next wider policy says.
        Unset = ("UNSET", 0),
        /// Plain text only.
        Disable = ("DISABLE", 1),
        /// Both.
        Permissive = ("PERMISSIVE", 2),
        /// Mutual TLS only.
        Strict = ("STRICT", 3),
    }
}
