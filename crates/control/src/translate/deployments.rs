//! What Deployments say of workloads that may not be running yet: who they will be, and what their ports are called.

use super::authentication::is_subset;
use super::on_demand;
use crate::world::World;
use api::mesh_config::ProxyConfig;
use std::collections::{BTreeMap, HashMap};

/// Annotation of pods with settings of their proxy.
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// The pods of Deployments, by namespace.
#[derive(Debug, Default)]
pub(super) struct Deployments {
    by_namespace: HashMap<String, Vec<Pod>>,
}

#[derive(Debug)]
struct Pod {
    labels: BTreeMap<String, String>,
    account: String,
    ports: BTreeMap<String, u16>,
    /// Percent of requests that are traced, as its annotation says.
    sampling: Option<f64>,
    /// Whether its proxy is sent only what it asks for, as its annotation says.
    on_demand: Option<bool>,
}

/// The annotation with settings of a proxy.
fn settings(annotations: &BTreeMap<String, String>) -> Option<ProxyConfig> {
    ProxyConfig::read(annotations.get(PROXY_CONFIG)?).ok()
}

impl Deployments {
    pub(super) fn of(world: &World) -> Self {
        let mut deployments = Self::default();
        for (object, deployment) in world.deployments() {
            let template = &deployment.template;
            let ports = template.spec.containers.iter().flat_map(|container| &container.ports);
            let settings = settings(&template.metadata.annotations);
            let pod = Pod {
                labels: template.metadata.labels.clone(),
                account: template.spec.identity().to_owned(),
                ports: ports
                    .filter(|p| !p.name.is_empty())
                    .map(|p| (p.name.clone(), p.container_port))
                    .collect(),
                sampling: settings.as_ref().and_then(|settings| settings.tracing.as_ref()?.sampling),
                on_demand: settings
                    .as_ref()
                    .and_then(|settings| on_demand::setting(&settings.proxy_metadata)),
            };
            deployments.by_namespace.entry(object.namespace().to_owned()).or_default().push(pod);
        }
        deployments
    }

    fn pods(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        self.by_namespace.get(namespace).into_iter().flatten()
    }

    /// The service accounts of pods that have all of these labels.
    pub(super) fn accounts(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<&str> {
        let selected = self.pods(namespace).filter(|pod| is_subset(selector, &pod.labels));
        selected.map(|pod| pod.account.as_str()).collect()
    }

    /// Percent of requests that are traced of the pod that `labels` are of, where it says so itself.
    pub(super) fn sampling(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<f64> {
        let own = |pod: &&Pod| !pod.labels.is_empty() && is_subset(&pod.labels, labels);
        self.pods(namespace).filter(own).find_map(|pod| pod.sampling)
    }

    /// Whether the proxy of the pod that `labels` are of is sent only what it asks for, where it says so itself.
    pub(super) fn on_demand(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<bool> {
        let own = |pod: &&Pod| !pod.labels.is_empty() && is_subset(&pod.labels, labels);
        self.pods(namespace).filter(own).find_map(|pod| pod.on_demand)
    }

    /// The named ports of the pod that `labels` are of.
    pub(super) fn named_ports(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> BTreeMap<String, u16> {
        let own = |pod: &&Pod| !pod.labels.is_empty() && is_subset(&pod.labels, labels);
        self.pods(namespace).filter(own).flat_map(|pod| pod.ports.clone()).collect()
    }
}
