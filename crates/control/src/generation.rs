//! One immutable state of the mesh as it is served: translated once, each resource encoded once, shared by all streams.
//! Nothing in here ever changes; a change is a new generation.

use crate::node::{ProxyKind, ProxyNode};
use crate::translate::{Mesh, ProxyResources};
use aws_lc_rs::digest;
use model::cluster::Cluster;
use model::listener::Listener;
use model::provenance::Provenance;
use model::route::{Route, RouteConfiguration};
use model::tls::WORKLOAD_TRUST_BUNDLE;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use xds::codec::{self, type_url};
use xds::resources::{ResourceSet, VersionedResource};

/// A state of the mesh, ready to be served.
pub(crate) struct Generation {
    /// Its number; later ones are higher.
    pub(crate) revision: u64,
    mesh: Mesh,
    trust_bundle: VersionedResource,
    made: Mutex<Made>,
}

/// What was made for proxies so far. It keeps every resource it has encoded alive, so that an address means one resource.
#[derive(Default)]
struct Made {
    /// By the resource's address, and whether it is in gRPC's dialect.
    encoded: HashMap<(usize, bool), VersionedResource>,
    /// By the addresses of all resources in it, and the dialect.
    views: HashMap<(Vec<usize>, bool), Arc<View>>,
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

    /// What `node` is served. Proxies with the same resources share one view.
    pub(crate) fn view(&self, node: &ProxyNode) -> Arc<View> {
        let resources = self.mesh.resources_for(node);
        let is_grpc = node.kind == ProxyKind::Grpc;
        let key = (addresses(&resources), is_grpc);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = made.views.get(&key) {
            return view.clone();
        }
        let set = Arc::new(self.encode(&mut made, &resources, is_grpc));
        let view = Arc::new(View { set, resources });
        made.views.insert(key, view.clone());
        view
    }

    fn encode(&self, made: &mut Made, resources: &ProxyResources, is_grpc: bool) -> ResourceSet {
        let mut set = ResourceSet::new(self.revision.to_string());
        let mut add = |kind, name: &str, address, encode: &dyn Fn() -> Vec<u8>| {
            let resource = made.encoded.entry((address, is_grpc)).or_insert_with(|| {
                let body = encode();
                VersionedResource { version: version_of(&body), body: body.into() }
            });
            set.insert_shared(kind, name, resource.clone());
        };
        for cluster in &resources.clusters {
            add(type_url::CLUSTER, &cluster.name, address(cluster), &|| codec::encode_cluster(cluster));
        }
        for endpoints in &resources.endpoints {
            add(type_url::ENDPOINT, &endpoints.cluster, address(endpoints), &|| {
                codec::encode_endpoints(endpoints)
            });
        }
        for listener in &resources.listeners {
            add(type_url::LISTENER, &listener.name, address(listener), &|| match is_grpc {
                true => codec::encode_api_listener(listener),
                false => codec::encode_listener(listener),
            });
        }
        for routes in &resources.routes {
            add(type_url::ROUTE, &routes.name, address(routes), &|| codec::encode_routes(routes));
        }
        set.insert_shared(type_url::SECRET, WORKLOAD_TRUST_BUNDLE, self.trust_bundle.clone());
        set
    }
}

fn addresses(resources: &ProxyResources) -> Vec<usize> {
    let ProxyResources { listeners, routes, clusters, endpoints } = resources;
    let all = listeners.iter().map(address).chain(routes.iter().map(address));
    all.chain(clusters.iter().map(address)).chain(endpoints.iter().map(address)).collect()
}

fn address<T>(resource: &Arc<T>) -> usize {
    Arc::as_ptr(resource).addr()
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
