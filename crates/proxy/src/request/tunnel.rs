//! Tunnels: an endpoint that switched protocols, and CONNECT ended here. The answer brings the tunnel with it; whoever
//! owns the client's connection passes its bytes through it, and the record is written when both sides are done.

use super::answer::{Answer, AnswerBody};
use super::forward::Plan;
use super::{Cause, Stage};
use crate::failure::Failure;
use crate::record::{Exchange, UpstreamRecord};
use crate::snapshot::EndpointState;
use crate::stream::Prefixed;
use crate::upstream::{Connected, Lease, Stream, connect};
use crate::wire::Incoming;
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Response};
use model::route::Upgrade;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};

/// Buffer for each direction of a tunnel.
const BUFFER: usize = 16 * 1024;
/// Endpoints tried for one CONNECT.
const CONNECT_TRIES: usize = 3;

/// A tunnel that is agreed on: it begins when its client has the answer's head.
pub struct Tunnel {
    exchange: Option<Box<Exchange>>,
    endpoint: Prefixed<Stream>,
    /// What the client sends, where that is a body.
    client: Incoming,
    _hold: Hold,
}

/// What counts as in use while the tunnel is.
enum Hold {
    Lease { _lease: Box<Lease> },
    Endpoint { _active: Arc<EndpointState> },
}

impl Tunnel {
    /// What the client sends, where that is a body and not the connection's own bytes.
    pub(crate) fn take_client(&mut self) -> Incoming {
        std::mem::replace(&mut self.client, Incoming::Over)
    }

    /// Passes the bytes until both sides are done.
    pub(crate) async fn pass(mut self, mut client: impl AsyncRead + AsyncWrite + Unpin) {
        let passed =
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut self.endpoint, BUFFER, BUFFER).await;
        let Some(mut exchange) = self.exchange.take() else { return };
        match passed {
            Ok((received, sent)) => {
                exchange.bytes_received = received;
                exchange.bytes_sent = sent;
            }
            Err(error) => exchange.transport_failure = Some(error.to_string()),
        }
        exchange.finish();
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else { return };
        exchange.flags = Failure::ClientGone.outcome().flags;
        exchange.details = Failure::ClientGone.outcome().token;
        exchange.finish();
    }
}

impl Stage<'_> {
    /// The endpoint agreed to switch protocols: so do we, and the bytes pass.
    pub(super) fn tunnel(
        &self,
        mut exchange: Box<Exchange>,
        plan: &Plan<'_>,
        parts: &Parts,
        response: Response<Incoming>,
        mut lease: Lease,
        upgrade: Option<HeaderValue>,
    ) -> Response<AnswerBody> {
        let (Some(protocol), Some(endpoint)) = (upgrade, lease.take_stream()) else {
            // Nobody asked for a switch.
            let cause = Cause::new(Failure::UpstreamProtocol, "unasked switch of protocols");
            return self.refuse_on_route(exchange, cause, plan.edits(parts));
        };
        let status = response.status();
        let mut headers = response.headers().clone();
        self.finish_head(&mut exchange, plan, parts, &mut headers, status);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.entry(UPGRADE).or_insert(protocol);
        let hold = Hold::Lease { _lease: Box::new(lease) };
        let tunnel = Tunnel { exchange: Some(exchange), endpoint, client: Incoming::Over, _hold: hold };
        let mut answer = Response::new(AnswerBody::Tunnel(Box::new(tunnel)));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }

    /// Ends a CONNECT here and passes its bytes to an endpoint as plain TCP.
    pub(super) async fn connect(
        &self,
        mut exchange: Box<Exchange>,
        plan: &Plan<'_>,
        parts: &Parts,
        client: Incoming,
    ) -> Response<AnswerBody> {
        let is_connect = |u: &&Upgrade| u.protocol.eq_ignore_ascii_case("connect") && u.enabled;
        let granted = plan.forward.upgrades.iter().find(is_connect);
        let granted = granted.or_else(|| self.http.manager.upgrades.iter().find(is_connect));
        if !granted.is_some_and(|g| g.terminate_connect) {
            let cause = Cause::new(Failure::UpgradeNotAllowed, "CONNECT is not allowed on this route");
            return self.refuse_on_route(exchange, cause, plan.edits(parts));
        }
        let (connected, endpoint) = match self.connect_some(&mut exchange, plan).await {
            Ok(connected) => connected,
            Err(cause) => return self.refuse_on_route(exchange, cause, plan.edits(parts)),
        };
        exchange.details = "via_upstream";
        exchange.response_start = Some(Instant::now());
        let mut answer = Answer::new(200);
        exchange.status = 200;
        self.edit_answer(&exchange, &plan.edits(parts), answer.headers_mut());
        let mut response = answer.into_response(self.http.server.as_ref());
        exchange.edit_response(response.headers_mut());
        exchange.answered(200, response.headers());
        let hold = Hold::Endpoint { _active: endpoint };
        let endpoint = Prefixed::new(connected.stream);
        let tunnel = Tunnel { exchange: Some(exchange), endpoint, client, _hold: hold };
        response.map(|_| AnswerBody::Tunnel(Box::new(tunnel)))
    }

    async fn connect_some(
        &self,
        exchange: &mut Exchange,
        plan: &Plan<'_>,
    ) -> Result<(Connected, Arc<EndpointState>), Cause> {
        let mut tried = Vec::new();
        let mut last = Cause::from(Failure::NoHealthyEndpoint);
        while tried.len() < CONNECT_TRIES {
            let random = self.context.local.random();
            let picked = plan.cluster.pick_avoiding(random, &tried, CONNECT_TRIES as u32);
            let Some(endpoint) = plan.destination.as_ref().or(picked) else { break };
            if tried.contains(&endpoint.id) {
                break;
            }
            tried.push(endpoint.id);
            exchange.attempts += 1;
            let told = plan.cluster.endpoint_for(endpoint, &self.context.connection.caller());
            let outcome = connect(&plan.cluster.config, &told).await;
            let (local, peer_uri) = match &outcome {
                Ok(connected) => (connected.facts.local, connected.facts.peer_uri.clone()),
                Err(_) => (None, None),
            };
            exchange.upstream = Some(UpstreamRecord {
                address: endpoint.address,
                endpoint: endpoint.endpoint.clone(),
                local,
                peer_uri,
            });
            match outcome {
                Ok(connected) => return Ok((connected, endpoint.clone())),
                Err(error) => last = Cause::new(error.failure(), error.to_string()),
            }
        }
        Err(last)
    }
}
