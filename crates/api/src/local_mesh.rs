//! `LocalMesh` (`ieum.dev/v1alpha1`), our own kind: what a cluster would have said, for a mesh of local processes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decode::message;
use crate::mesh_config::MeshConfig;

message! {
    /// How a folder of manifests runs on this machine.
    pub struct LocalMesh {
        /// What process stands in for a container image. The first that matches counts.
        pub images: Vec<Image>,
        /// Gateway proxies to run.
        pub gateways: Vec<GatewayProxy>,
        /// Other programs as proxy. The first that matches counts.
        pub proxies: Vec<ProxyProgram>,
        /// Mesh-wide settings.
        pub mesh_config: MeshConfig,
        /// Certificates of workloads.
        pub certificates: Certificates,
    }
}

message! {
    /// What process stands in for a container image.
    pub struct Image {
        /// The image; `*` stands for any text, see [`crate::wildcard`].
        pub image: String,
        /// Program and arguments; `$(PORT)` and the container's environment are expanded.
        pub command: Vec<String>,
    }
}

message! {
    /// A gateway proxy.
    pub struct GatewayProxy {
        /// Its name.
        pub name: String,
        /// Its namespace; `istio-system` when absent.
        pub namespace: Option<String>,
        /// Its labels, which Gateways select.
        pub labels: BTreeMap<String, String>,
        /// Who it is; its name with `-service-account` when absent.
        pub service_account: Option<String>,
        /// The local port for each port of its Gateways; 0 for any that is free.
        pub ports: BTreeMap<u16, u16>,
    }
}

message! {
    /// Another program as proxy of some workloads.
    pub struct ProxyProgram {
        /// Names of workloads; `*` stands for any text.
        pub r#match: String,
        /// Program and arguments; `$(BOOTSTRAP)` is the path of the bootstrap file.
        pub command: Vec<String>,
    }
}

message! {
    /// Certificates of workloads.
    pub struct Certificates {
        /// How long they are valid; 24 h when absent.
        pub lifetime: Option<Duration>,
    }
}
