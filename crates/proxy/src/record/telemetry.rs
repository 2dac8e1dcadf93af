//! Everything counted in this process, and the threads' way to it. One per proxy, shared by all that runs.

use super::counters::{Counter, Counters, Gauge, Label};
use super::peer::NodeLabels;
use super::series::{HttpBlock, Registry, TcpBlock};
use super::sink::Sinks;
use super::writer::Writer;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// All that is counted, and who this proxy is.
pub struct Telemetry {
    /// Tells several in one process apart.
    pub(super) number: u64,
    node: NodeLabels,
    counters: Counters,
    panics: Arc<Counter>,
    pub(super) http: Registry<HttpBlock>,
    pub(super) tcp: Registry<TcpBlock>,
    pub(super) sinks: Arc<Sinks>,
    /// Started by the first access log.
    writer: OnceLock<Writer>,
    dropped: Arc<Counter>,
}

/// Connections that came in at one listener.
#[derive(Debug, Clone)]
pub struct ListenerCounters {
    total: Arc<Counter>,
    active: Arc<Gauge>,
}

impl ListenerCounters {
    /// A connection was accepted; it is over when the returned value is dropped.
    pub fn opened(&self) -> OpenConnection {
        self.total.increment();
        self.active.add(1);
        OpenConnection(Arc::clone(&self.active))
    }
}

/// Connections made to endpoints of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterCounters {
    total: Arc<Counter>,
    failed: Arc<Counter>,
    active: Arc<Gauge>,
}

impl ClusterCounters {
    /// A connection was made; it is over when the returned value is dropped.
    pub fn opened(&self) -> OpenConnection {
        self.total.increment();
        self.active.add(1);
        OpenConnection(Arc::clone(&self.active))
    }

    /// A connection could not be made.
    pub fn failed(&self) {
        self.failed.increment();
    }
}

/// A connection that is counted as active while this lives.
#[derive(Debug)]
pub struct OpenConnection(Arc<Gauge>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl Telemetry {
    /// Counts for the proxy of that node.
    pub fn new(node: NodeLabels) -> Arc<Self> {
        let counters = Counters::default();
        let version = [("version", env!("CARGO_PKG_VERSION")), ("node", node.id())];
        counters.gauge("ieum_build_info", "What is running; always 1.", &version).set(1);
        let count = |name, help| counters.counter(name, help, &[]);
        let panics = count("ieum_panics_total", "Panics caught; each cost one connection or task.");
        let dropped = count("ieum_access_log_dropped_total", "Access log lines lost.");
        let refused = |kind: &str| {
            let help =
                "Label sets of Istio's metrics that found no room; they are counted together as `other`.";
            counters.counter("ieum_metric_series_refused_total", help, &[("kind", kind)])
        };
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            http: Registry::new(refused("http")),
            tcp: Registry::new(refused("tcp")),
            sinks: Arc::default(),
            writer: OnceLock::new(),
            node,
            panics,
            dropped,
            counters,
        })
    }

    /// The writer of access logs, started when it is needed for the first time.
    pub(super) fn writer(&self) -> &Writer {
        self.writer.get_or_init(|| Writer::start(Arc::clone(&self.sinks), Arc::clone(&self.dropped)))
    }

    /// Who this proxy works for.
    pub fn node(&self) -> &NodeLabels {
        &self.node
    }

    /// A panic was caught.
    pub fn panicked(&self) {
        self.panics.increment();
    }

    /// The counter of that name and labels, made when it is not there. Ask once and keep it.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[Label<'_>]) -> Arc<Counter> {
        self.counters.counter(name, help, labels)
    }

    /// The gauge of that name and labels, made when it is not there. Ask once and keep it.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[Label<'_>]) -> Arc<Gauge> {
        self.counters.gauge(name, help, labels)
    }

    /// Counters for a listener. Ask once and keep them.
    pub fn listener(&self, name: &str) -> ListenerCounters {
        let labels = [("listener", name)];
        ListenerCounters {
            total: self.counter("ieum_connections_total", "Connections accepted.", &labels),
            active: self.gauge("ieum_connections_active", "Connections open now.", &labels),
        }
    }

    /// Counters for a cluster. Ask once and keep them.
    pub fn cluster(&self, name: &str) -> ClusterCounters {
        let labels = [("cluster", name)];
        ClusterCounters {
            total: self.counter("ieum_upstream_connections_total", "Connections made to endpoints.", &labels),
            failed: self.counter(
                "ieum_upstream_connect_failures_total",
                "Connections to endpoints that could not be made.",
                &labels,
            ),
            active: self.gauge(
                "ieum_upstream_connections_active",
                "Connections to endpoints open now.",
                &labels,
            ),
        }
    }

    /// Everything, as Prometheus text.
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        self.http.write(&mut out);
        self.tcp.write(&mut out);
        self.counters.write(&mut out);
        out
    }

    /// Opens every access log file anew, after somebody moved it away.
    pub fn reopen_logs(&self) {
        if let Some(writer) = self.writer.get() {
            writer.reopen();
        }
    }

    /// Waits until every line that is due has been written. Blocks the thread; for the end of the program.
    pub fn flush_logs(&self) {
        if let Some(writer) = self.writer.get() {
            writer.flush();
        }
    }
}
