//! Endpoints that are not configured: whatever address a client names or wanted to reach (`ORIGINAL_DST`).

use super::endpoint::EndpointState;
use super::transport::Transports;
use model::cluster::{Cluster, Discovery, Transport};
use model::endpoint::{Endpoint, EndpointAddress, Health};
use model::metadata::Metadata;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses known at the same time.
const MOST: usize = 4096;
/// One that nobody asked for so long is forgotten.
const KEPT: Duration = Duration::from_secs(60);

/// The addresses that clients named lately.
pub(super) struct Destinations {
    known: Mutex<FxHashMap<SocketAddr, (Arc<EndpointState>, Instant)>>,
    /// An endpoint like all others but for its address.
    model: Arc<EndpointState>,
    transport: Transport,
}

impl Destinations {
    /// For a cluster that needs it.
    pub(super) fn new(cluster: &Cluster, transports: &mut Transports<'_>) -> Option<Self> {
        if cluster.discovery != Discovery::OriginalDestination {
            return None;
        }
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let model =
            EndpointState::new(nowhere, &endpoint(nowhere), &cluster.transport, transports, None, true);
        Some(Self { known: Mutex::default(), model, transport: cluster.transport.clone() })
    }

    /// The endpoint at `address`.
    pub(super) fn at(&self, address: SocketAddr) -> Arc<EndpointState> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&address) {
            known.retain(|_, (endpoint, _)| endpoint.active.load(Ordering::Relaxed) > 0);
        }
        let make = || self.model.elsewhere(address, endpoint(address), self.transport.clone());
        let (endpoint, asked) = known.entry(address).or_insert_with(|| (make(), Instant::now()));
        *asked = Instant::now();
        endpoint.clone()
    }

    /// Forgets those that nobody uses or asked for lately; connections to them may rest for `idle`.
    pub(super) fn sweep(&self, idle: Option<Duration>) {
        let kept = idle.unwrap_or(KEPT).max(KEPT);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (endpoint, asked)| {
            endpoint.active.load(Ordering::Relaxed) > 0 || asked.elapsed() < kept
        });
    }

    pub(super) fn each(&self, mut act: impl FnMut(&EndpointState)) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().for_each(|(endpoint, _)| act(endpoint));
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Socket(address),
        hostname: String::new(),
        weight: 1,
        health: Health::Unknown,
        metadata: Metadata::default(),
    }
}
