//! Trying endpoints until one answers: which, how often, how long. The answer's body is `passing`'s.

use super::answer::UNPROCESSED;
use super::edits::Outbound;
use super::forward::{Plan, endpoint_host};
use super::limits::Deadline;
use super::passing::poll_limits;
use super::retrying::{Departure, asked_pause, choose, shuns, try_limit};
use super::{Cause, Stage};
use crate::failure::Failure;
use crate::record::{Exchange, UpstreamRecord};
use crate::snapshot::{EndpointState, Permit, Wish};
use crate::upstream::{BodyTally, ConnectError, Lease, Outgoing, Replay, Sent};
use crate::wire::http1::Names;
use crate::wire::{Incoming, WireError};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use model::outlier::Verdict;
use model::retry::{RetryPolicy, TryOutcome};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// A kept connection that closed just before it was used costs a new one, not a try; so often in a row.
const STALE_LIMIT: u32 = 3;

/// What is sent, apart from its body.
pub(super) struct Message<'m> {
    pub(super) parts: &'m mut Parts,
    pub(super) out: Outbound,
    /// The protocol to switch to.
    pub(super) upgrade: Option<HeaderValue>,
    /// The endpoint's own host name is the authority.
    pub(super) host_from_endpoint: bool,
}

/// An endpoint's answer, with the connection it comes over.
pub(super) struct Exchanged {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
}

/// The tries of one request.
pub(super) struct Tries<'t> {
    stage: &'t Stage<'t>,
    plan: &'t Plan<'t>,
    policy: Option<&'t RetryPolicy>,
    message: Message<'t>,
    replay: Replay,
    /// The request's headers are looked at after a try, and copied for it; else the try takes them.
    needs_head_again: bool,
    tried: Vec<u64>,
    departure: Departure,
    /// The endpoint of the try that is on.
    trying: Option<Arc<EndpointState>>,
    /// The leave that this retry has, where retries are limited.
    retrying: Option<Permit>,
    /// Leave is given for the retry that comes next.
    is_granted: bool,
    /// An application may have begun with the request.
    begun: bool,
    /// How long the endpoint asks to wait.
    asked_pause: Option<std::time::Duration>,
}

/// How one try ended, when not with an answer that is taken.
struct TryFailed {
    failure: Failure,
    detail: Option<String>,
    retry: bool,
}

impl<'t> Tries<'t> {
    pub(super) fn new(
        stage: &'t Stage<'t>,
        plan: &'t Plan<'t>,
        message: Message<'t>,
        replay: Replay,
    ) -> Self {
        let policy = plan.forward.retry.as_ref();
        let policy = policy.or_else(|| plan.taken.virtual_host().and_then(|v| v.retry.as_ref()));
        let policy = policy.filter(|p| p.takes(&stage.head.view(message.parts)));
        if policy.is_none() {
            replay.stop_keeping();
        }
        let needs_head_again = policy.is_some() || plan.answer_needs_request();
        Self {
            stage,
            plan,
            policy,
            message,
            replay,
            needs_head_again,
            tried: Vec::new(),
            departure: Departure::default(),
            begun: false,
            trying: None,
            retrying: None,
            is_granted: false,
            asked_pause: None,
        }
    }

    pub(super) fn into_parts(self) -> &'t Parts {
        self.message.parts
    }

    /// Tries until an answer is taken or nothing is left to try.
    pub(super) async fn run(&mut self, exchange: &mut Exchange) -> Result<Exchanged, Cause> {
        let mut left = self.policy.map_or(0, |p| p.retries);
        loop {
            exchange.attempts += 1;
            let outcome = self.once(exchange, left > 0).await;
            let failed = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let wants = self.policy.filter(|_| failed.retry && self.replay.can_repeat());
            let Some(policy) = wants.filter(|_| left > 0) else {
                return Err(Cause {
                    failure: failed.failure,
                    detail: failed.detail,
                    exhausted: wants.is_some(),
                    unprocessed: !self.begun,
                });
            };
            if !std::mem::take(&mut self.is_granted) && !self.grant_retry() {
                let detail = failed.detail.unwrap_or_default();
                return Err(Cause {
                    failure: failed.failure,
                    detail: Some(format!("{detail}; no retry: as many are under way as may be")),
                    exhausted: false,
                    unprocessed: !self.begun,
                });
            }
            left -= 1;
            exchange.transport_failure = failed.detail;
            let pause = self.asked_pause.take();
            let random = self.stage.context.local.random();
            let pause = pause.unwrap_or_else(|| policy.back_off(policy.retries - left, random));
            Box::pin(tokio::time::sleep(pause)).await;
        }
    }

    async fn once(&mut self, exchange: &mut Exchange, may_retry: bool) -> Result<Exchanged, TryFailed> {
        let limit = self.policy.and_then(try_limit);
        let Some((limit, failure)) = limit else { return self.attempt(exchange, may_retry).await };
        match tokio::time::timeout(limit, Box::pin(self.attempt(exchange, may_retry))).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.report(Verdict::TimedOut);
                Err(TryFailed {
                    failure,
                    detail: Some(format!("no answer within {} ms", limit.as_millis())),
                    retry: self.wants(TryOutcome::PerTryTimeout),
                })
            }
        }
    }

    /// Leave for a retry. Waiting before it counts, too: a storm is made of those that wait.
    fn grant_retry(&mut self) -> bool {
        self.retrying = None;
        let leave = self.plan.cluster.take_retry(self.plan.forward.priority);
        let is_granted = leave.is_ok();
        self.retrying = leave.ok().flatten();
        is_granted
    }

    fn wants(&self, outcome: TryOutcome<'_>) -> bool {
        self.policy.is_some_and(|p| p.wants(outcome, &self.message.parts.method))
    }

    async fn attempt(&mut self, exchange: &mut Exchange, may_retry: bool) -> Result<Exchanged, TryFailed> {
        let (mut stale, begun) = (0, self.begun);
        loop {
            let endpoint = self.pick()?;
            exchange.upstream = Some(UpstreamRecord {
                address: endpoint.address,
                endpoint: endpoint.endpoint.clone(),
                local: None,
                peer_uri: None,
            });
            let mut lease = self.lease(&endpoint).await?;
            if let Some(upstream) = &mut exchange.upstream {
                upstream.local = lease.local();
                upstream.peer_uri = lease.peer_uri();
            }
            let request = self.request(&endpoint, lease.is_http2(), exchange.attempts)?;
            self.begun = true;
            match lease.send(request).await {
                Sent::NotSent(request) if lease.reused && stale < STALE_LIMIT => {
                    stale += 1;
                    self.begun = begun;
                    if !self.needs_head_again {
                        self.message.parts.headers = request.into_parts().0.headers;
                    }
                }
                Sent::NotSent(_) => {
                    self.report(Verdict::Broken);
                    self.begun = begun;
                    let detail = Some(format!(
                        "{}: the connection closed before it took the request",
                        endpoint.address
                    ));
                    let retry = self.wants(TryOutcome::Reset { request_sent: false });
                    return Err(TryFailed { failure: Failure::UpstreamReset, detail, retry });
                }
                Sent::Failed(error) => return Err(self.broken(&endpoint, &error)),
                Sent::Answer(response) => {
                    exchange.response_start = Some(Instant::now());
                    return self.judge(exchange, response, lease, may_retry);
                }
            }
        }
    }

    /// The answer, unless it is one that is worth another try.
    fn judge(
        &mut self,
        exchange: &mut Exchange,
        response: Response<Incoming>,
        lease: Lease,
        may_retry: bool,
    ) -> Result<Exchanged, TryFailed> {
        let (headers, random) = (response.headers(), self.stage.context.local.random());
        if may_retry
            && headers.contains_key(UNPROCESSED)
            && lease.peer_uri().is_some()
            && self.replay.can_repeat()
            && self.wants(TryOutcome::RefusedStream)
            && self.grant_retry()
        {
            self.is_granted = true;
            let detail = Some("the endpoint's proxy says that no application began with it".to_owned());
            return Err(TryFailed { failure: Failure::UpstreamReset, detail, retry: true });
        }
        let grpc_status = headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        self.report(grpc_status.map_or(Verdict::Answered(status), Verdict::of_grpc));
        if self.replay.can_repeat() && self.wants(TryOutcome::Answer { status, grpc_status, headers }) {
            if may_retry && self.grant_retry() {
                self.is_granted = true;
                self.asked_pause = self.policy.and_then(|p| asked_pause(p, headers, random));
                let detail = Some(format!("the endpoint answered {status}"));
                return Err(TryFailed { failure: Failure::UpstreamReset, detail, retry: true });
            }
            exchange.flags = if may_retry { "UO" } else { super::with_retries_exhausted("-") };
        }
        self.replay.stop_keeping();
        Ok(Exchanged { response, lease })
    }

    fn pick(&mut self) -> Result<Arc<EndpointState>, TryFailed> {
        let random = self.stage.context.local.random();
        let (avoid, picks) = match self.policy.filter(|p| p.avoid_previous_hosts) {
            Some(policy) => (self.tried.as_slice(), policy.host_picks),
            None => (&[][..], 1),
        };
        let wish = Wish { random, hash: self.plan.hash, subset: &self.plan.subset, avoid, picks };
        let session = self.plan.session.as_ref().filter(|_| self.tried.is_empty());
        let named = self.plan.destination.as_ref().or(session);
        let tables = self.policy.and_then(|p| self.departure.tables(p, self.plan.cluster));
        let tables = tables.as_deref();
        let shuns = |endpoint: &EndpointState| self.policy.is_some_and(|p| shuns(p, &self.tried, endpoint));
        let Some(endpoint) = named.or_else(|| {
            choose(self.plan.cluster, tables, &wish, self.policy.map_or(1, |p| p.host_picks), shuns)
        }) else {
            let detail = Some(self.plan.cluster.describe_absence());
            return Err(TryFailed { failure: Failure::NoHealthyEndpoint, detail, retry: false });
        };
        if let Some(policy) = self.policy {
            self.tried.push(endpoint.id);
            self.departure.note(policy, self.plan.cluster, endpoint.id);
        }
        self.trying = Some(endpoint.clone());
        match self.plan.cluster.announces() {
            false => Ok(endpoint.clone()),
            true => Ok(self.plan.cluster.endpoint_for(endpoint, &self.stage.context.connection.caller())),
        }
    }

    /// Tells outlier detection what the try that is on came to.
    fn report(&self, verdict: Verdict) {
        if let Some(endpoint) = &self.trying {
            self.plan.cluster.report(endpoint, verdict);
        }
    }

    /// The same where a limit from outside ended it.
    pub(super) fn report_end(&self, failure: Failure) {
        if failure == Failure::Timeout {
            self.report(Verdict::TimedOut);
        }
    }

    async fn lease(&self, endpoint: &Arc<EndpointState>) -> Result<Lease, TryFailed> {
        // A switch of protocols is HTTP/1.1's.
        let client = match self.message.upgrade {
            Some(_) => Version::HTTP_11,
            None => self.message.parts.version,
        };
        let pools = self.stage.context.local.pools();
        match pools.lease_as(self.plan.cluster, endpoint, client, self.plan.forward.priority).await {
            Ok(lease) if lease.is_http2() && self.message.upgrade.is_some() => {
                let detail = Some("an upgrade cannot be passed on to an HTTP/2 endpoint".to_owned());
                Err(TryFailed { failure: Failure::UpgradeNotAllowed, detail, retry: false })
            }
            Ok(lease) => Ok(lease),
            Err(error) => {
                let is_ours = matches!(error, ConnectError::Overflow(_));
                if !is_ours {
                    self.report(match error {
                        ConnectError::Timeout(..) => Verdict::TimedOut,
                        _ => Verdict::Broken,
                    });
                }
                Err(TryFailed {
                    failure: error.failure(),
                    detail: Some(error.to_string()),
                    retry: !is_ours && self.wants(TryOutcome::ConnectFailure),
                })
            }
        }
    }

    fn request(
        &mut self,
        endpoint: &EndpointState,
        is_http2: bool,
        attempt: u32,
    ) -> Result<Request<Outgoing>, TryFailed> {
        let mut headers = match self.needs_head_again {
            true => self.message.parts.headers.clone(),
            false => std::mem::take(&mut self.message.parts.headers),
        };
        let message = &self.message;
        let own_name = endpoint_host(endpoint).filter(|_| message.host_from_endpoint);
        let authority = own_name.unwrap_or(&message.out.authority);
        let unusable = |what: &str| TryFailed {
            failure: Failure::BadRequest,
            detail: Some(format!("{what} cannot be sent on")),
            retry: false,
        };
        let target = PathAndQuery::try_from(message.out.target.as_str()).map_err(|_| unusable("the path"))?;
        let uri = if is_http2 {
            let mut uri = http::uri::Parts::default();
            uri.scheme = Some(if message.scheme_is_https(self.stage) { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(Authority::try_from(authority).map_err(|_| unusable("the authority"))?);
            uri.path_and_query = Some(target);
            Uri::from_parts(uri).map_err(|_| unusable("the target"))?
        } else {
            let host = HeaderValue::from_str(authority).map_err(|_| unusable("the authority"))?;
            headers.insert(HOST, host);
            Uri::from(target)
        };
        if let Some(protocol) = &message.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
        if self.plan.taken.virtual_host().is_some_and(|v| v.attempt_count_in_request) {
            headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempt));
        }
        let body = self.replay.outgoing();
        if !is_http2 && expects_body(&message.parts.method) && matches!(body, Outgoing::Empty) {
            headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = message.parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        *request.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        // Names as they came, where they are remembered.
        if let Some(names) = message.parts.extensions.get::<Names>() {
            request.extensions_mut().insert(names.clone());
        }
        Ok(request)
    }

    /// A try that ended without an answer.
    fn broken(&self, endpoint: &EndpointState, error: &WireError) -> TryFailed {
        let detail = Some(format!("{}: {error}", endpoint.address));
        if self.replay.has_failed() {
            return TryFailed { failure: Failure::ClientGone, detail, retry: false };
        }
        let refused = error.is_refusal();
        if !refused {
            self.report(Verdict::Broken);
        }
        let outcome = match refused {
            true => TryOutcome::RefusedStream,
            false => TryOutcome::Reset { request_sent: true },
        };
        let failure = if error.is_protocol() { Failure::UpstreamProtocol } else { Failure::UpstreamReset };
        TryFailed { failure, detail, retry: self.wants(outcome) }
    }
}

impl Message<'_> {
    fn scheme_is_https(&self, stage: &Stage<'_>) -> bool {
        stage.head.scheme == "https"
    }
}

/// Whether a request of this method says that it has no body, where it has none, as Envoy does.
fn expects_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT)
}

/// Runs `tries` until a limit is reached.
pub(super) async fn bounded<T>(
    tries: impl Future<Output = Result<T, Cause>>,
    deadline: &mut Option<Deadline>,
    tally: &BodyTally,
) -> Result<T, Cause> {
    let mut tries = std::pin::pin!(tries);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = tries.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        match poll_limits(deadline, tally, cx) {
            Poll::Ready(failure) => Poll::Ready(Err(failure.into())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
