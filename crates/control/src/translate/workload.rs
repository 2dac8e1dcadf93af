//! Workloads: what a service's traffic ends at. From WorkloadEntries, and from the endpoints written in ServiceEntries.

use super::authentication::is_subset;
use crate::node::{APPLICATION_PORTS, application_ports};
use crate::world::World;
use api::Object;
use api::networking::WorkloadEntry;
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
}

impl Workload {
    /// The workload a WorkloadEntry stands for; `object` is the resource in which it is written.
    pub(super) fn of(object: &Object, name: &str, entry: &WorkloadEntry) -> Self {
        let annotations = &object.meta.annotations;
        let outside = |map: &BTreeMap<String, String>| map.get(INJECT).is_some_and(|v| v == "false");
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
            locality: entry.locality.clone(),
            has_sidecar: takes_tls
                && ![annotations, &object.meta.labels, &entry.labels].into_iter().any(outside),
            application_ports: annotations
                .get(APPLICATION_PORTS)
                .map(|text| application_ports(text))
                .unwrap_or_default(),
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
    all: Vec<Arc<Workload>>,
    by_namespace: HashMap<String, Vec<usize>>,
    /// Namespace, label and value to positions, so that a selector looks at few.
    by_label: HashMap<(String, String, String), Vec<usize>>,
}

impl Workloads {
    pub(super) fn of(world: &World) -> Self {
        let mut workloads = Self::default();
        for (object, entry) in world.workload_entries() {
            let name = object.meta.annotations.get(WORKLOAD).unwrap_or(&object.meta.name);
            workloads.add(Workload::of(object, name, entry));
        }
        workloads
    }

    fn add(&mut self, workload: Workload) {
        let at = self.all.len();
        let namespace = &workload.namespace;
        self.by_namespace.entry(namespace.clone()).or_default().push(at);
        for (key, value) in &workload.labels {
            let key = (namespace.clone(), key.clone(), value.clone());
            self.by_label.entry(key).or_default().push(at);
        }
        self.all.push(Arc::new(workload));
    }

    /// Those of a namespace that have all of these labels.
    pub(super) fn selected(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<Workload>> {
        let lists = labels.iter().map(|(key, value)| {
            let key = (namespace.to_owned(), key.clone(), value.clone());
            self.by_label.get(&key).map_or(&[][..], Vec::as_slice)
        });
        let whole = || self.by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
        let shortest = lists.min_by_key(|list| list.len()).unwrap_or_else(whole);
        let candidates = shortest.iter().filter_map(|at| self.all.get(*at));
        candidates.filter(|w| is_subset(labels, &w.labels)).cloned().collect()
    }

    /// The one at this address.
    pub(super) fn at(&self, namespace: &str, address: IpAddr) -> Option<&Arc<Workload>> {
        let here = self.by_namespace.get(namespace)?.iter().filter_map(|at| self.all.get(*at));
        let address = address.to_string();
        here.into_iter().find(|workload| workload.address == address)
    }
}
