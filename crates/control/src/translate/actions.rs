//! What a VirtualService's rule does with a request: destinations, copies, rewrites, redirects, answers.
//! Finished but for the port of destinations that name none, which is the one the request came in on.

use super::clusters::{cluster_name, tunnel_name};
use super::connection::only;
use super::edits::{request_edits, response_edits};
use super::place::Place;
use super::protocol::Protocol;
use super::registry::Registry;
use super::retries::{no_retries, retry_policy};
use super::shares::of_percent;
use crate::hosts::full_name;
use api::networking::{
    Destination as WrittenDestination, HttpRedirect, HttpRewrite, HttpRoute, RedirectPortSelection,
    RouteDestination,
};
use model::fraction::Fraction;
use model::header::HeaderEdits;
use model::retry::RetryPolicy;
use model::route::{
    Action, DirectResponse, Forward, HostRewrite, Mirror, MirrorTarget, PathRewrite, Redirect, Substitution,
    Target, WeightedCluster,
};
use std::time::Duration;

/// A share of a rule's traffic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Destination {
    host: String,
    subset: String,
    /// `None` for the port the request came in on.
    port: Option<u16>,
    weight: u32,
    request_headers: HeaderEdits,
    response_headers: HeaderEdits,
    host_rewrite: Option<String>,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Sends on.
    Forward {
        /// At least one.
        destinations: Vec<Destination>,
        /// Where copies go, and of which share of requests.
        mirrors: Vec<(Destination, Fraction)>,
        /// Everything but the targets.
        forward: Box<Forward>,
    },
    /// Redirects; the port is the request's own when told so.
    Redirect(Redirect, bool),
    /// Answers.
    Respond(DirectResponse),
}

/// Timeout and retries of rules that have none of their own.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    pub(super) timeout: Option<Duration>,
    pub(super) retry: RetryPolicy,
}

impl Destination {
    /// A destination as written in a rule of `namespace`.
    fn of(to: &WrittenDestination, weight: u32, namespace: &str, registry: &Registry) -> Self {
        let host = full_name(&to.host, namespace);
        let service = registry.find(&host);
        let only =
            service.and_then(|s| if let [port] = s.ports.as_slice() { Some(port.number) } else { None });
        Self {
            // A host below a wildcard is reached through the wildcard's cluster.
            host: service.map_or(host, |service| service.host.clone()),
            subset: to.subset.clone(),
            port: to.port.as_ref().map(|port| port.number).or(only),
            weight,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            host_rewrite: None,
        }
    }

    /// Its host, and the port where one is chosen.
    pub(super) fn host_and_port(&self) -> (&str, Option<u16>) {
        (&self.host, self.port)
    }

    /// The cluster for requests that came in on `port`.
    pub(super) fn cluster(&self, port: u16) -> String {
        cluster_name(self.port.unwrap_or(port), &self.subset, &self.host)
    }

    /// The cluster for a tunnel's bytes.
    fn tunnel(&self, port: u16, registry: &Registry) -> String {
        let port = self.port.unwrap_or(port);
        let unknown = |number| Some(registry.find(&self.host)?.port(number)?.protocol == Protocol::Auto);
        match unknown(port) {
            Some(true) => tunnel_name(port, &self.subset, &self.host),
            _ => cluster_name(port, &self.subset, &self.host),
        }
    }
}

/// The destinations of a TCP or TLS rule.
pub(super) fn destinations(
    routes: &[RouteDestination],
    namespace: &str,
    registry: &Registry,
) -> Vec<Destination> {
    let weights = shares(routes.iter().map(|route| route.weight));
    let all = routes.iter().zip(weights).filter(|(_, weight)| *weight > 0);
    all.map(|(route, weight)| Destination::of(&route.destination, weight, namespace, registry)).collect()
}

/// Where a tunnel's bytes go.
pub(super) fn tunnel_target(destinations: &[Destination], port: u16, registry: &Registry) -> Option<Target> {
    target(destinations, |to| to.tunnel(port, registry))
}

/// Clusters by weight, for connections.
pub(super) fn weighted(destinations: &[Destination], port: u16) -> Vec<WeightedCluster> {
    let one = |to: &Destination| WeightedCluster {
        weight: to.weight,
        request_headers: to.request_headers.clone(),
        response_headers: to.response_headers.clone(),
        host_rewrite: to.host_rewrite.clone(),
        ..only(to.cluster(port))
    };
    destinations.iter().map(one).collect()
}

fn target(destinations: &[Destination], cluster: impl Fn(&Destination) -> String) -> Option<Target> {
    Some(match destinations {
        [] => return None,
        [one] => Target::Cluster(cluster(one)),
        many => Target::Weighted(
            many.iter()
                .zip(weighted(many, 0))
                .map(|(to, w)| WeightedCluster { cluster: cluster(to), ..w })
                .collect(),
        ),
    })
}

/// Weights as shares: one destination has everything, and where nobody has any, all have the same.
fn shares(weights: impl Iterator<Item = i32>) -> Vec<u32> {
    let weights: Vec<u32> = weights.map(|weight| u32::try_from(weight).unwrap_or(0)).collect();
    if weights.len() == 1 || weights.iter().all(|weight| *weight == 0) {
        return vec![1; weights.len()];
    }
    weights
}

impl Outcome {
    /// What `rule` does; one that makes failures (`is_faulty`) has no timeout and no retries of its own.
    pub(super) fn of(
        rule: &HttpRoute,
        is_faulty: bool,
        registry: &Registry,
        defaults: &Defaults,
        place: &mut Place<'_>,
    ) -> Self {
        if let Some(redirect) = &rule.redirect {
            let (redirect, keeps_port) = redirection(redirect);
            return Self::Redirect(redirect, keeps_port);
        }
        if let Some(respond) = &rule.direct_response {
            let body = respond.body.as_ref().map(|body| body.content.clone()).unwrap_or_default();
            return Self::Respond(DirectResponse {
                status: u16::try_from(respond.status).unwrap_or(503),
                body,
            });
        }
        let namespace = place.object.namespace().to_owned();
        let weights = shares(rule.route.iter().map(|route| route.weight));
        let mut destinations = Vec::new();
        for (index, (route, weight)) in
            rule.route.iter().zip(weights).enumerate().filter(|(_, (_, w))| *w > 0)
        {
            let mut to = Destination::of(&route.destination, weight, &namespace, registry);
            let field = format!("route[{index}].headers");
            (to.request_headers, to.host_rewrite) = request_edits(route.headers.as_ref(), &field, place);
            to.response_headers = response_edits(route.headers.as_ref(), &field, place);
            destinations.push(to);
        }
        if destinations.is_empty() {
            let body = "this rule names no destination that is supported yet\n".into();
            return Self::Respond(DirectResponse { status: 503, body });
        }
        let mut forward = Forward::to("");
        if is_faulty {
            forward.retry = Some(no_retries());
        } else {
            forward.timeout = rule.timeout.or(defaults.timeout).filter(|timeout| !timeout.is_zero());
            forward.retry = rule.retries.as_ref().map(|retries| retry_policy(retries, "retries", place));
        }
        if let Some(rewrite) = &rule.rewrite {
            (forward.path_rewrite, forward.host_rewrite) = rewrites(rewrite, place);
        }
        let mirrors = mirrors(rule, &namespace, registry);
        Self::Forward { destinations, mirrors, forward: Box::new(forward) }
    }

    /// The action for requests that came in on `port`.
    pub(super) fn action(&self, port: u16) -> Action {
        match self {
            Self::Respond(response) => Action::Respond(response.clone()),
            Self::Redirect(redirect, true) => {
                Action::Redirect(Redirect { port: Some(port), ..redirect.clone() })
            }
            Self::Redirect(redirect, false) => Action::Redirect(redirect.clone()),
            Self::Forward { destinations, mirrors, forward } => {
                let mut forward = (**forward).clone();
                forward.mirrors =
                    mirrors.iter().map(|(to, share)| mirror(to.cluster(port), *share)).collect();
                if let Some(target) = target(destinations, |to| to.cluster(port)) {
                    forward.target = target;
                }
                if let ([one], None) = (destinations.as_slice(), &forward.host_rewrite) {
                    forward.host_rewrite = one.host_rewrite.clone().map(HostRewrite::Literal);
                }
                Action::forward(forward)
            }
        }
    }

    /// Edits of a single destination: they become the route's.
    pub(super) fn edits(&self) -> (HeaderEdits, HeaderEdits) {
        match self {
            Self::Forward { destinations, .. } => match destinations.as_slice() {
                [one] => (one.request_headers.clone(), one.response_headers.clone()),
                _ => Default::default(),
            },
            _ => Default::default(),
        }
    }

    /// The destinations, of copies too.
    pub(super) fn all_destinations(&self) -> impl Iterator<Item = &Destination> {
        let copies = match self {
            Self::Forward { mirrors, .. } => mirrors.as_slice(),
            _ => &[],
        };
        self.destinations().iter().chain(copies.iter().map(|(to, _)| to))
    }

    /// The destinations, when it sends on.
    pub(super) fn destinations(&self) -> &[Destination] {
        match self {
            Self::Forward { destinations, .. } => destinations,
            _ => &[],
        }
    }
}

/// Where copies of a rule's requests go. A share of nothing is no copy.
fn mirrors(rule: &HttpRoute, namespace: &str, registry: &Registry) -> Vec<(Destination, Fraction)> {
    let old = rule.mirror_percent.map(f64::from);
    let old = rule.mirror_percentage.as_ref().map(|percent| percent.value).or(old);
    let one = rule.mirror.iter().map(|to| (to, old));
    let many = rule.mirrors.iter().map(|m| (&m.destination, m.percentage.as_ref().map(|p| p.value)));
    let all = one.chain(many).map(|(to, percent)| {
        (Destination::of(to, 1, namespace, registry), percent.map_or(Fraction::ALL, of_percent))
    });
    all.filter(|(_, share)| share.numerator > 0).collect()
}

fn mirror(cluster: String, share: Fraction) -> Mirror {
    Mirror {
        target: MirrorTarget::Cluster(cluster),
        share: Some(share).filter(|share| *share != Fraction::ALL),
        keep_host: false,
        trace_sampled: None,
        host: None,
        edits: Vec::new(),
    }
}

fn redirection(written: &HttpRedirect) -> (Redirect, bool) {
    let text = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    let by_scheme = match written.scheme.as_str() {
        "https" => 443,
        _ => 80,
    };
    let port = match written.derive_port {
        Some(RedirectPortSelection::FromProtocolDefault) => Some(by_scheme),
        _ => written.port,
    };
    let path = match (written.uri.as_str(), written.prefix_rewrite.as_str()) {
        ("", "") => None,
        ("", prefix) => Some(PathRewrite::Prefix(prefix.to_owned())),
        (uri, _) => Some(PathRewrite::Full(uri.to_owned())),
    };
    let redirect = Redirect {
        scheme: text(&written.scheme),
        host: text(&written.authority),
        port,
        path,
        status: u16::try_from(written.redirect_code).ok().filter(|code| *code != 0).unwrap_or(301),
        strip_query: false,
    };
    (redirect, written.derive_port == Some(RedirectPortSelection::FromRequestPort))
}

fn rewrites(written: &HttpRewrite, place: &mut Place<'_>) -> (Option<PathRewrite>, Option<HostRewrite>) {
    let host = Some(written.authority.clone()).filter(|a| !a.is_empty()).map(HostRewrite::Literal);
    let path = match &written.uri_regex_rewrite {
        Some(regex) => match Substitution::new(&regex.r#match, &regex.rewrite) {
            Ok(substitution) => Some(PathRewrite::Regex(substitution)),
            Err(error) => {
                let help = "the path is not changed; write a regular expression in RE2 syntax";
                place.tell("rewrite.uriRegexRewrite.match", error.to_string(), help);
                None
            }
        },
        None => Some(written.uri.clone()).filter(|uri| !uri.is_empty()).map(PathRewrite::Prefix),
    };
    (path, host)
}
