//! Counting an exchange in Istio's metrics.

use super::exchange::Exchange;
use super::traffic::{Traffic, with_local};
use std::time::Instant;

impl Exchange {
    /// A TCP connection has reached its endpoint: it is counted as opened.
    pub fn established(&mut self) {
        if self.version.is_none() && self.recorder().stats && !std::mem::replace(&mut self.established, true)
        {
            self.with_tcp_block(|block| block.open());
        }
    }

    /// Counts the bytes of a long TCP connection so far; may be called now and then.
    pub fn report(&mut self) {
        if self.version.is_none() && self.recorder().stats {
            let (received, sent) = (self.bytes_received, self.bytes_sent);
            let (received_before, sent_before) = std::mem::replace(&mut self.counted, (received, sent));
            let (received, sent) =
                (received.saturating_sub(received_before), sent.saturating_sub(sent_before));
            self.with_tcp_block(|block| block.move_bytes(received, sent));
        }
    }

    /// Counts the whole when it is over.
    pub(super) fn count(&mut self, end: Instant) {
        if !self.recorder().stats {
            return;
        }
        if self.version.is_none() {
            self.established();
            self.report();
            self.with_tcp_block(|block| block.close());
            return;
        }
        let microseconds = end.saturating_duration_since(self.start).as_micros() as u64;
        let (received, sent) = (self.bytes_received, self.bytes_sent);
        let telemetry = &self.recorder().telemetry;
        with_local(telemetry, |local| {
            local.http(telemetry, &self.traffic(), |block| block.observe(microseconds, received, sent));
        });
    }

    fn with_tcp_block(&self, act: impl FnOnce(&super::series::TcpBlock)) {
        let telemetry = &self.recorder().telemetry;
        with_local(telemetry, |local| local.tcp(telemetry, &self.traffic(), act));
    }

    fn traffic(&self) -> Traffic<'_> {
        let upstream = self.upstream.as_ref();
        let outbound = self.recorder().outbound;
        let (own_uri, peer_uri) = if outbound {
            let peer_uri = upstream.and_then(|u| u.peer_uri.as_deref());
            (peer_uri.map(|_| self.recorder().telemetry.node().principal.as_str()), peer_uri)
        } else {
            let connection = self.connection();
            (
                connection.own_uri.as_deref().filter(|_| connection.is_mutual_tls()),
                connection.peer_uri.as_deref(),
            )
        };
        Traffic {
            outbound,
            peer: self.peer.as_ref(),
            cluster: self.cluster.as_ref(),
            endpoint: upstream.map(|u| &u.endpoint).filter(|_| outbound),
            own_uri,
            peer_uri,
            status: self.status,
            flags: self.flags,
            grpc: self.is_grpc,
            grpc_status: self.grpc_status,
        }
    }
}
