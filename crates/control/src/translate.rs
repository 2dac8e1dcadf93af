//! From what users wrote to what proxies run: [`translate`] turns a [`World`] into a [`Mesh`], and
//! [`Mesh::resources_for`] says what one proxy is sent.
//!
//! Pure and total: no I/O, no clock, and nothing a user writes stops the rest. What cannot be done becomes an absent
//! rule or a destination that does not exist, and a [`Diagnostic`]. Encoding and serving are for others.

use crate::node::ProxyNode;
use crate::world::World;
use api::Diagnostic;
use model::cluster::Cluster;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::route::RouteConfiguration;
use std::sync::Arc;

/// What runs, ready to be asked for by proxies. Resources that do not depend on who asks are the same `Arc` for all.
#[derive(Debug, Default)]
pub struct Mesh {}

/// What one proxy is sent. No two resources of a kind have the same name.
#[derive(Debug, Clone, Default)]
pub struct ProxyResources {
    /// Listeners.
    pub listeners: Vec<Arc<Listener>>,
    /// Route configurations, which listeners name.
    pub routes: Vec<Arc<RouteConfiguration>>,
    /// Clusters.
    pub clusters: Vec<Arc<Cluster>>,
    /// Endpoints, for the clusters that ask for them by name.
    pub endpoints: Vec<Arc<Assignment>>,
}

/// Translates everything. Diagnostics are sorted by file and line.
pub fn translate(_world: &World) -> (Mesh, Vec<Diagnostic>) {
    (Mesh::default(), Vec::new())
}

impl Mesh {
    /// What `node` is sent.
    pub fn resources_for(&self, _node: &ProxyNode) -> ProxyResources {
        ProxyResources::default()
    }
}
