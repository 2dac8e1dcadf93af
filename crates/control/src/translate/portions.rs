//! What proxies are sent, in the parts that many of them have in common: what was made for one is there for the next, and
//! for the mesh that comes after, as far as it did not change.

use super::authentication::is_subset;
use super::captured::{self, CapturedMaker};
use super::clusters::{ClusterMaker, ClusterSet};
use super::connection::sample;
use super::edge::EdgeMaker;
use super::outbound::TableMaker;
use super::policy::{Chosen, Client};
use super::registry::{Port, Registry, Service};
use super::scope::Scope;
use super::tuning::Tuner;
use super::workload::Group;
use super::{Frame, Mesh, auto_passthrough, grpc, inbound, on_demand, outbound};
use crate::node::{ProxyKind, ProxyNode};
use model::address::AddressRange;
use model::cluster::Cluster;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::route::RouteConfiguration;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What was made for somebody already.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// By what they depend on, the clusters that many proxies have in common.
    common: HashMap<CommonKey, Arc<Common>>,
    /// The same of the mesh before, from which services are taken that did not change since.
    common_before: HashMap<CommonKey, Arc<Common>>,
    /// By service, the rules that count, and whether it is for a gRPC library.
    clusters: HashMap<(usize, Chosen, bool), Arc<ClusterSet>>,
    tables: HashMap<TableKey, Arc<Slot>>,
    grpc_listeners: HashMap<(String, usize, u16), Vec<Arc<Listener>>>,
}

/// What clusters depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CommonKey {
    is_grpc: bool,
    /// Only where it makes a difference.
    namespace: Option<String>,
    /// Those of the distinguishing labels that the proxy has.
    labels: Vec<BTreeMap<String, String>>,
    /// Where the proxy is, and its labels, if that makes a difference.
    place: Option<(String, BTreeMap<String, String>)>,
    /// What it sees, where that is not everything.
    scope: Option<Arc<str>>,
}

/// The clusters of services, as many proxies have them in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// Who has them.
    pub(crate) key: CommonKey,
    /// By position of the service.
    pub(crate) sets: Vec<(usize, Arc<ClusterSet>)>,
}

/// The place of tables that some proxies have in common. Tables are large, and as a rule only their encoded form is
/// kept; here they are while somebody else has them.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Weak<Vec<Arc<RouteConfiguration>>>>);

impl Slot {
    fn tables(&self, make: impl FnOnce() -> Vec<RouteConfiguration>) -> Tables {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.upgrade().unwrap_or_else(|| {
            let tables = Arc::new(make().into_iter().map(Arc::new).collect());
            *kept = Arc::downgrade(&tables);
            tables
        })
    }
}

/// The tables that some proxies have in common.
pub(crate) type Tables = Arc<Vec<Arc<RouteConfiguration>>>;

/// What routes depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TableKey {
    kind: ProxyKind,
    namespace: String,
    /// Those of [`Frame::client_labels`] that the proxy has.
    labels: Vec<BTreeMap<String, String>>,
    /// The Gateways that select it.
    gateways: Vec<usize>,
    /// What it sees, where that is not everything.
    scope: Option<Arc<str>>,
    /// Positions of those of [`Frame::client_subnets`] that it is in.
    subnets: Vec<usize>,
    /// Its workload's traffic is captured.
    captured: bool,
}

/// What one proxy is sent, in the parts that it shares with others. Parts that did not change since the mesh before are
/// the same `Arc`.
#[derive(Debug, Clone)]
pub(crate) struct Portion {
    /// Clusters of services and their endpoints.
    pub(crate) common: Arc<Common>,
    /// Stands for the route configurations that listeners name; [`Mesh::routes`] has them.
    pub(crate) routes: Arc<Slot>,
    /// What nobody else has.
    pub(crate) own: Arc<Own>,
}

/// What only one proxy has.
#[derive(Debug)]
pub(crate) struct Own {
    /// Listeners.
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// Clusters.
    pub(crate) clusters: Vec<Arc<Cluster>>,
    /// What it was made from, where that is known: it is made again when that changes.
    basis: Option<(Arc<Frame>, Option<Arc<Group>>)>,
}

/// What one proxy is sent. No two resources of a kind have the same name.
#[derive(Debug, Clone, Default)]
pub struct ProxyResources {
    /// Listeners.
    pub listeners: Vec<Arc<Listener>>,
    /// Route configurations, which listeners name.
    pub routes: Vec<Arc<RouteConfiguration>>,
    /// Clusters.
    pub clusters: Vec<Arc<Cluster>>,
    /// Endpoints, for the clusters that ask for them by name.
    pub endpoints: Vec<Arc<Assignment>>,
}

impl Mesh {
    /// What `node` is sent, in parts. `before` is what it was sent by the mesh before.
    pub(crate) fn portion(&self, node: &ProxyNode, before: Option<&Portion>) -> Portion {
        let (locality, scope) = (self.locality_of(node), self.scope_of(node));
        let client = self.client(node, &locality, scope.as_deref());
        let common = self.common(client, node.kind == ProxyKind::Grpc);
        let own = match node.kind {
            ProxyKind::Sidecar => self.sidecar(node, client, before.map(|b| &b.own)),
            ProxyKind::Router => Arc::new(self.gateway(node, client, &common)),
            ProxyKind::Grpc => Arc::new(self.grpc(client)),
        };
        Portion { common, routes: self.slot(node, client), own }
    }

    /// The route configurations of `node`.
    pub(crate) fn routes(&self, node: &ProxyNode) -> Tables {
        let (locality, scope) = (self.locality_of(node), self.scope_of(node));
        let client = self.client(node, &locality, scope.as_deref());
        self.slot(node, client).tables(|| match node.kind {
            ProxyKind::Sidecar if node.captured => self.captured_routes(client),
            ProxyKind::Sidecar => self.outbound_routes(client),
            ProxyKind::Router => self.edge(client).tables(),
            ProxyKind::Grpc => self.grpc_routes(client),
        })
    }

    /// Whether `node` is sent only what it asks for.
    pub(crate) fn is_on_demand(&self, node: &ProxyNode) -> bool {
        if node.kind != ProxyKind::Sidecar {
            return false;
        }
        let labels = self.labels_of(node);
        let by_pod = || self.deployments.on_demand(&node.namespace, labels);
        node.on_demand.or_else(by_pod).unwrap_or_else(|| self.on_demand.holds(&node.namespace, labels))
    }

    fn client<'c>(&'c self, node: &'c ProxyNode, locality: &'c str, scope: Option<&'c Scope>) -> Client<'c> {
        Client {
            namespace: &node.namespace,
            labels: self.labels_of(node),
            locality,
            scope,
            address: node.address,
        }
    }

    /// What a proxy sees, where that is not everything: gateways have no Sidecar.
    fn scope_of(&self, node: &ProxyNode) -> Option<Arc<Scope>> {
        match node.kind {
            ProxyKind::Router => None,
            ProxyKind::Sidecar | ProxyKind::Grpc => {
                self.scopes.scope(&node.namespace, self.labels_of(node), &self.registry, &self.rules)
            }
        }
    }

    /// The labels a proxy says it has, else those that are known of it.
    fn labels_of<'l>(&'l self, node: &'l ProxyNode) -> &'l BTreeMap<String, String> {
        let known = || match node.kind {
            ProxyKind::Router => self.gateway_proxies.get(&node.name).map(|proxy| &proxy.labels),
            _ => self.workloads.at(&node.namespace, node.address?).map(|workload| &workload.labels),
        };
        if node.labels.is_empty() { known().unwrap_or(&node.labels) } else { &node.labels }
    }

    /// Where a proxy says it is, else where it is known to be; empty where that makes no difference.
    fn locality_of(&self, node: &ProxyNode) -> String {
        if !self.policies.is_about_places() {
            return String::new();
        }
        let known = || Some(self.workloads.at(&node.namespace, node.address?)?.locality.clone());
        Some(node.locality.clone()).filter(|place| !place.is_empty()).or_else(known).unwrap_or_default()
    }

    fn common(&self, client: Client<'_>, is_grpc: bool) -> Arc<Common> {
        let (namespaces, labels) = &self.distinctions;
        let key = CommonKey {
            is_grpc,
            namespace: namespaces.get(client.namespace).cloned(),
            labels: labels.iter().filter(|wanted| is_subset(wanted, client.labels)).cloned().collect(),
            place: (!client.locality.is_empty()).then(|| (client.locality.to_owned(), client.labels.clone())),
            scope: client.scope.map(|scope| scope.name.clone()),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(common) = made.common.get(&key) {
            return common.clone();
        }
        let sets = self.sets(client, is_grpc, &mut made);
        let common = made.common_before.get(&key).filter(|before| {
            let mut pairs = before.sets.iter().zip(&sets);
            before.sets.len() == sets.len() && pairs.all(|((_, was), (_, is))| Arc::ptr_eq(was, is))
        });
        let common = common.cloned().unwrap_or_else(|| Arc::new(Common { key: key.clone(), sets }));
        made.common.insert(key, common.clone());
        common
    }

    /// The clusters of every service that `client` sees.
    fn sets(&self, client: Client<'_>, grpc: bool, made: &mut Made) -> Vec<(usize, Arc<ClusterSet>)> {
        let maker = ClusterMaker {
            settings: &self.clusters,
            policies: &self.policies,
            authentication: &self.authentication,
            credentials: &self.credentials,
            grpc,
        };
        let mut of_service = |at: usize, service: &Service| {
            let key = (at, self.policies.choose(client, service), grpc);
            let set = made.clusters.entry(key).or_insert_with_key(|key| Arc::new(maker.of(service, &key.1)));
            set.clone()
        };
        let Some(scope) = client.scope else {
            let seen = self.registry.services().filter(|(_, s)| s.visibility.includes(client.namespace));
            return seen.map(|(at, service)| (at, of_service(at, service))).collect();
        };
        let seen =
            scope.clusters().filter_map(|(at, ports)| Some((at, self.registry.service(at)?.clone(), ports)));
        seen.map(|(at, service, ports)| (at, ClusterSet::narrowed(&of_service(at, &service), ports)))
            .collect()
    }

    /// What was made already and holds for `registry` too, which differs in nothing but workloads.
    pub(super) fn made_for(&self, registry: &Registry) -> Made {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let maker = |grpc| ClusterMaker {
            settings: &self.clusters,
            policies: &self.policies,
            authentication: &self.authentication,
            credentials: &self.credentials,
            grpc,
        };
        let mut clusters = HashMap::with_capacity(made.clusters.len());
        for (key, set) in &made.clusters {
            let (at, chosen, grpc) = key;
            let set = match (self.registry.service(*at), registry.service(*at)) {
                (Some(was), Some(is)) if Arc::ptr_eq(was, is) => set.clone(),
                (_, Some(is)) => Arc::new(maker(*grpc).of(is, chosen).sharing(set)),
                (_, None) => continue,
            };
            clusters.insert(key.clone(), set);
        }
        Made {
            common: HashMap::new(),
            common_before: made.common.clone(),
            clusters,
            tables: made.tables.clone(),
            grpc_listeners: made.grpc_listeners.clone(),
        }
    }

    fn sidecar(&self, node: &ProxyNode, client: Client<'_>, before: Option<&Arc<Own>>) -> Arc<Own> {
        let group = self.workloads.group(&node.namespace);
        let is_basis = |(rest, was): &(Arc<Frame>, Option<Arc<Group>>)| {
            Arc::ptr_eq(rest, &self.rest) && was.as_ref().map(Arc::as_ptr) == group.map(Arc::as_ptr)
        };
        if let Some(before) = before.filter(|own| own.basis.as_ref().is_some_and(is_basis)) {
            return before.clone();
        }
        let ports = inbound::ports(self, node, client.labels);
        let mut clusters: Vec<Cluster> = ports.iter().map(inbound::InboundPort::cluster).collect();
        let mut listeners = Vec::new();
        if node.captured {
            let other = inbound::any_other(self, node, client.labels);
            listeners.push(captured::inbound(self, &ports, &other));
            listeners.extend(CapturedMaker { mesh: self, client }.outbound());
            clusters.extend(captured::clusters());
        } else {
            listeners.extend(
                node.address.into_iter().flat_map(|at| ports.iter().map(move |port| port.listener(self, at))),
            );
            if let Some(listener) = outbound::listener(node, &self.connections) {
                // A workload that listens on the very port keeps it.
                if listeners.iter().all(|known| known.name != listener.name) {
                    listeners.push(listener);
                }
            }
        }
        for listener in outbound::bound(self, node, client) {
            if listeners.iter().all(|known| known.name != listener.name) {
                listeners.push(listener);
            }
        }
        if let Some(percent) = self.deployments.sampling(&node.namespace, client.labels) {
            listeners.iter_mut().for_each(|listener| sample(listener, percent));
        }
        if self.is_on_demand(node) {
            listeners.iter_mut().for_each(on_demand::ask);
        }
        let (known_listeners, known_clusters) =
            before.map(|own| (&own.listeners[..], &own.clusters[..])).unwrap_or_default();
        Arc::new(Own {
            listeners: shared(listeners, known_listeners),
            clusters: shared(clusters, known_clusters),
            basis: Some((self.rest.clone(), group.cloned())),
        })
    }

    fn outbound_routes(&self, client: Client<'_>) -> Vec<RouteConfiguration> {
        self.table_maker(client).tables()
    }

    fn captured_routes(&self, client: Client<'_>) -> Vec<RouteConfiguration> {
        CapturedMaker { mesh: self, client }.tables(&self.table_maker(client))
    }

    fn table_maker<'m>(&'m self, client: Client<'m>) -> TableMaker<'m> {
        let tuner = Tuner { registry: &self.registry, policies: &self.policies, client };
        TableMaker { registry: &self.registry, rules: &self.rules, defaults: &self.defaults, client, tuner }
    }

    fn edge<'m>(&'m self, client: Client<'m>) -> EdgeMaker<'m> {
        let servers = self.gateways.servers(&self.gateways.selecting(client.labels));
        EdgeMaker { mesh: self, namespace: client.namespace, labels: client.labels, servers }
    }

    fn gateway(&self, node: &ProxyNode, client: Client<'_>, common: &Common) -> Own {
        let known = self.gateway_proxies.get(&node.name).map(|proxy| &proxy.ports);
        let ports = known.filter(|_| node.ports.is_empty()).unwrap_or(&node.ports);
        let edge = self.edge(client);
        let all: Vec<Arc<Cluster>> = match edge.passes_all() {
            true => common.sets.iter().flat_map(|(_, set)| &set.clusters).cloned().collect(),
            false => Vec::new(),
        };
        let listeners = edge.listeners(node, ports, &all).into_iter().map(Arc::new).collect();
        Own { listeners, clusters: auto_passthrough::clusters(&all), basis: None }
    }

    fn grpc_routes(&self, client: Client<'_>) -> Vec<RouteConfiguration> {
        let ports = self.ports_of(client);
        ports.map(|(_, service, port)| grpc::table(self, service, port, client)).collect()
    }

    fn grpc(&self, client: Client<'_>) -> Own {
        let mut own = Own { listeners: Vec::new(), clusters: Vec::new(), basis: None };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, service, port) in self.ports_of(client) {
            let key = (client.namespace.to_owned(), at, port.number);
            let listeners = made.grpc_listeners.entry(key).or_insert_with(|| {
                grpc::listeners(service, port, client).into_iter().map(Arc::new).collect()
            });
            own.listeners.extend(listeners.iter().cloned());
        }
        own
    }

    /// The ports of services that `client` reaches.
    pub(super) fn ports_of<'m>(
        &'m self,
        client: Client<'m>,
    ) -> impl Iterator<Item = (usize, &'m Service, &'m Port)> {
        let seen = self.registry.services().filter(move |(_, s)| s.visibility.includes(client.namespace));
        let ports = seen.flat_map(|(at, service)| service.ports.iter().map(move |port| (at, service, port)));
        ports.filter(move |(at, _, port)| client.scope.is_none_or(|scope| scope.reaches(*at, port)))
    }

    /// The place of a client's tables: the same for clients whose tables are the same.
    fn slot(&self, node: &ProxyNode, client: Client<'_>) -> Arc<Slot> {
        let kind = node.kind;
        let has = |wanted: &&BTreeMap<String, String>| is_subset(wanted, client.labels);
        let is_in = |range: &AddressRange| client.address.is_some_and(|address| range.contains(address));
        let key = TableKey {
            kind,
            namespace: client.namespace.to_owned(),
            labels: self.client_labels.iter().filter(has).cloned().collect(),
            gateways: match kind {
                ProxyKind::Router => self.gateways.selecting(client.labels),
                ProxyKind::Sidecar | ProxyKind::Grpc => Vec::new(),
            },
            scope: client.scope.map(|scope| scope.name.clone()),
            subnets: (0..)
                .zip(&self.client_subnets)
                .filter(|(_, range)| is_in(range))
                .map(|(at, _)| at)
                .collect(),
            captured: node.captured,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.tables.entry(key).or_default().clone()
    }
}

impl Portion {
    /// All of it.
    pub(super) fn resources(&self, routes: &Tables) -> ProxyResources {
        let sets = || self.common.sets.iter().map(|(_, set)| set);
        let clusters = sets().flat_map(|set| &set.clusters).chain(&self.own.clusters);
        ProxyResources {
            listeners: self.own.listeners.clone(),
            routes: routes.to_vec(),
            clusters: clusters.cloned().collect(),
            endpoints: sets().flat_map(|set| &set.endpoints).cloned().collect(),
        }
    }
}

/// Each as it is among `known`, if an equal one is there.
fn shared<T: PartialEq>(made: Vec<T>, known: &[Arc<T>]) -> Vec<Arc<T>> {
    let find = |one: &T| known.iter().find(|known| ***known == *one).cloned();
    made.into_iter().map(|one| find(&one).unwrap_or_else(|| Arc::new(one))).collect()
}
