//! Connections kept for further requests. Everything here belongs to one thread.

use super::connect::ConnectError;
use super::endpoint_pool::{EndpointPool, Need};
use super::lease::Lease;
use crate::snapshot::{ClusterState, EndpointState, Limited, Vitals};
use http::Version;
use model::limits::Priority;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One thread's connections to every endpoint.
#[derive(Default)]
pub struct Pools {
    endpoints: RefCell<FxHashMap<u64, Rc<EndpointPool>>>,
}

impl Pools {
    /// A connection to `endpoint` for one request of a client that speaks `client`.
    pub async fn lease(
        &self,
        cluster: &ClusterState,
        endpoint: &Arc<EndpointState>,
        client: Version,
    ) -> Result<Lease, ConnectError> {
        self.lease_as(cluster, endpoint, client, Priority::Default).await
    }

    /// The same, under the limits for `priority`.
    pub async fn lease_as(
        &self,
        cluster: &ClusterState,
        endpoint: &Arc<EndpointState>,
        client: Version,
        priority: Priority,
    ) -> Result<Lease, ConnectError> {
        let permit = cluster.take(Limited::Requests, priority)?;
        cluster.note_request(priority);
        if !cluster.config.health_checks.is_empty() {
            cluster.usage.note_traffic();
        }
        let pool = self.pool_of(endpoint);
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        let claim = Claim(endpoint);
        let need = Need { cluster, endpoint, priority };
        let (kind, reused) = pool.lease(&need, client).await?;
        std::mem::forget(claim);
        Ok(Lease {
            kind: Some(kind),
            pool,
            endpoint: endpoint.clone(),
            max_requests: cluster.config.connections.max_requests,
            _permit: permit,
            _open: None,
            reused,
        })
    }

    fn pool_of(&self, endpoint: &EndpointState) -> Rc<EndpointPool> {
        let mut endpoints = self.endpoints.borrow_mut();
        let new = || Rc::new(EndpointPool::new(endpoint.vitals.clone()));
        endpoints.entry(endpoint.id).or_insert_with(new).clone()
    }

    /// Closes what has been idle for too long, and everything to endpoints that are gone. Call it now and then.
    pub fn sweep(&self, keeps: impl Fn(u64) -> Option<(Option<Duration>, Arc<Vitals>)>) {
        let now = Instant::now();
        self.endpoints.borrow_mut().retain(|id, pool| {
            let Some((idle_timeout, vitals)) = keeps(*id) else { return false };
            pool.sweep(idle_timeout, &vitals, now);
            true
        });
    }

    /// Looks for connections that endpoints closed while they rested, and learns from them when that was. Call it
    /// twice a second or so.
    pub fn look(&self) {
        let now = Instant::now();
        self.endpoints.borrow().values().for_each(|pool| pool.look(now));
    }

    /// Idle HTTP/1.1 and open HTTP/2 connections, for people.
    pub fn connections(&self) -> usize {
        let pools = self.endpoints.borrow();
        pools.values().map(|pool| pool.connections()).sum()
    }
}

/// Gives the endpoint's active request back unless it is turned into a lease.
struct Claim<'e>(&'e EndpointState);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
