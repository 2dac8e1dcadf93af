//! Sending a request on: the cluster, the edits and rewrites, the tries, and the answer on its way back.

use super::affinity::{Bound, subset};
use super::answer::{AnswerBody, UNPROCESSED};
use super::edits::{self, Edits, Outbound};
use super::guards::read_whole;
use super::limits::{deadline, shorten};
use super::passing::UpstreamBody;
use super::permit::Permit;
use super::session::Bond;
use super::tries::{Exchanged, Message, Tries, bounded};
use super::{Cause, Stage};
use crate::failure::Failure;
use crate::record::{Exchange, RouteTaken};
use crate::snapshot::{ClusterState, EndpointState};
use crate::upstream::Replay;
use crate::wire::Incoming;
use http::header::{CONNECTION, HeaderName, SERVER, SET_COOKIE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use model::balance::Criteria;
use model::rewrite::rewritten_path;
use model::route::{Forward, HostRewrite, RouteMatch, Target, Upgrade, WeightedCluster};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What is decided about a request before it is tried.
pub(super) struct Plan<'p> {
    pub(super) taken: &'p RouteTaken,
    pub(super) forward: &'p Forward,
    pub(super) weighted: Option<&'p WeightedCluster>,
    pub(super) cluster: &'p Arc<ClusterState>,
    /// What the request is hashed to.
    pub(super) hash: Option<u64>,
    /// The endpoint that the client named, where that is how the cluster's are picked.
    pub(super) destination: Option<Arc<EndpointState>>,
    /// The endpoint that its session is with; asked once.
    pub(super) session: Option<Arc<EndpointState>>,
    /// What its endpoint has to be like.
    pub(super) subset: Cow<'p, Criteria>,
}

impl Plan<'_> {
    /// What the edits of the answer to `parts` depend on.
    pub(super) fn edits<'e>(&'e self, parts: &'e Parts) -> Edits<'e> {
        Edits { taken: self.taken, weighted: self.weighted, parts }
    }
}

impl Plan<'_> {
    /// Whether an edit of the answer may look at the request.
    pub(super) fn answer_needs_request(&self) -> bool {
        edits::levels(self.taken, self.weighted)
            .into_iter()
            .flatten()
            .any(|(_, answer)| answer.add.iter().any(|edit| edit.value.as_literal().is_none()))
    }
}

impl Stage<'_> {
    /// Sends the request on, by leave of `_permit`.
    pub(super) async fn forward(
        &self,
        _permit: Permit,
        mut exchange: Box<Exchange>,
        taken: &RouteTaken,
        forward: &Forward,
        mut parts: Parts,
        body: Incoming,
    ) -> Response<AnswerBody> {
        let weighted = forward.target.pick_weighted(self.split(forward, &parts));
        let name = cluster_name(&forward.target, weighted, &parts.headers);
        let mut begun = exchange.start;
        let fetched;
        let cluster = match self.snapshot.cluster(&name, self.context.local.random()) {
            Some(cluster) => {
                if self.http.manager.filters.on_demand.is_some() {
                    cluster.usage.note_use();
                }
                cluster
            }
            None => match Box::pin(self.fetch_cluster(taken, &name)).await {
                Some(cluster) => {
                    // Limits are on what comes now.
                    begun = Instant::now();
                    fetched = cluster;
                    &fetched
                }
                None => {
                    let edits = Edits { taken, weighted, parts: &parts };
                    return self.cluster_missing(exchange, forward, &name, edits);
                }
            },
        };
        exchange.cluster = Some(cluster.config.clone());
        // Whether the peer is told who we are depends on the cluster.
        exchange.edit_request(&mut parts.headers, self.context.local.random());
        let policies = match cluster.config.hash_policies.as_slice() {
            [] => forward.hash_policies.as_slice(),
            own => own,
        };
        let Bound { hash, cookie } = match policies {
            [] => Bound::default(),
            policies => self.bind(policies, &parts),
        };
        let bond = self.session(taken, &parts.headers);
        let session = match bond.as_ref().map(|bond| bond.endpoint(cluster)) {
            Some(Err(cause)) => {
                return self.session_lost(exchange, cause, &bond, Edits { taken, weighted, parts: &parts });
            }
            Some(Ok(endpoint)) => endpoint,
            None => None,
        };
        let destination = cluster.destination(&parts.headers, &self.context.connection.caller());
        let subset = subset(forward, weighted);
        let plan = Plan { taken, forward, weighted, cluster, hash, destination, session, subset };
        if parts.method == Method::CONNECT {
            return Box::pin(self.connect(exchange, &plan, &parts, body)).await;
        }
        let mut out = Outbound::new(&self.head);
        self.mutate_request(&exchange, taken, &mut parts, &mut out);
        self.edit_request(&exchange, taken, weighted, &mut parts, &mut out);
        let host_from_endpoint = self.rewrite(&exchange, &plan, &mut parts, &mut out);
        self.requote(&parts, &out);
        let upgrade = self.granted_upgrade(forward);
        let replay = Replay::new(body);
        let tally = replay.tally().clone();
        if !forward.mirrors.is_empty() && upgrade.is_none() {
            self.mirror(&exchange, &plan, &parts, &out, &replay);
        }
        let silence = forward.idle_timeout.or(self.http.manager.stream_idle_timeout);
        if let Some(limit) = silence.filter(|limit| !limit.is_zero()) {
            self.context.local.watch().add(&tally, limit, begun);
        }
        let deadline = deadline(&self.http.manager, forward, &parts.headers, begun, &tally);
        if let Some(timeout) = forward.grpc_timeout {
            shorten(timeout, &mut parts.headers);
        }
        let message = Message { parts: &mut parts, out, upgrade: upgrade.clone(), host_from_endpoint };
        let mut deadline = deadline;
        if let Some(max) = self.body_limit(taken)
            && let Err(cause) = bounded(Box::pin(read_whole(&replay, max)), &mut deadline, &tally).await
        {
            return self.refuse_on_route(exchange, cause, Edits { taken, weighted, parts: message.parts });
        }
        let mut tries = Tries::new(self, &plan, message, replay);
        let outcome = bounded(tries.run(&mut exchange), &mut deadline, &tally).await;
        exchange.bytes_received = tally.bytes.get();
        exchange.request_end = tally.ended.get();
        match outcome {
            Err(cause) => {
                tries.report_end(cause.failure);
                let edits = Edits { taken, weighted, parts: tries.into_parts() };
                self.refuse_on_route(exchange, cause, edits)
            }
            Ok(answered) => {
                let parts = tries.into_parts();
                let Exchanged { response, lease } = answered;
                exchange.details = "via_upstream";
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return self.tunnel(exchange, &plan, parts, response, lease, upgrade);
                }
                let (mut head, body) = response.into_parts();
                self.finish_head(&mut exchange, &plan, parts, &mut head.headers, head.status);
                if let Some(cookie) = cookie {
                    head.headers.append(SET_COOKIE, cookie);
                }
                if let (Some(bond), Some(upstream)) = (&bond, &exchange.upstream) {
                    bond.write(upstream.address, &mut head.headers);
                }
                let body = UpstreamBody::new(body, lease, exchange, tally, deadline);
                let mut response = Response::new(AnswerBody::from(body));
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers;
                *response.extensions_mut() = head.extensions;
                response
            }
        }
    }

    fn session_lost(
        &self,
        exchange: Box<Exchange>,
        cause: Cause,
        bond: &Option<Bond<'_>>,
        edits: Edits<'_>,
    ) -> Response<AnswerBody> {
        let mut response = self.refuse_on_route(exchange, cause, edits);
        let status = bond.as_ref().map_or(503, Bond::refusal_status);
        if let Ok(status) = StatusCode::from_u16(status) {
            *response.status_mut() = status;
        }
        response
    }

    fn cluster_missing(
        &self,
        exchange: Box<Exchange>,
        forward: &Forward,
        name: &str,
        edits: Edits<'_>,
    ) -> Response<AnswerBody> {
        let cause = Cause::new(Failure::ClusterMissing, format!("cluster `{name}` is not known"));
        let mut response = self.refuse_on_route(exchange, cause, edits);
        if let Ok(status) = StatusCode::from_u16(forward.cluster_not_found_status) {
            *response.status_mut() = status;
        }
        response
    }

    /// Rewrites authority and path. Returns whether the authority is the endpoint's, once that is known.
    fn rewrite(&self, exchange: &Exchange, plan: &Plan<'_>, parts: &mut Parts, out: &mut Outbound) -> bool {
        let mut from_endpoint = false;
        match &plan.forward.host_rewrite {
            None => {}
            Some(HostRewrite::Literal(host)) => out.authority.clone_from(host),
            Some(HostRewrite::Endpoint) => from_endpoint = true,
            Some(HostRewrite::Header(name)) => {
                if let Some(host) = parts.headers.get(name).and_then(|v| v.to_str().ok()) {
                    out.authority = host.to_owned();
                }
            }
            Some(made) => {
                if let Some(host) = self.made_host(made, exchange, parts, out) {
                    out.authority = host;
                }
            }
        }
        if let Some(host) = plan.weighted.and_then(|w| w.host_rewrite.as_ref()) {
            out.authority.clone_from(host);
        }
        if let (false, Ok(original)) =
            (*out.authority == *self.head.authority, HeaderValue::from_str(&self.head.authority))
        {
            if plan.forward.append_forwarded_host {
                append_forwarded_host(&mut parts.headers, &original);
            }
            parts.headers.insert(ORIGINAL_HOST, original);
        }
        let condition = plan.taken.route().map(|r| &r.condition);
        if let (Some(rewrite), Some(condition)) = (&plan.forward.path_rewrite, condition) {
            let rewrite = self.made_path(rewrite, exchange, parts);
            let before = std::mem::take(&mut out.target);
            out.target = rewritten_target(&before, condition, &rewrite);
            if let Ok(original) = HeaderValue::from_str(&before) {
                parts.headers.insert(ORIGINAL_PATH, original);
            }
        }
        from_endpoint
    }

    /// The protocol that the request may switch to. An upgrade that nothing allows is left out of the request, which is
    /// then answered as any other (RFC 9110, 7.8 lets a server ignore it).
    fn granted_upgrade(&self, forward: &Forward) -> Option<HeaderValue> {
        self.head.upgrade.clone().filter(|protocol| {
            let allows = |upgrades: &[Upgrade]| {
                let of = |u: &&Upgrade| protocol.as_bytes().eq_ignore_ascii_case(u.protocol.as_bytes());
                upgrades.iter().find(of).map(|u| u.enabled)
            };
            allows(&forward.upgrades).or_else(|| allows(&self.http.manager.upgrades)).unwrap_or(false)
        })
    }

    /// Makes an endpoint's head ours.
    pub(super) fn finish_head(
        &self,
        exchange: &mut Exchange,
        plan: &Plan<'_>,
        parts: &Parts,
        headers: &mut HeaderMap,
        status: StatusCode,
    ) {
        drop_hop_by_hop(headers, status);
        exchange.edit_response(headers);
        exchange.status = status.as_u16();
        self.edit_answer(exchange, &plan.edits(parts), headers);
        self.mutate_answer(exchange, Some(plan.taken), headers);
        self.write_grant(headers);
        let tells = plan.taken.virtual_host().is_some_and(|host| host.attempt_count_in_response);
        self.sign(headers, tells.then_some(exchange.attempts));
        if let Some(server) = &self.http.server {
            headers.insert(SERVER, server.clone());
        }
        exchange.answered(status.as_u16(), headers);
    }
}

/// Drops what ends here (RFC 9110, 7.6.1). Most answers have none of it: one pass tells.
fn drop_hop_by_hop(headers: &mut HeaderMap, status: StatusCode) {
    const NAMES: [HeaderName; 6] =
        [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UNPROCESSED, UPGRADE];
    let mut found = 0u8;
    for name in headers.keys() {
        found |= match name.as_str() {
            "connection" => 1,
            "keep-alive" => 1 << 1,
            "proxy-connection" => 1 << 2,
            "transfer-encoding" => 1 << 3,
            "x-ieum-unprocessed" => 1 << 4,
            "upgrade" if status != StatusCode::SWITCHING_PROTOCOLS => 1 << 5,
            _ => 0,
        };
    }
    for (at, name) in NAMES.iter().enumerate() {
        if found & (1 << at) != 0 {
            headers.remove(name);
        }
    }
}

/// Tells the endpoint the host that was asked for, behind those that proxies before told.
fn append_forwarded_host(headers: &mut HeaderMap, host: &HeaderValue) {
    let told = headers.get(FORWARDED_HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let all = match told {
        b"" => host.as_bytes().to_vec(),
        // A host that is rewritten again is not told twice.
        told if told.rsplit(|b| *b == b',').next() == Some(host.as_bytes()) => return,
        told => [told, b",", host.as_bytes()].concat(),
    };
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(FORWARDED_HOST, value);
    }
}

fn cluster_name<'n>(
    target: &'n Target,
    weighted: Option<&'n WeightedCluster>,
    headers: &HeaderMap,
) -> Cow<'n, str> {
    match (target, weighted) {
        (_, Some(weighted)) => weighted.cluster.as_str().into(),
        (Target::Cluster(name), None) => name.as_str().into(),
        (Target::Header(name), None) => {
            let named = headers.get(name).and_then(|v| v.to_str().ok());
            named.unwrap_or_default().to_owned().into()
        }
        (Target::Weighted(_), None) => "".into(),
    }
}

/// Rewrites the path and keeps the query.
fn rewritten_target(target: &str, condition: &RouteMatch, rewrite: &model::route::PathRewrite) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let mut new = rewritten_path(rewrite, condition, path);
    if let Some(query) = query {
        new.push(if new.contains('?') { '&' } else { '?' });
        new.push_str(query);
    }
    new
}

/// The authority an endpoint goes by, where it has one.
pub(super) fn endpoint_host(endpoint: &EndpointState) -> Option<&str> {
    Some(endpoint.endpoint.hostname.as_str()).filter(|h| !h.is_empty())
}
