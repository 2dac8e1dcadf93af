//! Tunnels: an endpoint that switched protocols, and CONNECT ended here. Bytes are passed on both ways until both sides
//! are done; the record is written then.

use super::answer::{Answer, AnswerBody};
use super::forward::Plan;
use super::{Cause, Stage};
use crate::failure::Failure;
use crate::record::{Exchange, UpstreamRecord};
use crate::snapshot::EndpointState;
use crate::upstream::{Connected, Lease, connect};
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::route::Upgrade;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};

/// Buffer for each direction of a tunnel.
const BUFFER: usize = 16 * 1024;
/// Endpoints tried for one CONNECT.
const CONNECT_TRIES: usize = 3;

impl Stage<'_> {
    /// The endpoint agreed to switch protocols: so do we, and the bytes pass.
    pub(super) fn tunnel(
        &self,
        mut exchange: Box<Exchange>,
        plan: &Plan<'_>,
        parts: &Parts,
        response: Response<Incoming>,
        lease: Lease,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
    ) -> Response<AnswerBody> {
        let Some((protocol, client)) = upgrade else {
            // Nobody asked for a switch.
            let cause = Cause::new(Failure::UpstreamProtocol, "unasked switch of protocols");
            return self.refuse_on_route(exchange, cause, plan.edits(parts));
        };
        let status = response.status();
        let mut headers = response.headers().clone();
        self.finish_head(&mut exchange, plan, parts, &mut headers, status);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.entry(UPGRADE).or_insert(protocol);
        let endpoint = hyper::upgrade::on(response);
        if let Some(gate) = &self.context.gate {
            gate.allow();
        }
        tokio::task::spawn_local(async move {
            let _lease = lease;
            match tokio::try_join!(client, endpoint) {
                Ok((client, endpoint)) => {
                    pass(exchange, TokioIo::new(client), TokioIo::new(endpoint)).await;
                }
                Err(error) => finish(exchange, Some(error.to_string())),
            }
        });
        let mut answer = Response::new(AnswerBody::Empty);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }

    /// Ends a CONNECT here and passes its bytes to an endpoint as plain TCP.
    pub(super) async fn connect(
        &self,
        mut exchange: Box<Exchange>,
        plan: &Plan<'_>,
        parts: &mut Parts,
    ) -> Response<AnswerBody> {
        let is_connect = |u: &&Upgrade| u.protocol.eq_ignore_ascii_case("connect") && u.enabled;
        let granted = plan.forward.upgrades.iter().find(is_connect);
        let granted = granted.or_else(|| self.http.manager.upgrades.iter().find(is_connect));
        let client = parts.extensions.remove::<OnUpgrade>();
        let (Some(true), Some(client)) = (granted.map(|g| g.terminate_connect), client) else {
            let cause = Cause::new(Failure::UpgradeNotAllowed, "CONNECT is not allowed on this route");
            return self.refuse_on_route(exchange, cause, plan.edits(parts));
        };
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
        if let Some(gate) = &self.context.gate {
            gate.allow();
        }
        tokio::task::spawn_local(async move {
            let _active = endpoint;
            match client.await {
                Ok(client) => pass(exchange, TokioIo::new(client), connected.stream).await,
                Err(error) => finish(exchange, Some(error.to_string())),
            }
        });
        response
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
            let outcome = connect(&plan.cluster.config, endpoint).await;
            let (local, peer_uri) = match &outcome {
                Ok(connected) => (connected.local, connected.peer_uri.clone()),
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

async fn pass(
    mut exchange: Box<Exchange>,
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut endpoint: impl AsyncRead + AsyncWrite + Unpin,
) {
    let passed = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await;
    match passed {
        Ok((received, sent)) => {
            exchange.bytes_received = received;
            exchange.bytes_sent = sent;
            finish(exchange, None);
        }
        Err(error) => finish(exchange, Some(error.to_string())),
    }
}

fn finish(mut exchange: Box<Exchange>, broken: Option<String>) {
    if broken.is_some() {
        exchange.transport_failure = broken;
    }
    exchange.finish();
}
