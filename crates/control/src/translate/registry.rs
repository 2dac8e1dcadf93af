//! The registry: every service of the mesh, from Kubernetes Services and from ServiceEntries, with its ports, the
//! workloads behind it and the identities they may have. How they are reached is for `clusters`.

use super::authentication::is_subset;
use super::deployments::Deployments;
use super::protocol::Protocol;
use super::visibility::{Visibility, specificity};
use super::workload::{Workload, Workloads};
use crate::hosts::full_name;
use crate::world::World;
use api::kubernetes::{self, ServiceType};
use api::networking::{Location, Resolution, ServiceEntry};
use api::{Diagnostic, IntOrString, Object};
use identity::spiffe::SpiffeId;
use model::provenance::Provenance;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// A service.
#[derive(Debug, PartialEq)]
pub(super) struct Service {
    /// Full host name, lower case; `*.suffix` for a ServiceEntry's wildcard.
    pub(super) host: String,
    /// Short name: of the Service, or the host of a ServiceEntry.
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) ports: Vec<Port>,
    pub(super) discovery: Discovery,
    /// Labels of its workloads, where it names any.
    selector: Option<BTreeMap<String, String>>,
    pub(super) workloads: Vec<Arc<Workload>>,
    /// Its workloads may speak mutual TLS with the mesh's certificates.
    pub(super) in_mesh: bool,
    /// SPIFFE ids its workloads may have.
    pub(super) identities: BTreeSet<String>,
    /// Names one of which its certificates must have, as a ServiceEntry says.
    pub(super) subject_alt_names: Vec<String>,
    pub(super) visibility: Visibility,
    /// Addresses by which it may be asked for, too.
    pub(super) addresses: Vec<IpAddr>,
    /// It is a Kubernetes Service, which has short names.
    pub(super) is_kubernetes: bool,
    pub(super) provenance: Provenance,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) name: String,
    pub(super) protocol: Protocol,
    target: Target,
}

#[derive(Debug, Clone, PartialEq)]
enum Target {
    /// This port of the workload.
    Number(u16),
    /// The port of the workload that has this name.
    Name(String),
    /// The port of the workload that has the service port's name, else this one.
    NameOr(u16),
}

/// How the addresses of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discovery {
    /// They are known.
    Known,
    /// By DNS, all answers.
    Dns,
    /// By DNS, one answer at a time.
    DnsOne,
    /// Not at all.
    None,
}

impl Service {
    /// The port of `workload` behind `port`.
    pub(super) fn target(&self, port: &Port, workload: &Workload) -> Option<u16> {
        let target = match &port.target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => workload.ports.get(name).copied(),
            Target::NameOr(number) => Some(workload.ports.get(&port.name).copied().unwrap_or(*number)),
        };
        match &workload.gateway_ports {
            none if none.is_empty() => target,
            // Gateways name the service's port; that of the container they would run in is known to few.
            ports => ports.get(&port.number).or_else(|| ports.get(&target?)).copied(),
        }
    }

    /// The port with this number.
    pub(super) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// Every service.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// A service is the same `Arc` as long as nothing of it changes.
    services: Vec<Arc<Service>>,
    by_host: HashMap<String, usize>,
    /// Positions of those with a wildcard, the most specific first.
    wildcards: Vec<usize>,
}

impl Registry {
    /// The services of a world. `before` is the registry of a world that differs in nothing but workloads: services whose
    /// workloads are the same are taken from it.
    pub(super) fn of(
        world: &World,
        workloads: &Workloads,
        before: Option<Before<'_>>,
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut registry = Self::default();
        let sources = Sources {
            workloads,
            deployments: &Deployments::of(world),
            trust_domain: world.trust_domain(),
            export_to: &world.settings().default_service_export_to,
        };
        let known = |host: &str, namespace: &str| before?.same(host, namespace, workloads);
        for (object, service) in world.services() {
            if let Some(service) =
                known(&full_name(&object.meta.name, object.namespace()), object.namespace())
            {
                registry.push(service);
                continue;
            }
            if service.r#type == ServiceType::ExternalName {
                found.push(object.warning(
                    "spec.type",
                    "ExternalName is not supported yet; this service is not reachable",
                ));
                continue;
            }
            let service = shared(kubernetes_service(object, service, &sources), before);
            registry.add(service, object, "metadata.name", found);
        }
        for (object, entry) in world.service_entries() {
            for (index, host) in entry.hosts.iter().enumerate() {
                if let Some(service) = known(&host.to_ascii_lowercase(), object.namespace()) {
                    registry.push(service);
                    continue;
                }
                let field = format!("spec.hosts[{index}]");
                let service = entry_service(object, entry, host, &field, &sources, found);
                registry.add(shared(service, before), object, &field, found);
            }
        }
        let wild = |at: &usize| registry.services.get(*at).is_some_and(|s| s.host.starts_with('*'));
        let mut wildcards: Vec<usize> = (0..registry.services.len()).filter(wild).collect();
        wildcards
            .sort_by_key(|at| std::cmp::Reverse(registry.services.get(*at).map(|s| specificity(&s.host))));
        registry.wildcards = wildcards;
        registry
    }

    /// Adds a service again that was there before; one that is there already was declared twice then.
    fn push(&mut self, service: Arc<Service>) {
        if !self.by_host.contains_key(&service.host) {
            self.by_host.insert(service.host.clone(), self.services.len());
            self.services.push(service);
        }
    }

    fn add(&mut self, service: Arc<Service>, object: &Object, field: &str, found: &mut Vec<Diagnostic>) {
        if let Some(first) = self.by_host.get(&service.host).and_then(|at| self.services.get(*at)) {
            let message = format!(
                "`{}` is declared already by {}; this declaration is not used",
                service.host, first.provenance
            );
            found.push(object.warning(field, message).help("declare a host once"));
            return;
        }
        self.push(service);
    }

    /// All services with their positions, in the order that decides between them.
    pub(super) fn services(&self) -> impl Iterator<Item = (usize, &Service)> {
        self.services.iter().map(|service| &**service).enumerate()
    }

    /// The service at a position.
    pub(super) fn service(&self, at: usize) -> Option<&Arc<Service>> {
        self.services.get(at)
    }

    /// The service that `host`, a full name, stands for; one below a wildcard is the wildcard's.
    pub(super) fn find(&self, host: &str) -> Option<&Service> {
        self.services.get(self.position(host)?).map(|service| &**service)
    }

    /// The position of that service.
    pub(super) fn position(&self, host: &str) -> Option<usize> {
        let is_covering = |at: &usize| {
            self.services.get(*at).is_some_and(|service| super::visibility::covers(&service.host, host))
        };
        self.exact(host).map(|(at, _)| at).or_else(|| self.wildcards.iter().copied().find(is_covering))
    }

    /// The service that is declared by this very name, with its position.
    pub(super) fn exact(&self, host: &str) -> Option<(usize, &Service)> {
        let at = *self.by_host.get(host)?;
        self.services.get(at).map(|service| (at, &**service))
    }

    /// Namespaces that see what others do not.
    pub(super) fn privileged(&self) -> impl Iterator<Item = &String> {
        self.services.iter().flat_map(|service| service.visibility.namespaces())
    }

    /// The services of `namespace` that have workloads with `labels`.
    pub(super) fn of_workload<'r, 'a>(
        &'r self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'r Service> + use<'r, 'a> {
        let selects =
            move |s: &&Service| s.selector.as_ref().is_some_and(|selector| is_subset(selector, labels));
        let all = self.services.iter().map(|service| &**service);
        all.filter(move |s| s.namespace == namespace).filter(selects)
    }
}

/// A registry that was made before, and the workloads it was made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before<'b> {
    pub(super) registry: &'b Registry,
    pub(super) workloads: &'b Workloads,
}

impl Before<'_> {
    /// The service, if the workloads of its namespace are what they were.
    fn same(&self, host: &str, namespace: &str, workloads: &Workloads) -> Option<Arc<Service>> {
        let (was, is) = (self.workloads.group(namespace), workloads.group(namespace));
        let same = match (was, is) {
            (Some(was), Some(is)) => Arc::ptr_eq(was, is),
            (None, None) => true,
            _ => false,
        };
        let at = self.registry.by_host.get(host).filter(|_| same)?;
        self.registry.services.get(*at).filter(|service| service.namespace == namespace).cloned()
    }
}

/// The service as it was before, if it is equal, else itself.
fn shared(service: Service, before: Option<Before<'_>>) -> Arc<Service> {
    let known = before.and_then(|b| b.registry.services.get(*b.registry.by_host.get(&service.host)?));
    match known.filter(|known| ***known == service) {
        Some(known) => known.clone(),
        None => Arc::new(service),
    }
}

/// Where the workloads of services are looked up.
struct Sources<'w> {
    workloads: &'w Workloads,
    deployments: &'w Deployments,
    trust_domain: &'w str,
    /// Who sees services that do not say so.
    export_to: &'w [String],
}

impl Sources<'_> {
    /// The workloads that a selector finds, and the identities they have or will have.
    fn select(
        &self,
        namespace: &str,
        selector: Option<&BTreeMap<String, String>>,
    ) -> (Vec<Arc<Workload>>, BTreeSet<String>) {
        let Some(selector) = selector else { return (Vec::new(), BTreeSet::new()) };
        let workloads = self.workloads.selected(namespace, selector);
        let accounts = self.deployments.accounts(namespace, selector);
        let running = workloads.iter().map(|w| w.service_account.as_str());
        let identities =
            accounts.into_iter().chain(running).filter_map(|account| self.identity(namespace, account));
        let identities = identities.collect();
        (workloads, identities)
    }

    fn identity(&self, namespace: &str, account: &str) -> Option<String> {
        SpiffeId::new(self.trust_domain, namespace, account).ok().map(|id| id.to_string())
    }
}

fn kubernetes_service(object: &Object, service: &kubernetes::Service, sources: &Sources<'_>) -> Service {
    let namespace = object.namespace();
    let selector = Some(service.selector.clone()).filter(|s| !s.is_empty());
    let (workloads, identities) = sources.select(namespace, selector.as_ref());
    let port = |port: &kubernetes::ServicePort| {
        Some(Port {
            number: port.port,
            name: port.name.clone(),
            protocol: Protocol::of(&port.app_protocol, &port.name, port.port, port.protocol)?,
            target: match &port.target_port {
                Some(IntOrString::Int(number)) => Target::Number(*number),
                Some(IntOrString::String(name)) => Target::Name(name.clone()),
                None => Target::Number(port.port),
            },
        })
    };
    let export_to: Vec<String> = match object.meta.annotations.get("networking.istio.io/exportTo") {
        Some(list) => list.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect(),
        None => Vec::new(),
    };
    Service {
        host: full_name(&object.meta.name, namespace),
        name: object.meta.name.clone(),
        namespace: namespace.to_owned(),
        ports: service.ports.iter().filter_map(port).collect(),
        discovery: Discovery::Known,
        selector,
        workloads,
        in_mesh: true,
        identities,
        subject_alt_names: Vec::new(),
        visibility: Visibility::of(&export_to, sources.export_to, namespace),
        addresses: Vec::new(),
        is_kubernetes: true,
        provenance: provenance(object, "metadata.name"),
    }
}

fn entry_service(
    object: &Object,
    entry: &ServiceEntry,
    host: &str,
    field: &str,
    sources: &Sources<'_>,
    found: &mut Vec<Diagnostic>,
) -> Service {
    let namespace = object.namespace();
    let host = host.to_ascii_lowercase();
    let selector = entry.workload_selector.as_ref().map(|s| s.labels.clone()).filter(|l| !l.is_empty());
    let (mut workloads, mut identities) = sources.select(namespace, selector.as_ref());
    for written in &entry.endpoints {
        if !written.service_account.is_empty() {
            identities.extend(sources.identity(namespace, &written.service_account));
        }
        workloads.push(Arc::new(Workload::of(object, &object.meta.name, written)));
        if written.address.starts_with("unix:") {
            let message = format!(
                "`{}` is left out: sockets in the file system are not supported yet",
                written.address
            );
            found.push(object.warning("spec.endpoints", message).help("write an IP address"));
        }
    }
    let discovery = discovery(object, entry, &host, field, found);
    if matches!(discovery, Discovery::Dns | Discovery::DnsOne) && workloads.is_empty() {
        let itself = api::networking::WorkloadEntry { address: host.clone(), ..Default::default() };
        workloads.push(Arc::new(Workload::of(object, &object.meta.name, &itself)));
    }
    let port = |port: &api::networking::ServicePort| Port {
        number: port.number,
        name: port.name.clone(),
        protocol: Protocol::parse(&port.protocol)
            .or_else(|| Protocol::of("", &port.name, port.number, kubernetes::Transport::Tcp))
            .unwrap_or(Protocol::Tcp),
        target: Target::NameOr(if port.target_port == 0 { port.number } else { port.target_port }),
    };
    Service {
        name: host.clone(),
        host,
        namespace: namespace.to_owned(),
        ports: entry.ports.iter().map(port).collect(),
        discovery,
        selector,
        workloads,
        in_mesh: entry.location == Location::MeshInternal,
        identities,
        subject_alt_names: entry.subject_alt_names.clone(),
        visibility: Visibility::of(&entry.export_to, sources.export_to, namespace),
        addresses: entry.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        is_kubernetes: false,
        provenance: provenance(object, field),
    }
}

fn discovery(
    object: &Object,
    entry: &ServiceEntry,
    host: &str,
    field: &str,
    found: &mut Vec<Diagnostic>,
) -> Discovery {
    match entry.resolution {
        Resolution::Static => Discovery::Known,
        Resolution::Dns => Discovery::Dns,
        // One endpoint is all that can take turns with itself; of several, each is resolved.
        Resolution::DnsRoundRobin if entry.endpoints.len() > 1 => Discovery::Dns,
        Resolution::DnsRoundRobin => Discovery::DnsOne,
        // Requests reach the sidecar by name, not by address, so the name is what says where they go.
        Resolution::None if !host.starts_with('*') => Discovery::Dns,
        Resolution::None | Resolution::DynamicDns => {
            let message = format!(
                "`{host}` cannot be resolved ahead of requests, which is not supported yet; such requests are answered with 503"
            );
            found.push(object.warning(field, message).help("name each host, with `resolution: DNS`"));
            Discovery::None
        }
    }
}

/// Where the field at `path` was written.
pub(super) fn provenance(object: &Object, path: &str) -> Provenance {
    Provenance {
        resource: object.id().to_string().into(),
        file: object.origin.file.clone(),
        line: object.line_of(path),
    }
}
