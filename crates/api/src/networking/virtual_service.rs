//! `VirtualService`: which requests and connections go where.

use std::collections::BTreeMap;
use std::time::Duration;

use super::string_match::StringMatch;
use crate::decode::{Bytes, Decode, Decoder, choice, message};
use crate::yaml::Node;

message! {
    /// Routing rules for some hosts. The first rule that matches wins.
    pub struct VirtualService {
        /// Hosts the rules are for; `*.example.com` for all below. Empty in a delegate.
        pub hosts: Vec<String>,
        /// Gateways (`name` or `namespace/name`) that obey; `mesh` for all sidecars, which empty means too.
        pub gateways: Vec<String>,
        /// Rules for HTTP requests.
        pub http: Vec<HttpRoute>,
        /// Rules for TLS connections passed through, by SNI.
        pub tls: Vec<TlsRoute>,
        /// Rules for other connections.
        pub tcp: Vec<TcpRoute>,
        /// Namespaces that see it: `.`, `*` or names. Empty means the mesh default.
        pub export_to: Vec<String>,
    }
}

message! {
    /// What a rule's traffic goes to.
    pub struct Destination {
        /// A service's name; a short one belongs to the rule's namespace.
        pub host: String,
        /// A subset named in a DestinationRule; empty for the whole service.
        pub subset: String,
        /// Which port; may be absent when the service has one.
        pub port: Option<PortSelector>,
    }
}

message! {
    /// A rule for HTTP requests.
    pub struct HttpRoute {
        /// Names the rule in logs.
        pub name: String,
        /// Conditions, one of which must hold; none means every request.
        pub r#match: Vec<HttpMatch>,
        /// Where to, by weight.
        pub route: Vec<HttpRouteDestination>,
        /// Answer with a redirect instead.
        pub redirect: Option<HttpRedirect>,
        /// Answer with this instead.
        pub direct_response: Option<HttpDirectResponse>,
        /// Take the rules of another VirtualService instead.
        pub delegate: Option<Delegate>,
        /// Change path or authority before sending on.
        pub rewrite: Option<HttpRewrite>,
        /// How long the whole request may take; none means no limit, as does zero.
        pub timeout: Option<Duration>,
        /// When to try again.
        pub retries: Option<HttpRetry>,
        /// Delays and errors to inject.
        pub fault: Option<HttpFaultInjection>,
        /// Also send a copy here and forget the answer. Superseded by `mirrors`.
        pub mirror: Option<Destination>,
        /// Also send copies here.
        pub mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated: whole percent of requests mirrored.
        pub mirror_percent: Option<u32>,
        /// Percent of requests mirrored; all when absent.
        pub mirror_percentage: Option<Percent>,
        /// Cross-origin rules.
        pub cors_policy: Option<CorsPolicy>,
        /// Headers to change.
        pub headers: Option<Headers>,
    }
}

message! {
    /// Another VirtualService that has the rules.
    pub struct Delegate {
        /// Its name.
        pub name: String,
        /// Its namespace; empty for the same.
        pub namespace: String,
    }
}

message! {
    /// Header changes.
    pub struct Headers {
        /// Before the request is sent on.
        pub request: Option<HeaderOperations>,
        /// Before the response is sent back.
        pub response: Option<HeaderOperations>,
    }
}

message! {
    /// Header changes in one direction.
    pub struct HeaderOperations {
        /// Replace.
        pub set: BTreeMap<String, String>,
        /// Append.
        pub add: BTreeMap<String, String>,
        /// Remove.
        pub remove: Vec<String>,
    }
}

message! {
    /// A rule for TLS connections passed through.
    pub struct TlsRoute {
        /// Conditions, one of which must hold.
        pub r#match: Vec<TlsMatchAttributes>,
        /// Where to, by weight.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// A rule for connections of unknown content.
    pub struct TcpRoute {
        /// Conditions, one of which must hold; none means every connection.
        pub r#match: Vec<L4MatchAttributes>,
        /// Where to, by weight.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// Conditions on a request, all of which must hold.
    pub struct HttpMatch {
        /// Names the match in logs.
        pub name: String,
        /// The path, without query for `exact`.
        pub uri: Option<StringMatch>,
        /// `http` or `https`.
        pub scheme: Option<StringMatch>,
        /// The method.
        pub method: Option<StringMatch>,
        /// Host and port asked for.
        pub authority: Option<StringMatch>,
        /// Headers, by name.
        pub headers: BTreeMap<String, StringMatch>,
        /// The port the request came in on; 0 for any.
        pub port: u16,
        /// Labels of the client workload.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways for which the match counts; overrides the VirtualService's.
        pub gateways: Vec<String>,
        /// Query parameters, by name.
        pub query_params: BTreeMap<String, StringMatch>,
        /// Compare the path without regard to case (not for `regex`).
        pub ignore_uri_case: bool,
        /// Headers that must not match, by name.
        pub without_headers: BTreeMap<String, StringMatch>,
        /// Namespace of the client workload.
        pub source_namespace: String,
        /// Prefix for statistics of this route.
        pub stat_prefix: String,
    }
}

message! {
    /// A destination with its share of HTTP requests.
    pub struct HttpRouteDestination {
        /// Where to.
        pub destination: Destination,
        /// Relative to the sum of all; 0 or absent on all means the single one gets everything.
        pub weight: i32,
        /// Headers to change for this destination.
        pub headers: Option<Headers>,
    }
}

message! {
    /// A destination with its share of connections.
    pub struct RouteDestination {
        /// Where to.
        pub destination: Destination,
        /// Relative to the sum of all.
        pub weight: i32,
    }
}

message! {
    /// Conditions on a connection.
    pub struct L4MatchAttributes {
        /// Addresses (`10.0.0.0/8`) connected to.
        pub destination_subnets: Vec<String>,
        /// Port connected to; 0 for any.
        pub port: u16,
        /// Addresses connected from.
        pub source_subnet: String,
        /// Labels of the client workload.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways for which the match counts.
        pub gateways: Vec<String>,
        /// Namespace of the client workload.
        pub source_namespace: String,
    }
}

message! {
    /// Conditions on a TLS connection.
    pub struct TlsMatchAttributes {
        /// Server names asked for.
        pub sni_hosts: Vec<String>,
        /// Addresses connected to.
        pub destination_subnets: Vec<String>,
        /// Port connected to; 0 for any.
        pub port: u16,
        /// Labels of the client workload.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways for which the match counts.
        pub gateways: Vec<String>,
        /// Namespace of the client workload.
        pub source_namespace: String,
    }
}

message! {
    /// Answer with a redirect. What is empty stays as in the request.
    pub struct HttpRedirect {
        /// New path.
        pub uri: String,
        /// New authority.
        pub authority: String,
        /// New port.
        pub port: Option<u16>,
        /// Where the new port comes from.
        pub derive_port: Option<RedirectPortSelection>,
        /// New scheme.
        pub scheme: String,
        /// 301, 302, 303, 307 or 308; 0 means 301.
        pub redirect_code: u32,
        /// Replaces the matched prefix.
        pub prefix_rewrite: String,
    }
}

choice! {
    /// Where a redirect's port comes from.
    pub enum RedirectPortSelection {
        /// 80 or 443, by the scheme.
        FromProtocolDefault = ("FROM_PROTOCOL_DEFAULT", 0),
        /// The port of the request.
        FromRequestPort = ("FROM_REQUEST_PORT", 1),
    }
}

message! {
    /// Answer without asking anybody.
    pub struct HttpDirectResponse {
        /// The status.
        pub status: u32,
        /// The body.
        pub body: Option<HttpBody>,
    }
}

/// A body: `string` as it is, or `bytes` in base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpBody {
    /// What is sent.
    pub content: Vec<u8>,
}

message! {
    /// The oneof as it is written.
    struct WrittenBody {
        /// Text.
        string: Option<String>,
        /// Base64.
        bytes: Option<Bytes>,
    }
}

impl Decode for HttpBody {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let written = WrittenBody::decode(node, decoder)?;
        match (written.string, written.bytes) {
            (Some(_), Some(_)) => {
                decoder.error(node, "only one of string and bytes can be set");
                None
            }
            (Some(text), None) => Some(Self { content: text.into_bytes() }),
            (None, bytes) => Some(Self { content: bytes.unwrap_or_default().0 }),
        }
    }
}

message! {
    /// Changes before a request is sent on.
    pub struct HttpRewrite {
        /// Replaces the matched prefix, or the whole path.
        pub uri: String,
        /// New authority.
        pub authority: String,
        /// Replaces what an expression finds in the path.
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// Replace what an expression finds.
    pub struct RegexRewrite {
        /// RE2.
        pub r#match: String,
        /// The replacement, with `\1` for the first group.
        pub rewrite: String,
    }
}

message! {
    /// When to try a request again.
    pub struct HttpRetry {
        /// Tries after the first; 0 turns retries off.
        pub attempts: i32,
        /// How long each try may take; the route's timeout when absent.
        pub per_try_timeout: Option<Duration>,
        /// Conditions and status codes, separated by commas; empty for the default.
        pub retry_on: String,
        /// Whether other localities may be tried.
        pub retry_remote_localities: Option<bool>,
        /// Whether endpoints already tried are avoided.
        pub retry_ignore_previous_hosts: Option<bool>,
        /// Base interval between tries; 25 ms when absent.
        pub backoff: Option<Duration>,
    }
}

message! {
    /// Cross-origin rules.
    pub struct CorsPolicy {
        /// Deprecated: exact origins.
        pub allow_origin: Vec<String>,
        /// Origins allowed.
        pub allow_origins: Vec<StringMatch>,
        /// Methods allowed.
        pub allow_methods: Vec<String>,
        /// Request headers allowed.
        pub allow_headers: Vec<String>,
        /// Response headers that scripts may read.
        pub expose_headers: Vec<String>,
        /// How long a preflight's answer may be kept.
        pub max_age: Option<Duration>,
        /// Whether credentials may be sent.
        pub allow_credentials: Option<bool>,
        /// What happens to a preflight from an origin that is not allowed.
        pub unmatched_preflights: UnmatchedPreflights,
    }
}

choice! {
    /// What happens to a preflight from an origin that is not allowed.
    pub enum UnmatchedPreflights {
        /// Forward.
        Unspecified = ("UNSPECIFIED", 0),
        /// It goes to the destination.
        Forward = ("FORWARD", 1),
        /// It is answered without CORS headers.
        Ignore = ("IGNORE", 2),
    }
}

message! {
    /// Failures made on purpose.
    pub struct HttpFaultInjection {
        /// Wait first.
        pub delay: Option<FaultDelay>,
        /// Answer with an error.
        pub abort: Option<FaultAbort>,
    }
}

message! {
    /// A delay made on purpose.
    pub struct FaultDelay {
        /// Deprecated: whole percent of requests.
        pub percent: i32,
        /// How long.
        pub fixed_delay: Option<Duration>,
        /// Not implemented by Istio either.
        pub exponential_delay: Option<Duration>,
        /// Percent of requests; none when absent.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// An error made on purpose.
    pub struct FaultAbort {
        /// HTTP status.
        pub http_status: Option<i32>,
        /// gRPC status, `UNAVAILABLE`.
        pub grpc_status: Option<String>,
        /// Not implemented by Istio either.
        pub http2_error: Option<String>,
        /// Percent of requests; none when absent.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// Also send a copy, and forget the answer.
    pub struct HttpMirrorPolicy {
        /// Where to.
        pub destination: Destination,
        /// Percent of requests; all when absent.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// A port by number.
    pub struct PortSelector {
        /// From 1.
        pub number: u16,
    }
}

message! {
    /// A share of requests.
    pub struct Percent {
        /// From 0 to 100.
        pub value: f64,
    }
}
