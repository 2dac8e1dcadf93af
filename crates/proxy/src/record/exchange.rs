//! The facts of one exchange, filled in by the stages it passes. No stage reads what another wrote.

use super::recorder::Recorder;
use http::{HeaderMap, Method, Version};
use model::cluster::Cluster;
use model::endpoint::Endpoint;
use model::format::{Command, Facts};
use model::header::RequestHead;
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
    recorder: Arc<Recorder>,
    connection: Arc<ConnectionRecord>,
    finished: bool,
}

impl Exchange {
    pub(super) fn new(
        recorder: &Arc<Recorder>,
        connection: &Arc<ConnectionRecord>,
        _request: Option<&RequestRecord<'_>>,
    ) -> Self {
        Self {
            start: Instant::now(),
            start_time: SystemTime::now(),
            route: None,
            cluster: None,
            upstream: None,
            attempts: 0,
            status: 0,
            details: "-",
            flags: "-",
            transport_failure: None,
            grpc_status: None,
            bytes_received: 0,
            bytes_sent: 0,
            request_end: None,
            response_start: None,
            recorder: Arc::clone(recorder),
            connection: Arc::clone(connection),
            finished: false,
        }
    }

    /// Edits a request before it is sent on: its trace context is made or continued, and peer metadata is put in
    /// (outbound) or read and taken out (inbound). `random` is any 64 random bits.
    pub fn edit_request(&mut self, _headers: &mut HeaderMap, _random: u64) {}

    /// Edits an answer before it is sent to the client: peer metadata is put in (inbound, when the request carried
    /// some) or read and taken out (outbound).
    pub fn edit_response(&mut self, _headers: &mut HeaderMap) {}

    /// The head of the final answer, as it is sent to the client.
    pub fn answered(&mut self, status: u16, _headers: &HeaderMap) {
        self.status = status;
    }

    /// The trailers of the answer.
    pub fn trailers(&mut self, _trailers: &HeaderMap) {}

    /// What `%…%` stands for in header edits; `request` and `response` as they are at that moment.
    pub fn facts<'a>(
        &'a self,
        _request: &'a RequestHead<'a>,
        _response: Option<&'a HeaderMap>,
    ) -> impl Facts + 'a {
        Nothing(std::marker::PhantomData::<&'a ()>)
    }

    /// A TCP connection has reached its endpoint: counted as opened.
    pub fn established(&mut self) {}

    /// Counts the bytes of a long TCP connection so far; may be called now and then.
    pub fn report(&mut self) {}

    /// Its end: logs and metrics are written. The same happens when it is dropped.
    pub fn finish(mut self) {
        self.record();
    }

    fn record(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let _ = (&self.recorder.telemetry, &self.connection);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record();
    }
}

struct Nothing<T>(std::marker::PhantomData<T>);

impl<T> Facts for Nothing<T> {
    fn write(&self, _: &Command, _: &mut Vec<u8>) -> bool {
        false
    }
}
