//! One immutable state of the mesh as it is served: translated once, each resource encoded once, shared by all streams.
//! Nothing in here ever changes; a change is a new generation.

use crate::node::{ProxyKind, ProxyNode};
use crate::translate::{Mesh, ProxyResources};
use aws_lc_rs::digest;
use model::cluster::Cluster;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::provenance::Provenance;
use model::route::{Route, RouteConfiguration};
use model::tls::WORKLOAD_TRUST_BUNDLE;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use xds::codec::{self, type_url};
use xds::resources::{ResourceSet, VersionedResource};

/// Views and resources below which nothing is swept.
const MIN_SWEEP: usize = 4096;

/// A state of the mesh, ready to be served.
pub(crate) struct Generation {
    /// Its number; later ones are higher.
    pub(crate) revision: u64,
    mesh: Mesh,
    trust_bundle: VersionedResource,
    made: Mutex<Made>,
}

/// What was made for proxies so far.
#[derive(Default)]
struct Made {
    /// By the resource's address, and whether it is in gRPC's dialect. The resource is kept, so that no other gets its
    /// address.
    encoded: HashMap<(usize, bool), (Kept, VersionedResource)>,
    /// By who asked, as long as they are there.
    views: HashMap<ProxyNode, Weak<View>>,
    /// By kind and namespace, the last set made, to share with the next.
    sets: HashMap<(ProxyKind, String), Weak<ResourceSet>>,
    /// Number of views and resources at which those are dropped that nobody uses any more.
    sweep_at: usize,
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
            let body = resource.encode(is_grpc);
            let encoded = VersionedResource { version: version_of(&body), body: body.into() };
            (resource, encoded)
        });
        encoded.clone()
    }

    /// A set like `set` that shares what it can with the last one made for such a proxy.
    fn share(&mut self, node: &ProxyNode, mut set: ResourceSet) -> Arc<ResourceSet> {
        let place = self.sets.entry((node.kind, node.namespace.clone())).or_default();
        let last = place.upgrade();
        if let Some(last) = &last {
            if **last == set {
                return last.clone();
            }
            set.share_with(last);
        }
        let set = Arc::new(set);
        *place = Arc::downgrade(&set);
        set
    }

    /// Drops what only proxies had that are gone, so that coming and going costs nothing that stays.
    fn sweep(&mut self) {
        if self.views.len() + self.encoded.len() < self.sweep_at {
            return;
        }
        self.views.retain(|_, view| view.strong_count() > 0);
        self.sets.retain(|_, set| set.strong_count() > 0);
        self.encoded.retain(|_, (kept, _)| kept.is_used_elsewhere());
        self.sweep_at = MIN_SWEEP.max(2 * (self.views.len() + self.encoded.len()));
    }
}

/// What proxies of one class are served.
pub(crate) struct View {
    /// The bytes.
    pub(crate) set: Arc<ResourceSet>,
    resources: ProxyResources,
}

impl Generation {
    /// The generation of `mesh`, of which nothing is encoded yet.
    pub(crate) fn new(revision: u64, mesh: Mesh, trust_bundle: VersionedResource) -> Self {
        Self { revision, mesh, trust_bundle, made: Mutex::default() }
    }

    /// What `node` is served. What proxies have in common they share.
    pub(crate) fn view(&self, node: &ProxyNode) -> Arc<View> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = made.views.get(node).and_then(Weak::upgrade) {
            return view;
        }
        made.sweep();
        let resources = self.mesh.resources_for(node);
        let is_grpc = node.kind == ProxyKind::Grpc;
        let mut set = ResourceSet::new(self.revision.to_string());
        let ProxyResources { listeners, routes, clusters, endpoints } = &resources;
        let all = clusters.iter().cloned().map(Kept::Cluster);
        let all = all.chain(endpoints.iter().cloned().map(Kept::Endpoints));
        let all = all.chain(listeners.iter().cloned().map(Kept::Listener));
        for resource in all.chain(routes.iter().cloned().map(Kept::Routes)) {
            let (kind, name) = (resource.type_url(), resource.name().to_owned());
            set.insert_shared(kind, &name, made.encode(resource, is_grpc));
        }
        set.insert_shared(type_url::SECRET, WORKLOAD_TRUST_BUNDLE, self.trust_bundle.clone());
        let set = made.share(node, set);
        let view = Arc::new(View { set, resources });
        made.views.insert(node.clone(), Arc::downgrade(&view));
        view
    }
}

/// A version that is the same exactly when the bytes are: a digest of them.
pub(crate) fn version_of(body: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, body);
    digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

impl View {
    /// What the user wrote that a resource came from. For a table of routes, the route that `hint`, a proxy's message,
    /// mentions, or else the first.
    pub(crate) fn provenance(&self, kind: &str, name: &str, hint: &str) -> Option<Provenance> {
        match kind {
            type_url::LISTENER => self.listener(name)?.provenance.clone(),
            // Endpoints are blamed on what asked for them.
            type_url::CLUSTER | type_url::ENDPOINT => self.cluster(name)?.provenance.clone(),
            type_url::ROUTE => route_provenance(self.routes(name)?, hint),
            _ => None,
        }
    }

    fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.resources.listeners.iter().find(|l| l.name == name)
    }

    fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.resources.clusters.iter().find(|c| c.name == name)
    }

    fn routes(&self, name: &str) -> Option<&Arc<RouteConfiguration>> {
        self.resources.routes.iter().find(|r| r.name == name)
    }
}

fn route_provenance(table: &RouteConfiguration, hint: &str) -> Option<Provenance> {
    let mentioned = |name: &str| !name.is_empty() && hint.contains(name);
    let of_hosts = |only_mentioned: bool| {
        let hosts = table.virtual_hosts.iter();
        let hosts = hosts
            .filter(move |h| !only_mentioned || mentioned(&h.name) || h.domains.iter().any(|d| mentioned(d)));
        hosts.flat_map(|h| &h.routes)
    };
    let known = |route: &&Route| route.provenance.is_some();
    let by_route = of_hosts(false).filter(known).find(|route| mentioned(&route.name));
    by_route
        .or_else(|| of_hosts(true).find(known))
        .or_else(|| of_hosts(false).find(known))
        .and_then(|route| route.provenance.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::SourceFile;
    use crate::store::Store;
    use crate::translate::translate;
    use crate::world::World;
    use std::collections::BTreeMap;

    const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: http, port: 80}]}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{name: http, port: 80}]}\n";

    fn generation(text: &str) -> Generation {
        let mut store = Store::default();
        store.update(&[SourceFile { name: "a.yaml".into(), text: text.into() }]);
        let (mesh, _) = translate(&World::of(store.objects()));
        let bundle = VersionedResource { version: "1".into(), body: Arc::from(&b"x"[..]) };
        Generation::new(1, mesh, bundle)
    }

    fn node(role: &str, name: &str) -> ProxyNode {
        let id = format!("{role}~127.0.0.1~{name}.default~default.svc.cluster.local");
        ProxyNode::from_node(&id, "", &BTreeMap::new(), "").unwrap()
    }

    #[test]
    fn replicas_share_one_set_and_other_proxies_the_bytes() {
        let generation = generation(SERVICES);
        let (a, b) = (generation.view(&node("router", "a")), generation.view(&node("router", "b")));
        assert!(Arc::ptr_eq(&a.set, &b.set));
        let sidecar = generation.view(&node("sidecar", "c"));
        let of = |view: &View| {
            let name = "outbound|80||a.default.svc.cluster.local";
            view.set.find(type_url::CLUSTER, name).unwrap().body.clone()
        };
        assert!(Arc::ptr_eq(&of(&a), &of(&sidecar)), "encoded once");
    }

    #[test]
    fn equal_resources_have_equal_versions_in_every_generation() {
        let versions = |text: &str| {
            let view = generation(text).view(&node("sidecar", "a"));
            let all = [type_url::CLUSTER, type_url::LISTENER, type_url::ROUTE, type_url::ENDPOINT];
            let of_type = |kind| view.set.of_type(kind).map(|(n, r)| (n.to_owned(), r.version.clone()));
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
            generation.view(&node("sidecar", &at.to_string()));
        }
        let made = generation.made.lock().unwrap();
        assert!(made.views.len() + made.encoded.len() <= MIN_SWEEP + 100);
    }
}
