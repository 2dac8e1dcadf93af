//! Whatever is edited in whatever order, each proxy ends with what it would have if the last texts had been the first.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::source::SourceFile;
use crate::store::Store;
use crate::translate::{translate, translate_after};
use crate::world::World;
use documents::Dice;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use model::metadata::Value;
use std::collections::{BTreeMap, HashMap};
use xds::server::DeltaStream;
use xds::sotw::SotwStream;

mod deltas;
mod documents;

const TYPES: [&str; 5] =
    [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE, type_url::SECRET];

/// After so many steps everything is made from scratch and compared; in between, what proxies hold is compared with what
/// they are meant to.
const COMPARED_EVERY: u64 = 16;

fn node(id: &str, labels: &[(&str, &str)], user_agent: &str) -> ProxyNode {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value)));
    let metadata = [("LABELS".to_owned(), Value::Struct(labels.collect()))];
    ProxyNode::from_node(id, "", &metadata.into_iter().collect(), user_agent).unwrap()
}

/// Sidecars, among them one of which only its address is known, one far from all services, and one that is sent only what
/// it asks for; gateways; and a gRPC library.
fn nodes() -> Vec<ProxyNode> {
    let mut lean = node("sidecar~127.1.0.4~s3-3.x~x.svc.cluster.local", &[("app", "s3")], "");
    lean.on_demand = Some(true);
    vec![
        lean,
        node("sidecar~127.1.0.1~s0-0.x~x.svc.cluster.local", &[("app", "s0")], ""),
        node("sidecar~127.1.0.2~s1-1.y~y.svc.cluster.local", &[], ""),
        node("sidecar~127.1.0.3~s2-2.z~z.svc.cluster.local", &[("app", "s2")], ""),
        node("router~127.0.0.1~edge.y~y.svc.cluster.local", &[("istio", "edge")], ""),
        node("client.x", &[], "gRPC Python"),
    ]
}

fn bundle() -> VersionedResource {
    VersionedResource::new(type_url::SECRET, WORKLOAD_TRUST_BUNDLE, "1", b"x")
}

/// By type and name, the version, which is the same exactly when the bytes are.
type Versions = HashMap<(&'static str, String), String>;

fn versions(set: &ResourceSet) -> Versions {
    let of_type =
        |kind| set.of_type(kind).map(move |(name, r)| ((kind, name.to_owned()), r.version().to_owned()));
    TYPES.into_iter().flat_map(of_type).collect()
}

/// A client that takes everything it is sent.
trait Client {
    /// What it was sent in answer to `set`.
    fn follow(&mut self, set: &ResourceSet);
    /// What it has.
    fn holds(&self) -> &Versions;
    /// The names it was sent or told to be gone since it was asked last, by type.
    fn take_told(&mut self) -> Vec<(&'static str, String)>;
}

fn known(kind: &str) -> &'static str {
    TYPES.into_iter().find(|known| *known == kind).unwrap()
}

struct Delta {
    stream: DeltaStream,
    holds: Versions,
    told: Vec<(&'static str, String)>,
}

impl Delta {
    fn new(set: &ResourceSet) -> Self {
        let mut client = Self { stream: DeltaStream::new(1000), holds: Versions::new(), told: Vec::new() };
        for kind in TYPES {
            let request = DeltaDiscoveryRequest { type_url: kind.to_owned(), ..Default::default() };
            let response = client.stream.request(request, set).unwrap();
            response.into_iter().for_each(|response| client.take(&response.message()));
        }
        client
    }

    fn take(&mut self, response: &DeltaDiscoveryResponse) {
        let kind = known(&response.type_url);
        for resource in &response.resources {
            let body = &resource.resource.as_ref().unwrap().value;
            // What a secret is called by is not made of its bytes.
            let version = if kind == type_url::SECRET { resource.version.clone() } else { version_of(body) };
            self.told.push((kind, resource.name.clone()));
            self.holds.insert((kind, resource.name.clone()), version);
        }
        for name in &response.removed_resources {
            self.told.push((kind, name.clone()));
            self.holds.remove(&(kind, name.clone()));
        }
    }
}

impl Client for Delta {
    fn follow(&mut self, set: &ResourceSet) {
        for response in self.stream.change(set) {
            self.take(&response.message());
        }
    }

    fn holds(&self) -> &Versions {
        &self.holds
    }

    fn take_told(&mut self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.told)
    }
}

/// Stock Envoy without delta: it asks for clusters and listeners, and for what those name.
struct StateOfTheWorld {
    stream: SotwStream,
    holds: Versions,
}

impl StateOfTheWorld {
    fn new(set: &ResourceSet) -> Self {
        let mut client = Self { stream: SotwStream::new(1000), holds: Versions::new() };
        for kind in [type_url::CLUSTER, type_url::LISTENER] {
            let request = DiscoveryRequest { type_url: kind.to_owned(), ..Default::default() };
            let response = client.stream.request(request, set).unwrap();
            response.into_iter().for_each(|response| client.take(&response, set));
        }
        client
    }

    /// Takes a response and acknowledges it.
    fn take(&mut self, response: &DiscoveryResponse, set: &ResourceSet) {
        let kind = known(&response.type_url);
        // A response has all there is.
        self.holds.retain(|(known, _), _| *known != kind);
        for resource in &response.resources {
            let name = name_of(kind, &resource.value, set);
            self.holds.insert((kind, name), version_of(&resource.value));
        }
        let request = DiscoveryRequest {
            type_url: kind.to_owned(),
            response_nonce: response.nonce.clone(),
            version_info: response.version_info.clone(),
            ..Default::default()
        };
        assert!(self.stream.request(request, set).unwrap().is_none());
    }
}

/// The name under which `set` has these bytes.
fn name_of(kind: &str, body: &[u8], set: &ResourceSet) -> String {
    set.of_type(kind).find(|(_, resource)| resource.body() == body).unwrap().0.to_owned()
}

impl Client for StateOfTheWorld {
    fn follow(&mut self, set: &ResourceSet) {
        for response in self.stream.change(set) {
            self.take(&response, set);
        }
    }

    fn holds(&self) -> &Versions {
        &self.holds
    }

    fn take_told(&mut self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A proxy: one client of each dialect.
struct Proxy {
    node: ProxyNode,
    view: Arc<View>,
    delta: Delta,
    sotw: StateOfTheWorld,
}

impl Proxy {
    fn new(node: ProxyNode, generation: &Generation) -> Self {
        let view = generation.view(&node, None);
        let (delta, sotw) = (Delta::new(&view.set), StateOfTheWorld::new(&view.set));
        Self { node, view, delta, sotw }
    }

    fn follow(&mut self, generation: &Generation) {
        self.view = generation.view(&self.node, Some(&self.view));
        self.delta.follow(&self.view.set);
        self.sotw.follow(&self.view.set);
    }

    /// Whether both clients have what they are meant to.
    fn assert_has(&self, expected: &Versions, at: &str) {
        assert_eq!(self.delta.holds(), expected, "{at}, {}", self.node.id);
        let asked = |(kind, _): &&(&str, String)| [type_url::CLUSTER, type_url::LISTENER].contains(kind);
        for (key, version) in expected.iter().filter(|(key, _)| asked(key)) {
            assert_eq!(self.sotw.holds().get(key), Some(version), "{at}, {}, {key:?}", self.node.id);
        }
        assert_eq!(self.sotw.holds().len(), expected.keys().filter(asked).count(), "{at}, {}", self.node.id);
    }
}

/// A control plane without files and sockets, and the proxies that follow it.
struct Plane {
    store: Store,
    mesh: Arc<Mesh>,
    generation: Generation,
    proxies: Vec<Proxy>,
}

impl Plane {
    fn new(nodes: Vec<ProxyNode>) -> Self {
        let mesh = Arc::new(translate(&World::default()).0);
        let generation = Generation::new(0, mesh.clone(), bundle(), None);
        let proxies = nodes.into_iter().map(|node| Proxy::new(node, &generation)).collect();
        Self { store: Store::default(), mesh, generation, proxies }
    }

    /// Makes `documents` what is in force; returns what is found wrong, and whether only workloads changed.
    fn update(&mut self, documents: &BTreeMap<String, String>) -> (Vec<api::Diagnostic>, bool) {
        self.store.update(&files(documents));
        let world = World::of(&self.store.in_order());
        let (next, found) = translate_after(&world, Some(&self.mesh));
        let is_cheap = next.differs_only_in_workloads(&self.mesh);
        self.mesh = Arc::new(next);
        let revision = self.generation.revision + 1;
        self.generation = Generation::new(revision, self.mesh.clone(), bundle(), Some(&self.generation));
        (found, is_cheap)
    }
}

fn files(documents: &BTreeMap<String, String>) -> Vec<SourceFile> {
    let file = |(place, text): (&String, &String)| SourceFile {
        name: place.as_str().into(),
        text: text.as_str().into(),
    };
    documents.iter().map(file).collect()
}

/// What a proxy is given that asks for everything there is, where it has to ask.
fn offered(view: &View) -> Vec<(String, String)> {
    let Some(offer) = &view.offer else { return Vec::new() };
    let (clusters, hosts) = offer.names();
    let layer = offer.clusters(&clusters);
    let clusters = layer.iter().map(|(name, resource)| (name.to_string(), resource.version().to_owned()));
    let hosts = hosts.into_iter().map(|name| {
        let host = offer.virtual_host(&name);
        (name, host.unwrap().version().to_owned())
    });
    clusters.chain(hosts).collect()
}

fn run(seed: u64, steps: u64) {
    let mut dice = Dice(seed);
    let mut documents: BTreeMap<String, String> = BTreeMap::new();
    let mut plane = Plane::new(nodes());
    for step in 1..=steps {
        for _ in 0..=dice.roll(2) {
            let (place, text) = dice.document();
            match dice.roll(4) {
                0 => documents.remove(&place),
                _ => documents.insert(place, text),
            };
        }
        let (found, is_cheap) = plane.update(&documents);
        let at = format!("seed {seed}, step {step}");
        // Shortcuts are taken where only workloads change: those are looked at more often.
        let is_compared =
            step % COMPARED_EVERY == 0 || step == steps || (is_cheap && dice.roll(COMPARED_EVERY / 2) == 0);
        let fresh = is_compared.then(|| {
            let mut store = Store::default();
            store.update(&files(&documents));
            let (fresh, fresh_found) = translate(&World::of(store.objects()));
            assert_eq!(found, fresh_found, "{at}");
            Generation::new(step, Arc::new(fresh), bundle(), None)
        });
        for proxy in &mut plane.proxies {
            // Now and then a proxy sleeps through a generation.
            if !is_compared && dice.roll(3) == 0 {
                continue;
            }
            proxy.follow(&plane.generation);
            let meant = versions(&proxy.view.set);
            if let Some(fresh) = &fresh {
                let fresh = fresh.view(&proxy.node, None);
                assert_eq!(meant, versions(&fresh.set), "{at}, {}", proxy.node.id);
                assert_eq!(offered(&proxy.view), offered(&fresh), "{at}, {}", proxy.node.id);
            }
            proxy.assert_has(&meant, &at);
        }
    }
}

macro_rules! runs {
    ($($name:ident = $seeds:expr;)*) => {$(
        #[test]
        fn $name() {
            $seeds.for_each(|seed| run(seed * 7919, 500));
        }
    )*};
}

runs! {
    after_any_edits_each_proxy_has_what_it_would_have_from_scratch = 1..=5;
    after_any_edits_each_proxy_has_what_it_would_have_from_scratch_2 = 6..=10;
    after_any_edits_each_proxy_has_what_it_would_have_from_scratch_3 = 11..=15;
    after_any_edits_each_proxy_has_what_it_would_have_from_scratch_4 = 16..=20;
}
