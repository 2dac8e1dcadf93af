//! Listeners: where connections come in, and which filter chain takes one (`envoy.config.listener.v3`).
//! [`Listener::chain_for`] follows the order in `FilterChainMatch`: port, address, server name, transport protocol,
//! application protocol; at each step the most specific criterion that matches narrows the choice, and a chain lost at
//! one step does not come back at a later one.

pub use crate::address::AddressRange;
use crate::filter::HttpFilters;
use crate::format::Template;
use crate::metadata::Metadata;
use crate::path::PathNormalization;
use crate::provenance::Provenance;
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

/// Listener filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Take off what a load balancer in front says of the connection (`proxy_protocol`), before all else.
    pub proxy_protocol: Option<ProxyHeader>,
    /// Look for a TLS ClientHello (`tls_inspector`).
    pub tls: bool,
    /// Look for HTTP (`http_inspector`).
    pub http: bool,
}

/// A header of the PROXY protocol, version 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Connections without one are let in, too.
    pub optional: bool,
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
}

/// What is done with a connection's bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Network {
    /// They are HTTP.
    Http(Box<HttpConnectionManager>),
    /// They are passed on.
    Tcp(TcpProxy),
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
    /// Logs.
    pub access_logs: Vec<AccessLog>,
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
}

/// What a log line looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// Text; brings its own end of line.
    Text(Template),
    /// A JSON object with these keys, in this order.
    Json(Vec<(String, Template)>),
}

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Where the client wanted to connect to.
    pub destination: SocketAddr,
    /// SNI of its ClientHello, lower case.
    pub server_name: Option<&'a str>,
    /// It began with a ClientHello.
    pub is_tls: bool,
    /// Protocols by ALPN, or as the HTTP inspector found them.
    pub application_protocols: &'a [&'a str],
}

impl Listener {
    /// The chain that takes a connection; `None` when it must be closed.
    pub fn chain_for(&self, facts: &ConnectionFacts<'_>) -> Option<&FilterChain> {
        let mut left: Vec<&FilterChain> = self.chains.iter().collect();
        narrow(&mut left, |m| specificity_of_port(m, facts));
        narrow(&mut left, |m| specificity_of_address(m, facts));
        narrow(&mut left, |m| specificity_of_server_name(m, facts));
        narrow(&mut left, |m| specificity_of_transport(m, facts));
        narrow(&mut left, |m| specificity_of_application(m, facts));
        left.first().copied().or(self.default_chain.as_ref())
    }
}

/// Keeps the chains for which `specificity` is highest; `None` means that a chain does not match at all.
fn narrow(chains: &mut Vec<&FilterChain>, specificity: impl Fn(&ChainMatch) -> Option<usize>) {
    let best = chains.iter().filter_map(|c| specificity(&c.condition)).max();
    chains.retain(|c| best.is_some() && specificity(&c.condition) == best);
}

fn specificity_of_port(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    match m.destination_port {
        None => Some(0),
        Some(port) => (port == facts.destination.port()).then_some(1),
    }
}

fn specificity_of_address(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    if m.destinations.is_empty() {
        return Some(0);
    }
    let inside = m.destinations.iter().filter(|r| r.contains(facts.destination.ip()));
    inside.map(|r| usize::from(r.prefix_length) + 1).max()
}

fn specificity_of_server_name(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    if m.server_names.is_empty() {
        return Some(0);
    }
    let sni = facts.server_name?;
    let score = |pattern: &String| match pattern.strip_prefix('*') {
        None => (pattern == sni).then_some(usize::MAX),
        Some(suffix) => (sni.len() > suffix.len() && sni.ends_with(suffix)).then_some(suffix.len() + 1),
    };
    m.server_names.iter().filter_map(score).max()
}

fn specificity_of_transport(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    let found = if facts.is_tls { "tls" } else { "raw_buffer" };
    match m.transport_protocol.as_deref() {
        None | Some("") => Some(0),
        Some(wanted) => (wanted == found).then_some(1),
    }
}

fn specificity_of_application(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    if m.application_protocols.is_empty() {
        return Some(0);
    }
    // The client's own order of preference decides between chains.
    let all = facts.application_protocols;
    let at = all.iter().position(|p| m.application_protocols.iter().any(|wanted| wanted == p))?;
    Some(all.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, condition: ChainMatch) -> FilterChain {
        let tcp = TcpProxy { stat_prefix: String::new(), clusters: vec![], ..TcpProxy::default() };
        FilterChain { name: name.into(), condition, tls: None, network: Network::Tcp(tcp) }
    }

    fn listener(chains: Vec<FilterChain>) -> Listener {
        Listener {
            name: "l".into(),
            address: None,
            inspect: Inspection { tls: true, ..Inspection::default() },
            chains,
            default_chain: None,
            direction: Direction::Inbound,
            metadata: Metadata::default(),
            provenance: None,
        }
    }

    fn chosen<'l>(l: &'l Listener, sni: Option<&str>, is_tls: bool, alpn: &[&str]) -> Option<&'l str> {
        let destination = SocketAddr::from(([127, 1, 0, 5], 9080));
        let facts = ConnectionFacts { destination, server_name: sni, is_tls, application_protocols: alpn };
        l.chain_for(&facts).map(|c| c.name.as_str())
    }

    #[test]
    fn a_permissive_port_takes_mesh_tls_and_plaintext_apart_and_closes_what_is_neither() {
        let mesh = ChainMatch {
            transport_protocol: Some("tls".into()),
            application_protocols: vec!["istio".into()],
            ..Default::default()
        };
        let plain = ChainMatch { transport_protocol: Some("raw_buffer".into()), ..Default::default() };
        let l = listener(vec![chain("mesh", mesh), chain("plain", plain)]);
        assert_eq!(chosen(&l, None, true, &["istio"]), Some("mesh"));
        assert_eq!(chosen(&l, None, false, &[]), Some("plain"));
        assert_eq!(chosen(&l, None, true, &["h2"]), None);
    }

    #[test]
    fn the_most_specific_server_name_wins() {
        let name = |n: &str| ChainMatch { server_names: vec![n.into()], ..Default::default() };
        let l = listener(vec![
            chain("any", ChainMatch::default()),
            chain("wide", name("*.com")),
            chain("narrow", name("*.b.com")),
            chain("exact", name("a.b.com")),
        ]);
        assert_eq!(chosen(&l, Some("a.b.com"), true, &[]), Some("exact"));
        assert_eq!(chosen(&l, Some("x.b.com"), true, &[]), Some("narrow"));
        assert_eq!(chosen(&l, Some("b.com"), true, &[]), Some("wide"));
        assert_eq!(chosen(&l, None, true, &[]), Some("any"));
    }

    #[test]
    fn a_chain_lost_at_one_step_does_not_come_back_at_a_later_one() {
        let port = ChainMatch { destination_port: Some(9080), ..Default::default() };
        let port_and_name = ChainMatch { server_names: vec!["x".into()], ..port };
        let name = ChainMatch { server_names: vec!["y".into()], ..Default::default() };
        let l = listener(vec![chain("port", port_and_name), chain("name", name)]);
        assert_eq!(chosen(&l, Some("y"), true, &[]), None, "the port narrowed the choice first");
    }
}
