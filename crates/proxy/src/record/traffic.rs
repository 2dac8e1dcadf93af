//! Which label set a finished exchange belongs to. What it is made of (peers, services, principals) is known to each
//! thread by a small number, so that in the usual case the answer is a few lookups by address and number; text is
//! put together only for a label set that the thread has not met.

use super::counters::label_text;
use super::peer::{Peer, UNKNOWN};
use super::series::{Block, HttpBlock, Registry, TcpBlock};
use super::telemetry::Telemetry;
use super::writer::Queue;
use model::cluster::Cluster;
use model::endpoint::Endpoint;
use model::metadata::Value;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// More entries than this in one of a thread's tables empty them all: what is in use comes back, the rest does not.
const MOST_ENTRIES: usize = 8_192;
/// Header values kept with the peer they name.
const MOST_HEADERS: usize = 1_024;

/// What an exchange says of itself, in borrowed form.
pub(super) struct Traffic<'a> {
    /// The client's side reports, or the server's.
    pub(super) outbound: bool,
    pub(super) peer: Option<&'a Arc<Peer>>,
    pub(super) cluster: Option<&'a Arc<Cluster>>,
    pub(super) endpoint: Option<&'a Arc<Endpoint>>,
    /// URI names proven on the connection between the two proxies: ours and the peer's.
    pub(super) own_uri: Option<&'a str>,
    pub(super) peer_uri: Option<&'a str>,
    pub(super) status: u16,
    pub(super) flags: &'static str,
    pub(super) grpc: bool,
    pub(super) grpc_status: Option<u32>,
}

/// A [`Traffic`] in numbers that only its thread understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    peer: u32,
    service: u32,
    own_uri: u32,
    peer_uri: u32,
    grpc_status: u32,
    status: u16,
    kind: u16,
    /// Address of the flags' text, which is static.
    flags: usize,
}

/// The service that a cluster stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Service {
    host: String,
    name: String,
    namespace: String,
}

/// The peer that a header's value describes, if it can be read.
type Said = Option<Arc<Peer>>;

/// What one thread knows. It belongs to one [`Telemetry`].
pub(super) struct Local {
    telemetry: u64,
    owner: Weak<Telemetry>,
    /// Number of the thread among all that count.
    thread: u64,
    pub(super) queue: Option<Arc<Queue>>,
    headers: FxHashMap<Box<[u8]>, Said>,
    /// The header seen last: comparing is cheaper than hashing.
    last_header: Option<(Box<[u8]>, Said)>,
    peers: Table<Peer>,
    /// By address; the `Arc` or `Weak` beside it keeps the address from being used for another.
    peers_by_address: FxHashMap<usize, (Arc<Peer>, u32)>,
    peers_by_uri: FxHashMap<u32, u32>,
    /// `None` for an endpoint that discovery says nothing of.
    endpoints: FxHashMap<usize, (Weak<Endpoint>, Option<u32>)>,
    services: Table<Service>,
    clusters: FxHashMap<usize, (Weak<Cluster>, u32)>,
    uris: Table<str>,
    http: FxHashMap<Key, Arc<HttpBlock>>,
    tcp: FxHashMap<Key, Arc<TcpBlock>>,
}

/// Values by number and back.
struct Table<T: ?Sized> {
    values: Vec<Arc<T>>,
    numbers: FxHashMap<Arc<T>, u32>,
}

impl<T: ?Sized + Hash + Eq> Table<T> {
    fn new() -> Self {
        Self { values: Vec::new(), numbers: FxHashMap::default() }
    }

    fn number(&mut self, value: &T) -> u32
    where
        Arc<T>: for<'a> From<&'a T>,
    {
        match self.numbers.get(value) {
            Some(number) => *number,
            None => self.insert(Arc::from(value)),
        }
    }

    fn insert(&mut self, value: Arc<T>) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(Arc::clone(&value));
        self.numbers.insert(value, number);
        number
    }

    fn value(&self, number: u32) -> Option<&Arc<T>> {
        self.values.get(number as usize)
    }
}

thread_local! {
    static LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

/// Lets `act` work with what this thread knows for `telemetry`; `None` while the thread ends.
pub(super) fn with_local<T>(telemetry: &Arc<Telemetry>, act: impl FnOnce(&mut Local) -> T) -> Option<T> {
    let enter = |locals: &RefCell<Vec<Local>>| {
        let mut locals = locals.try_borrow_mut().ok()?;
        let at = match locals.iter().position(|l| l.telemetry == telemetry.number) {
            Some(at) => at,
            None => {
                locals.retain(|l| l.owner.strong_count() > 0);
                locals.push(Local::new(telemetry));
                locals.len() - 1
            }
        };
        locals.get_mut(at).map(act)
    };
    LOCALS.try_with(enter).ok().flatten()
}

impl Local {
    fn new(telemetry: &Arc<Telemetry>) -> Self {
        static THREADS: AtomicU64 = AtomicU64::new(0);
        Self {
            telemetry: telemetry.number,
            owner: Arc::downgrade(telemetry),
            thread: THREADS.fetch_add(1, Ordering::Relaxed),
            queue: None,
            headers: FxHashMap::default(),
            last_header: None,
            peers: Table::new(),
            peers_by_address: FxHashMap::default(),
            peers_by_uri: FxHashMap::default(),
            endpoints: FxHashMap::default(),
            services: Table::new(),
            clusters: FxHashMap::default(),
            uris: Table::new(),
            http: FxHashMap::default(),
            tcp: FxHashMap::default(),
        }
    }

    /// The peer that a header's value describes.
    pub(super) fn peer_of_header(&mut self, value: &[u8]) -> Said {
        if let Some((last, peer)) = &self.last_header
            && **last == *value
        {
            return peer.clone();
        }
        let peer = match self.headers.get(value) {
            Some(peer) => peer.clone(),
            None => {
                let peer = Peer::from_header(value).map(Arc::new);
                if self.headers.len() >= MOST_HEADERS {
                    self.headers.clear();
                }
                self.headers.insert(value.into(), peer.clone());
                peer
            }
        };
        self.last_header = Some((value.into(), peer.clone()));
        peer
    }

    /// Lets `act` count in the block of such a request.
    pub(super) fn http(
        &mut self,
        telemetry: &Telemetry,
        traffic: &Traffic<'_>,
        act: impl FnOnce(&HttpBlock),
    ) {
        let key = self.key(traffic);
        if let Some(block) = self.http.get(&key) {
            return act(block);
        }
        let block = self.find(&telemetry.http, telemetry, traffic, &key, true);
        act(&block);
        self.http.insert(key, block);
    }

    /// Lets `act` count in the block of such a connection.
    pub(super) fn tcp(&mut self, telemetry: &Telemetry, traffic: &Traffic<'_>, act: impl FnOnce(&TcpBlock)) {
        let key = self.key(traffic);
        if let Some(block) = self.tcp.get(&key) {
            return act(block);
        }
        let block = self.find(&telemetry.tcp, telemetry, traffic, &key, false);
        act(&block);
        self.tcp.insert(key, block);
    }

    fn key(&mut self, traffic: &Traffic<'_>) -> Key {
        self.make_room();
        let peer_uri = self.uri(traffic.peer_uri);
        Key {
            peer: self.peer(traffic, peer_uri),
            service: self.service(traffic.cluster),
            own_uri: self.uri(traffic.own_uri),
            peer_uri,
            grpc_status: traffic.grpc_status.unwrap_or(u32::MAX),
            status: traffic.status,
            kind: u16::from(traffic.outbound) | u16::from(traffic.grpc) << 1,
            flags: traffic.flags.as_ptr() as usize,
        }
    }

    /// Forgets everything when one table is full. The blocks stay with the registry and are found again.
    fn make_room(&mut self) {
        let sizes = [
            self.peers.values.len(),
            self.peers_by_address.len(),
            self.endpoints.len(),
            self.services.values.len(),
            self.clusters.len(),
            self.uris.values.len(),
            self.http.len(),
            self.tcp.len(),
        ];
        if sizes.into_iter().any(|size| size >= MOST_ENTRIES) {
            self.peers = Table::new();
            self.peers_by_address.clear();
            self.peers_by_uri.clear();
            self.endpoints.clear();
            self.services = Table::new();
            self.clusters.clear();
            self.uris = Table::new();
            self.http.clear();
            self.tcp.clear();
        }
    }

    /// The peer: what it said of itself, else what discovery says of the endpoint, else the name it proved.
    fn peer(&mut self, traffic: &Traffic<'_>, peer_uri: u32) -> u32 {
        if let Some(peer) = traffic.peer {
            let address = Arc::as_ptr(peer) as usize;
            if let Some((_, number)) = self.peers_by_address.get(&address) {
                return *number;
            }
            let number = self.peers.insert(Arc::clone(peer));
            self.peers_by_address.insert(address, (Arc::clone(peer), number));
            return number;
        }
        if let Some(endpoint) = traffic.endpoint {
            let address = Arc::as_ptr(endpoint) as usize;
            let known = match self.endpoints.get(&address) {
                Some((_, known)) => *known,
                None => {
                    let known = Peer::from_endpoint(endpoint).map(|peer| self.peers.insert(Arc::new(peer)));
                    self.endpoints.insert(address, (Arc::downgrade(endpoint), known));
                    known
                }
            };
            if let Some(number) = known {
                return number;
            }
        }
        if let Some(number) = self.peers_by_uri.get(&peer_uri) {
            return *number;
        }
        let peer = traffic.peer_uri.and_then(Peer::from_principal).unwrap_or_else(Peer::unknown);
        let number = self.peers.insert(Arc::new(peer));
        self.peers_by_uri.insert(peer_uri, number);
        number
    }

    fn service(&mut self, cluster: Option<&Arc<Cluster>>) -> u32 {
        let Some(cluster) = cluster else { return u32::MAX };
        let address = Arc::as_ptr(cluster) as usize;
        if let Some((_, number)) = self.clusters.get(&address) {
            return *number;
        }
        let number = self.services.insert(Arc::new(Service::of(cluster)));
        self.clusters.insert(address, (Arc::downgrade(cluster), number));
        number
    }

    fn uri(&mut self, uri: Option<&str>) -> u32 {
        uri.map_or(u32::MAX, |uri| self.uris.number(uri))
    }

    fn find<B: Block>(
        &self,
        registry: &Registry<B>,
        telemetry: &Telemetry,
        traffic: &Traffic<'_>,
        key: &Key,
        http: bool,
    ) -> Arc<B> {
        let nobody = Peer::unknown();
        let peer = self.peers.value(key.peer).map_or(&nobody, Arc::as_ref);
        let own = &telemetry.node().peer;
        let nothing = Service::unknown();
        let service = self.services.value(key.service).map_or(&nothing, Arc::as_ref);
        let labels = labels(own, peer, service, traffic, http);
        let overflow = || {
            let others: Vec<_> = labels
                .iter()
                .map(|(name, value)| (*name, if *name == "reporter" { value.as_str() } else { "other" }))
                .collect();
            label_text(&others)
        };
        let pairs: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        registry.block(self.thread, label_text(&pairs), overflow)
    }
}

impl Service {
    fn unknown() -> Self {
        Self { host: UNKNOWN.to_owned(), name: UNKNOWN.to_owned(), namespace: UNKNOWN.to_owned() }
    }

    /// What the cluster's metadata say, else what its name says.
    fn of(cluster: &Cluster) -> Self {
        let first = match cluster.metadata.value("istio", "services") {
            Some(Value::List(services)) => services.first(),
            _ => None,
        };
        if let Some(Value::Struct(fields)) = first {
            let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned();
            return Self { host: text("host"), name: text("name"), namespace: text("namespace") };
        }
        let host = match cluster.name.strip_prefix("outbound|") {
            Some(rest) => rest.rsplit('|').next().unwrap_or_default(),
            // Istio's names for what leads nowhere known; on other clusters the name says nothing.
            None if matches!(cluster.name.as_str(), "PassthroughCluster" | "BlackHoleCluster") => {
                return Self { name: cluster.name.clone(), ..Self::unknown() };
            }
            None => return Self::unknown(),
        };
        match host.split_once(".svc.").and_then(|(start, _)| start.split_once('.')) {
            Some((name, namespace)) => {
                Self { host: host.to_owned(), name: name.to_owned(), namespace: namespace.to_owned() }
            }
            None => Self { host: host.to_owned(), name: host.to_owned(), ..Self::unknown() },
        }
    }
}

/// The labels in the order in which Istio's proxies write them.
fn labels(
    own: &Peer,
    peer: &Peer,
    service: &Service,
    traffic: &Traffic<'_>,
    http: bool,
) -> Vec<(&'static str, String)> {
    let own_uri = traffic.own_uri.unwrap_or(UNKNOWN);
    let peer_uri = traffic.peer_uri.unwrap_or(UNKNOWN);
    let (reporter, source, destination, source_uri, destination_uri) = match traffic.outbound {
        true => ("source", own, peer, own_uri, peer_uri),
        false => ("destination", peer, own, peer_uri, own_uri),
    };
    // Only the server's side knows for certain what the client proved.
    let security = match (traffic.outbound, traffic.peer_uri) {
        (true, _) => UNKNOWN,
        (false, Some(_)) => "mutual_tls",
        (false, None) => "none",
    };
    let protocol = match (http, traffic.grpc) {
        (false, _) => "tcp",
        (true, false) => "http",
        (true, true) => "grpc",
    };
    let mut labels: Vec<(&'static str, String)> = vec![
        ("reporter", reporter.to_owned()),
        ("source_workload", source.workload.clone()),
        ("source_canonical_service", source.canonical_service.clone()),
        ("source_canonical_revision", source.canonical_revision.clone()),
        ("source_workload_namespace", source.namespace.clone()),
        ("source_principal", source_uri.to_owned()),
        ("source_app", source.app.clone()),
        ("source_version", source.version.clone()),
        ("source_cluster", source.cluster.clone()),
        ("destination_workload", destination.workload.clone()),
        ("destination_workload_namespace", destination.namespace.clone()),
        ("destination_principal", destination_uri.to_owned()),
        ("destination_app", destination.app.clone()),
        ("destination_version", destination.version.clone()),
        ("destination_service", service.host.clone()),
        ("destination_canonical_service", destination.canonical_service.clone()),
        ("destination_canonical_revision", destination.canonical_revision.clone()),
        ("destination_service_name", service.name.clone()),
        ("destination_service_namespace", service.namespace.clone()),
        ("destination_cluster", destination.cluster.clone()),
        ("request_protocol", protocol.to_owned()),
    ];
    if http {
        labels.push(("response_code", traffic.status.to_string()));
        let grpc_status = traffic.grpc_status.filter(|_| traffic.grpc);
        labels.push(("grpc_response_status", grpc_status.map_or_else(String::new, |s| s.to_string())));
    }
    labels.push(("response_flags", traffic.flags.to_owned()));
    labels.push(("connection_security_policy", security.to_owned()));
    labels
}
