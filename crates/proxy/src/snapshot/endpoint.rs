//! Endpoints as they run: identity, transport, and the state that outlives a change of configuration.

use super::transport::{TransportState, Transports};
use model::balance::Standing;
use model::cluster::{Cluster, Transport};
use model::endpoint::{Endpoint, Health};
use model::outlier::Tally;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One endpoint. Its identity and vitals outlive changes of configuration.
pub struct EndpointState {
    /// Stays the same while address and transport do: a connection made for it may be used again.
    pub id: u64,
    /// Where it is.
    pub address: SocketAddr,
    /// What discovery says of it.
    pub endpoint: Arc<Endpoint>,
    /// How it is reached.
    pub transport: TransportState,
    /// Requests it is working on, over all threads.
    pub active: Arc<AtomicU32>,
    /// What we found out about it.
    pub vitals: Arc<Vitals>,
    /// What a connection to it begins with, before TLS.
    pub preface: Option<Arc<[u8]>>,
    configured: Transport,
}

/// What this proxy found out about an endpoint, shared by all threads.
#[derive(Debug)]
pub struct Vitals {
    /// What its requests came to.
    pub tally: Tally,
    /// When it was first seen.
    pub since: Instant,
    ejected: AtomicBool,
    /// 0 while it was never checked.
    checks: AtomicU8,
    /// Milliseconds after which it closes connections at rest; 0 when that is not known.
    idle_close: AtomicU32,
}

const PASSES: u8 = 1;
const FAILS: u8 = 2;

impl Default for Vitals {
    fn default() -> Self {
        Self {
            tally: Tally::default(),
            since: Instant::now(),
            ejected: AtomicBool::new(false),
            checks: AtomicU8::new(0),
            idle_close: AtomicU32::new(0),
        }
    }
}

impl Vitals {
    /// Whether it is left out for its failures.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Leaves it out, or lets it in again.
    pub fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
    }

    /// Whether it passes the cluster's health checks; `None` before the first.
    pub fn passes_checks(&self) -> Option<bool> {
        match self.checks.load(Ordering::Relaxed) {
            0 => None,
            checks => Some(checks == PASSES),
        }
    }

    /// Takes the result of health checks.
    pub fn set_passes_checks(&self, passes: bool) {
        self.checks.store(if passes { PASSES } else { FAILS }, Ordering::Relaxed);
    }

    /// How long one of its connections may rest before it would close it; `None` when that is not known.
    pub fn idle_limit(&self) -> Option<Duration> {
        match self.idle_close.load(Ordering::Relaxed) {
            0 => None,
            // Some of it is left for the way there.
            millis => Some(Duration::from_millis(u64::from(millis)) * 4 / 5),
        }
    }

    /// It says, or has shown, that it closes connections that rest so long.
    pub fn learn_idle_close(&self, rested: Duration) {
        let millis = u32::try_from(rested.as_millis()).unwrap_or(u32::MAX);
        self.idle_close.store(millis.max(1), Ordering::Relaxed);
    }
}

fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl EndpointState {
    pub(super) fn new(
        address: SocketAddr,
        endpoint: &Endpoint,
        transport: &Transport,
        transports: &mut Transports<'_>,
        before: Option<&Arc<EndpointState>>,
        keeps_connections: bool,
    ) -> Arc<Self> {
        let (id, active, vitals) = match before {
            Some(before) if !keeps_connections => (new_id(), before.active.clone(), before.vitals.clone()),
            Some(before) => (before.id, before.active.clone(), before.vitals.clone()),
            None => (new_id(), Arc::default(), Arc::default()),
        };
        Arc::new(Self {
            id,
            address,
            endpoint: Arc::new(endpoint.clone()),
            transport: transports.state(transport),
            active,
            vitals,
            preface: transports.preface.clone(),
            configured: transport.clone(),
        })
    }

    /// The same for connections that begin with `preface`, which nobody else shares.
    pub(super) fn beginning_with(&self, preface: Arc<[u8]>) -> Arc<Self> {
        Arc::new(Self {
            id: new_id(),
            address: self.address,
            endpoint: self.endpoint.clone(),
            transport: self.transport.clone(),
            active: self.active.clone(),
            vitals: self.vitals.clone(),
            preface: Some(preface),
            configured: self.configured.clone(),
        })
    }

    /// The same at another address.
    pub(super) fn elsewhere(
        &self,
        address: SocketAddr,
        endpoint: Endpoint,
        configured: Transport,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: new_id(),
            address,
            endpoint: Arc::new(endpoint),
            transport: self.transport.clone(),
            active: Arc::default(),
            vitals: Arc::default(),
            preface: self.preface.clone(),
            configured,
        })
    }

    pub(super) fn is_at(&self, address: SocketAddr, transport: &Transport) -> bool {
        self.address == address && self.configured == *transport
    }

    /// Whether it is left out for its failures, by a cluster that does so.
    pub fn is_ejected(&self, cluster: &Cluster) -> bool {
        cluster.outlier_detection.is_some() && self.vitals.is_ejected()
    }

    /// Whether it fails the health checks of its cluster, if there are any.
    pub fn fails_checks(&self, cluster: &Cluster) -> bool {
        !cluster.health_checks.is_empty() && self.vitals.passes_checks() == Some(false)
    }

    /// Whether nobody knows yet if it passes the health checks of its cluster.
    pub fn awaits_checks(&self, cluster: &Cluster) -> bool {
        !cluster.health_checks.is_empty() && self.vitals.passes_checks().is_none()
    }

    /// Whether it can be used.
    pub fn standing(&self, cluster: &Cluster) -> Standing {
        match self.endpoint.health {
            _ if self.is_ejected(cluster) || self.fails_checks(cluster) => Standing::Unhealthy,
            // Used where nothing is known to be better, such as at the start.
            Health::Unknown | Health::Healthy if self.awaits_checks(cluster) => Standing::Degraded,
            Health::Unknown | Health::Healthy => Standing::Healthy,
            Health::Degraded => Standing::Degraded,
            Health::Unhealthy | Health::Draining => Standing::Unhealthy,
        }
    }
}
