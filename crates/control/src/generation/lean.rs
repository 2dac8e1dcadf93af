//! What a proxy is served that is sent only what it asks for. See [`translate::on_demand`](crate::translate).

use super::{Made, version_of};
use crate::translate::{LeanTables, Own, Slot, Tables, always_needed};
use std::collections::BTreeSet;
use std::sync::Arc;
use xds::codec::{self, type_url};
use xds::resources::{Layer, VersionedResource};

/// The tables of a place, lean.
pub(super) struct LeanRoutes {
    pub(super) slot: Arc<Slot>,
    tables: LeanTables,
    /// The tables without their hosts.
    pub(super) layer: Arc<Layer>,
    mirrors: BTreeSet<String>,
}

/// What there is to be asked for.
pub(crate) struct Offer {
    clusters: Arc<Layer>,
    pub(super) routes: Arc<LeanRoutes>,
    /// Clusters that it has without asking.
    pub(super) needed: Arc<Layer>,
}

impl Offer {
    pub(super) fn new(clusters: Arc<Layer>, routes: Arc<LeanRoutes>, own: &Own) -> Self {
        let mut names = always_needed(&own.listeners);
        names.extend(routes.mirrors.iter().cloned());
        let needed = pick(&clusters, names.iter());
        Self { clusters, routes, needed }
    }

    /// The clusters of these names, as far as they are there and not had anyway.
    pub(crate) fn clusters(&self, names: &BTreeSet<String>) -> Arc<Layer> {
        pick(&self.clusters, names.iter().filter(|name| self.needed.find(name).is_none()))
    }

    /// The virtual host asked for by this name.
    pub(crate) fn virtual_host(&self, name: &str) -> Option<VersionedResource> {
        let body = codec::encode_virtual_host(&self.routes.tables.virtual_host(name)?);
        Some(VersionedResource::new(type_url::VIRTUAL_HOST, name, &version_of(&body), &body))
    }

    /// Every name there is, of clusters and of hosts without wildcards.
    #[cfg(test)]
    pub(super) fn names(&self) -> (BTreeSet<String>, Vec<String>) {
        let clusters = self.clusters.iter().map(|(name, _)| name.to_string()).collect();
        (clusters, self.routes.tables.host_names())
    }

    /// Names of the tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &str> {
        self.routes.layer.iter().map(|(name, _)| &**name)
    }

    /// Whether hosts are the same as in `other`.
    pub(crate) fn has_hosts_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes)
    }
}

fn pick<'n>(layer: &Layer, names: impl Iterator<Item = &'n String>) -> Arc<Layer> {
    let mut picked = Layer::default();
    for (name, resource) in names.filter_map(|name| layer.find(name)) {
        picked.insert(name.clone(), resource.clone());
    }
    Arc::new(picked)
}

impl Made {
    /// The lean tables of this place.
    pub(super) fn lean(&mut self, slot: &Arc<Slot>, tables: impl FnOnce() -> Tables) -> Arc<LeanRoutes> {
        let made = self.lean.entry(Arc::as_ptr(slot).addr()).or_insert_with(|| {
            let tables = LeanTables::of(&tables());
            let mut layer = Layer::default();
            for frame in tables.frames() {
                let body = codec::encode_routes(&frame);
                let encoded = VersionedResource::new(type_url::ROUTE, &frame.name, &version_of(&body), &body);
                layer.insert(frame.name.as_str().into(), encoded);
            }
            let (layer, mirrors) = (Arc::new(layer), tables.mirrors());
            Arc::new(LeanRoutes { slot: slot.clone(), tables, layer, mirrors })
        });
        made.clone()
    }
}
