//! Who is connected, what each proxy was sent, acknowledged and refused: the facts behind `/status` and `/metrics`.
//! How they are shown is `admin`'s.

use identity::certificate::Rfc3339;
use model::provenance::Provenance;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Rejections shown per proxy; the oldest go first.
const MAX_REJECTIONS: usize = 50;
/// Longest text of a peer that is kept, in bytes.
const MAX_TEXT: usize = 2000;

/// All connected proxies.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    connected: Mutex<BTreeMap<u64, Arc<Mutex<ProxyStatus>>>>,
    last: AtomicU64,
    /// Counts since the start.
    pub(crate) counters: Counters,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Responses sent.
    pub(crate) pushes: AtomicU64,
    /// Resources sent, where the dialect counts them.
    pub(crate) resources: AtomicU64,
    /// Responses refused by proxies.
    pub(crate) refusals: AtomicU64,
    /// Streams that were opened.
    pub(crate) streams: AtomicU64,
    /// Certificates issued over SDS.
    pub(crate) certificates: AtomicU64,
    /// Certificates asked for over SDS and denied.
    pub(crate) denials: AtomicU64,
}

impl Counters {
    /// Adds `count` to one of them.
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// One stream of one proxy.
#[derive(Debug)]
pub(crate) struct ProxyStatus {
    /// The node id.
    pub(crate) id: String,
    /// What it is: `sidecar`, `gateway` or `grpc`.
    pub(crate) kind: String,
    /// Where it connected from.
    pub(crate) peer: String,
    /// `delta` or `sotw`.
    pub(crate) dialect: &'static str,
    /// Who it proved to be.
    pub(crate) identity: Option<String>,
    /// Since when.
    pub(crate) connected_since: SystemTime,
    /// The revision it was last brought up to.
    pub(crate) offered_revision: u64,
    /// The revision it is known to run: all that differs up to it was acknowledged.
    pub(crate) served_revision: Option<u64>,
    /// By type URL, the version it last acknowledged.
    pub(crate) acked: BTreeMap<String, String>,
    /// What it refused and does still not run.
    pub(crate) rejections: Vec<RejectionStatus>,
    /// Why it has no certificate although it asked for one.
    pub(crate) no_certificate: Option<String>,
}

/// A refused resource.
#[derive(Debug, Clone)]
pub(crate) struct RejectionStatus {
    /// The resource's type.
    pub(crate) type_url: String,
    /// Its name.
    pub(crate) resource: String,
    /// The proxy's reason.
    pub(crate) message: String,
    /// What the user wrote that it came from.
    pub(crate) provenance: Option<Provenance>,
}

/// A proxy's place among [`Proxies`]; dropping it leaves.
pub(crate) struct Connected {
    proxies: Arc<Proxies>,
    number: u64,
    status: Arc<Mutex<ProxyStatus>>,
}

impl Connected {
    /// Its status, to be read or changed.
    pub(crate) fn status(&self) -> MutexGuard<'_, ProxyStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.proxies.connected().remove(&self.number);
    }
}

impl Proxies {
    /// Adds a proxy until the answer is dropped.
    pub(crate) fn join(self: &Arc<Self>, status: ProxyStatus) -> Connected {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let status = Arc::new(Mutex::new(status));
        self.connected().insert(number, status.clone());
        Counters::add(&self.counters.streams, 1);
        Connected { proxies: self.clone(), number, status }
    }

    /// How many are connected.
    pub(crate) fn count(&self) -> usize {
        self.connected().len()
    }

    /// All of them as JSON, in the order in which they came.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        let all: Vec<_> = self.connected().values().cloned().collect();
        all.iter().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).to_json()).collect()
    }

    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Mutex<ProxyStatus>>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProxyStatus {
    /// Notes a refusal, in the place of an earlier one of the same resource.
    pub(crate) fn reject(&mut self, mut rejection: RejectionStatus) {
        truncate(&mut rejection.message);
        self.rejections.retain(|r| (&r.type_url, &r.resource) != (&rejection.type_url, &rejection.resource));
        if self.rejections.len() >= MAX_REJECTIONS {
            self.rejections.remove(0);
        }
        self.rejections.push(rejection);
    }

    /// Forgets refusals of resources of a type whose newer version was taken, as `is_taken` says of each.
    pub(crate) fn accept(&mut self, type_url: &str, is_taken: impl Fn(&str) -> bool) {
        self.rejections.retain(|r| r.type_url != type_url || !is_taken(&r.resource));
    }

    fn to_json(&self) -> Value {
        let types: serde_json::Map<String, Value> = self
            .acked
            .iter()
            .map(|(type_url, version)| (short_type(type_url).to_owned(), json!(version)))
            .collect();
        let rejections: Vec<Value> = self.rejections.iter().map(RejectionStatus::to_json).collect();
        json!({
            "id": self.id,
            "kind": self.kind,
            "peer": self.peer,
            "dialect": self.dialect,
            "identity": self.identity,
            "connected_since": Rfc3339(self.connected_since).to_string(),
            "offered_revision": self.offered_revision,
            "served_revision": self.served_revision,
            "types": types,
            "rejections": rejections,
            "no_certificate": self.no_certificate,
        })
    }
}

impl RejectionStatus {
    fn to_json(&self) -> Value {
        let from = self.provenance.clone().unwrap_or_default();
        json!({
            "type": short_type(&self.type_url),
            "resource": self.resource,
            "message": self.message,
            "from": &*from.resource,
            "file": &*from.file,
            "line": from.line,
        })
    }
}

/// `Cluster` of `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
pub(crate) fn short_type(type_url: &str) -> &str {
    type_url.rsplit(['.', '/']).next().unwrap_or(type_url)
}

/// Shortens what a peer said to what is kept.
pub(crate) fn truncate(text: &mut String) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status() -> ProxyStatus {
        ProxyStatus {
            id: "n".into(),
            kind: "sidecar".into(),
            peer: String::new(),
            dialect: "delta",
            identity: None,
            connected_since: SystemTime::UNIX_EPOCH,
            offered_revision: 1,
            served_revision: None,
            acked: BTreeMap::new(),
            rejections: Vec::new(),
            no_certificate: None,
        }
    }

    fn rejection(resource: &str, message: &str) -> RejectionStatus {
        RejectionStatus {
            type_url: "x/a.Cluster".into(),
            resource: resource.into(),
            message: message.into(),
            provenance: None,
        }
    }

    #[test]
    fn a_refusal_stands_until_a_newer_version_is_taken() {
        let mut status = status();
        status.reject(rejection("a", "first"));
        status.reject(rejection("a", "second"));
        status.reject(rejection("b", "other"));
        assert_eq!(status.rejections.len(), 2);
        assert_eq!(status.to_json()["rejections"][0]["message"], "second");
        status.accept("x/a.Cluster", |name| name == "a");
        assert_eq!(status.to_json()["rejections"][0]["resource"], "b");
    }

    #[test]
    fn a_proxy_that_leaves_is_not_shown() {
        let proxies = Arc::new(Proxies::default());
        let place = proxies.join(status());
        assert_eq!(proxies.count(), 1);
        drop(place);
        assert_eq!((proxies.count(), proxies.to_json().len()), (0, 0));
    }

    #[test]
    fn a_peers_words_are_cut_at_a_character() {
        let mut text = format!("x{}", "é".repeat(MAX_TEXT));
        truncate(&mut text);
        assert_eq!(text.len(), MAX_TEXT - 1);
    }
}
