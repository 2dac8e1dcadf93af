//! Whatever is edited in whatever order, each proxy ends with what it would have if the last texts had been the first.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::source::SourceFile;
use crate::store::Store;
use crate::translate::{translate, translate_after};
use crate::world::World;
use model::metadata::Fields;
use std::collections::BTreeMap;
use xds::server::DeltaStream;

const TYPES: [&str; 5] =
    [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE, type_url::SECRET];

/// A small xorshift generator: the same numbers on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// One of a few documents: a place in a mesh of two namespaces, and what stands there now.
    fn document(&mut self) -> (String, String) {
        let (name, namespace) = (format!("s{}", self.roll(3)), ["x", "y"][self.roll(2) as usize]);
        let export = ["", "exportTo: [\".\"], ", "exportTo: [x], "][self.roll(3) as usize];
        let number = self.roll(3) + 1;
        let head = |kind: &str, name: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
            )
        };
        match self.roll(8) {
            0 => (
                format!("service/{namespace}/{name}"),
                format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: {}}}]}}\n",
                    80 * number
                ),
            ),
            1 => (
                format!("rule/{namespace}/{name}"),
                head("DestinationRule", &name)
                    + &format!(
                        "spec: {{{export}host: {name}, trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {number}s}}}}}}, \
                 subsets: [{{name: v{number}, labels: {{version: v{number}}}}}]}}\n"
                    ),
            ),
            2 => (
                format!("routes/{namespace}/{name}"),
                head("VirtualService", &name)
                    + &format!(
                        "spec: {{{export}hosts: [{name}], http: [{{timeout: {number}s, route: [{{destination: {{host: {name}}}}}]}}]}}\n"
                    ),
            ),
            3 => (
                format!("entry/{namespace}/{name}"),
                head("ServiceEntry", &name)
                    + &format!(
                        "spec: {{{export}hosts: [{name}.example.com], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], \
                 workloadSelector: {{labels: {{app: {name}}}}}}}\n"
                    ),
            ),
            // Most changes are of endpoints.
            _ => {
                let replica = self.roll(3);
                let place = format!("workload/{namespace}/{name}-{replica}");
                (
                    place,
                    head("WorkloadEntry", &format!("{name}-{replica}"))
                        + &format!(
                            "spec: {{address: 127.1.0.{}, weight: {number}, labels: {{app: {name}, version: v{}}}, serviceAccount: a{}}}\n",
                            replica + 1,
                            self.roll(2) + 1,
                            self.roll(2)
                        ),
                )
            }
        }
    }
}

fn nodes() -> Vec<ProxyNode> {
    let ids = [
        "sidecar~127.1.0.1~s0-0.x~x.svc.cluster.local",
        "sidecar~127.1.0.2~s1-1.y~y.svc.cluster.local",
        "sidecar~127.1.0.3~s2-2.z~z.svc.cluster.local",
        "router~127.0.0.1~edge.y~y.svc.cluster.local",
    ];
    let mut nodes: Vec<ProxyNode> =
        ids.iter().map(|id| ProxyNode::from_node(id, "", &Fields::new(), "").unwrap()).collect();
    nodes.push(ProxyNode::from_node("client.x", "", &Fields::new(), "gRPC Python").unwrap());
    nodes
}

fn bundle() -> VersionedResource {
    VersionedResource::new(type_url::SECRET, WORKLOAD_TRUST_BUNDLE, "1", b"x")
}

type Contents = BTreeMap<(String, String), Vec<u8>>;

fn contents(set: &ResourceSet) -> Contents {
    let of_type = |kind| set.of_type(kind).map(move |(name, r)| ((kind, name), r.body()));
    let all = TYPES.into_iter().flat_map(of_type);
    all.map(|((kind, name), body)| ((kind.to_owned(), name.to_owned()), body.to_vec())).collect()
}

/// A proxy that takes everything it is sent.
struct Proxy {
    node: ProxyNode,
    view: Arc<View>,
    stream: DeltaStream,
    holds: Contents,
}

impl Proxy {
    fn new(node: ProxyNode, generation: &Generation) -> Self {
        let view = generation.view(&node, None);
        let mut proxy = Self { node, view, stream: DeltaStream::new(1000), holds: Contents::new() };
        for kind in TYPES {
            let request = envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
                type_url: kind.to_owned(),
                ..Default::default()
            };
            let response = proxy.stream.request(request, &proxy.view.set).unwrap();
            response.into_iter().for_each(|response| proxy.take(&response.message()));
        }
        proxy
    }

    fn follow(&mut self, generation: &Generation) {
        self.view = generation.view(&self.node, Some(&self.view));
        for response in self.stream.change(&self.view.set) {
            self.take(&response.message());
        }
    }

    fn take(&mut self, response: &envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse) {
        let key = |name: &String| (response.type_url.clone(), name.clone());
        for resource in &response.resources {
            self.holds.insert(key(&resource.name), resource.resource.as_ref().unwrap().value.clone());
        }
        response.removed_resources.iter().for_each(|name| drop(self.holds.remove(&key(name))));
    }
}

fn run(seed: u64, steps: u64) {
    let mut dice = Dice(seed);
    let mut documents: BTreeMap<String, String> = BTreeMap::new();
    let mut store = Store::default();
    let mut mesh = Arc::new(translate(&World::default()).0);
    let mut generation = Generation::new(0, mesh.clone(), bundle(), None);
    let mut proxies: Vec<Proxy> = nodes().into_iter().map(|node| Proxy::new(node, &generation)).collect();
    for step in 1..=steps {
        for _ in 0..=dice.roll(2) {
            let (place, text) = dice.document();
            match dice.roll(4) {
                0 => documents.remove(&place),
                _ => documents.insert(place, text),
            };
        }
        let files: Vec<SourceFile> = documents
            .iter()
            .map(|(place, text)| SourceFile { name: place.as_str().into(), text: text.as_str().into() })
            .collect();
        store.update(&files);
        let world = World::of(&store.in_order());
        let (next, found) = translate_after(&world, Some(&mesh));
        mesh = Arc::new(next);
        generation = Generation::new(step, mesh.clone(), bundle(), Some(&generation));

        let mut fresh_store = Store::default();
        fresh_store.update(&files);
        let (fresh, fresh_found) = translate(&World::of(fresh_store.objects()));
        assert_eq!(found, fresh_found, "seed {seed}, step {step}");
        let fresh = Generation::new(step, Arc::new(fresh), bundle(), None);
        for proxy in &mut proxies {
            // Now and then a proxy sleeps through a generation.
            if dice.roll(5) == 0 {
                continue;
            }
            proxy.follow(&generation);
            let expected = contents(&fresh.view(&proxy.node, None).set);
            assert_eq!(contents(&proxy.view.set), expected, "seed {seed}, step {step}, {}", proxy.node.id);
            assert_eq!(proxy.holds, expected, "seed {seed}, step {step}, {}", proxy.node.id);
        }
    }
}

#[test]
fn after_any_edits_each_proxy_has_what_it_would_have_from_scratch() {
    for seed in 1..=8 {
        run(seed * 7919, 60);
    }
}
