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
