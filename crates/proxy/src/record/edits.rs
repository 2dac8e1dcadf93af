//! What an exchange leaves in the messages that pass: trace context, and who the two proxies are to each other.
//!
//! Peer metadata passes only between proxies of the mesh. What a peer says of itself is believed only when it has proved
//! its name, and never reaches an application or a client.

use super::exchange::Exchange;
use super::peer::{PEER_METADATA, PEER_METADATA_ID, Peer};
use super::trace::Trace;
use super::traffic::with_local;
use http::HeaderMap;
use model::cluster::Transport;
use model::tls::{SecretSource, WORKLOAD_CERTIFICATE};
use std::sync::Arc;

impl Exchange {
    /// Edits a request before it is sent on, when its cluster is known: its trace context is made or continued, and
    /// peer metadata is put in (outbound) or read and taken out (inbound). `random` is any 64 random bits.
    pub fn edit_request(&mut self, headers: &mut HeaderMap, random: u64) {
        match self.recorder().tracing {
            Some(tracing) => {
                let trace = Trace::of(headers, &tracing, random);
                trace.write(headers);
                self.trace_id = Some(trace.id);
            }
            // It is passed on as it is.
            None if self.recorder().logs.as_ref().is_some_and(|logs| logs.wanted.trace_id) => {
                self.trace_id = Trace::id_of(headers);
            }
            None => {}
        }
        let said = take_peer(headers);
        if !self.recorder().outbound {
            if let Some(value) = said.filter(|_| self.recorder().stats && self.connection().is_mutual_tls()) {
                self.exchanges_peers = true;
                self.peer = self.peer_named(&value);
            }
        } else if self.recorder().stats && self.sends_into_mesh() {
            self.exchanges_peers = true;
            self.tell_peer(headers);
        }
    }

    /// Edits an answer before it is sent to the client: peer metadata is put in (inbound, when the request carried
    /// some) or read and taken out (outbound).
    pub fn edit_response(&mut self, headers: &mut HeaderMap) {
        let said = take_peer(headers);
        if !self.recorder().outbound {
            if self.exchanges_peers {
                self.tell_peer(headers);
            }
        } else if self.recorder().stats
            && let Some(value) = said
            && self.upstream.as_ref().is_some_and(|u| u.peer_uri.is_some())
        {
            self.peer = self.peer_named(&value);
        }
    }

    fn tell_peer(&self, headers: &mut HeaderMap) {
        if let Some((metadata, id)) = &self.recorder().telemetry.node().headers {
            headers.insert(PEER_METADATA, metadata.clone());
            headers.insert(PEER_METADATA_ID, id.clone());
        }
    }

    fn peer_named(&self, value: &http::HeaderValue) -> Option<Arc<Peer>> {
        with_local(&self.recorder().telemetry, |local| local.peer_of_header(value.as_bytes())).flatten()
    }

    /// Whether the chosen cluster's endpoints are ours to talk to: it is reached with the mesh's own certificate.
    fn sends_into_mesh(&self) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let ours = |transport: &Transport| match transport {
            Transport::Plain => false,
            Transport::Tls(tls) => match &tls.certificate {
                Some(SecretSource::Sds(name)) => name == WORKLOAD_CERTIFICATE,
                _ => false,
            },
        };
        match &self.upstream {
            Some(upstream) => ours(cluster.transport_for(&upstream.endpoint)),
            None => cluster.transport_matches.iter().any(|m| ours(&m.transport)) || ours(&cluster.transport),
        }
    }
}

/// Takes peer metadata out of a message.
fn take_peer(headers: &mut HeaderMap) -> Option<http::HeaderValue> {
    // Most messages have neither: one pass over the names is cheaper than two look-ups.
    if !headers.keys().any(|name| name.as_str().starts_with("x-envoy-peer-metadata")) {
        return None;
    }
    headers.remove(&PEER_METADATA_ID);
    headers.remove(&PEER_METADATA)
}
