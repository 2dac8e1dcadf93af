//! What a proxy asked for by name that is sent nothing else: clusters and virtual hosts, each with the answer it has by now.

use super::MAX_NAMES;
use super::dialect::Request;
use crate::generation::Offer;
use model::on_demand::host_name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xds::codec::type_url::{CLUSTER, VIRTUAL_HOST};
use xds::resources::{Layer, ResourceSet, VersionedResource};

/// The names, and what is served under them.
#[derive(Default)]
pub(super) struct Asked {
    clusters: BTreeSet<String>,
    hosts: BTreeMap<String, Told>,
    /// Made from the names and an offer.
    layer: Arc<Layer>,
    from: Option<Arc<Offer>>,
}

/// What a client was told of a virtual host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// That there is none, or nothing yet.
    Missing,
    /// What it is.
    There,
    /// That it is gone.
    Gone,
}

impl Asked {
    /// Takes over the names of a request. Returns whether other names are asked for now.
    pub(super) fn note(&mut self, request: &impl Request) -> bool {
        let (more, less) = (request.subscribed(), request.unsubscribed());
        let names = more.iter().filter(|name| *name != "*");
        let room = MAX_NAMES.saturating_sub(self.clusters.len() + self.hosts.len());
        match request.type_url() {
            CLUSTER => {
                self.clusters.retain(|name| !less.contains(name));
                self.clusters.extend(names.take(room).cloned());
            }
            VIRTUAL_HOST => {
                self.hosts.retain(|name, _| !less.contains(name));
                for name in names.take(room) {
                    let told = if request.holds(name) { Told::There } else { Told::Missing };
                    // Who asks again waits for an answer.
                    self.hosts.insert(name.clone(), told);
                }
                self.from = None;
            }
            _ => return false,
        }
        !more.is_empty() || !less.is_empty() || request.type_url() == VIRTUAL_HOST
    }

    /// Adds what was asked for to a set.
    pub(super) fn add_to(&mut self, set: &mut ResourceSet, offer: &Arc<Offer>) {
        set.add(CLUSTER, offer.clusters(&self.clusters));
        if !self.from.as_ref().is_some_and(|from| from.has_hosts_of(offer)) {
            self.layer = Arc::new(self.hosts_of(offer));
        }
        self.from = Some(offer.clone());
        set.add(VIRTUAL_HOST, self.layer.clone());
    }

    fn hosts_of(&mut self, offer: &Offer) -> Layer {
        let mut layer = Layer::default();
        // Envoy begins by asking for all hosts there are, and does not start before it has heard of its table.
        for table in offer.tables() {
            let nobody = host_name(table, "");
            layer.insert(nobody.as_str().into(), VersionedResource::missing(&nobody));
        }
        for (name, told) in &mut self.hosts {
            let found = offer.virtual_host(name);
            *told = match (&found, *told) {
                (Some(_), _) => Told::There,
                (None, Told::There | Told::Gone) => Told::Gone,
                (None, Told::Missing) => Told::Missing,
            };
            let answer = match told {
                Told::Gone => None,
                _ => Some(found.unwrap_or_else(|| VersionedResource::missing(name))),
            };
            if let Some(answer) = answer {
                layer.insert(name.as_str().into(), answer);
            }
        }
        layer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::generation::Generation;
    use crate::node::ProxyNode;
    use crate::source::SourceFile;
    use crate::store::Store;
    use crate::translate::translate;
    use crate::world::World;
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
    use model::metadata::Fields;
    use xds::server::DeltaStream;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: http, port: 80}]}\n";
    const A: &str = "http_proxy/a.default.svc.cluster.local";

    fn offer(text: &str) -> Arc<Offer> {
        let mut store = Store::default();
        store.update(&[SourceFile { name: "a.yaml".into(), text: text.into() }]);
        let (mesh, _) = translate(&World::of(store.objects()));
        let bundle = VersionedResource::new("t", "b", "1", b"x");
        let metadata = Fields::from_iter([("ON_DEMAND".to_owned(), "true".into())]);
        let id = "sidecar~127.0.0.1~c.default~default.svc.cluster.local";
        let node = ProxyNode::from_node(id, "", &metadata, "").unwrap();
        Generation::new(1, Arc::new(mesh), bundle, None).view(&node, None).offer.clone().unwrap()
    }

    /// A client, and what was said to it.
    struct Client {
        asked: Asked,
        stream: DeltaStream,
    }

    impl Client {
        fn new() -> Self {
            Self { asked: Asked::default(), stream: DeltaStream::new(100) }
        }

        fn set(&mut self, offer: &Arc<Offer>) -> ResourceSet {
            let mut set = ResourceSet::new("1");
            self.asked.add_to(&mut set, offer);
            set
        }

        fn ask(&mut self, offer: &Arc<Offer>, type_url: &str, more: &[&str], less: &[&str]) -> String {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let request = DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_subscribe: owned(more),
                resource_names_unsubscribe: owned(less),
                ..Default::default()
            };
            self.asked.note(&request);
            let set = self.set(offer);
            let responses = self.stream.request(request, &set).unwrap();
            said(responses.iter().map(|response| response.message()))
        }

        fn follow(&mut self, offer: &Arc<Offer>) -> String {
            let set = self.set(offer);
            let responses = self.stream.change(&set);
            said(responses.iter().map(|response| response.message()))
        }
    }

    fn said(
        responses: impl Iterator<Item = envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse>,
    ) -> String {
        let mut said = Vec::new();
        for response in responses {
            said.extend(response.resources.iter().map(|resource| match resource.resource {
                Some(_) => format!("{} is there", resource.name),
                None => format!("{} is missing", resource.aliases.join(" ")),
            }));
            said.extend(response.removed_resources.iter().map(|name| format!("{name} is gone")));
        }
        said.join(", ")
    }

    #[test]
    fn a_virtual_host_is_missing_comes_and_goes() {
        let (none, one) = (offer(""), offer(SERVICE));
        let mut client = Client::new();
        assert_eq!(client.ask(&none, VIRTUAL_HOST, &[], &[]), "http_proxy/ is missing");
        assert_eq!(client.ask(&none, VIRTUAL_HOST, &[A], &[]), format!("{A} is missing"));
        assert_eq!(client.follow(&one), format!("{A} is there"));
        assert_eq!(client.follow(&one), "");
        assert_eq!(client.follow(&none), format!("{A} is gone"));
        assert_eq!(client.ask(&none, VIRTUAL_HOST, &[A], &[]), format!("{A} is missing"));
        client.ask(&none, VIRTUAL_HOST, &[], &[A]);
        assert_eq!(client.follow(&one), "");
    }

    #[test]
    fn only_clusters_that_are_asked_for_are_sent_though_all_are_asked_for_as_well() {
        let (none, one) = (offer(""), offer(SERVICE));
        let cluster = "outbound|80||a.default.svc.cluster.local";
        let mut client = Client::new();
        assert_eq!(client.ask(&one, CLUSTER, &["*"], &[]), "");
        assert_eq!(client.ask(&one, CLUSTER, &[cluster], &[]), format!("{cluster} is there"));
        assert_eq!(client.ask(&one, CLUSTER, &["nobody"], &[]), "nobody is gone");
        assert_eq!(client.follow(&none), format!("{cluster} is gone"));
        assert_eq!(client.follow(&one), format!("{cluster} is there"));
        assert_eq!(client.ask(&one, CLUSTER, &[], &[cluster]), format!("{cluster} is gone"));
        assert_eq!(client.follow(&none), "");
    }

    #[test]
    fn what_was_held_before_a_reconnection_and_is_there_no_more_is_gone() {
        let none = offer("");
        let mut client = Client::new();
        let request = DeltaDiscoveryRequest {
            type_url: VIRTUAL_HOST.to_owned(),
            resource_names_subscribe: vec![A.to_owned()],
            initial_resource_versions: [(A.to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        client.asked.note(&request);
        let set = client.set(&none);
        let responses = client.stream.request(request, &set).unwrap();
        assert_eq!(said(responses.iter().map(|response| response.message())), format!("{A} is gone"));
    }
}
