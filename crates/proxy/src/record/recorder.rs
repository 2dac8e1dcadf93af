//! What a connection manager or TCP proxy records, compiled with the snapshot.

use super::exchange::{ConnectionRecord, Exchange, RequestRecord};
use super::log::Logs;
use super::telemetry::Telemetry;
use model::listener::{AccessLog, Direction, HttpConnectionManager, Listener, TcpProxy, Tracing};
use model::metadata::Metadata;
use model::provenance::Provenance;
use std::sync::Arc;

/// Compiled once per connection manager or TCP proxy; begins an [`Exchange`] for each request or connection.
pub struct Recorder {
    pub(super) telemetry: Arc<Telemetry>,
    /// Whether it stands on the client's side. What does not say which way it goes counts as that.
    pub(super) outbound: bool,
    pub(super) stats: bool,
    pub(super) tracing: Option<Tracing>,
    pub(super) logs: Option<Logs>,
    pub(super) listener_metadata: Metadata,
    pub(super) provenance: Option<Provenance>,
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
        logs: &[AccessLog],
        stats: bool,
        tracing: Option<Tracing>,
    ) -> Arc<Self> {
        let logs = Logs::compile(logs, &telemetry.sinks);
        if logs.is_some() {
            telemetry.writer();
        }
        Arc::new(Self {
            telemetry: Arc::clone(telemetry),
            outbound: listener.direction != Direction::Inbound,
            stats,
            tracing,
            logs,
            listener_metadata: listener.metadata.clone(),
            provenance: listener.provenance.clone(),
        })
    }

    /// A request came in.
    pub fn begin(
        self: &Arc<Self>,
        connection: &Arc<ConnectionRecord>,
        request: &RequestRecord<'_>,
    ) -> Box<Exchange> {
        Box::new(Exchange::new(self, connection, Some(request)))
    }

    /// A connection came in whose bytes are passed on as they are.
    pub fn begin_tcp(self: &Arc<Self>, connection: &Arc<ConnectionRecord>) -> Box<Exchange> {
        Box::new(Exchange::new(self, connection, None))
    }
}
