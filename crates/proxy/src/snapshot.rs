//! The configuration as it runs: one immutable [`Snapshot`] compiled from the accepted resources, swapped whole, shared
//! by every thread. A request takes one snapshot, once.
//!
//! What did not change is carried over from the snapshot before: the same endpoint keeps its identity (and with it its
//! connections and its count of active requests), the same listener its compiled TLS. Which resources are accepted, and
//! when, is `discovery`'s.

mod cluster;
mod announced;
mod destinations;
mod endpoint;
mod listener;
mod recent;
mod tables;
mod transport;
mod needs;
mod usage;

pub use cluster::{ClusterState, Wish};
pub use endpoint::{EndpointState, Vitals};
pub use listener::{ChainState, HttpState, ListenerState, NetworkState, TcpState};
pub use needs::Need;
pub use transport::TransportState;
pub use usage::{Limited, Permit, Usage};

use crate::record::Telemetry;
use arc_swap::ArcSwap;
use model::balance;
use model::cluster::{Cluster, Discovery};
use model::endpoint::Assignment;
use model::listener::Listener;
use model::routing::RouteTable;
use model::tls::Secret;
use needs::Needs;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{Notify, watch};

/// Clusters that stand for clusters that stand for others: so many.
const MOST_LAYERS: usize = 8;

/// All accepted resources, as they were decoded.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `system_version_info` of the newest response, for people.
    pub revision: String,
    /// Listeners by name.
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// Route tables by the name RDS asks for.
    pub routes: BTreeMap<String, Arc<RouteTable>>,
    /// Clusters by name.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Endpoints by cluster name: what EDS answered, and what DNS said.
    pub assignments: BTreeMap<String, Arc<Assignment>>,
    /// Secrets by SDS name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Differs whenever a secret does.
    pub secrets_revision: u64,
    /// What requests needed and need not wait for: there is no such thing, or it is in force.
    pub answered: Arc<BTreeSet<Need>>,
}

impl Config {
    fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name).map(Arc::as_ref)
    }
}

/// A compiled configuration.
pub struct Snapshot {
    /// What it was compiled from.
    pub config: Config,
    /// Listeners by name.
    pub listeners: BTreeMap<String, Arc<ListenerState>>,
    /// Clusters by name.
    pub clusters: FxHashMap<Box<str>, Arc<ClusterState>>,
    /// Listeners that connections can be handed over to, where one does so.
    by_address: FxHashMap<SocketAddr, Arc<ListenerState>>,
    /// Rings when an endpoint failed too often.
    alarm: Arc<Notify>,
}

impl Snapshot {
    fn empty() -> Self {
        Self {
            config: Config::default(),
            listeners: BTreeMap::new(),
            clusters: FxHashMap::default(),
            by_address: FxHashMap::default(),
            alarm: Arc::default(),
        }
    }

    /// Compiles `config`; what equals a part of `previous` is shared with it.
    pub fn compile(config: &Config, previous: &Snapshot, telemetry: &Arc<Telemetry>) -> Self {
        let clusters = config.clusters.iter().map(|(name, cluster)| {
            let state = ClusterState::compile(config, cluster, previous);
            (name.as_str().into(), state)
        });
        let listeners = config.listeners.iter().map(|(name, listener)| {
            (name.clone(), ListenerState::compile(config, listener, previous, telemetry))
        });
        let listeners: BTreeMap<String, Arc<ListenerState>> = listeners.collect();
        Self {
            config: config.clone(),
            by_address: by_address(&listeners),
            listeners,
            clusters: clusters.collect(),
            alarm: previous.alarm.clone(),
        }
    }

    /// The listener for connections that wanted to go to `address`: the one with this address, else with this port at any.
    pub fn listener_at(&self, address: SocketAddr) -> Option<&Arc<ListenerState>> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::from([0; 4]),
            SocketAddr::V6(_) => IpAddr::from([0; 16]),
        };
        let anywhere = SocketAddr::new(any, address.port());
        self.by_address.get(&address).or_else(|| self.by_address.get(&anywhere))
    }

    /// The cluster of this name; of one that stands for several, the one that gets a request with these random bits.
    pub fn cluster(&self, name: &str, random: u64) -> Option<&Arc<ClusterState>> {
        let mut found = self.clusters.get(name)?;
        // One that stands for itself must not keep us.
        for _ in 0..MOST_LAYERS {
            let Discovery::Aggregate(names) = &found.config.discovery else { return Some(found) };
            let members: Vec<&Arc<ClusterState>> =
                names.iter().filter_map(|name| self.clusters.get(name.as_str())).collect();
            let healths: Vec<u32> = members.iter().map(|member| member.availability()).collect();
            found = members.get(balance::first_with_room(&healths, random)).copied()?;
        }
        None
    }

    /// Whether `other` was compiled from the same secrets.
    fn has_secrets_of(&self, config: &Config) -> bool {
        self.config.secrets_revision == config.secrets_revision
    }
}

/// Listeners by their addresses, where one of them hands connections over.
fn by_address(listeners: &BTreeMap<String, Arc<ListenerState>>) -> FxHashMap<SocketAddr, Arc<ListenerState>> {
    let mut found = FxHashMap::default();
    if listeners.values().any(|listener| listener.config.binding.hands_over) {
        for listener in listeners.values() {
            for address in listener.config.addresses() {
                found.entry(address).or_insert_with(|| listener.clone());
            }
        }
    }
    found
}

/// The snapshot in force, and word of its changes.
pub struct Live {
    current: ArcSwap<Snapshot>,
    changes: watch::Sender<u64>,
    telemetry: Arc<Telemetry>,
    needs: Needs,
}

impl Live {
    /// Nothing is configured yet.
    pub fn new(telemetry: Arc<Telemetry>) -> Arc<Self> {
        let (changes, _) = watch::channel(0);
        Arc::new(Self {
            current: ArcSwap::from_pointee(Snapshot::empty()),
            changes,
            telemetry,
            needs: Needs::default(),
        })
    }

    /// Compiles `config` and puts it in force. One caller at a time.
    pub fn publish(&self, config: &Config) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot::compile(config, &self.current.load(), &self.telemetry));
        self.current.store(snapshot.clone());
        self.changes.send_modify(|n| *n += 1);
        snapshot
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The cell itself, for readers that keep a cache of it (`arc_swap::Cache`).
    pub fn cell(&self) -> &ArcSwap<Snapshot> {
        &self.current
    }

    /// Returns when an endpoint failed too often: [`model::outlier`] decides what is done.
    pub async fn alarmed(&self) {
        let alarm = self.current().alarm.clone();
        alarm.notified().await;
    }

    /// Notes what a request needs and the snapshot has not.
    pub fn need(&self, need: Need) {
        self.needs.note(need);
    }

    /// Takes what was noted, once there is any.
    pub async fn take_needs(&self) -> Vec<Need> {
        self.needs.take().await
    }

    /// Whether requests went to a cluster since this was asked last, or are still under way.
    pub fn take_use(&self, cluster: &str) -> bool {
        let current = self.current();
        let Some(cluster) = current.clusters.get(cluster) else { return false };
        let mut is_busy = cluster.usage.take_use();
        cluster.each_endpoint(|endpoint| is_busy |= endpoint.active.load(Ordering::Relaxed) > 0);
        is_busy
    }

    /// Wakes at each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Where metrics are kept.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }
}
