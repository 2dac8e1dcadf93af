//! Istio's `MeshConfig`, the part of it we act on.

use std::time::Duration;

use crate::decode::{choice, message};
use crate::networking::{HttpRetry, LocalityLoadBalancerSetting, TcpKeepalive};
pub use crate::networking::{OutboundTrafficMode, OutboundTrafficPolicy};

message! {
    /// Mesh-wide settings.
    pub struct MeshConfig {
        /// Where access logs go, `/dev/stdout`; off when empty.
        pub access_log_file: String,
        /// The form of access logs.
        pub access_log_encoding: AccessLogEncoding,
        /// Format string for access logs; Istio's when empty.
        pub access_log_format: String,
        /// Retries of routes that have none of their own.
        pub default_http_retry_policy: Option<HttpRetry>,
        /// Ours: timeout of routes that have none of their own.
        pub default_timeout: Option<Duration>,
        /// How long connecting may take; 10 s when absent.
        pub connect_timeout: Option<Duration>,
        /// Probes on silent connections, where no DestinationRule says so.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Preferences by locality, where no DestinationRule has any.
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        /// What happens to requests for unknown hosts.
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
        /// First part of identities; `cluster.local` when empty.
        pub trust_domain: String,
        /// Namespace of mesh-wide policies; `istio-system` when empty.
        pub root_namespace: String,
        /// Further first parts of identities that are as good as the own one.
        pub trust_domain_aliases: Vec<String>,
        /// Namespaces that see services which do not say so themselves; all when empty.
        pub default_service_export_to: Vec<String>,
        /// The same for VirtualServices.
        pub default_virtual_service_export_to: Vec<String>,
        /// The same for DestinationRules.
        pub default_destination_rule_export_to: Vec<String>,
        /// How paths are made canonical before rules and policies look at them.
        pub path_normalization: Option<PathNormalization>,
        /// Whether HTTP/1.1 is sent on as HTTP/2, where no DestinationRule says so.
        pub h2_upgrade_policy: MeshH2UpgradePolicy,
        /// Whether sidecars use mutual TLS among each other without being told; true when absent.
        pub enable_auto_mtls: Option<bool>,
        /// Whether requests are traced.
        pub enable_tracing: bool,
        /// Settings of proxies.
        pub default_config: Option<ProxyConfig>,
    }
}

message! {
    /// How paths are made canonical.
    pub struct PathNormalization {
        /// Which steps are taken.
        pub normalization: NormalizationType,
    }
}

choice! {
    /// The steps by which paths are made canonical.
    pub enum NormalizationType {
        /// As `BASE`.
        Default = ("DEFAULT", 0),
        /// None.
        None = ("NONE", 1),
        /// Dots are resolved, and what need not be encoded is decoded.
        Base = ("BASE", 2),
        /// And several slashes become one.
        MergeSlashes = ("MERGE_SLASHES", 3),
        /// And `%2F` and `%5C` are decoded before.
        DecodeAndMergeSlashes = ("DECODE_AND_MERGE_SLASHES", 4),
    }
}

choice! {
    /// Whether HTTP/1.1 is sent on as HTTP/2.
    pub enum MeshH2UpgradePolicy {
        /// No.
        DoNotUpgrade = ("DO_NOT_UPGRADE", 0),
        /// Yes.
        Upgrade = ("UPGRADE", 1),
    }
}

choice! {
    /// The form of access logs.
    pub enum AccessLogEncoding {
        /// One line of text per request.
        Text = ("TEXT", 0),
        /// One JSON object per request.
        Json = ("JSON", 1),
    }
}

message! {
    /// Settings of proxies.
    pub struct ProxyConfig {
        /// Traces.
        pub tracing: Option<Tracing>,
        /// Worker threads; one per core when absent.
        pub concurrency: Option<i32>,
    }
}

message! {
    /// Traces.
    pub struct Tracing {
        /// Percent of requests; 1 when absent.
        pub sampling: Option<f64>,
    }
}
