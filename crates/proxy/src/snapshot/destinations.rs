//! Endpoints that are not configured: whatever address a client names (`ORIGINAL_DST` by header).

use super::endpoint::EndpointState;
use super::transport::Transports;
use model::cluster::{Cluster, Discovery, Transport};
use model::endpoint::{Endpoint, EndpointAddress, Health};
use model::metadata::Metadata;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Addresses known at the same time.
const MOST: usize = 4096;

/// The addresses that clients named lately.
pub(super) struct Destinations {
    known: Mutex<FxHashMap<SocketAddr, Arc<EndpointState>>>,
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
        let model = EndpointState::new(nowhere, &endpoint(nowhere), &cluster.transport, transports, None);
        Some(Self { known: Mutex::default(), model, transport: cluster.transport.clone() })
    }

    /// The endpoint at `address`.
    pub(super) fn at(&self, address: SocketAddr) -> Arc<EndpointState> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&address) {
            known.retain(|_, endpoint| endpoint.active.load(Ordering::Relaxed) > 0);
        }
        let make = || self.model.elsewhere(address, endpoint(address), self.transport.clone());
        known.entry(address).or_insert_with(make).clone()
    }

    pub(super) fn each(&self, mut act: impl FnMut(&EndpointState)) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().for_each(|endpoint| act(endpoint));
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
