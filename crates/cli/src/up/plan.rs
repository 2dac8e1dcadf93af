//! What shall run: from the resources in force to workloads, their processes and the gateways. Pure; what a resource
//! lacks for it becomes a diagnostic and takes nothing else with it. Where and when things run is decided elsewhere.

use super::proxy_settings::{Settings, Sources};
use api::kubernetes::{Container, Deployment, EnvironmentVariable, TemplateMetadata, Transport};
use api::local_mesh::{GatewayProxy, LocalMesh};
use api::networking::StringMatch;
use api::{Diagnostic, IntOrString, Object, Spec, wildcard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Namespace and name.
pub(super) type Key = (String, String);

/// Everything that shall run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) workloads: BTreeMap<Key, Workload>,
    pub(super) gateways: BTreeMap<Key, Gateway>,
    /// What others may join in: `ieum run`.
    pub(super) services: BTreeMap<Key, Service>,
    /// First part of identities.
    pub(super) trust_domain: String,
    /// Lifetime of certificates, where one is written.
    pub(super) certificate_lifetime: Option<Duration>,
}

/// Replicas of one template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Workload {
    pub(super) replicas: usize,
    pub(super) template: Arc<Template>,
}

/// What each replica of a workload is. Replicas of different templates replace each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    pub(super) namespace: String,
    /// The Deployment's name.
    pub(super) workload: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Nobody is told them, but as in Kubernetes a changed one replaces the replicas: `kubectl rollout restart` writes one.
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) service_account: String,
    pub(super) sidecar: Proxy,
    /// How the sidecar is run.
    pub(super) settings: Settings,
    pub(super) programs: Vec<Program>,
}

/// The proxy beside a workload, or at a gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Proxy {
    /// None: the workload stays outside of the mesh.
    Absent,
    /// Ours.
    Own,
    /// Another program; `$(BOOTSTRAP)` is its bootstrap file.
    Other(Vec<String>),
}

/// A process that stands in for a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Program {
    /// The container's name.
    pub(super) name: String,
    /// Program and arguments, references not yet expanded.
    pub(super) command: Vec<String>,
    /// The container's own environment, in order.
    pub(super) environment: Vec<(String, Setting)>,
    pub(super) ports: Vec<Port>,
}

/// What a variable is set to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Setting {
    /// Text, references not yet expanded.
    Text(String),
    /// A field of the pod: `status.podIP`.
    Field(String),
}

/// A port that a container is known to listen on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Port {
    pub(super) number: u16,
    /// Empty when it has none.
    pub(super) name: String,
    /// Whether the container says so itself. A Service alone may be there for the name only: clients have such ones.
    pub(super) is_declared: bool,
}

/// A Service of the folder that more processes may serve.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Service {
    pub(super) ports: Vec<ServicePort>,
    /// What whoever serves it is, but for its programs: labels as the Service selects, the account of the workloads that
    /// serve it already.
    pub(super) template: Template,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServicePort {
    /// Empty when it has none.
    pub(super) name: String,
    pub(super) number: u16,
    /// The port of the workload, by number or name; the same when absent.
    pub(super) target: Option<IntOrString>,
}

/// A gateway proxy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gateway {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) service_account: String,
    pub(super) proxy: Proxy,
    /// Worker threads, where somebody says how many.
    pub(super) threads: Option<u32>,
    /// Local port for each listener port; 0 for any that is free.
    pub(super) ports: BTreeMap<u16, u16>,
    /// `http`, `https` or `tcp` for each port that a Gateway has for it.
    pub(super) schemes: BTreeMap<u16, &'static str>,
    /// A path that a rule routes somewhere: the one to open first.
    pub(super) path: Option<String>,
}

impl Gateway {
    /// Whether one process serves both: which Gateways and rules there are comes from the control plane.
    pub(super) fn is_same_process(&self, other: &Gateway) -> bool {
        let process = |gateway: &Gateway| Gateway { schemes: BTreeMap::new(), path: None, ..gateway.clone() };
        process(self) == process(other)
    }
}

/// Label and annotation by which a pod stays outside of the mesh.
const INJECT: &str = "sidecar.istio.io/inject";

/// What shall run according to `objects`. `proxies` come before those of the files.
pub(super) fn plan(objects: &[Arc<Object>], proxies: &[(String, Vec<String>)]) -> (Plan, Vec<Diagnostic>) {
    let meshes: Vec<&LocalMesh> = objects.iter().filter_map(|o| local_mesh(o)).collect();
    let world = World { objects, meshes, proxies };
    let mut plan = Plan { trust_domain: "cluster.local".to_owned(), ..Plan::default() };
    let mut diagnostics = Vec::new();
    for object in objects {
        let Spec::Deployment(deployment) = &object.spec else { continue };
        match world.workload(object, deployment) {
            Ok(workload) => {
                plan.workloads.insert((object.namespace().to_owned(), object.meta.name.clone()), workload);
            }
            Err(problem) => diagnostics.push(*problem),
        }
    }
    plan.services = world.services(&plan.workloads);
    for mesh in &world.meshes {
        for proxy in &mesh.gateways {
            let gateway = world.gateway(proxy);
            plan.gateways.entry((gateway.namespace.clone(), gateway.name.clone())).or_insert(gateway);
        }
    }
    let trust_domain = world.meshes.iter().map(|m| &m.mesh_config.trust_domain).find(|d| !d.is_empty());
    if let Some(trust_domain) = trust_domain {
        plan.trust_domain = trust_domain.clone();
    }
    plan.certificate_lifetime = world.meshes.iter().find_map(|mesh| mesh.certificates.lifetime);
    (plan, diagnostics)
}

fn local_mesh(object: &Object) -> Option<&LocalMesh> {
    match &object.spec {
        Spec::LocalMesh(mesh) => Some(mesh),
        _ => None,
    }
}

struct World<'a> {
    objects: &'a [Arc<Object>],
    meshes: Vec<&'a LocalMesh>,
    proxies: &'a [(String, Vec<String>)],
}

impl World<'_> {
    fn workload(&self, object: &Object, deployment: &Deployment) -> Result<Workload, Box<Diagnostic>> {
        let pod = &deployment.template;
        let mut programs = Vec::new();
        for (at, container) in pod.spec.containers.iter().enumerate() {
            let Some(command) = self.stand_in(&container.image) else {
                let field = format!("spec.template.spec.containers[{at}].image");
                let message =
                    format!("no process stands in for the image `{}`; not started", container.image);
                let help = "add to spec.images of the LocalMesh: \
                            `{image: \"...\", command: [program, argument, ...]}`";
                return Err(Box::new(object.warning(&field, message).help(help)));
            };
            programs.push(program(container, command));
        }
        let told: BTreeSet<u16> = programs.iter().flat_map(|p| &p.ports).map(|p| p.number).collect();
        let served = self.served_ports(object.namespace(), &pod.metadata.labels);
        if let Some(first) = programs.first_mut() {
            let untold = served.difference(&told);
            let port = |number| Port { number, name: String::new(), is_declared: false };
            first.ports.extend(untold.map(|number| port(*number)));
        }
        let inject = |all: &BTreeMap<String, String>| all.get(INJECT).is_some_and(|v| v == "false");
        let outside = inject(&pod.metadata.labels) || inject(&pod.metadata.annotations);
        let template = Template {
            namespace: object.namespace().to_owned(),
            workload: object.meta.name.clone(),
            labels: pod.metadata.labels.clone(),
            annotations: pod.metadata.annotations.clone(),
            service_account: pod.spec.identity().to_owned(),
            settings: self.sources().settings(object.namespace(), &pod.metadata),
            sidecar: if outside { Proxy::Absent } else { self.proxy(&object.meta.name) },
            programs,
        };
        let replicas = usize::try_from(deployment.replicas.unwrap_or(1)).unwrap_or(0);
        Ok(Workload { replicas, template: Arc::new(template) })
    }

    /// The Services whose workloads are told by labels.
    fn services(&self, workloads: &BTreeMap<Key, Workload>) -> BTreeMap<Key, Service> {
        let mut services = BTreeMap::new();
        for object in self.objects {
            let Spec::Service(service) = &object.spec else { continue };
            if service.selector.is_empty() {
                continue;
            }
            let (namespace, name) = (object.namespace().to_owned(), object.meta.name.clone());
            let serves = |template: &Template| {
                let mut selector = service.selector.iter();
                template.namespace == namespace
                    && selector.all(|(key, value)| template.labels.get(key) == Some(value))
            };
            let mut templates = workloads.values().map(|workload| &workload.template);
            let account = templates.find(|template| serves(template)).map(|t| t.service_account.clone());
            let metadata =
                TemplateMetadata { labels: service.selector.clone(), ..TemplateMetadata::default() };
            let template = Template {
                workload: format!("{name}-run"),
                labels: service.selector.clone(),
                annotations: BTreeMap::new(),
                service_account: account.unwrap_or_else(|| "default".to_owned()),
                settings: self.sources().settings(&namespace, &metadata),
                sidecar: self.proxy(&name),
                namespace: namespace.clone(),
                programs: Vec::new(),
            };
            let tcp = service.ports.iter().filter(|port| port.protocol == Transport::Tcp);
            let ports = tcp.map(|port| ServicePort {
                name: port.name.clone(),
                number: port.port,
                target: port.target_port.clone(),
            });
            services.insert((namespace, name), Service { ports: ports.collect(), template });
        }
        services
    }

    fn stand_in(&self, image: &str) -> Option<&[String]> {
        let mut images = self.meshes.iter().flat_map(|mesh| &mesh.images);
        images.find(|candidate| wildcard::matches(&candidate.image, image)).map(|i| i.command.as_slice())
    }

    fn proxy(&self, name: &str) -> Proxy {
        let told = self.proxies.iter().map(|(pattern, command)| (pattern, command));
        let written = self.meshes.iter().flat_map(|mesh| &mesh.proxies).map(|p| (&p.r#match, &p.command));
        let mut all = told.chain(written);
        match all.find(|(pattern, _)| wildcard::matches(pattern, name)) {
            Some((_, command)) => Proxy::Other(command.clone()),
            None => Proxy::Own,
        }
    }

    /// Ports on which Services expect pods with `labels`: Kubernetes does not ask that containers tell them.
    fn served_ports(&self, namespace: &str, labels: &BTreeMap<String, String>) -> BTreeSet<u16> {
        let mut served = BTreeSet::new();
        for object in self.objects.iter().filter(|o| o.namespace() == namespace) {
            let Spec::Service(service) = &object.spec else { continue };
            let selects = !service.selector.is_empty()
                && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            if !selects {
                continue;
            }
            for port in service.ports.iter().filter(|p| p.protocol == Transport::Tcp) {
                served.extend(match &port.target_port {
                    None => Some(port.port),
                    Some(IntOrString::Int(number)) => Some(*number),
                    Some(IntOrString::String(_)) => None,
                });
            }
        }
        served
    }

    fn sources(&self) -> Sources<'_> {
        Sources { objects: self.objects, meshes: &self.meshes }
    }

    fn gateway(&self, proxy: &GatewayProxy) -> Gateway {
        let account = || format!("{}-service-account", proxy.name);
        let namespace = proxy.namespace.clone().unwrap_or_else(|| "istio-system".to_owned());
        let metadata = TemplateMetadata { labels: proxy.labels.clone(), ..TemplateMetadata::default() };
        Gateway {
            threads: self.sources().settings(&namespace, &metadata).threads,
            namespace,
            name: proxy.name.clone(),
            labels: proxy.labels.clone(),
            service_account: proxy.service_account.clone().unwrap_or_else(account),
            proxy: self.proxy(&proxy.name),
            ports: proxy.ports.clone(),
            schemes: self.schemes(&proxy.labels),
            path: self.path(&proxy.labels),
        }
    }

    /// The Gateways that select a proxy with `labels`.
    fn selecting<'a>(
        &'a self,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'a Object, &'a api::networking::Gateway)> {
        self.objects.iter().filter_map(move |object| {
            let Spec::Gateway(gateway) = &object.spec else { return None };
            let selects = gateway.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            selects.then_some((&**object, &**gateway))
        })
    }

    fn path(&self, labels: &BTreeMap<String, String>) -> Option<String> {
        let bound: Vec<(&str, &str)> = self
            .selecting(labels)
            .map(|(object, _)| (object.namespace(), object.meta.name.as_str()))
            .collect();
        let rules = self.objects.iter().filter_map(|object| match &object.spec {
            Spec::VirtualService(rules) => Some((object.namespace(), rules)),
            _ => None,
        });
        let obeyed = rules.filter(|(namespace, rules)| {
            rules
                .gateways
                .iter()
                .any(|name| bound.contains(&name.split_once('/').unwrap_or((namespace, name))))
        });
        let routed = obeyed.flat_map(|(_, rules)| &rules.http).filter(|rule| !rule.route.is_empty());
        let mut exact = routed.flat_map(|rule| &rule.r#match).filter_map(|m| match &m.uri {
            Some(StringMatch::Exact(path)) => Some(path.clone()),
            _ => None,
        });
        exact.next()
    }

    fn schemes(&self, labels: &BTreeMap<String, String>) -> BTreeMap<u16, &'static str> {
        let mut schemes = BTreeMap::new();
        for (_, gateway) in self.selecting(labels) {
            for server in &gateway.servers {
                let scheme = match server.port.protocol.to_ascii_uppercase().as_str() {
                    "HTTPS" => "https",
                    "TCP" | "TLS" | "MONGO" => "tcp",
                    _ => "http",
                };
                schemes.insert(server.port.number, scheme);
            }
        }
        schemes
    }
}

/// What a variable is set to; nothing when its value comes from a Secret or a ConfigMap, which are not read.
fn setting(variable: &EnvironmentVariable) -> Option<(String, Setting)> {
    let setting = match &variable.value_from {
        None => Setting::Text(variable.value.clone()),
        Some(source) => Setting::Field(source.field_ref.as_ref()?.field_path.clone()),
    };
    Some((variable.name.clone(), setting))
}

fn program(container: &Container, command: &[String]) -> Program {
    let tcp = container.ports.iter().filter(|port| port.protocol == Transport::Tcp);
    let ports =
        tcp.map(|port| Port { number: port.container_port, name: port.name.clone(), is_declared: true });
    Program {
        name: container.name.clone(),
        command: command.to_vec(),
        environment: container.env.iter().filter_map(setting).collect(),
        ports: ports.collect(),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
