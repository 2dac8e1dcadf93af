//! Clusters: what requests are sent to, and how (`envoy.config.cluster.v3.Cluster`).

use crate::affinity::HashPolicy;
use crate::balance::{LoadBalancing, Spread};
use crate::endpoint::{Assignment, Endpoint};
use crate::header::HeaderCase;
use crate::health::HealthCheck;
use crate::limits::Limits;
use crate::metadata::{Fields, Metadata};
use crate::outlier::OutlierDetection;
use crate::provenance::Provenance;
use crate::tls::UpstreamTls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A named group of endpoints with the way to reach them. What thousands of clusters have in common can be there once
/// ([`Cluster::share_with`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its name, such as `outbound|9080||reviews.default.svc.cluster.local`.
    pub name: String,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one is picked.
    pub load_balancing: LoadBalancing,
    /// What else decides where requests go.
    pub spread: Arc<Spread>,
    /// What it may be asked at one time.
    pub limits: Arc<Limits>,
    /// When endpoints that fail are left out; `None` never.
    pub outlier_detection: Option<Arc<OutlierDetection>>,
    /// How it is found out whether endpoints are healthy; an endpoint has to pass all.
    pub health_checks: Vec<HealthCheck>,
    /// Statuses that count as errors for outlier detection; empty for all from 500 on.
    pub error_statuses: Vec<u16>,
    /// What its connections are like.
    pub connections: Arc<Connections>,
    /// What requests are hashed by; where it says anything, what their routes say does not count.
    pub hash_policies: Vec<HashPolicy>,
    /// Time to connect, TLS not included.
    pub connect_timeout: Duration,
    /// The HTTP version spoken to it.
    pub http: UpstreamHttp,
    /// A connection without a request is closed after this; `None` never.
    pub idle_timeout: Option<Duration>,
    /// Transports chosen by endpoint metadata; the first that matches is taken (`transport_socket_matches`).
    pub transport_matches: Vec<TransportMatch>,
    /// The transport of endpoints that match none.
    pub transport: Transport,
    /// How its names are resolved, where it has any.
    pub dns: Arc<Dns>,
    /// Each connection begins with who the client is, in this version of the PROXY protocol; `None` says nothing.
    pub proxy_header: Option<ProxyVersion>,
    /// What telemetry reads.
    pub metadata: Metadata,
    /// What the user wrote that this came from.
    pub provenance: Option<Provenance>,
}

/// Time to connect that Envoy takes where nothing is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What connections to endpoints are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// Requests after which a connection is not used again; `None` is no limit.
    pub max_requests: Option<u32>,
    /// Probes on connections where nothing moves; `None` sends none.
    pub keepalive: Option<Keepalive>,
    /// Age after which a connection is not used again; `None` never.
    pub max_duration: Option<Duration>,
    /// Streams on one HTTP/2 connection at a time; `None` leaves it to the proxy.
    pub max_streams: Option<u32>,
    /// Pings on HTTP/2 connections; `None` leaves them to the proxy.
    pub pings: Option<Pings>,
    /// Where they come from; `None` leaves it to the system (`upstream_bind_config`).
    pub source: Option<SocketAddr>,
    /// How names of headers are written to its endpoints over HTTP/1.
    pub header_case: HeaderCase,
}

/// Pings by which it is found out whether an HTTP/2 connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    /// Time between two.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// TCP keep-alive; what is `None` is left to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keepalive {
    /// Probes without an answer after which the connection is dead.
    pub probes: Option<u32>,
    /// Rest before the first probe.
    pub time: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
}

/// Metadata namespace that [`TransportMatch`] looks at in endpoints.
pub const TRANSPORT_MATCH_NAMESPACE: &str = "envoy.transport_socket_match";

impl Cluster {
    /// A cluster about which nothing else is said: HTTP/1.1 in plaintext, no limits.
    pub fn new(name: impl Into<String>, discovery: Discovery) -> Self {
        Self {
            name: name.into(),
            discovery,
            load_balancing: LoadBalancing::default(),
            spread: Arc::default(),
            limits: Arc::default(),
            outlier_detection: None,
            health_checks: Vec::new(),
            error_statuses: Vec::new(),
            connections: Arc::default(),
            hash_policies: Vec::new(),
            connect_timeout: CONNECT_TIMEOUT,
            http: UpstreamHttp::default(),
            idle_timeout: None,
            transport_matches: Vec::new(),
            transport: Transport::Plain,
            dns: Arc::default(),
            proxy_header: None,
            metadata: Metadata::default(),
            provenance: None,
        }
    }

    /// What is the same in both is there once from now on.
    pub fn share_with(&mut self, other: &Self) {
        fn share<T: PartialEq>(own: &mut Arc<T>, other: &Arc<T>) {
            if own == other {
                own.clone_from(other);
            }
        }
        share(&mut self.spread, &other.spread);
        share(&mut self.limits, &other.limits);
        share(&mut self.connections, &other.connections);
        share(&mut self.dns, &other.dns);
        self.metadata.share_with(&other.metadata);
        if let (Some(own), Some(other)) = (&mut self.provenance, &other.provenance) {
            own.share_with(other);
        }
        if let (Some(own), Some(other)) = (&mut self.outlier_detection, &other.outlier_detection) {
            share(own, other);
        }
        for (own, other) in self.transport_matches.iter_mut().zip(&other.transport_matches) {
            let (Transport::Tls(own), Transport::Tls(other)) = (&mut own.transport, &other.transport) else {
                continue;
            };
            if let (Some(own), Some(other)) = (&mut own.validation, &other.validation) {
                share(own, other);
            }
        }
    }

    /// How to connect to `endpoint`.
    pub fn transport_for(&self, endpoint: &Endpoint) -> &Transport {
        let labels = endpoint.metadata.0.get(TRANSPORT_MATCH_NAMESPACE);
        let suits =
            |m: &&TransportMatch| m.labels.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
        self.transport_matches.iter().find(suits).map_or(&self.transport, |m| &m.transport)
    }
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Given here.
    Static(Assignment),
    /// Asked for over EDS by this name.
    Eds(String),
    /// Names here are resolved; every address becomes an endpoint.
    StrictDns(Assignment),
    /// The name here is resolved; the first address is used for new connections.
    LogicalDns(Assignment),
    /// The address that the client wanted to reach.
    OriginalDestination,
    /// Those of these clusters: the first that is healthy, and the next for what it cannot take.
    Aggregate(Vec<String>),
}

/// How names are resolved, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Time until a name is asked for again.
    pub refresh: Duration,
    /// The answer itself says how long it is good (`respect_dns_ttl`).
    pub respects_ttl: bool,
    /// Time until it is asked for again after a failure, and how far that grows; `None` is [`refresh`](Self::refresh).
    pub failure: Option<(Duration, Duration)>,
    /// Up to so much is added at random.
    pub jitter: Duration,
    /// Which addresses.
    pub family: Family,
    /// Servers that are asked instead of the system's.
    pub servers: Vec<SocketAddr>,
    /// They are asked over TCP only.
    pub over_tcp: bool,
    /// The system's search domains are not tried.
    pub without_search: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            respects_ttl: false,
            failure: None,
            jitter: Duration::ZERO,
            family: Family::default(),
            servers: Vec::new(),
            over_tcp: false,
            without_search: false,
        }
    }
}

/// Which addresses of a name are used (`DnsLookupFamily`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Family {
    /// IPv4, and IPv6 where there is none.
    #[default]
    PreferV4,
    /// IPv6, and IPv4 where there is none.
    PreferV6,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    All,
}

/// A transport for endpoints whose metadata say so.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportMatch {
    /// Its name, for people.
    pub name: String,
    /// What an endpoint's metadata must hold under [`TRANSPORT_MATCH_NAMESPACE`]; empty matches all.
    pub labels: Fields,
    /// The transport.
    pub transport: Transport,
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How bytes travel.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// As they are.
    Plain,
    /// In TLS.
    Tls(Box<UpstreamTls>),
}

/// The HTTP version spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamHttp {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, by prior knowledge or ALPN.
    Http2,
    /// What the client spoke.
    AsDownstream,
    /// What ALPN chooses.
    Alpn,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{EndpointAddress, Health};
    use crate::metadata::Value;

    #[test]
    fn the_transport_is_chosen_by_what_the_endpoint_says_of_itself() {
        let labels = Fields::from([("tlsMode".to_owned(), Value::from("istio"))]);
        let tls = UpstreamTls {
            certificate: None,
            validation: None,
            sni: None,
            alpn: vec![],
            versions: Default::default(),
        };
        let tls = Transport::Tls(Box::new(tls));
        let cluster = Cluster {
            transport_matches: vec![TransportMatch { name: "mtls".into(), labels, transport: tls.clone() }],
            ..Cluster::new("c", Discovery::OriginalDestination)
        };
        let mut endpoint = Endpoint {
            address: EndpointAddress::Name("a".into(), 80),
            hostname: String::new(),
            weight: 1,
            health: Health::Unknown,
            metadata: Metadata::default(),
        };
        assert_eq!(cluster.transport_for(&endpoint), &Transport::Plain);
        endpoint.metadata.set(TRANSPORT_MATCH_NAMESPACE, "tlsMode", "istio");
        assert_eq!(cluster.transport_for(&endpoint), &tls);
    }
}
