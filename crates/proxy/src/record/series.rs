//! Istio's metric families: one block of counters per label set and thread, written by that thread alone with plain
//! adds, summed when somebody looks. Which label set an exchange belongs to is `traffic`'s.

use super::counters::{Counter, write_head};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Label sets kept per kind of block. One more shares the block of all that came too late, so that nobody can fill
/// the memory by inventing labels.
const MOST_SERIES: usize = 2_000;

/// Upper bounds of the buckets, as Istio's proxies have them, for milliseconds and for bytes.
const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

/// Counters of one label set in one thread.
pub(super) trait Block: Default + Send + Sync {
    /// Appends the families with the series of every label set.
    fn write(series: &BTreeMap<Box<str>, Series<Self>>, out: &mut String);
}

/// The blocks of one label set.
#[derive(Debug)]
pub(super) struct Series<B> {
    /// By the number of the thread that writes it.
    blocks: Vec<(u64, Arc<B>)>,
}

impl<B> Series<B> {
    fn sum(&self, value: impl Fn(&B) -> u64) -> u64 {
        self.blocks.iter().map(|(_, block)| value(block)).sum()
    }
}

/// All label sets of one kind.
pub(super) struct Registry<B> {
    series: Mutex<BTreeMap<Box<str>, Series<B>>>,
    refused: Arc<Counter>,
}

impl<B: Block> Registry<B> {
    pub(super) fn new(refused: Arc<Counter>) -> Self {
        Self { series: Mutex::new(BTreeMap::new()), refused }
    }

    /// The block of `labels` that `thread` writes; that of `overflow` when there are too many label sets already.
    pub(super) fn block(&self, thread: u64, labels: String, overflow: impl FnOnce() -> String) -> Arc<B> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = if all.len() < MOST_SERIES || all.contains_key(labels.as_str()) {
            labels
        } else {
            self.refused.increment();
            overflow()
        };
        let series = all.entry(labels.into()).or_insert_with(|| Series { blocks: Vec::new() });
        if let Some((_, block)) = series.blocks.iter().find(|(owner, _)| *owner == thread) {
            return Arc::clone(block);
        }
        let block = Arc::new(B::default());
        series.blocks.push((thread, Arc::clone(&block)));
        block
    }

    pub(super) fn write(&self, out: &mut String) {
        B::write(&self.series.lock().unwrap_or_else(PoisonError::into_inner), out);
    }

    /// How many label sets there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Adds to a number that only this thread writes.
fn add(number: &AtomicU64, n: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn read(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// How often a value fell between two bounds. Values come in thousandths, so that half a millisecond is a whole number.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    thousandths: AtomicU64,
}

impl Histogram {
    fn observe(&self, thousandths: u64) {
        let at = BOUNDS.iter().take_while(|bound| thousandths as f64 > **bound * 1e3).count();
        if let Some(bucket) = self.buckets.get(at) {
            add(bucket, 1);
        }
        add(&self.thousandths, thousandths);
    }
}

/// Counters of HTTP requests.
#[derive(Debug, Default)]
pub(super) struct HttpBlock {
    duration: Histogram,
    request: Histogram,
    response: Histogram,
}

impl HttpBlock {
    /// A request is over.
    pub(super) fn observe(&self, microseconds: u64, bytes_received: u64, bytes_sent: u64) {
        self.duration.observe(microseconds);
        self.request.observe(bytes_received.saturating_mul(1000));
        self.response.observe(bytes_sent.saturating_mul(1000));
    }
}

impl Block for HttpBlock {
    fn write(series: &BTreeMap<Box<str>, Series<Self>>, out: &mut String) {
        if series.is_empty() {
            return;
        }
        write_head(out, "istio_requests_total", "Requests.", "counter");
        for (labels, series) in series {
            let total = series.sum(|b| b.duration.buckets.iter().map(read).sum());
            let _ = writeln!(out, "istio_requests_total{{{labels}}} {total}");
        }
        let name = "istio_request_duration_milliseconds";
        write_histograms(out, name, "Time from first byte in to last byte out.", series, |b| &b.duration);
        write_histograms(out, "istio_request_bytes", "Bytes of request bodies.", series, |b| &b.request);
        write_histograms(out, "istio_response_bytes", "Bytes of response bodies.", series, |b| &b.response);
    }
}

fn write_histograms<B>(
    out: &mut String,
    name: &str,
    help: &str,
    series: &BTreeMap<Box<str>, Series<B>>,
    part: impl Fn(&B) -> &Histogram,
) {
    write_head(out, name, help, "histogram");
    for (labels, series) in series {
        let mut total = 0;
        let bounds = BOUNDS.iter().map(Some).chain([None]);
        for (at, bound) in bounds.enumerate() {
            total += series.sum(|b| part(b).buckets.get(at).map_or(0, read));
            let _ = match bound {
                Some(bound) => writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}"),
                None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}"),
            };
        }
        let sum = series.sum(|b| read(&part(b).thousandths));
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", sum as f64 / 1e3);
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}

/// Counters of TCP connections.
#[derive(Debug, Default)]
pub(super) struct TcpBlock {
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl TcpBlock {
    pub(super) fn open(&self) {
        add(&self.opened, 1);
    }

    pub(super) fn close(&self) {
        add(&self.closed, 1);
    }

    pub(super) fn move_bytes(&self, received: u64, sent: u64) {
        add(&self.received, received);
        add(&self.sent, sent);
    }
}

impl Block for TcpBlock {
    fn write(series: &BTreeMap<Box<str>, Series<Self>>, out: &mut String) {
        if series.is_empty() {
            return;
        }
        type Part = fn(&TcpBlock) -> &AtomicU64;
        let families: [(&str, &str, Part); 4] = [
            ("istio_tcp_connections_opened_total", "TCP connections opened.", |b| &b.opened),
            ("istio_tcp_connections_closed_total", "TCP connections closed.", |b| &b.closed),
            ("istio_tcp_sent_bytes_total", "Bytes sent to clients over TCP.", |b| &b.sent),
            ("istio_tcp_received_bytes_total", "Bytes received from clients over TCP.", |b| &b.received),
        ];
        for (name, help, part) in families {
            write_head(out, name, help, "counter");
            for (labels, series) in series {
                let _ = writeln!(out, "{name}{{{labels}}} {}", series.sum(|b| read(part(b))));
            }
        }
    }
}
