//! Listeners: where connections come in, and what is done with them (`envoy.config.listener.v3`). Which filter chain
//! takes a connection is `chains`'.

mod chains;

pub use chains::ConnectionFacts;

pub use crate::address::AddressRange;
use crate::balance::Criteria;
pub use crate::header::HeaderCase;

use crate::filter::HttpFilters;
use crate::format::Template;
use crate::header::HeaderEdits;
use crate::local_reply::LocalReplies;
use crate::log_filter::LogFilter;
pub use crate::log_filter::LogFormat;
use crate::metadata::Metadata;
use crate::mutation::Mutation;
use crate::path::PathNormalization;
use crate::provenance::Provenance;
use crate::rewrite::HostStripping;
use crate::route::{RouteConfiguration, Upgrade, WeightedCluster};
use crate::tls::DownstreamTls;
use std::net::SocketAddr;
use std::time::Duration;

/// A place where connections come in.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens; `None` for an API listener, which only gRPC clients read.
    pub address: Option<SocketAddr>,
    /// What its socket is like, and what else listens.
    pub binding: Binding,
    /// What is found out about a connection before a chain is chosen.
    pub inspect: Inspection,
    /// Chains; [`Listener::chain_for`] chooses.
    pub chains: Vec<FilterChain>,
    /// The chain of connections that no other takes.
    pub default_chain: Option<FilterChain>,
    /// Which way its traffic goes.
    pub direction: Direction,
    /// What telemetry reads.
    pub metadata: Metadata,
    /// What the user wrote that this came from.
    pub provenance: Option<Provenance>,
}

/// What a listener's socket is like, and how else connections reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// It listens at these, too (`additional_addresses`).
    pub more: Vec<SocketAddr>,
    /// It has no socket; other listeners hand connections over to it (`bind_to_port: false`).
    pub unbound: bool,
    /// Connections that wanted to reach another listener's address are handed over to that one (`use_original_dst`).
    pub hands_over: bool,
    /// Connections to any address come in (`IP_TRANSPARENT`).
    pub transparent: bool,
    /// The address need not be one of this machine's (`IP_FREEBIND`).
    pub freebind: bool,
}

/// Listener filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Take off what a load balancer in front says of the connection (`proxy_protocol`), before all else.
    pub proxy_protocol: Option<ProxyHeader>,
    /// Look for a TLS ClientHello (`tls_inspector`).
    pub tls: bool,
    /// Look for HTTP (`http_inspector`).
    pub http: bool,
    /// Ask the kernel where a redirected connection wanted to go (`original_dst`).
    pub original_destination: bool,
}

/// A header of the PROXY protocol, version 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Connections without one are let in, too.
    pub optional: bool,
    /// What stands behind the addresses of version 2 is kept for endpoints that are told of it.
    pub keeps_tlvs: bool,
}

/// Which way traffic goes (`TrafficDirection`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// What happens to connections of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// Its name.
    pub name: String,
    /// Which connections it takes.
    pub condition: ChainMatch,
    /// TLS is spoken with the client.
    pub tls: Option<DownstreamTls>,
    /// What is done with the bytes inside.
    pub network: Network,
}

/// Which connections a chain takes (`FilterChainMatch`); an empty criterion takes all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainMatch {
    /// The port the client wanted to reach.
    pub destination_port: Option<u16>,
    /// The address the client wanted to reach.
    pub destinations: Vec<AddressRange>,
    /// SNI: exact or `*.suffix`.
    pub server_names: Vec<String>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: Option<String>,
    /// Protocols by ALPN, or as the HTTP inspector found them.
    pub application_protocols: Vec<String>,
    /// Where the socket's peer is.
    pub direct_sources: Vec<AddressRange>,
    /// Which kind of clients.
    pub source_type: SourceType,
    /// Where the client is, also when somebody in front said so.
    pub sources: Vec<AddressRange>,
    /// The client's port.
    pub source_ports: Vec<u16>,
}

/// Which kind of clients a chain takes (`ConnectionSourceType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceType {
    /// All.
    #[default]
    Any,
    /// Those of this machine.
    Local,
    /// Those of others.
    External,
}

/// What is done with a connection's bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Network {
    /// They are HTTP.
    Http(Box<HttpConnectionManager>),
    /// They are passed on.
    Tcp(Box<TcpProxy>),
}

/// Passing bytes on (`TcpProxy`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// Where to; one, or several by weight.
    pub clusters: Vec<WeightedCluster>,
    /// Time without a byte in either direction; `None` is no limit.
    pub idle_timeout: Option<Duration>,
    /// Time for the whole connection; `None` is no limit.
    pub max_duration: Option<Duration>,
    /// Endpoints tried for one connection; `None` leaves it to the proxy.
    pub max_connect_attempts: Option<u32>,
    /// What endpoints have to be like; what a weighted cluster says of the same keys counts more (`metadata_match`).
    pub subset: Criteria,
    /// The same client leads to the same endpoint, where the cluster goes by hashes (`hash_policy` of `source_ip`).
    pub hashes_source: bool,
    /// Bytes are passed on inside of an HTTP request to the endpoint (`tunneling_config`).
    pub tunnel: Option<Tunnel>,
    /// Logs.
    pub access_logs: Vec<AccessLog>,
    /// A line is written when the endpoint is connected, too (`flush_access_log_on_connected`).
    pub logs_start: bool,
    /// A line is written so often while the connection lives; `None` never (`access_log_flush_interval`).
    pub log_interval: Option<Duration>,
}

/// How bytes are passed on inside of an HTTP request (`TunnelingConfig`).
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    /// The authority that CONNECT asks for, such as `%DOWNSTREAM_LOCAL_ADDRESS%`.
    pub host: Template,
    /// With POST, this path instead of CONNECT.
    pub post_path: Option<String>,
    /// Headers that are added.
    pub headers: HeaderEdits,
}

impl TcpProxy {
    /// What an endpoint of one of its clusters has to be like.
    pub fn subset_for(&self, cluster: &WeightedCluster) -> Criteria {
        let mut subset = self.subset.clone();
        subset.extend(cluster.subset.iter().map(|(key, value)| (key.clone(), value.clone())));
        subset
    }
}

/// HTTP on a connection (`HttpConnectionManager`).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConnectionManager {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// The HTTP version spoken with clients.
    pub codec: Codec,
    /// Where its routes come from.
    pub routes: RouteSource,
    /// How paths are made canonical.
    pub path: PathNormalization,
    /// The peer's address is the client's, rather than what `x-forwarded-for` says (`use_remote_address`).
    pub edge: bool,
    /// How many trusted proxies stand before an edge (`xff_num_trusted_hops`).
    pub trusted_hops: u32,
    /// Upgrades allowed.
    pub upgrades: Vec<Upgrade>,
    /// A request without any byte for so long is ended; `None` is no limit.
    pub stream_idle_timeout: Option<Duration>,
    /// A connection without a request is closed after this; `None` never.
    pub idle_timeout: Option<Duration>,
    /// Time for a whole exchange, whatever moves; routes may say otherwise. `None` is no limit.
    pub max_stream_duration: Option<Duration>,
    /// A connection is drained after this; `None` never.
    pub max_connection_duration: Option<Duration>,
    /// A connection is drained after so many requests; `None` never.
    pub max_requests_per_connection: Option<u32>,
    /// Time for a request to come in as a whole; `None` is no limit.
    pub request_timeout: Option<Duration>,
    /// Time for a request's head; `None` leaves it to the proxy.
    pub request_headers_timeout: Option<Duration>,
    /// What becomes of header names with an underscore, which some applications take for a dash.
    pub underscores: Underscores,
    /// Filters before the router.
    pub filters: HttpFilters,
    /// A `Server` header is put into answers; `None` leaves the upstream's.
    pub server_name: Option<String>,
    /// An `x-request-id` from outside is kept at an edge (`preserve_external_request_id`).
    pub keep_request_id: bool,
    /// W3C trace context is made where there is none, and passed on; `None` leaves it alone.
    pub tracing: Option<Tracing>,
    /// Standard request metrics are counted (`istio.stats`).
    pub stats: bool,
    /// Logs.
    pub access_logs: Vec<AccessLog>,
    /// What answers of the proxy's own are made to look like.
    pub local_replies: LocalReplies,
    /// What is taken off the authority of each request.
    pub stripping: HostStripping,
    /// Edits to each request before its route is looked for (`early_header_mutation_extensions`).
    pub early_edits: Vec<Mutation>,
    /// Bounds on requests' heads.
    pub heads: HeadLimits,
    /// How names of headers are written to HTTP/1 clients.
    pub header_case: HeaderCase,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ClientCert,
    /// An `x-request-id` is made where there is none (`generate_request_id`).
    pub makes_request_id: bool,
    /// Every answer carries `x-request-id` (`always_set_request_id_in_response`).
    pub returns_request_id: bool,
    /// `x-forwarded-for` is left as it is at an edge (`skip_xff_append`).
    pub keeps_forwarded_for: bool,
    /// Put into `via` of requests and answers; empty for nothing.
    pub via: String,
}

/// Bounds on a request's head; `None` leaves it to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadLimits {
    /// KiB of names and values (`max_request_headers_kb`).
    pub kilobytes: Option<u32>,
    /// Headers (`max_headers_count`).
    pub count: Option<u32>,
}

/// What becomes of `x-forwarded-client-cert`, which says whom proxies before this one spoke with
/// (`forward_client_cert_details`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCert {
    /// It is dropped.
    #[default]
    Sanitize,
    /// It is passed on when the client proved who it is.
    ForwardOnly,
    /// It is passed on always.
    AlwaysForward,
}

impl Listener {
    /// All addresses that it is for.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.address.into_iter().chain(self.binding.more.iter().copied())
    }
}

impl HttpConnectionManager {
    /// One with Envoy's defaults, which has no logs, no metrics, and leaves the path as it comes.
    pub fn new(routes: RouteSource) -> Self {
        Self {
            stat_prefix: String::new(),
            codec: Codec::Auto,
            routes,
            path: PathNormalization::NONE,
            edge: false,
            trusted_hops: 0,
            upgrades: Vec::new(),
            stream_idle_timeout: Some(Duration::from_secs(300)),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_stream_duration: None,
            max_connection_duration: None,
            max_requests_per_connection: None,
            request_timeout: None,
            request_headers_timeout: None,
            underscores: Underscores::Keep,
            filters: HttpFilters::default(),
            server_name: Some("envoy".to_owned()),
            keep_request_id: false,
            tracing: None,
            stats: false,
            access_logs: Vec::new(),
            local_replies: LocalReplies::default(),
            stripping: HostStripping::default(),
            early_edits: Vec::new(),
            heads: HeadLimits::default(),
            header_case: HeaderCase::Lower,
            client_cert: ClientCert::Sanitize,
            makes_request_id: true,
            returns_request_id: false,
            keeps_forwarded_for: false,
            via: String::new(),
        }
    }
}

/// What becomes of a request with such a header name (`headers_with_underscores_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// It is as good as any.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// The header is dropped.
    Drop,
}

/// The HTTP version spoken with clients (`CodecType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// How requests are traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tracing {
    /// Share of requests without a trace of their own that are sampled, 0 to 100.
    pub random_sampling_percent: f64,
}

/// Where routes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// Given here.
    Inline(RouteConfiguration),
    /// Asked for over RDS by this name.
    Rds(String),
}

/// A log of requests or connections.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// File to append to; `/dev/stdout` and `/dev/stderr` are the streams.
    pub path: String,
    /// What a line looks like.
    pub format: LogFormat,
    /// Which exchanges it is for; `None` for all.
    pub filter: Option<LogFilter>,
    /// A command without a value is left out, instead of being `-` or `null`.
    pub omit_empty: bool,
}

impl AccessLog {
    /// A log of everything.
    pub fn new(path: impl Into<String>, format: LogFormat) -> Self {
        Self { path: path.into(), format, filter: None, omit_empty: false }
    }
}
