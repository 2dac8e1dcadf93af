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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Generation, View};
    use super::*;
    use crate::node::ProxyNode;
    use crate::source::SourceFile;
    use crate::store::Store;
    use crate::translate::translate;
    use crate::world::World;
    use model::metadata::{Fields, Value};

    const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: copy}\nspec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: 10.0.0.3, ports: [{name: tcp, port: 3306}]}\n---\n\
        apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  \
        - route: [{destination: {host: web}}]\n    mirror: {host: copy}\n";

    fn view(text: &str, metadata: &[(&str, &str)]) -> Arc<View> {
        let mut store = Store::default();
        store.update(&[SourceFile { name: "a.yaml".into(), text: text.into() }]);
        let (mesh, _) = translate(&World::of(store.objects()));
        let bundle = VersionedResource::new("t", "b", "1", b"x");
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value)));
        let metadata: Fields = metadata
            .chain([(
                "LABELS".to_owned(),
                Value::Struct(Fields::from_iter([("app".to_owned(), "c".into())])),
            )])
            .collect();
        let id = "sidecar~127.0.0.1~c.default~default.svc.cluster.local";
        let node = ProxyNode::from_node(id, "", &metadata, "").unwrap();
        Generation::new(1, Arc::new(mesh), bundle, None).view(&node, None)
    }

    fn clusters(view: &View) -> String {
        let names: BTreeSet<&str> = view.set.of_type(type_url::CLUSTER).map(|(name, _)| name).collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_no_request_waits_for_is_had_without_asking() {
        let lean = view(SERVICES, &[("ON_DEMAND", "true")]);
        assert_eq!(clusters(&lean), "outbound|80||copy.default.svc.cluster.local");
        let captured = view(SERVICES, &[("ON_DEMAND", "true"), ("INTERCEPTION_MODE", "REDIRECT")]);
        let had = clusters(&captured);
        for name in ["BlackHoleCluster", "PassthroughCluster", "outbound|3306||db.default.svc.cluster.local"]
        {
            assert!(had.contains(name), "{had}");
        }
        assert!(!had.contains("||web."), "{had}");
        let host = captured.offer.as_ref().unwrap().virtual_host("80/web.default.svc.cluster.local");
        assert!(host.is_some());
    }

    #[test]
    fn a_mesh_a_namespace_workloads_and_pods_can_say_so() {
        let mesh = "apiVersion: ieum.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: m}\nspec: {meshConfig: {defaultConfig: \
            {proxyMetadata: {ISTIO_META_ON_DEMAND: 'true'}}}}\n---\n";
        let config = |name: &str, selector: &str, on: &str| {
            format!(
                "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}}}\n\
                 spec: {{{selector} environmentVariables: {{ISTIO_META_ON_DEMAND: '{on}'}}}}\n---\n"
            )
        };
        let selecting =
            |app: &str, on: &str| config("some", &format!("selector: {{matchLabels: {{app: {app}}}}},"), on);
        let pod = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: c}\nspec:\n  selector: {matchLabels: {app: c}}\n  \
            template:\n    metadata:\n      labels: {app: c}\n      annotations: {proxy.istio.io/config: 'proxyMetadata: {ISTIO_META_ON_DEMAND: \"false\"}'}\n    \
            spec: {containers: [{name: c, image: c}]}\n---\n";
        let is_lean = |text: &str, metadata: &[(&str, &str)]| view(text, metadata).offer.is_some();
        assert!(!is_lean("", &[]));
        assert!(is_lean(mesh, &[]));
        assert!(is_lean(&config("all", "", "true"), &[]));
        assert!(!is_lean(&(mesh.to_owned() + &config("all", "", "false")), &[]));
        assert!(is_lean(&(config("all", "", "false") + &selecting("c", "true")), &[]));
        assert!(!is_lean(&(config("all", "", "false") + &selecting("d", "true")), &[]));
        assert!(!is_lean(&(mesh.to_owned() + pod), &[]));
        assert!(is_lean(pod, &[("ON_DEMAND", "true")]));
        assert!(!is_lean(mesh, &[("ON_DEMAND", "false")]));
    }
}
