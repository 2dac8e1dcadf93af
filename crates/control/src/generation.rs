//! One immutable state of the mesh as it is served: translated once, each resource encoded once, shared by all streams.
//! Nothing in here ever changes; a change is a new generation, which takes over what was encoded before and is still so.

use crate::node::{ProxyKind, ProxyNode};
use crate::translate::{Common, CommonKey, Mesh, Own, Portion, Slot, Tables};
use aws_lc_rs::digest;
use lean::LeanRoutes;
pub(crate) use lean::Offer;
use model::cluster::Cluster;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::route::RouteConfiguration;
use model::tls::WORKLOAD_TRUST_BUNDLE;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use xds::codec::{self, type_url};
use xds::resources::{Layer, ResourceSet, VersionedResource};

/// Resources below which nothing is swept.
const MIN_SWEEP: usize = 4096;

/// A state of the mesh, ready to be served.
pub(crate) struct Generation {
    /// Its number; later ones are higher.
    pub(crate) revision: u64,
    version: String,
    mesh: Arc<Mesh>,
    trust_bundle: Arc<Layer>,
    /// Shared with the generations before and after.
    made: Arc<Mutex<Made>>,
}

/// What was encoded for proxies so far.
#[derive(Default)]
struct Made {
    /// By the resource's address, and whether it is in gRPC's dialect. The resource is kept, so that no other gets its
    /// address.
    encoded: HashMap<(usize, bool), (Kept, VersionedResource)>,
    /// Clusters and endpoints that many proxies have in common, as they were encoded last.
    common: HashMap<CommonKey, CommonLayers>,
    /// Tables by the address of their place, which is kept as well.
    routes: HashMap<usize, RouteLayer>,
    /// The same for proxies that are sent only what they ask for.
    lean: HashMap<usize, Arc<LeanRoutes>>,
    /// Number of resources at which those are dropped that nobody uses any more.
    sweep_at: usize,
}

/// The tables of a place, encoded.
#[derive(Clone)]
struct RouteLayer {
    slot: Arc<Slot>,
    layer: Arc<Layer>,
    /// What they were encoded from, where the next ones are encoded after them: on gateways, which are few.
    tables: Option<Tables>,
}

#[derive(Clone)]
struct CommonLayers {
    common: Arc<Common>,
    clusters: Arc<Layer>,
    endpoints: Arc<Layer>,
}

/// What one proxy alone is served, encoded.
struct OwnLayers {
    clusters: Arc<Layer>,
    listeners: Arc<Layer>,
}

/// A resource kept alive.
enum Kept {
    Listener(Arc<Listener>),
    Routes(Arc<RouteConfiguration>),
    Cluster(Arc<Cluster>),
    Endpoints(Arc<Assignment>),
}

impl Kept {
    fn address(&self) -> usize {
        match self {
            Self::Listener(kept) => Arc::as_ptr(kept).addr(),
            Self::Routes(kept) => Arc::as_ptr(kept).addr(),
            Self::Cluster(kept) => Arc::as_ptr(kept).addr(),
            Self::Endpoints(kept) => Arc::as_ptr(kept).addr(),
        }
    }

    fn is_used_elsewhere(&self) -> bool {
        let uses = match self {
            Self::Listener(kept) => Arc::strong_count(kept),
            Self::Routes(kept) => Arc::strong_count(kept),
            Self::Cluster(kept) => Arc::strong_count(kept),
            Self::Endpoints(kept) => Arc::strong_count(kept),
        };
        uses > 1
    }

    fn encode(&self, is_grpc: bool) -> Vec<u8> {
        match self {
            Self::Listener(listener) if is_grpc => codec::encode_api_listener(listener),
            Self::Listener(listener) => codec::encode_listener(listener),
            Self::Routes(table) => codec::encode_routes(table),
            Self::Cluster(cluster) => codec::encode_cluster(cluster),
            Self::Endpoints(assignment) => codec::encode_endpoints(assignment),
        }
    }

    /// Its bytes and their version.
    fn encoded(&self, is_grpc: bool) -> VersionedResource {
        let body = self.encode(is_grpc);
        VersionedResource::new(self.type_url(), self.name(), &version_of(&body), &body)
    }

    fn type_url(&self) -> &'static str {
        match self {
            Self::Listener(_) => type_url::LISTENER,
            Self::Routes(_) => type_url::ROUTE,
            Self::Cluster(_) => type_url::CLUSTER,
            Self::Endpoints(_) => type_url::ENDPOINT,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Listener(listener) => &listener.name,
            Self::Routes(table) => &table.name,
            Self::Cluster(cluster) => &cluster.name,
            Self::Endpoints(assignment) => &assignment.cluster,
        }
    }
}

impl Made {
    /// The resource's bytes and their version, made when they are asked for first.
    fn encode(&mut self, resource: Kept, is_grpc: bool) -> VersionedResource {
        let (_, encoded) = self.encoded.entry((resource.address(), is_grpc)).or_insert_with(|| {
            let encoded = resource.encoded(is_grpc);
            (resource, encoded)
        });
        encoded.clone()
    }

    /// The layers of `common`: those made last, with what changed since.
    fn common(&mut self, common: &Arc<Common>, is_grpc: bool) -> CommonLayers {
        let last = self.common.get(&common.key).cloned();
        if let Some(last) = last.as_ref().filter(|last| Arc::ptr_eq(&last.common, common)) {
            return last.clone();
        }
        let same_services = |last: &&CommonLayers| {
            let (was, is) = (&last.common.sets, &common.sets);
            was.len() == is.len() && was.iter().zip(is).all(|((a, _), (b, _))| a == b)
        };
        let (mut clusters, mut endpoints, old) = match last.as_ref().filter(same_services) {
            Some(last) => (last.clusters.clone(), last.endpoints.clone(), &last.common.sets[..]),
            None => (Arc::default(), Arc::default(), &[][..]),
        };
        // A name may go from one service to another: all that is old goes before anything new comes.
        let is_same = |at: usize| {
            let (was, is) = (old.get(at), common.sets.get(at));
            was.zip(is).is_some_and(|((_, was), (_, is))| Arc::ptr_eq(was, is))
        };
        for (_, (_, set)) in old.iter().enumerate().filter(|(at, _)| !is_same(*at)) {
            self.patch(&mut clusters, &set.clusters, &[], Kept::Cluster, is_grpc);
            self.patch(&mut endpoints, &set.endpoints, &[], Kept::Endpoints, is_grpc);
        }
        for (_, (_, set)) in common.sets.iter().enumerate().filter(|(at, _)| !is_same(*at)) {
            self.patch(&mut clusters, &[], &set.clusters, Kept::Cluster, is_grpc);
            self.patch(&mut endpoints, &[], &set.endpoints, Kept::Endpoints, is_grpc);
        }
        let layers = CommonLayers { common: common.clone(), clusters, endpoints };
        self.common.insert(common.key.clone(), layers.clone());
        layers
    }

    /// Replaces some resources of a layer by others, unless they are the same.
    fn patch<T>(
        &mut self,
        layer: &mut Arc<Layer>,
        old: &[Arc<T>],
        new: &[Arc<T>],
        keep: impl Fn(Arc<T>) -> Kept,
        is_grpc: bool,
    ) {
        if old.len() == new.len() && old.iter().zip(new).all(|(a, b)| Arc::ptr_eq(a, b)) {
            return;
        }
        let layer = Arc::make_mut(layer);
        for gone in old {
            layer.remove(keep(gone.clone()).name());
        }
        for resource in new {
            let kept = keep(resource.clone());
            let name: Arc<str> = kept.name().into();
            layer.insert(name, self.encode(kept, is_grpc));
        }
    }

    /// The layer of the tables that belong to this place. `before` is the place of those before them.
    fn routes(
        &mut self,
        slot: &Arc<Slot>,
        before: Option<&Arc<Slot>>,
        keep: bool,
        tables: impl FnOnce() -> Tables,
    ) -> Arc<Layer> {
        let place = |slot: &Arc<Slot>| Arc::as_ptr(slot).addr();
        if let Some(known) = self.routes.get(&place(slot)) {
            return known.layer.clone();
        }
        let before = before.and_then(|slot| self.routes.get(&place(slot)));
        let tables = tables();
        let mut layer = Layer::default();
        for table in tables.iter() {
            layer.insert(table.name.as_str().into(), encoded_after(table, before));
        }
        let layer = Arc::new(layer);
        let tables = keep.then_some(tables);
        self.routes.insert(place(slot), RouteLayer { slot: slot.clone(), layer: layer.clone(), tables });
        layer
    }

    /// The tables of this place are not what the next ones are encoded after.
    fn forget_tables(&mut self, slot: &Arc<Slot>) {
        if let Some(known) = self.routes.get_mut(&Arc::as_ptr(slot).addr()) {
            known.tables = None;
        }
    }

    /// The layers of what a proxy alone has, taken from `before` where they are the same.
    fn own(&mut self, own: &Own, is_grpc: bool, before: Option<&View>) -> OwnLayers {
        let (old, layers) = before.map(|view| (&*view.portion.own, &*view.own)).unzip();
        let clusters = (own.clusters.as_slice(), old.map(|own| own.clusters.as_slice()).unwrap_or_default());
        let listeners =
            (own.listeners.as_slice(), old.map(|own| own.listeners.as_slice()).unwrap_or_default());
        let mut clusters_layer = layers.map(|layers| layers.clusters.clone()).unwrap_or_default();
        let mut listeners_layer = layers.map(|layers| layers.listeners.clone()).unwrap_or_default();
        self.patch(&mut clusters_layer, clusters.1, clusters.0, Kept::Cluster, is_grpc);
        self.patch(&mut listeners_layer, listeners.1, listeners.0, Kept::Listener, is_grpc);
        OwnLayers { clusters: clusters_layer, listeners: listeners_layer }
    }

    /// Drops what nobody uses any more.
    fn sweep(&mut self) {
        // They are as large as all there is to ask for.
        self.lean.retain(|_, known| Arc::strong_count(known) > 1 && Arc::strong_count(&known.slot) > 1);
        if self.routes.len() + self.common.len() + self.encoded.len() < self.sweep_at {
            return;
        }
        self.routes.retain(|_, known| Arc::strong_count(&known.slot) > 1);
        self.common.retain(|_, layers| Arc::strong_count(&layers.common) > 1);
        self.encoded.retain(|_, (kept, _)| kept.is_used_elsewhere());
        self.sweep_at = MIN_SWEEP.max(2 * (self.routes.len() + self.common.len() + self.encoded.len()));
    }
}

/// The bytes of a table; what is as in the table of its name before is copied from there.
fn encoded_after(table: &Arc<RouteConfiguration>, before: Option<&RouteLayer>) -> VersionedResource {
    let old = before.and_then(|before| {
        let old = before.tables.as_ref()?.iter().find(|old| old.name == table.name)?;
        Some((old, before.layer.find(&table.name)?.1))
    });
    let Some((old, resource)) = old else { return Kept::Routes(table.clone()).encoded(false) };
    let body = codec::encode_routes_after(table, old, resource.body());
    VersionedResource::new(type_url::ROUTE, &table.name, &version_of(&body), &body)
}

/// What one proxy is served.
pub(crate) struct View {
    /// The bytes.
    pub(crate) set: Arc<ResourceSet>,
    own: Arc<OwnLayers>,
    portion: Portion,
    mesh: Arc<Mesh>,
    /// What it is sent when it asks, where it is sent nothing else.
    pub(crate) offer: Option<Arc<Offer>>,
}

impl Generation {
    /// The generation of `mesh`. What `before` encoded and is still there is not encoded again.
    pub(crate) fn new(
        revision: u64,
        mesh: Arc<Mesh>,
        trust_bundle: VersionedResource,
        before: Option<&Self>,
    ) -> Self {
        let mut layer = Layer::default();
        layer.insert(WORKLOAD_TRUST_BUNDLE.into(), trust_bundle);
        let layer = Arc::new(layer);
        let known = before.map(|before| &before.trust_bundle).filter(|known| **known == layer);
        Self {
            revision,
            version: revision.to_string(),
            mesh,
            trust_bundle: known.cloned().unwrap_or(layer),
            made: before.map(|before| before.made.clone()).unwrap_or_default(),
        }
    }

    /// What `node` is served; `before` is what the generation before served it. What proxies have in common they share.
    pub(crate) fn view(&self, node: &ProxyNode, before: Option<&View>) -> Arc<View> {
        let portion = self.mesh.portion(node, before.map(|view| &view.portion));
        let is_grpc = node.kind == ProxyKind::Grpc;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.sweep();
        let common = made.common(&portion.common, is_grpc);
        let old_routes = before.map(|view| &view.portion.routes);
        let is_gateway = node.kind == ProxyKind::Router;
        let lean =
            self.mesh.is_on_demand(node).then(|| made.lean(&portion.routes, || self.mesh.routes(node)));
        let routes = match &lean {
            Some(lean) => lean.layer.clone(),
            None => made.routes(&portion.routes, old_routes, is_gateway, || self.mesh.routes(node)),
        };
        if let Some(old) = old_routes.filter(|old| !Arc::ptr_eq(old, &portion.routes)) {
            made.forget_tables(old);
        }
        let known = before.filter(|view| Arc::ptr_eq(&view.portion.own, &portion.own));
        let own = match known {
            Some(view) => view.own.clone(),
            None => Arc::new(made.own(&portion.own, is_grpc, before)),
        };
        drop(made);
        let mut set = ResourceSet::new(&self.version);
        let offer = lean.map(|lean| Arc::new(Offer::new(common.clusters.clone(), lean, &portion.own)));
        set.add(type_url::CLUSTER, offer.as_ref().map_or(common.clusters, |offer| offer.needed.clone()));
        set.add(type_url::CLUSTER, own.clusters.clone());
        set.add(type_url::ENDPOINT, common.endpoints);
        set.add(type_url::LISTENER, own.listeners.clone());
        set.add(type_url::ROUTE, routes);
        set.add(type_url::SECRET, self.trust_bundle.clone());
        Arc::new(View { set: Arc::new(set), own, portion, mesh: self.mesh.clone(), offer })
    }
}

/// A version that is the same exactly when the bytes are: a digest of them.
pub(crate) fn version_of(body: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, body);
    digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

mod blame;
mod lean;

#[cfg(test)]
mod steps_tests;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::SourceFile;
    use crate::store::Store;
    use crate::translate::translate;
    use crate::world::World;
    use model::metadata::Fields;

    const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: http, port: 80}]}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{name: http, port: 80}]}\n";

    fn generation(text: &str) -> Generation {
        let mut store = Store::default();
        store.update(&[SourceFile { name: "a.yaml".into(), text: text.into() }]);
        let (mesh, _) = translate(&World::of(store.objects()));
        let bundle = VersionedResource::new(type_url::SECRET, WORKLOAD_TRUST_BUNDLE, "1", b"x");
        Generation::new(1, Arc::new(mesh), bundle, None)
    }

    fn node(role: &str, name: &str) -> ProxyNode {
        let id = format!("{role}~127.0.0.1~{name}.default~default.svc.cluster.local");
        ProxyNode::from_node(&id, "", &Fields::new(), "").unwrap()
    }

    #[test]
    fn proxies_share_what_they_have_in_common() {
        let generation = generation(SERVICES);
        let views = [node("router", "a"), node("router", "b"), node("sidecar", "c")]
            .map(|node| generation.view(&node, None));
        let [a, b, c] = views.each_ref().map(|view| view.set.layers(type_url::CLUSTER)[0].clone());
        assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a, &c));
        let [a, b, _] = views.each_ref().map(|view| view.set.layers(type_url::ROUTE)[0].clone());
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn equal_resources_have_equal_versions_in_every_generation() {
        let versions = |text: &str| {
            let view = generation(text).view(&node("sidecar", "a"), None);
            let all = [type_url::CLUSTER, type_url::LISTENER, type_url::ROUTE, type_url::ENDPOINT];
            let of_type = |kind| view.set.of_type(kind).map(|(n, r)| (n.to_owned(), r.version().to_owned()));
            all.into_iter().flat_map(of_type).collect::<Vec<_>>()
        };
        let first = versions(SERVICES);
        assert!(first.len() > 4);
        assert_eq!(versions(SERVICES), first);
    }

    #[test]
    fn proxies_that_come_and_go_leave_nothing_behind() {
        let generation = generation(SERVICES);
        for at in 0..3 * MIN_SWEEP {
            generation.view(&node("sidecar", &at.to_string()), None);
        }
        let made = generation.made.lock().unwrap();
        assert!(made.encoded.len() <= MIN_SWEEP + 100);
    }
}
