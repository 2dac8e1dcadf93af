//! Workloads: what a service's traffic ends at. From WorkloadEntries, and from the endpoints written in ServiceEntries.

use super::authentication::is_subset;
use super::template::{Templates, healthy_entries};
use crate::node::{APPLICATION_PORTS, GATEWAY_PORTS, application_ports, locality};
use crate::world::World;
use api::networking::WorkloadEntry;
use api::{Object, Spec};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Label or annotation that keeps a workload outside of the mesh with `false`.
const INJECT: &str = "sidecar.istio.io/inject";
/// Label that tells that a workload takes mutual TLS, with `istio`.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Annotation with the name of the workload that a replica is of.
const WORKLOAD: &str = "ieum.dev/workload";

/// A workload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload {
    /// Of the Deployment, or of whatever else it is.
    pub(super) name: String,
    pub(super) namespace: String,
    /// IP address or DNS name.
    pub(super) address: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Ports by name.
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) service_account: String,
    pub(super) weight: u32,
    /// `region/zone/subzone`.
    pub(super) locality: String,
    /// A proxy that takes mutual TLS stands before it.
    pub(super) has_sidecar: bool,
    /// Its ports, each with the one on which the application really listens.
    pub(super) application_ports: BTreeMap<u16, u16>,
    /// Of a gateway proxy: the ports of its Gateways, each with the one at which it listens for it.
    pub(super) gateway_ports: BTreeMap<u16, u16>,
}

impl Workload {
    /// The workload a WorkloadEntry stands for; `object` is the resource in which it is written.
    pub(super) fn of(object: &Object, name: &str, entry: &WorkloadEntry) -> Self {
        Self::annotated(object, name, entry, &object.meta.annotations)
    }

    fn annotated(
        object: &Object,
        name: &str,
        entry: &WorkloadEntry,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let outside = |map: &BTreeMap<String, String>| map.get(INJECT).is_some_and(|v| v == "false");
        let ports =
            |name: &str| annotations.get(name).map(|text| application_ports(text)).unwrap_or_default();
        let takes_tls = annotations.contains_key(APPLICATION_PORTS)
            || entry.labels.get(TLS_MODE).is_some_and(|mode| mode == "istio");
        Self {
            name: name.to_owned(),
            namespace: object.namespace().to_owned(),
            address: entry.address.clone(),
            labels: entry.labels.clone(),
            ports: entry.ports.clone(),
            service_account: match entry.service_account.as_str() {
                "" => "default".to_owned(),
                account => account.to_owned(),
            },
            weight: entry.weight.max(1),
            locality: match entry.locality.as_str() {
                "" => locality(&entry.labels),
                written => written.to_owned(),
            },
            has_sidecar: takes_tls
                && ![annotations, &object.meta.labels, &entry.labels].into_iter().any(outside),
            application_ports: ports(APPLICATION_PORTS),
            gateway_ports: ports(GATEWAY_PORTS),
        }
    }

    /// What telemetry reads of it: name, namespace, canonical service and revision, cluster.
    pub(super) fn telemetry(&self) -> String {
        let label = |names: [&str; 3]| names.into_iter().find_map(|name| self.labels.get(name));
        let service = label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision = label(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        let service = service.unwrap_or(&self.name);
        let revision = revision.map_or("latest", String::as_str);
        format!("{};{};{service};{revision};Kubernetes", self.name, self.namespace)
    }
}

/// The workloads of WorkloadEntries, found by their labels.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    by_namespace: HashMap<String, Arc<Group>>,
}

/// The workloads of a namespace. As long as none of them changes, it is the same `Arc`.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// What they are made of.
    entries: Vec<Arc<Object>>,
    all: Vec<Arc<Workload>>,
    /// Label and value to positions, so that a selector looks at few.
    by_label: HashMap<(String, String), Vec<usize>>,
    by_address: HashMap<String, usize>,
}

impl Workloads {
    /// The workloads of a world. Groups of which nothing changed are taken from `before`.
    pub(super) fn of(world: &World, before: Option<&Self>) -> Self {
        let mut entries: HashMap<&str, Vec<&Arc<Object>>> = HashMap::new();
        let templates = Templates::of(world);
        for object in healthy_entries(world) {
            entries.entry(object.namespace()).or_default().push(object);
        }
        let group = |(namespace, entries): (&str, Vec<&Arc<Object>>)| {
            let known = before.and_then(|before| before.by_namespace.get(namespace));
            let group = match known.filter(|group| group.is_of(&entries)) {
                Some(group) => group.clone(),
                None => Arc::new(Group::of(&entries, &templates)),
            };
            (namespace.to_owned(), group)
        };
        Self { by_namespace: entries.into_iter().map(group).collect() }
    }

    /// Those of a namespace.
    pub(super) fn group(&self, namespace: &str) -> Option<&Arc<Group>> {
        self.by_namespace.get(namespace)
    }

    /// Those of a namespace that have all of these labels.
    pub(super) fn selected(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<Workload>> {
        self.group(namespace).map(|group| group.selected(labels)).unwrap_or_default()
    }

    /// The one at this address.
    pub(super) fn at(&self, namespace: &str, address: IpAddr) -> Option<&Arc<Workload>> {
        let group = self.group(namespace)?;
        group.all.get(*group.by_address.get(&address.to_string())?)
    }
}

impl Group {
    fn of(entries: &[&Arc<Object>], templates: &Templates<'_>) -> Self {
        let mut group =
            Self { entries: entries.iter().map(|entry| Arc::clone(entry)).collect(), ..Self::default() };
        for object in entries {
            if let Spec::WorkloadEntry(entry) = &object.spec {
                let name = object.meta.annotations.get(WORKLOAD).unwrap_or(&object.meta.name);
                let (entry, annotations) = templates.fill(object, entry);
                group.add(Workload::annotated(object, name, &entry, &annotations));
            }
        }
        group
    }

    fn is_of(&self, entries: &[&Arc<Object>]) -> bool {
        let same = |(mine, theirs): (&Arc<Object>, &&Arc<Object>)| Arc::ptr_eq(mine, theirs);
        self.entries.len() == entries.len() && self.entries.iter().zip(entries).all(same)
    }

    fn add(&mut self, workload: Workload) {
        let at = self.all.len();
        for (key, value) in &workload.labels {
            self.by_label.entry((key.clone(), value.clone())).or_default().push(at);
        }
        self.by_address.entry(workload.address.clone()).or_insert(at);
        self.all.push(Arc::new(workload));
    }

    fn selected(&self, labels: &BTreeMap<String, String>) -> Vec<Arc<Workload>> {
        let of_label = |label: (&String, &String)| {
            self.by_label.get(&(label.0.clone(), label.1.clone())).map_or(&[][..], Vec::as_slice)
        };
        match labels.iter().map(of_label).min_by_key(|list| list.len()) {
            None => self.all.clone(),
            Some(shortest) => {
                let candidates = shortest.iter().filter_map(|at| self.all.get(*at));
                candidates.filter(|workload| is_subset(labels, &workload.labels)).cloned().collect()
            }
        }
    }
}
