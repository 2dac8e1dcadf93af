//! What proxies may see: `Sidecar` resources. A proxy whose Sidecar picks a part of the mesh is sent that part and no more.
//!
//! Proxies that see the same have the same [`Scope`], and with it everything that is made and encoded for them. Where a
//! Sidecar makes them listen is for `outbound` and `inbound`.

use super::authentication::is_subset;
use super::protocol::Protocol;
use super::registry::{Port, Registry, Service};
use super::rules::Rules;
use super::visibility::{covers, intersection};
use crate::world::World;
use api::networking::{IstioEgressListener, OutboundTrafficMode, Sidecar};
use api::{Diagnostic, Object};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Every Sidecar, and what they let whom see.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    all: Vec<Written>,
    /// Positions by namespace.
    by_namespace: HashMap<String, Vec<usize>>,
    root_namespace: String,
    /// Positions of services by namespace.
    services: HashMap<String, Vec<usize>>,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    /// By Sidecar, and the namespace of those it is for.
    by_sidecar: HashMap<(usize, String), Option<Arc<Scope>>>,
    /// What is the same is there once.
    known: HashSet<Kin>,
}

/// A Sidecar.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) object: Arc<Object>,
    pub(super) spec: Sidecar,
}

/// What some proxies see of the mesh.
#[derive(Debug)]
pub(super) struct Scope {
    /// What tells it from others: who has it first gives it its name.
    pub(super) name: Arc<str>,
    content: Content,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Content {
    ways: Vec<Way>,
    /// Positions of the services whose clusters are sent, with the ports that are.
    clusters: BTreeMap<usize, Ports>,
    /// What happens to connections that lead to nothing that is declared, where it is said.
    unknown_hosts: Option<OutboundTrafficMode>,
}

/// A way out: an egress listener.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// The port it is for; where absent, all that no other is for.
    pub(super) port: Option<u16>,
    /// The protocol, as written.
    pub(super) protocol: String,
    /// It has a listener of its own.
    pub(super) bind: Option<Bind>,
    /// Its position in the Sidecar.
    pub(super) at: usize,
    services: BTreeSet<usize>,
    rules: BTreeSet<usize>,
}

/// Where a way out listens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Bind {
    /// At this address.
    At(IpAddr),
    /// At the address by which the workload reaches itself.
    Loopback,
}

/// Ports of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ports {
    /// All.
    All,
    /// These.
    These(BTreeSet<u16>),
}

/// A scope, equal to those that let see the same.
#[derive(Debug)]
struct Kin(Arc<Scope>);

impl PartialEq for Kin {
    fn eq(&self, other: &Self) -> bool {
        self.0.content == other.0.content
    }
}

impl Eq for Kin {}

impl Hash for Kin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.content.hash(state);
    }
}

impl Ports {
    fn only(port: Option<u16>) -> Self {
        port.map_or(Self::All, |port| Self::These(BTreeSet::from([port])))
    }

    fn join(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (Self::These(mine), Self::These(more)) => mine.extend(more),
            (mine, Self::All) => *mine = Self::All,
        }
    }

    /// Whether `port` is one of them.
    pub(super) fn include(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}

impl Scopes {
    pub(super) fn of(world: &World, registry: &Registry, found: &mut Vec<Diagnostic>) -> Self {
        let mut scopes = Self { root_namespace: world.root_namespace().to_owned(), ..Self::default() };
        for (object, spec) in world.sidecars() {
            let at = scopes.all.len();
            scopes.by_namespace.entry(object.namespace().to_owned()).or_default().push(at);
            scopes.all.push(Written { object: object.clone(), spec: spec.clone() });
            tell(object, spec, found);
            super::ingress::unsupported(object, spec, found);
        }
        if !scopes.all.is_empty() {
            for (at, service) in registry.services() {
                scopes.services.entry(service.namespace.clone()).or_default().push(at);
            }
        }
        scopes
    }

    /// The Sidecar of the workloads with `labels` in `namespace`: one that selects them, else the namespace's, else the
    /// mesh's.
    pub(super) fn sidecar(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&Written> {
        self.all.get(self.position(namespace, labels)?)
    }

    fn position(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<usize> {
        let of = |namespace: &str| self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let own = of(namespace);
        let root = if namespace == self.root_namespace { &[] } else { of(&self.root_namespace) };
        let selects = |at: &&usize| {
            let wanted = self.all.get(**at).map(Written::labels);
            wanted.is_some_and(|wanted| !wanted.is_empty() && is_subset(wanted, labels))
        };
        let is_for_all = |at: &&usize| self.all.get(**at).is_some_and(|one| one.labels().is_empty());
        let found = own.iter().find(selects).or_else(|| own.iter().chain(root).find(is_for_all));
        found.copied()
    }

    /// What the workloads with `labels` in `namespace` see; `None` for everything that is exported to them.
    pub(super) fn scope(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        registry: &Registry,
        rules: &Rules,
    ) -> Option<Arc<Scope>> {
        let at = self.position(namespace, labels)?;
        let written = self.all.get(at)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (at, namespace.to_owned());
        if let Some(scope) = made.by_sidecar.get(&key) {
            return scope.clone();
        }
        let scope = (!is_about_everything(&written.spec)).then(|| {
            let maker = Maker { scopes: self, namespace, registry, rules };
            let object = &written.object;
            let name = format!("{}/{}@{namespace}", object.namespace(), object.meta.name);
            Kin(Arc::new(Scope { name: name.into(), content: maker.content(&written.spec) }))
        });
        let scope = scope.map(|new| match made.known.get(&new) {
            Some(known) => known.0.clone(),
            None => {
                let scope = new.0.clone();
                made.known.insert(new);
                scope
            }
        });
        made.by_sidecar.insert(key, scope.clone());
        scope
    }
}

impl Written {
    fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.spec.workload_selector.as_ref().map_or(&NONE, |selector| &selector.labels)
    }
}

/// Whether its workloads see everything that is exported to them.
fn is_about_everything(sidecar: &Sidecar) -> bool {
    let everything = |way: &IstioEgressListener| {
        way.port.is_none() && way.bind.is_empty() && way.hosts.iter().any(|host| host == "*/*")
    };
    sidecar.outbound_traffic_policy.is_none()
        && (sidecar.egress.is_empty() || matches!(sidecar.egress.as_slice(), [way] if everything(way)))
}

/// What a Sidecar asks for that cannot be.
fn tell(object: &Object, spec: &Sidecar, found: &mut Vec<Diagnostic>) {
    for (index, way) in spec.egress.iter().enumerate() {
        if !way.bind.is_empty() && way.bind.parse::<IpAddr>().is_err() {
            let message = format!("nothing can listen at `{}`; this listener is left out", way.bind);
            let path = format!("spec.egress[{index}].bind");
            found.push(object.warning(&path, message).help("write an IP address, such as 127.0.0.1"));
        }
    }
}

/// Makes a scope for the workloads of a namespace.
struct Maker<'m> {
    scopes: &'m Scopes,
    namespace: &'m str,
    registry: &'m Registry,
    rules: &'m Rules,
}

impl Maker<'_> {
    fn content(&self, sidecar: &Sidecar) -> Content {
        let unknown_hosts = sidecar.outbound_traffic_policy.as_ref().map(|policy| policy.mode);
        let mut content = Content { ways: Vec::new(), clusters: BTreeMap::new(), unknown_hosts };
        let all = IstioEgressListener { hosts: vec!["*/*".to_owned()], ..Default::default() };
        let written = match sidecar.egress.as_slice() {
            [] => std::slice::from_ref(&all),
            written => written,
        };
        for (way, is_reachable) in written.iter().enumerate().map(|(at, way)| self.way(at, way)) {
            if !is_reachable {
                continue;
            }
            let ports = Ports::only(way.service_port());
            let seen = way.services.iter().map(|at| (*at, ports.clone()));
            for (at, ports) in seen.chain(self.needed(&way)) {
                content.clusters.entry(at).or_insert_with(|| ports.clone()).join(&ports);
            }
            content.ways.push(way);
        }
        content
    }

    /// The way out that is written, and whether anything can listen there.
    fn way(&self, at: usize, written: &IstioEgressListener) -> (Way, bool) {
        let port = written.port.as_ref();
        let bind = match written.bind.as_str() {
            "" if written.capture_mode == "NONE" && port.is_some() => Ok(Some(Bind::Loopback)),
            "" => Ok(None),
            address => address.parse().map(|address| Some(Bind::At(address))),
        };
        let is_reachable = bind.is_ok();
        let mut way = Way {
            port: port.map(|port| port.number).filter(|port| *port != 0),
            protocol: port.map(|port| port.protocol.clone()).unwrap_or_default(),
            bind: bind.unwrap_or_default(),
            at,
            services: BTreeSet::new(),
            rules: BTreeSet::new(),
        };
        for host in written.hosts.iter().filter_map(|host| host.split_once('/')) {
            let namespace = match host.0 {
                "." => Some(self.namespace),
                "*" => None,
                "~" => continue,
                other => Some(other),
            };
            self.add(namespace, &host.1.to_ascii_lowercase(), &mut way);
        }
        (way, is_reachable)
    }

    /// Adds what `namespace/pattern` stands for.
    fn add(&self, namespace: Option<&str>, pattern: &str, way: &mut Way) {
        let wanted = way.service_port();
        let suits = |at: usize, service: &Service| {
            let is_seen = service.visibility.includes(self.namespace)
                && namespace.is_none_or(|namespace| namespace == service.namespace)
                && covers(pattern, &service.host)
                && wanted.is_none_or(|port| service.port(port).is_some());
            is_seen.then_some(at)
        };
        let by_position = |at: &usize| suits(*at, self.registry.service(*at)?);
        if !pattern.starts_with('*') {
            let found = self.registry.exact(pattern);
            way.services.extend(found.and_then(|(at, service)| suits(at, service)));
        } else if let Some(namespace) = namespace {
            let of_namespace = self.scopes.services.get(namespace).into_iter().flatten();
            way.services.extend(of_namespace.filter_map(by_position));
        } else {
            way.services.extend(self.registry.services().filter_map(|(at, service)| suits(at, service)));
        }
        let obeyed = self.rules.all().enumerate().filter(|(_, rules)| {
            namespace.is_none_or(|namespace| namespace == rules.object.namespace())
                && rules.is_for_mesh(self.namespace)
                && rules.hosts.iter().any(|host| intersection(pattern, host).is_some())
        });
        way.rules.extend(obeyed.map(|(at, _)| at));
    }

    /// The services to which the rules of `way` lead: their clusters have to be there.
    fn needed(&self, way: &Way) -> Vec<(usize, Ports)> {
        let mut needed = Vec::new();
        let rules = way.rules.iter().filter_map(|at| self.rules.at(*at));
        for (host, port) in rules.flat_map(|rules| rules.leads_to()) {
            let found = self.registry.position(host).and_then(|at| Some((at, self.registry.service(at)?)));
            let Some((at, service)) = found.filter(|(_, s)| s.visibility.includes(self.namespace)) else {
                continue;
            };
            let port = way.service_port().or(port);
            if port.is_none_or(|port| service.port(port).is_some()) {
                needed.push((at, Ports::only(port)));
            }
        }
        needed
    }
}

impl Way {
    /// The port that services must have to be reached this way; any where it is a proxy for all of them.
    pub(super) fn service_port(&self) -> Option<u16> {
        self.port.filter(|_| !self.protocol.eq_ignore_ascii_case("HTTP_PROXY"))
    }

    /// Whether requests for `port` of the service at `at` go this way.
    pub(super) fn leads_to(&self, at: usize, port: u16) -> bool {
        self.services.contains(&at) && self.service_port().is_none_or(|own| own == port)
    }

    /// Whether requests are told apart that go this way.
    pub(super) fn speaks_http(&self) -> bool {
        self.service_port().is_none() || Protocol::parse(&self.protocol).is_some_and(Protocol::is_http)
    }

    /// Positions of the rules that are obeyed here.
    pub(super) fn rules(&self) -> &BTreeSet<usize> {
        &self.rules
    }
}

impl Scope {
    /// The ways out that have listeners of their own.
    pub(super) fn bound(&self) -> impl Iterator<Item = &Way> {
        self.content.ways.iter().filter(|way| way.bind.is_some())
    }

    /// The way that what is said to the sidecar for `port` goes: the one for the port, else the one for all.
    pub(super) fn way(&self, port: u16) -> Option<&Way> {
        let of = |wanted: Option<u16>| {
            let mut general = self.content.ways.iter().filter(|way| way.bind.is_none());
            general.find(|way| way.service_port() == wanted)
        };
        of(Some(port)).or_else(|| of(None))
    }

    /// Positions of the services whose clusters are sent.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (usize, &Ports)> {
        self.content.clusters.iter().map(|(at, ports)| (*at, ports))
    }

    /// What happens to connections that lead to nothing that is declared, where it says so.
    pub(super) fn unknown_hosts(&self) -> Option<OutboundTrafficMode> {
        self.content.unknown_hosts
    }

    /// Whether requests for this port of a service may be sent.
    pub(super) fn reaches(&self, at: usize, port: &Port) -> bool {
        self.way(port.number).is_some_and(|way| way.leads_to(at, port.number))
    }
}
