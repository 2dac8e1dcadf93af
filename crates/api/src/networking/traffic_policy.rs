//! `TrafficPolicy` of a DestinationRule: load balancing, connection pools, outlier detection, TLS.

use std::collections::BTreeMap;
use std::time::Duration;

use super::virtual_service::PortSelector;
use crate::decode::{choice, message};

message! {
    /// How to speak to a destination.
    pub struct TrafficPolicy {
        /// How an endpoint is chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits on connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When endpoints are set aside.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the destination.
        pub tls: Option<ClientTlsSettings>,
        /// Per port; replaces the settings above for that port.
        pub port_level_settings: Vec<PortTrafficPolicy>,
        /// Tunnel TCP through another proxy.
        pub tunnel: Option<TunnelSettings>,
        /// Send the PROXY protocol's header.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// How many retries may be under way at once.
        pub retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// How to speak to one port of a destination.
    pub struct PortTrafficPolicy {
        /// Which port.
        pub port: Option<PortSelector>,
        /// How an endpoint is chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits on connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When endpoints are set aside.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the destination.
        pub tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// Tunnel TCP through another proxy.
    pub struct TunnelSettings {
        /// `CONNECT` (default) or `POST`.
        pub protocol: String,
        /// Host behind the tunnel.
        pub target_host: String,
        /// Port behind the tunnel.
        pub target_port: u16,
    }
}

message! {
    /// Send the PROXY protocol's header.
    pub struct ProxyProtocol {
        /// Which version.
        pub version: ProxyProtocolVersion,
    }
}

choice! {
    /// Version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1 = ("V1", 0),
        /// Binary.
        V2 = ("V2", 1),
    }
}

message! {
    /// How many retries may be under way at once.
    pub struct RetryBudget {
        /// Percent of active requests; 20 when absent.
        pub percent: Option<f64>,
        /// Always allowed.
        pub min_retry_concurrency: u32,
        /// Over which time active requests are counted.
        pub budget_interval: Option<Duration>,
    }
}

message! {
    /// How an endpoint is chosen.
    pub struct LoadBalancerSettings {
        /// A standard algorithm. Excludes `consistent_hash`.
        pub simple: Option<SimpleLb>,
        /// The same endpoint for the same key. Excludes `simple`.
        pub consistent_hash: Option<ConsistentHashLb>,
        /// Preferences by locality.
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        /// Preferences by zone.
        pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        /// Deprecated: time over which new endpoints get their full share.
        pub warmup_duration_secs: Option<Duration>,
        /// How new endpoints get their full share.
        pub warmup: Option<WarmupConfiguration>,
    }
}

choice! {
    /// A standard load balancing algorithm.
    pub enum SimpleLb {
        /// The mesh's default, least request.
        Unspecified = ("UNSPECIFIED", 0),
        /// Deprecated name of least request.
        LeastConn = ("LEAST_CONN", 1),
        /// Any.
        Random = ("RANDOM", 2),
        /// The address the client connected to.
        Passthrough = ("PASSTHROUGH", 3),
        /// One after the other.
        RoundRobin = ("ROUND_ROBIN", 4),
        /// The less loaded of two picked at random.
        LeastRequest = ("LEAST_REQUEST", 5),
    }
}

message! {
    /// The same endpoint for the same key. One key is set.
    pub struct ConsistentHashLb {
        /// Key: a header.
        pub http_header_name: Option<String>,
        /// Key: a cookie.
        pub http_cookie: Option<HttpCookie>,
        /// Key: the client's address.
        pub use_source_ip: Option<bool>,
        /// Key: a query parameter.
        pub http_query_parameter_name: Option<String>,
        /// Algorithm: ring hash. Excludes `maglev`.
        pub ring_hash: Option<RingHash>,
        /// Algorithm: Maglev. Excludes `ring_hash`.
        pub maglev: Option<Maglev>,
        /// Deprecated: see `ring_hash`.
        pub minimum_ring_size: Option<u64>,
    }
}

message! {
    /// Ring hash.
    pub struct RingHash {
        /// 0 means 1024.
        pub minimum_ring_size: u64,
    }
}

message! {
    /// Maglev.
    pub struct Maglev {
        /// A prime; 0 means 65537.
        pub table_size: u64,
    }
}

message! {
    /// A cookie as hash key.
    pub struct HttpCookie {
        /// Its name.
        pub name: String,
        /// Its path.
        pub path: String,
        /// Made by the proxy, with this lifetime, when the request has none; zero for a session cookie.
        pub ttl: Option<Duration>,
        /// Further attributes of the cookie made.
        pub attributes: Vec<CookieAttribute>,
    }
}

message! {
    /// An attribute of a cookie.
    pub struct CookieAttribute {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: String,
    }
}

message! {
    /// How new endpoints get their full share.
    pub struct WarmupConfiguration {
        /// Over which time.
        pub duration: Option<Duration>,
        /// Share to begin with, in percent; 10 when absent.
        pub minimum_percent: Option<f64>,
        /// Speed of growth; 1 is linear.
        pub aggression: Option<f64>,
    }
}

message! {
    /// Limits on connections and requests.
    pub struct ConnectionPoolSettings {
        /// Of connections.
        pub tcp: Option<TcpSettings>,
        /// Of requests.
        pub http: Option<HttpSettings>,
    }
}

message! {
    /// Limits on connections.
    pub struct TcpSettings {
        /// Connections to a destination; 0 for no limit.
        pub max_connections: i32,
        /// How long connecting may take; 10 s when absent.
        pub connect_timeout: Option<Duration>,
        /// Probes on silent connections.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// How long a connection is used.
        pub max_connection_duration: Option<Duration>,
        /// How long a TCP connection may be silent; 1 h when absent.
        pub idle_timeout: Option<Duration>,
    }
}

message! {
    /// Probes on silent connections.
    pub struct TcpKeepalive {
        /// Unanswered probes before the connection is given up.
        pub probes: u32,
        /// Silence before the first.
        pub time: Option<Duration>,
        /// Between probes.
        pub interval: Option<Duration>,
    }
}

message! {
    /// Limits on requests.
    pub struct HttpSettings {
        /// Requests waiting for a connection; 0 for no limit.
        pub http1_max_pending_requests: i32,
        /// Requests under way; 0 for no limit.
        pub http2_max_requests: i32,
        /// Requests on one connection; 0 for no limit.
        pub max_requests_per_connection: i32,
        /// Retries under way; 0 for no limit.
        pub max_retries: i32,
        /// How long a connection may be without requests; 1 h when absent.
        pub idle_timeout: Option<Duration>,
        /// Whether HTTP/1.1 is upgraded to HTTP/2.
        pub h2_upgrade_policy: H2UpgradePolicy,
        /// Speak the protocol the client speaks.
        pub use_client_protocol: bool,
        /// Streams on one HTTP/2 connection; 0 for no limit.
        pub max_concurrent_streams: i32,
        /// Pings on silent HTTP/2 connections.
        pub http2_keep_alive: Option<ConnectionKeepalive>,
    }
}

choice! {
    /// Whether HTTP/1.1 is upgraded to HTTP/2.
    pub enum H2UpgradePolicy {
        /// As the mesh says.
        Default = ("DEFAULT", 0),
        /// No.
        DoNotUpgrade = ("DO_NOT_UPGRADE", 1),
        /// Yes.
        Upgrade = ("UPGRADE", 2),
    }
}

message! {
    /// Pings on silent HTTP/2 connections.
    pub struct ConnectionKeepalive {
        /// Between pings.
        pub interval: Option<Duration>,
        /// How long an answer may take.
        pub timeout: Option<Duration>,
    }
}

message! {
    /// When endpoints are set aside.
    pub struct OutlierDetection {
        /// Deprecated: consecutive gateway errors.
        pub consecutive_errors: i32,
        /// Count our own failures apart from the endpoint's.
        pub split_external_local_origin_errors: bool,
        /// Failures of our own in a row; 5 when absent.
        pub consecutive_local_origin_failures: Option<u32>,
        /// 502, 503 and 504 in a row; off when absent.
        pub consecutive_gateway_errors: Option<u32>,
        /// 5xx in a row; 5 when absent, off when 0.
        pub consecutive_5xx_errors: Option<u32>,
        /// Between looks; 10 s when absent.
        pub interval: Option<Duration>,
        /// Shortest time aside, multiplied by how often; 30 s when absent.
        pub base_ejection_time: Option<Duration>,
        /// At most this percent aside; 0 means 10.
        pub max_ejection_percent: i32,
        /// Detection is off below this percent of healthy endpoints.
        pub min_health_percent: i32,
        /// Status codes that count as errors, instead of 5xx.
        pub outlier_detection_http_error_codes: Vec<u32>,
    }
}

message! {
    /// TLS towards the destination.
    pub struct ClientTlsSettings {
        /// Which kind.
        pub mode: ClientTlsMode,
        /// File of our certificate, for `MUTUAL`.
        pub client_certificate: String,
        /// File of our key, for `MUTUAL`.
        pub private_key: String,
        /// File of the authorities that may sign the server's certificate.
        pub ca_certificates: String,
        /// Secret that has all three.
        pub credential_name: String,
        /// Names one of which the server's certificate must have.
        pub subject_alt_names: Vec<String>,
        /// Server name to ask for.
        pub sni: String,
        /// Accept any certificate.
        pub insecure_skip_verify: Option<bool>,
        /// File of revoked certificates.
        pub ca_crl: String,
    }
}

choice! {
    /// Which kind of TLS towards a destination.
    pub enum ClientTlsMode {
        /// None.
        Disable = ("DISABLE", 0),
        /// We check the server.
        Simple = ("SIMPLE", 1),
        /// Both check, with certificates given here.
        Mutual = ("MUTUAL", 2),
        /// Both check, with the mesh's certificates.
        IstioMutual = ("ISTIO_MUTUAL", 3),
    }
}

message! {
    /// Preferences by locality. One of distribute, failover and failoverPriority.
    pub struct LocalityLoadBalancerSetting {
        /// Shares, by the client's locality.
        pub distribute: Vec<LocalityDistribute>,
        /// Where to when a region fails.
        pub failover: Vec<LocalityFailover>,
        /// Labels that decide which endpoints are nearer.
        pub failover_priority: Vec<String>,
        /// Whether it counts; true when absent.
        pub enabled: Option<bool>,
    }
}

message! {
    /// Shares for clients in one locality.
    pub struct LocalityDistribute {
        /// `region/zone/subzone`, with `*`.
        pub from: String,
        /// Percent by locality; the sum is 100.
        pub to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where to when a region fails.
    pub struct LocalityFailover {
        /// The region.
        pub from: String,
        /// The one in its place.
        pub to: String,
    }
}

message! {
    /// Preferences by zone.
    pub struct ZoneAwareLoadBalancerSetting {
        /// Whether it counts; true when absent.
        pub enabled: Option<bool>,
        /// Where to when a region fails.
        pub failover: Vec<LocalityFailover>,
        /// Labels that decide which endpoints are nearer.
        pub failover_priority: Vec<String>,
        /// Off below this number of endpoints.
        pub min_cluster_size: Option<u64>,
    }
}
