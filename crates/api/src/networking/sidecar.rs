//! `Sidecar`, `WorkloadGroup` and `ProxyConfig`: what proxies beside workloads are sent, and how they are set up.

use std::collections::BTreeMap;

use super::gateway::ServerTlsSettings;
use super::outbound_traffic::OutboundTrafficPolicy;
use super::service_entry::{WorkloadEntry, WorkloadSelector};
use super::traffic_policy::ConnectionPoolSettings;
use crate::decode::message;

message! {
    /// What the sidecars of some workloads take and reach.
    pub struct Sidecar {
        /// The workloads; all of the namespace when absent.
        pub workload_selector: Option<WorkloadSelector>,
        /// What they take; derived from services when empty.
        pub ingress: Vec<IstioIngressListener>,
        /// What they reach; everything when empty.
        pub egress: Vec<IstioEgressListener>,
        /// Limits on inbound connections, where `ingress` has none.
        pub inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What happens to requests for unknown hosts.
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// A port that a sidecar takes connections at.
    pub struct IstioIngressListener {
        /// The port.
        pub port: SidecarPort,
        /// Address to listen on.
        pub bind: String,
        /// `DEFAULT`, `IPTABLES` or `NONE`.
        pub capture_mode: String,
        /// Where the application listens: `127.0.0.1:8080`, `:8080`, or `unix:///path`.
        pub default_endpoint: String,
        /// TLS towards clients, where mutual TLS of the mesh is off.
        pub tls: Option<ServerTlsSettings>,
        /// Limits on connections.
        pub connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    /// What a sidecar reaches at one port, or at all.
    pub struct IstioEgressListener {
        /// The port; all when absent.
        pub port: Option<SidecarPort>,
        /// Address to listen on.
        pub bind: String,
        /// `DEFAULT`, `IPTABLES` or `NONE`.
        pub capture_mode: String,
        /// `namespace/host`: `*` for all, `.` for the own namespace, `~` for none.
        pub hosts: Vec<String>,
    }
}

message! {
    /// A port of a sidecar.
    pub struct SidecarPort {
        /// From 1.
        pub number: u16,
        /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
        pub protocol: String,
        /// Names the port.
        pub name: String,
        /// Deprecated.
        pub target_port: u16,
    }
}

message! {
    /// What WorkloadEntries of a kind have in common.
    pub struct WorkloadGroup {
        /// Labels and annotations.
        pub metadata: Option<WorkloadGroupMetadata>,
        /// The rest.
        pub template: WorkloadEntry,
        /// How their health is found out.
        pub probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Labels and annotations.
    pub struct WorkloadGroupMetadata {
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Annotations.
        pub annotations: BTreeMap<String, String>,
    }
}

message! {
    /// How health is found out.
    pub struct ReadinessProbe {
        /// Seconds before the first.
        pub initial_delay_seconds: i32,
        /// Seconds an answer may take.
        pub timeout_seconds: i32,
        /// Seconds between two.
        pub period_seconds: i32,
        /// Successes in a row that make it healthy.
        pub success_threshold: i32,
        /// Failures in a row that make it unhealthy.
        pub failure_threshold: i32,
        /// By HTTP.
        pub http_get: Option<HttpHealthCheck>,
        /// By a connection.
        pub tcp_socket: Option<TcpHealthCheck>,
        /// By a command.
        pub exec: Option<ExecHealthCheck>,
        /// By gRPC.
        pub grpc: Option<GrpcHealthCheck>,
    }
}

message! {
    /// A probe by HTTP.
    pub struct HttpHealthCheck {
        /// The path.
        pub path: String,
        /// The port.
        pub port: u16,
        /// The host; the workload when empty.
        pub host: String,
        /// `HTTP` or `HTTPS`.
        pub scheme: String,
        /// Headers sent.
        pub http_headers: Vec<ProbeHeader>,
    }
}

message! {
    /// A header of a probe.
    pub struct ProbeHeader {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: String,
    }
}

message! {
    /// A probe by a connection.
    pub struct TcpHealthCheck {
        /// The host; the workload when empty.
        pub host: String,
        /// The port.
        pub port: u16,
    }
}

message! {
    /// A probe by a command.
    pub struct ExecHealthCheck {
        /// The command and its arguments.
        pub command: Vec<String>,
    }
}

message! {
    /// A probe by gRPC.
    pub struct GrpcHealthCheck {
        /// The port.
        pub port: u16,
        /// The service asked about.
        pub service: String,
    }
}

message! {
    /// Settings of proxies, of a namespace or of some workloads.
    pub struct ProxyConfig {
        /// The workloads; all of the namespace when absent.
        pub selector: Option<crate::security::WorkloadSelector>,
        /// Worker threads; 0 for one per core.
        pub concurrency: Option<i32>,
        /// Environment of the proxy.
        pub environment_variables: BTreeMap<String, String>,
        /// The proxy's container image.
        pub image: Option<ProxyImage>,
    }
}

message! {
    /// A container image of the proxy.
    pub struct ProxyImage {
        /// `default`, `debug` or `distroless`.
        pub image_type: String,
    }
}
