//! What a connection manager or TCP proxy records, compiled with the snapshot.

use super::exchange::{ConnectionRecord, Exchange, RequestRecord};
use super::telemetry::Telemetry;
use model::listener::{AccessLog, Direction, HttpConnectionManager, Listener, TcpProxy, Tracing};
use std::sync::Arc;

/// Compiled once per connection manager or TCP proxy; begins an [`Exchange`] for each request or connection.
pub struct Recorder {
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) direction: Direction,
    pub(super) stats: bool,
    pub(super) tracing: Option<Tracing>,
}

impl Recorder {
    /// For HTTP.
    pub fn http(
        telemetry: &Arc<Telemetry>,
        manager: &HttpConnectionManager,
        listener: &Listener,
    ) -> Arc<Self> {
        Self::compile(telemetry, listener, &manager.access_logs, manager.stats, manager.tracing)
    }

    /// For TCP. Its metrics are always counted.
    pub fn tcp(telemetry: &Arc<Telemetry>, proxy: &TcpProxy, listener: &Listener) -> Arc<Self> {
        Self::compile(telemetry, listener, &proxy.access_logs, true, None)
    }

    fn compile(
        telemetry: &Arc<Telemetry>,
        listener: &Listener,
        _logs: &[AccessLog],
        stats: bool,
        tracing: Option<Tracing>,
    ) -> Arc<Self> {
        Arc::new(Self { telemetry: Arc::clone(telemetry), direction: listener.direction, stats, tracing })
    }

    /// A request came in.
    pub fn begin(
        self: &Arc<Self>,
        connection: &Arc<ConnectionRecord>,
        request: &RequestRecord<'_>,
    ) -> Exchange {
        Exchange::new(self, connection, Some(request))
    }

    /// A connection came in whose bytes are passed on as they are.
    pub fn begin_tcp(self: &Arc<Self>, connection: &Arc<ConnectionRecord>) -> Exchange {
        Exchange::new(self, connection, None)
    }
}
