//! Counters and gauges of the proxy itself: made by name when configuration is compiled, then touched by handle.
//! The families that count requests are `traffic`'s.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// More label sets than this in one family make room by forgetting those nobody holds any more.
const CROWDED: usize = 4096;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Becomes `n`.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A label's name and value.
pub type Label<'a> = (&'static str, &'a str);

/// Every counter and gauge, by name and labels.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    counters: Mutex<BTreeMap<&'static str, Family<Counter>>>,
    gauges: Mutex<BTreeMap<&'static str, Family<Gauge>>>,
}

#[derive(Debug)]
struct Family<T> {
    help: &'static str,
    series: BTreeMap<String, Arc<T>>,
}

impl Counters {
    /// The counter of that name and labels, made when it is not there.
    pub(crate) fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[Label<'_>],
    ) -> Arc<Counter> {
        handle(&self.counters, name, help, labels)
    }

    /// The gauge of that name and labels, made when it is not there.
    pub(crate) fn gauge(&self, name: &'static str, help: &'static str, labels: &[Label<'_>]) -> Arc<Gauge> {
        handle(&self.gauges, name, help, labels)
    }

    /// Appends all of them as Prometheus text.
    pub(crate) fn write(&self, out: &mut String) {
        for (name, family) in &*lock(&self.counters) {
            write_family(out, name, "counter", family, |c| c.value() as i128);
        }
        for (name, family) in &*lock(&self.gauges) {
            write_family(out, name, "gauge", family, |g| i128::from(g.value()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handle<T: Default>(
    families: &Mutex<BTreeMap<&'static str, Family<T>>>,
    name: &'static str,
    help: &'static str,
    labels: &[Label<'_>],
) -> Arc<T> {
    let mut families = lock(families);
    let family = families.entry(name).or_insert_with(|| Family { help, series: BTreeMap::new() });
    if family.series.len() >= CROWDED {
        family.series.retain(|_, value| Arc::strong_count(value) > 1);
    }
    Arc::clone(family.series.entry(label_text(labels)).or_default())
}

fn write_family<T>(out: &mut String, name: &str, kind: &str, family: &Family<T>, value: impl Fn(&T) -> i128) {
    write_head(out, name, family.help, kind);
    for (labels, series) in &family.series {
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}{braces} {}", value(series));
    }
}

/// Appends what comes before the series of a family.
pub(crate) fn write_head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Labels as they stand between braces.
pub(crate) fn label_text(labels: &[Label<'_>]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}
