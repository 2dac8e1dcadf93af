//! The facts of one exchange, filled in by the stages it passes. No stage reads what another wrote.

use http::{HeaderMap, Method, Version};
use model::cluster::Cluster;
use model::endpoint::Endpoint;
use model::route::{Route, VirtualHost};
use model::routing::RouteTable;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A downstream connection, shared by the exchanges on it.
#[derive(Debug, Clone)]
pub struct ConnectionRecord {
    /// Number of the connection in this process.
    pub id: u64,
    /// The peer.
    pub remote: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// SNI, when TLS.
    pub server_name: Option<Box<str>>,
    /// TLS version as Envoy writes it (`TLSv1.3`); `None` for plaintext.
    pub tls_version: Option<&'static str>,
    /// URI name in the peer's verified certificate.
    pub peer_uri: Option<Box<str>>,
    /// Our own URI name, presented to the peer.
    pub own_uri: Option<Box<str>>,
    /// Name of the filter chain that took it.
    pub chain: Box<str>,
}

impl ConnectionRecord {
    /// Both sides proved who they are.
    pub fn is_mutual_tls(&self) -> bool {
        self.peer_uri.is_some()
    }
}

/// A request's head as it came in, after the path was made canonical and before any edit.
#[derive(Debug, Clone, Copy)]
pub struct RequestRecord<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Canonical path with its query; empty for CONNECT.
    pub target: &'a str,
    /// Authority.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Version the client spoke.
    pub version: Version,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Its id, as sent on in `x-request-id`.
    pub id: &'a str,
    /// Who asks, as trusted forwarding headers tell.
    pub client: SocketAddr,
}

/// The route that was chosen.
#[derive(Debug, Clone)]
pub struct RouteTaken {
    /// The table it is in.
    pub table: Arc<RouteTable>,
    /// Position of its virtual host.
    pub host: usize,
    /// Position of the route in it.
    pub route: usize,
}

impl RouteTaken {
    /// The virtual host.
    pub fn virtual_host(&self) -> Option<&VirtualHost> {
        self.table.config().virtual_hosts.get(self.host)
    }

    /// The route.
    pub fn route(&self) -> Option<&Route> {
        self.virtual_host()?.routes.get(self.route)
    }
}

/// The endpoint of the last try.
#[derive(Debug, Clone)]
pub struct UpstreamRecord {
    /// Its address.
    pub address: SocketAddr,
    /// What discovery says of it.
    pub endpoint: Arc<Endpoint>,
    /// Our own address towards it, when connected.
    pub local: Option<SocketAddr>,
    /// URI name in its verified certificate.
    pub peer_uri: Option<Arc<str>>,
}

/// One request and its answer, or one TCP connection.
///
/// Made by [`super::Recorder::begin`], written by [`Exchange::finish`].
#[derive(Debug)]
pub struct Exchange {
    /// When its first byte came in, for durations.
    pub start: Instant,
    /// The same on the wall clock.
    pub start_time: SystemTime,
    /// The route.
    pub route: Option<RouteTaken>,
    /// The cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The endpoint of the last try.
    pub upstream: Option<UpstreamRecord>,
    /// Tries made; 0 when it was answered here.
    pub attempts: u32,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// Reason token: `via_upstream`, `direct_response` or one of [`crate::failure`].
    pub details: &'static str,
    /// Envoy's response flags, comma-separated; `-` for none.
    pub flags: &'static str,
    /// Why the last connection to an endpoint failed, as a sentence.
    pub transport_failure: Option<String>,
    /// `grpc-status` of the answer, from its head or trailers.
    pub grpc_status: Option<u32>,
    /// Request body bytes (TCP: bytes from the client).
    pub bytes_received: u64,
    /// Response body bytes (TCP: bytes to the client).
    pub bytes_sent: u64,
    /// When the request's last byte came in.
    pub request_end: Option<Instant>,
    /// When the endpoint's first byte came in.
    pub response_start: Option<Instant>,
}
