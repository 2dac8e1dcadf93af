//! `ServiceEntry` and `WorkloadEntry`: services and workloads that Kubernetes does not know.

use std::collections::BTreeMap;

use crate::decode::{choice, message};

message! {
    /// A service added to the registry.
    pub struct ServiceEntry {
        /// Its names.
        pub hosts: Vec<String>,
        /// Its virtual addresses; one is allocated when there is none.
        pub addresses: Vec<String>,
        /// Its ports.
        pub ports: Vec<ServicePort>,
        /// Inside or outside the mesh.
        pub location: Location,
        /// Where its endpoints come from.
        pub resolution: Resolution,
        /// Its endpoints. Excludes `workload_selector`.
        pub endpoints: Vec<WorkloadEntry>,
        /// The workloads that are its endpoints.
        pub workload_selector: Option<WorkloadSelector>,
        /// Namespaces that see it: `.`, `*` or names.
        pub export_to: Vec<String>,
        /// Names one of which its certificates must have.
        pub subject_alt_names: Vec<String>,
    }
}

message! {
    /// A port of a service.
    pub struct ServicePort {
        /// From 1.
        pub number: u16,
        /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS; detected when empty.
        pub protocol: String,
        /// Names the port.
        pub name: String,
        /// Port of the endpoints; 0 for the same.
        pub target_port: u16,
    }
}

choice! {
    /// Inside or outside the mesh.
    pub enum Location {
        /// Outside: no mutual TLS by default.
        MeshExternal = ("MESH_EXTERNAL", 0),
        /// Inside.
        MeshInternal = ("MESH_INTERNAL", 1),
    }
}

choice! {
    /// Where the endpoints of a service come from.
    pub enum Resolution {
        /// The address the client connected to.
        None = ("NONE", 0),
        /// The addresses written.
        Static = ("STATIC", 1),
        /// DNS, all answers.
        Dns = ("DNS", 2),
        /// DNS, one answer at a time.
        DnsRoundRobin = ("DNS_ROUND_ROBIN", 3),
        /// DNS, of the host a request names.
        DynamicDns = ("DYNAMIC_DNS", 4),
    }
}

message! {
    /// Labels that workloads have.
    pub struct WorkloadSelector {
        /// All of them.
        pub labels: BTreeMap<String, String>,
    }
}

message! {
    /// A workload, such as a virtual machine.
    pub struct WorkloadEntry {
        /// IP address, host name, or `unix:///path`.
        pub address: String,
        /// Its ports, by the service's port names.
        pub ports: BTreeMap<String, u16>,
        /// Its labels.
        pub labels: BTreeMap<String, String>,
        /// The network it is in.
        pub network: String,
        /// `region/zone/subzone`.
        pub locality: String,
        /// Its share of traffic; 0 means 1.
        pub weight: u32,
        /// Who it is.
        pub service_account: String,
    }
}
