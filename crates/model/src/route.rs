//! Routes as configured: virtual hosts, matches, and what to do with a request that matches.
//! Finding the route for a request is `routing`'s. Envoy `config.route.v3`.

pub use crate::filter::{FilterSettings, Setting};
pub use crate::fraction::Fraction;

use crate::affinity::HashPolicy;
use crate::balance::Criteria;
use crate::format::Template;
use crate::header::{HeaderEdits, HeaderMatch};
use crate::limits::Priority;
use crate::matcher::{Pattern, StringMatch};
use crate::metadata::Metadata;
use crate::mutation::Mutation;
use crate::provenance::Provenance;
use crate::retry::RetryPolicy;
use crate::uri_template::{UriRewrite, UriTemplate};
use http::HeaderName;
use std::sync::Arc;
use std::time::Duration;

/// A table of virtual hosts (`RouteConfiguration`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteConfiguration {
    /// Its name, by which RDS asks for it.
    pub name: String,
    /// Hosts and their routes.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Edits to every request that is routed.
    pub request_headers: HeaderEdits,
    /// Edits to every answer to such a request.
    pub response_headers: HeaderEdits,
    /// A port in the authority is not looked at when choosing the virtual host.
    pub ignore_port: bool,
    /// Edits of the table win over those of the route, instead of the other way round.
    pub most_specific_first: bool,
    /// Clusters must exist for the table to be accepted (`validate_clusters`).
    pub validate_clusters: bool,
    /// What filters do with its requests; hosts and routes may say otherwise.
    pub filters: Option<Box<FilterSettings>>,
    /// Hosts that are not in it are asked for when a request needs them (`vhds`).
    pub asks_for_hosts: bool,
}

/// Routes for some hosts (`VirtualHost`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VirtualHost {
    /// A name for people and logs.
    pub name: String,
    /// Hosts: exact, `*.suffix`, `prefix.*` or `*`, with a port where one matters. Lower case.
    pub domains: Vec<String>,
    /// Routes; the first that matches is taken.
    pub routes: Vec<Route>,
    /// Edits to requests.
    pub request_headers: HeaderEdits,
    /// Edits to answers.
    pub response_headers: HeaderEdits,
    /// Retries for routes that have none of their own.
    pub retry: Option<RetryPolicy>,
    /// Plain HTTP is answered with a redirect to HTTPS.
    pub require_tls: bool,
    /// Each try carries its number in `x-envoy-attempt-count`.
    pub attempt_count_in_request: bool,
    /// Answers carry the number of tries in `x-envoy-attempt-count`.
    pub attempt_count_in_response: bool,
    /// What filters do with its requests; routes may say otherwise.
    pub filters: Option<Box<FilterSettings>>,
}

/// One rule (`Route`).
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name, for people and logs.
    pub name: String,
    /// What a request must look like.
    pub condition: RouteMatch,
    /// What is done with it.
    pub action: Action,
    /// Edits to requests.
    pub request_headers: HeaderEdits,
    /// Edits to answers.
    pub response_headers: HeaderEdits,
    /// What filters do with its requests.
    pub filters: Option<Box<FilterSettings>>,
    /// Free-form metadata, without the provenance.
    pub metadata: Metadata,
    /// What the user wrote that this came from.
    pub provenance: Option<Provenance>,
}

/// What a request must look like; all parts must hold (`RouteMatch`).
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// Its path.
    pub path: PathMatch,
    /// ASCII case of the path matters. Has no effect on a regex.
    pub case_sensitive: bool,
    /// Its headers.
    pub headers: Vec<HeaderMatch>,
    /// Its query parameters.
    pub query: Vec<QueryMatch>,
    /// Only gRPC requests.
    pub grpc_only: bool,
    /// Only this share of requests, by a random number per request.
    pub fraction: Option<Fraction>,
}

impl RouteMatch {
    /// Any request.
    pub fn any() -> Self {
        Self::path(PathMatch::Prefix("/".to_owned()))
    }

    /// Any request with such a path.
    pub fn path(path: PathMatch) -> Self {
        Self {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            grpc_only: false,
            fraction: None,
        }
    }
}

/// A condition on the path, without the query.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// Equal to.
    Exact(String),
    /// Begins with, as a string: `/foo` matches `/foobar`.
    Prefix(String),
    /// Equal to, or begins with and goes on with a slash (`path_separated_prefix`).
    SegmentPrefix(String),
    /// Matches as a whole.
    Regex(Pattern),
    /// Taken by a URI template as a whole (`path_match_policy`).
    Template(UriTemplate),
    /// Any CONNECT request (`connect_matcher`); it has no path.
    Connect,
}

/// A condition on one query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatch {
    /// Its name, compared as sent, without decoding.
    pub name: String,
    /// What its first value must look like; `None` asks only that it be there.
    pub value: Option<StringMatch>,
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Sent to a cluster. Routes that do the same share it.
    Forward(Arc<Forward>),
    /// Answered with a redirect.
    Redirect(Redirect),
    /// Answered here.
    Respond(DirectResponse),
}

impl Action {
    /// Sends requests on like this.
    pub fn forward(forward: Forward) -> Self {
        Self::Forward(Arc::new(forward))
    }
}

/// How a request is sent on (`RouteAction`).
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Where to.
    pub target: Target,
    /// Status when the cluster does not exist (503 unless set; Envoy allows 404 and 500, too).
    pub cluster_not_found_status: u16,
    /// The path is changed.
    pub path_rewrite: Option<PathRewrite>,
    /// The authority is changed.
    pub host_rewrite: Option<HostRewrite>,
    /// Time for the whole exchange, retries included; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Time without any byte in either direction; `None` takes the connection manager's, zero lifts it.
    pub idle_timeout: Option<Duration>,
    /// Time for the whole exchange from its first byte on, whatever moves; `None` takes the connection manager's, zero
    /// lifts it.
    pub max_duration: Option<Duration>,
    /// What the header `grpc-timeout` says counts, too.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// Retries; `None` takes the virtual host's.
    pub retry: Option<RetryPolicy>,
    /// Upgrades allowed or forbidden here, over what the connection manager says.
    pub upgrades: Vec<Upgrade>,
    /// Copies of the request are sent here, too.
    pub mirrors: Vec<Mirror>,
    /// An authority that is rewritten is told in `x-forwarded-host`.
    pub append_forwarded_host: bool,
    /// What the request is hashed by, for clusters that pick by hash.
    pub hash_policies: Vec<HashPolicy>,
    /// What endpoints have to be like, for clusters with subsets (`metadata_match`).
    pub subset: Criteria,
    /// Which limits of the cluster it counts against.
    pub priority: Priority,
    /// Weighted clusters are picked by what the request is hashed to, where it is (`use_hash_policy`).
    pub splits_by_hash: bool,
}

/// How far a client's `grpc-timeout` is believed; it then is the longest duration of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// Never longer than this; `None` is no limit.
    pub max: Option<Duration>,
    /// So much shorter than the client says, so that it hears of it in time.
    pub offset: Duration,
}

/// Copies of requests whose answers nobody waits for (`RequestMirrorPolicy`).
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub target: MirrorTarget,
    /// Share of requests; `None` is all.
    pub share: Option<Fraction>,
    /// `-shadow` is not appended to the host.
    pub keep_host: bool,
    /// The copy's trace is recorded or not; `None` leaves it as it is.
    pub trace_sampled: Option<bool>,
    /// The copy's authority, as it is.
    pub host: Option<String>,
    /// Edits to the copy's headers.
    pub edits: Vec<Mutation>,
}

/// Where copies go.
#[derive(Debug, Clone, PartialEq)]
pub enum MirrorTarget {
    /// To this cluster.
    Cluster(String),
    /// To the cluster that this request header names.
    Header(HeaderName),
}

impl Forward {
    /// To one cluster, nothing else.
    pub fn to(cluster: impl Into<String>) -> Self {
        Self {
            target: Target::Cluster(cluster.into()),
            cluster_not_found_status: 503,
            path_rewrite: None,
            host_rewrite: None,
            timeout: None,
            idle_timeout: None,
            retry: None,
            upgrades: Vec::new(),
            max_duration: None,
            grpc_timeout: None,
            mirrors: Vec::new(),
            append_forwarded_host: false,
            hash_policies: Vec::new(),
            subset: Criteria::new(),
            priority: Priority::Default,
            splits_by_hash: false,
        }
    }
}

/// Where a request is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// To this cluster.
    Cluster(String),
    /// To one of several, by weight. At least one weight is above zero.
    Weighted(Vec<WeightedCluster>),
    /// To the cluster that this request header names.
    Header(HeaderName),
}

impl Target {
    /// The clusters named.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::Cluster(name) => (Some(name.as_str()), &[][..]),
            Self::Weighted(all) => (None, all.as_slice()),
            Self::Header(_) => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().map(|w| w.cluster.as_str()))
    }

    /// Picks one of the weighted clusters with `random` (any 64 random bits); `None` for other targets.
    pub fn pick_weighted(&self, random: u64) -> Option<&WeightedCluster> {
        let Self::Weighted(all) = self else { return None };
        let total: u64 = all.iter().map(|w| u64::from(w.weight)).sum();
        let mut at = random.checked_rem(total)?;
        all.iter().find(|w| {
            let weight = u64::from(w.weight);
            let found = at < weight;
            at = at.saturating_sub(weight);
            found
        })
    }
}

/// One of several clusters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WeightedCluster {
    /// Which.
    pub cluster: String,
    /// Its share is this over the sum of all weights.
    pub weight: u32,
    /// Edits to requests sent there.
    pub request_headers: HeaderEdits,
    /// Edits to its answers.
    pub response_headers: HeaderEdits,
    /// The authority is set to this.
    pub host_rewrite: Option<String>,
    /// Joins what the route says of endpoints, and wins over it.
    pub subset: Criteria,
}

/// A change of the path before it is sent on. The query stays.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// What the match matched (its prefix, or the whole of an exact path) is replaced by this.
    Prefix(String),
    /// The path, without the query, is replaced by this (`path_rewrite`-like full replacement).
    Full(String),
    /// Each match of the pattern is replaced; `\1` stands for the first group.
    Regex(Substitution),
    /// What the match's template remembered is put together anew (`path_rewrite_policy`).
    Template(UriRewrite),
    /// The path is replaced by this, filled in per request.
    Formatted(Template),
}

/// A regex replacement (`RegexMatchAndSubstitute`).
#[derive(Debug, Clone)]
pub struct Substitution {
    /// Pattern as written.
    pub pattern: String,
    /// Replacement with `\N` for groups, `\0` for the whole match.
    pub replacement: String,
    pub(crate) regex: regex::Regex,
}

impl Substitution {
    /// Compiles `pattern` (not anchored).
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, crate::matcher::PatternError> {
        Pattern::new(pattern)?;
        let regex = regex::Regex::new(pattern)
            .map_err(|e| crate::matcher::PatternError::new(pattern, &e.to_string()))?;
        Ok(Self { pattern: pattern.to_owned(), replacement: replacement.to_owned(), regex })
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, &self.replacement) == (&other.pattern, &other.replacement)
    }
}

/// A change of the authority.
#[derive(Debug, Clone, PartialEq)]
pub enum HostRewrite {
    /// This.
    Literal(String),
    /// The endpoint's host name (`auto_host_rewrite`), where it has one.
    Endpoint,
    /// The value of this request header, if it is there.
    Header(HeaderName),
    /// What the path becomes when each match of the pattern is replaced.
    Path(Substitution),
    /// This, filled in per request.
    Formatted(Template),
}

/// An answer that sends the client elsewhere (`RedirectAction`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Redirect {
    /// New scheme; `https` also when `https_redirect`.
    pub scheme: Option<String>,
    /// New host.
    pub host: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<PathRewrite>,
    /// Status: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The query is left out.
    pub strip_query: bool,
}

/// An answer given here (`DirectResponseAction`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DirectResponse {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Leave to switch protocols (`UpgradeConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The protocol, such as `websocket` or `CONNECT`; compared without case.
    pub protocol: String,
    /// Allowed.
    pub enabled: bool,
    /// A CONNECT is ended here and its bytes are sent to the cluster as plain TCP (`connect_config`).
    pub terminate_connect: bool,
}
