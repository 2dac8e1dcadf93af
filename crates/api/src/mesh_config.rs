//! Istio's `MeshConfig`, the part of it we act on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decode::{Decode, Decoder, Style, choice, message};
use crate::diagnostic::Severity;
use crate::networking::ProxyImage;
use crate::networking::{HttpRetry, LocalityLoadBalancerSetting, TcpKeepalive};
pub use crate::networking::{OutboundTrafficMode, OutboundTrafficPolicy};
use crate::yaml::{self, Chunk, Limits};

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
    /// Settings of proxies. Also in the annotation `proxy.istio.io/config` of pods, see [`ProxyConfig::read`].
    pub struct ProxyConfig {
        /// Traces.
        pub tracing: Option<Tracing>,
        /// Worker threads; 0 for one per core.
        pub concurrency: Option<i32>,
        /// How long requests may go on when a proxy is told to end.
        pub termination_drain_duration: Option<Duration>,
        /// Whether applications start after their proxy.
        pub hold_application_until_proxy_starts: Option<bool>,
        /// How long connections live on that a listener had which is replaced.
        pub drain_duration: Option<Duration>,
        /// How long a proxy lives on that is replaced by another.
        pub parent_shutdown_duration: Option<Duration>,
        /// Environment of the proxy.
        pub proxy_metadata: BTreeMap<String, String>,
        /// The proxy's container image.
        pub image: Option<ProxyImage>,
        /// Where the control plane is.
        pub discovery_address: String,
        /// Where the proxy's files are.
        pub config_path: String,
        /// The proxy's program.
        pub binary_path: String,
        /// What the proxy is called.
        pub service_cluster: String,
        /// Port of the agent's health pages.
        pub status_port: i32,
        /// Port of the proxy's admin pages.
        pub proxy_admin_port: i32,
        /// `NONE` or `MUTUAL_TLS`.
        pub control_plane_auth_policy: String,
        /// A bootstrap instead of the one that is made.
        pub custom_config_file: String,
        /// A template for the bootstrap.
        pub proxy_bootstrap_template_path: String,
        /// `REDIRECT` or `TPROXY`.
        pub interception_mode: String,
        /// Longest name of a metric.
        pub stat_name_length: i32,
    }
}

impl ProxyConfig {
    /// Reads the annotation `proxy.istio.io/config`.
    pub fn read(annotation: &str) -> Result<Self, String> {
        let chunk = Chunk { text: annotation, line: 1 };
        let loaded = yaml::load(chunk, Limits::default()).map_err(|error| error.message)?;
        let Some(root) = loaded.root else { return Ok(Self::default()) };
        let mut decoder = Decoder::new(Style::Protobuf, "");
        let read = Self::decode(&root, &mut decoder);
        let problems = decoder.into_problems();
        match (read, problems.iter().find(|problem| problem.severity == Severity::Error)) {
            (_, Some(problem)) => Err(format!("{}: {}", problem.field, problem.message)),
            (read, None) => Ok(read.unwrap_or_default()),
        }
    }
}

message! {
    /// Traces.
    pub struct Tracing {
        /// Percent of requests; 1 when absent.
        pub sampling: Option<f64>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_one_proxy_are_read_from_an_annotation() {
        let read =
            ProxyConfig::read("concurrency: 3\ntracing:\n  sampling: 50\nterminationDrainDuration: 7s\n");
        let read = read.unwrap_or_default();
        assert_eq!(
            (read.concurrency, read.termination_drain_duration),
            (Some(3), Some(Duration::from_secs(7)))
        );
        assert_eq!(read.tracing.and_then(|tracing| tracing.sampling), Some(50.0));
        assert_eq!(ProxyConfig::read(""), Ok(ProxyConfig::default()));
        assert!(ProxyConfig::read("concurrency: many").is_err_and(|error| error.contains("concurrency")));
        assert!(ProxyConfig::read("{").is_err());
    }
}
