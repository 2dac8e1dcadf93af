//! The facts of one exchange, filled in by the stages it passes. No stage reads what another wrote.

use super::kept::Kept;
use super::peer::Peer;
use super::recorder::Recorder;
use super::telemetry::Telemetry;
use super::traffic::with_local;
use super::view::{Messages, View};
use http::{HeaderMap, Method, Version};
use model::cluster::Cluster;
use model::endpoint::Endpoint;
use model::format::Facts;
use model::header::RequestHead;
use model::log_filter::ExchangeFacts;
use model::metadata::Metadata;
use model::route::{FilterSettings, Route, Setting, VirtualHost};
use model::routing::{RouteTable, is_grpc};
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
    /// The socket's peer: the client, or who stands in front of it.
    pub direct: SocketAddr,
    /// The kernel or a load balancer said where it was going; its own socket does not show it.
    pub is_restored: bool,
    /// What a load balancer said beside that, as it came: type and value.
    pub notes: Option<Arc<[Note]>>,
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

/// What a load balancer says of a connection beside its ends (a TLV of the PROXY protocol).
pub type Note = (u8, Box<[u8]>);

/// Who a connection to an endpoint is made for.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client.
    pub remote: SocketAddr,
    /// Where it wanted to go.
    pub local: SocketAddr,
    /// The socket's peer.
    pub direct: SocketAddr,
    /// See [`ConnectionRecord::is_restored`].
    pub is_restored: bool,
    /// See [`ConnectionRecord::notes`].
    pub notes: Option<Arc<[Note]>>,
}

impl Caller {
    /// One who came straight to where it wanted to go.
    pub fn new(remote: SocketAddr, local: SocketAddr) -> Self {
        Self { remote, local, direct: remote, is_restored: false, notes: None }
    }
}

impl ConnectionRecord {
    /// Who connections to endpoints are made for.
    pub fn caller(&self) -> Caller {
        Caller {
            remote: self.remote,
            local: self.local,
            direct: self.direct,
            is_restored: self.is_restored,
            notes: self.notes.clone(),
        }
    }

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

    /// What the route, else its host, else the table says of a filter.
    pub fn filter_setting<'t, T>(
        &'t self,
        of: impl Fn(&'t FilterSettings) -> Option<&'t Setting<T>>,
    ) -> Option<&'t Setting<T>> {
        let route = self.route().and_then(|route| route.filters.as_deref());
        let host = || self.virtual_host().and_then(|host| host.filters.as_deref());
        let table = || self.table.config().filters.as_deref();
        route.and_then(&of).or_else(|| host().and_then(&of)).or_else(|| table().and_then(&of))
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
    /// It is a health check of this proxy, which was answered here.
    pub is_health_check: bool,
    /// What filters noted of it.
    pub noted: Metadata,
    recorder: Arc<Recorder>,
    connection: Arc<ConnectionRecord>,
    pub(super) client: SocketAddr,
    /// `None` for TCP.
    pub(super) version: Option<Version>,
    pub(super) is_grpc: bool,
    pub(super) trace_id: Option<u128>,
    /// What the proxy at the other end said of itself.
    pub(super) peer: Option<Arc<Peer>>,
    /// The peer told who it is, and will be told.
    pub(super) exchanges_peers: bool,
    pub(super) kept: Option<Kept>,
    /// TCP: it is counted as opened; bytes counted so far.
    pub(super) established: bool,
    pub(super) counted: (u64, u64),
    finished: bool,
}

impl Exchange {
    pub(super) fn new(
        recorder: &Arc<Recorder>,
        connection: &Arc<ConnectionRecord>,
        request: Option<&RequestRecord<'_>>,
    ) -> Self {
        let kept = match (&recorder.logs, request) {
            (Some(logs), Some(request)) => Some(Kept::of_request(&logs.wanted, request)),
            _ => None,
        };
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
            is_health_check: false,
            noted: Metadata::default(),
            recorder: Arc::clone(recorder),
            connection: Arc::clone(connection),
            client: request.map_or(connection.remote, |r| r.client),
            version: request.map(|r| r.version),
            is_grpc: request.is_some_and(|r| is_grpc(r.headers)),
            trace_id: None,
            peer: None,
            exchanges_peers: false,
            kept,
            established: false,
            counted: (0, 0),
            finished: false,
        }
    }

    pub(super) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// The connection it came in on.
    pub fn connection(&self) -> &Arc<ConnectionRecord> {
        &self.connection
    }

    /// The head of the final answer, as it is sent to the client.
    pub fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        self.read_grpc_status(headers);
        if let (Some(kept), Some(logs)) = (&mut self.kept, &self.recorder.logs) {
            kept.add_response(&logs.wanted, headers);
        }
    }

    /// The trailers of the answer.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.read_grpc_status(trailers);
        if let (Some(kept), Some(logs)) = (&mut self.kept, &self.recorder.logs) {
            kept.add_trailers(&logs.wanted, trailers);
        }
    }

    fn read_grpc_status(&mut self, headers: &HeaderMap) {
        if !self.is_grpc {
            return;
        }
        if let Some(status) = headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse().ok()) {
            self.grpc_status = Some(status);
        }
    }

    /// What `%…%` stands for in header edits; `request` and `response` as they are at that moment.
    pub fn facts<'a>(
        &'a self,
        request: &'a RequestHead<'a>,
        response: Option<&'a HeaderMap>,
    ) -> impl Facts + 'a {
        View { exchange: self, end: Instant::now(), messages: Some(Messages { request, response }) }
    }

    /// The same for conditions.
    pub fn conditions<'a>(&'a self, request: &'a RequestHead<'a>) -> impl ExchangeFacts + 'a {
        View { exchange: self, end: Instant::now(), messages: Some(Messages { request, response: None }) }
    }

    /// Writes a line to the logs as things stand; its end writes another one.
    pub fn log_now(&self) {
        if self.recorder.logs.is_none() {
            return;
        }
        let mut copy = Self::new(&self.recorder, &self.connection, None);
        (copy.start, copy.start_time) = (self.start, self.start_time);
        (copy.cluster, copy.upstream) = (self.cluster.clone(), self.upstream.clone());
        (copy.attempts, copy.details, copy.flags) = (self.attempts, self.details, self.flags);
        (copy.bytes_received, copy.bytes_sent) = (self.bytes_received, self.bytes_sent);
        copy.peer = self.peer.clone();
        copy.finished = true;
        enqueue(&self.recorder.telemetry, Box::new(copy), Instant::now());
    }

    /// Its end: logs and metrics are written. The same happens when it is dropped.
    pub fn finish(mut self: Box<Self>) {
        self.finished = true;
        let end = Instant::now();
        self.count(end);
        if self.recorder.logs.is_some() {
            let recorder = Arc::clone(&self.recorder);
            enqueue(&recorder.telemetry, self, end);
        }
    }
}

/// Hands a finished exchange to the thread that writes log lines.
fn enqueue(telemetry: &Arc<Telemetry>, exchange: Box<Exchange>, end: Instant) {
    let writer = telemetry.writer();
    let queue = with_local(telemetry, |local| Arc::clone(local.queue.get_or_insert_with(|| writer.queue())));
    if let Some(queue) = queue {
        writer.push(&queue, exchange, end);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.finished {
            self.finished = true;
            // Nobody answered and nothing went wrong: the client left, and what worked for it went with it.
            if self.version.is_some() && self.status == 0 && self.details == "-" {
                (self.details, self.flags) = ("downstream_remote_disconnect", "DC");
            }
            let mut blank = Self::new(&self.recorder, &self.connection, None);
            blank.finished = true;
            Box::new(std::mem::replace(self, blank)).finish();
        }
    }
}
