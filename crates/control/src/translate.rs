//! From what users wrote to what proxies run: [`translate`] turns a [`World`] into a [`Mesh`], and
//! [`Mesh::resources_for`] says what one proxy is sent.
//!
//! Pure and total: no I/O, no clock, and nothing a user writes stops the rest. What cannot be done becomes an absent
//! rule or a destination that does not exist, and a [`Diagnostic`]. Encoding and serving are for others.
//!
//! Read on in this order: `registry` (which services there are), `rules` (what VirtualServices say), `policy` (what
//! DestinationRules say), `clusters`, then the four sides: `outbound`, `inbound`, `edge`, `grpc`.

mod edge;
mod grpc;
mod inbound;
mod outbound;

mod gateways;

mod gateway_tls;

mod clusters;
mod connection;
mod policy;
mod rules;

mod delegates;
mod interventions;

mod access_log;
mod actions;
mod edits;
mod matches;
mod retries;
mod upstream_tls;

mod place;
mod shares;

mod registry;

mod authentication;
mod credentials;
mod deployments;
mod protocol;
mod unsupported;
mod visibility;
mod workload;

use self::actions::Defaults;
use self::authentication::{Authentication, is_subset};
use self::clusters::{ClusterMaker, ClusterSet, ClusterSettings};
use self::connection::ConnectionSettings;
use self::credentials::Credentials;
use self::deployments::Deployments;
use self::edge::EdgeMaker;
use self::gateways::Gateways;
use self::outbound::TableMaker;
use self::policy::{Chosen, Client, Policies};
use self::registry::Registry;
use self::rules::Rules;
use self::workload::Workloads;
use crate::node::{ProxyKind, ProxyNode};
use crate::world::World;
use api::Diagnostic;
use api::local_mesh::GatewayProxy;
use model::cluster::Cluster;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::route::RouteConfiguration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// What runs, ready to be asked for by proxies. Resources that do not depend on who asks are the same `Arc` for all.
#[derive(Debug)]
pub struct Mesh {
    registry: Registry,
    workloads: Workloads,
    deployments: Deployments,
    rules: Rules,
    policies: Policies,
    gateways: Gateways,
    credentials: Credentials,
    authentication: Authentication,
    defaults: Defaults,
    connections: ConnectionSettings,
    clusters: ClusterSettings,
    /// Gateway proxies by name, for what they do not say themselves.
    gateway_proxies: HashMap<String, GatewayProxy>,
    /// Sets of labels by which rules tell clients apart.
    client_labels: BTreeSet<BTreeMap<String, String>>,
    made: Mutex<Made>,
}

/// What was made for somebody already.
#[derive(Debug, Default)]
struct Made {
    /// By service, the rules that count, and whether it is for a gRPC library.
    clusters: HashMap<(usize, Chosen, bool), Arc<ClusterSet>>,
    /// By name and content: endpoints do not depend on who asks, but for subsets that two rules define differently.
    endpoints: HashMap<String, Vec<Arc<Assignment>>>,
    tables: HashMap<TableKey, Vec<Arc<RouteConfiguration>>>,
    grpc_listeners: HashMap<(String, usize), Vec<Arc<Listener>>>,
}

/// What routes depend on.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TableKey {
    kind: ProxyKind,
    namespace: String,
    /// Those of [`Mesh::client_labels`] that the proxy has.
    labels: Vec<BTreeMap<String, String>>,
    /// The Gateways that select it.
    gateways: Vec<usize>,
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

/// Translates everything. Diagnostics are sorted by file and line, and do not repeat what `references` tells.
pub fn translate(world: &World) -> (Mesh, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let workloads = Workloads::of(world);
    let registry = Registry::of(world, &workloads, &mut found);
    let defaults = defaults(world, &mut found);
    let rules = Rules::of(world, &registry, &defaults, &mut found);
    for (object, rule) in world.destination_rules() {
        unsupported::destination_rule(object, rule, &mut found);
    }
    let proxies = world.local_mesh().map(|mesh| mesh.gateways.as_slice()).unwrap_or_default();
    let settings = world.settings();
    let credentials = Credentials::of(world, &mut found);
    let mesh = Mesh {
        client_labels: rules.client_labels(),
        registry,
        workloads,
        deployments: Deployments::of(world),
        rules,
        policies: Policies::of(world),
        gateways: Gateways::of(world, &credentials, &mut found),
        credentials,
        authentication: Authentication::of(world),
        defaults,
        connections: ConnectionSettings::of(world, &mut found),
        clusters: ClusterSettings {
            trust_domain: world.trust_domain().to_owned(),
            auto_mtls: settings.enable_auto_mtls.unwrap_or(true),
            connect_timeout: settings.connect_timeout.filter(|timeout| !timeout.is_zero()),
        },
        gateway_proxies: proxies.iter().map(|proxy| (proxy.name.clone(), proxy.clone())).collect(),
        made: Mutex::default(),
    };
    unsupported::settings(world, &mut found);
    mesh.gateways.conflicts(&mut found);
    gateways::unreachable(&mesh, &mut found);
    gateways::homeless(&mesh, world, &mut found);
    found.sort();
    found.dedup();
    (mesh, found)
}

/// Timeout and retries of rules that have none of their own.
fn defaults(world: &World, found: &mut Vec<Diagnostic>) -> Defaults {
    let settings = world.settings();
    let written = settings.default_http_retry_policy.as_ref().zip(world.local_mesh_object());
    let retry = written.map(|(policy, object)| {
        let mut place = place::Place { object, path: "spec.meshConfig", found };
        retries::retry_policy(policy, "defaultHttpRetryPolicy", &mut place)
    });
    Defaults {
        timeout: settings.default_timeout.filter(|timeout| !timeout.is_zero()),
        retry: retry.unwrap_or_else(retries::default_retry),
    }
}

impl Mesh {
    /// What `node` is sent.
    pub fn resources_for(&self, node: &ProxyNode) -> ProxyResources {
        let client = Client { namespace: &node.namespace, labels: self.labels_of(node) };
        let mut resources = ProxyResources::default();
        self.add_clusters(client, node.kind == ProxyKind::Grpc, &mut resources);
        match node.kind {
            ProxyKind::Sidecar => self.add_sidecar(node, client, &mut resources),
            ProxyKind::Router => self.add_gateway(node, client, &mut resources),
            ProxyKind::Grpc => self.add_grpc(client, &mut resources),
        }
        resources
    }

    /// The labels a proxy says it has, else those that are known of it.
    fn labels_of<'l>(&'l self, node: &'l ProxyNode) -> &'l BTreeMap<String, String> {
        let known = || match node.kind {
            ProxyKind::Router => self.gateway_proxies.get(&node.name).map(|proxy| &proxy.labels),
            _ => self.workloads.at(&node.namespace, node.address?).map(|workload| &workload.labels),
        };
        if node.labels.is_empty() { known().unwrap_or(&node.labels) } else { &node.labels }
    }

    fn add_clusters(&self, client: Client<'_>, grpc: bool, resources: &mut ProxyResources) {
        let maker = ClusterMaker {
            settings: &self.clusters,
            policies: &self.policies,
            authentication: &self.authentication,
            grpc,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Made { clusters, endpoints, .. } = &mut *made;
        for (at, service) in self.registry.services().filter(|(_, s)| s.visibility.includes(client.namespace))
        {
            let chosen = self.policies.choose(client, service);
            let set = clusters.entry((at, chosen.clone(), grpc)).or_insert_with(|| {
                let mut set = maker.of(service, &chosen);
                set.endpoints.iter_mut().for_each(|assignment| share(endpoints, assignment));
                Arc::new(set)
            });
            resources.clusters.extend(set.clusters.iter().cloned());
            resources.endpoints.extend(set.endpoints.iter().cloned());
        }
    }

    fn add_sidecar(&self, node: &ProxyNode, client: Client<'_>, resources: &mut ProxyResources) {
        for port in inbound::ports(self, node, client.labels) {
            if let Some(address) = node.address {
                resources.listeners.push(Arc::new(port.listener(self, address)));
            }
            resources.clusters.push(Arc::new(port.cluster()));
        }
        if let Some(listener) = outbound::listener(node, &self.connections) {
            // A workload that listens on the very port keeps it.
            if resources.listeners.iter().all(|known| known.name != listener.name) {
                resources.listeners.push(Arc::new(listener));
            }
        }
        let key = self.table_key(ProxyKind::Sidecar, client, Vec::new());
        let maker =
            TableMaker { registry: &self.registry, rules: &self.rules, defaults: &self.defaults, client };
        resources.routes = self.tables(key, || vec![maker.table()]);
    }

    fn add_gateway(&self, node: &ProxyNode, client: Client<'_>, resources: &mut ProxyResources) {
        let chosen = self.gateways.selecting(client.labels);
        let servers = self.gateways.servers(&chosen);
        let maker = EdgeMaker { mesh: self, namespace: client.namespace, labels: client.labels, servers };
        let known = self.gateway_proxies.get(&node.name).map(|proxy| &proxy.ports);
        let ports = known.filter(|_| node.ports.is_empty()).unwrap_or(&node.ports);
        resources.listeners.extend(maker.listeners(node, ports).into_iter().map(Arc::new));
        let key = self.table_key(ProxyKind::Router, client, chosen);
        resources.routes = self.tables(key, || maker.tables());
    }

    fn add_grpc(&self, client: Client<'_>, resources: &mut ProxyResources) {
        let key = self.table_key(ProxyKind::Grpc, client, Vec::new());
        let seen = || self.registry.services().filter(|(_, s)| s.visibility.includes(client.namespace));
        let ports = || seen().flat_map(|(_, service)| service.ports.iter().map(move |port| (service, port)));
        resources.routes = self.tables(key, || {
            ports().map(|(service, port)| grpc::table(self, service, port, client)).collect()
        });
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, service) in seen() {
            let listeners =
                made.grpc_listeners.entry((client.namespace.to_owned(), at)).or_insert_with(|| {
                    let of_port = |port| grpc::listeners(service, port, client);
                    service.ports.iter().flat_map(of_port).map(Arc::new).collect()
                });
            resources.listeners.extend(listeners.iter().cloned());
        }
    }

    fn table_key(&self, kind: ProxyKind, client: Client<'_>, gateways: Vec<usize>) -> TableKey {
        let has = |wanted: &&BTreeMap<String, String>| is_subset(wanted, client.labels);
        let labels = self.client_labels.iter().filter(has).cloned().collect();
        TableKey { kind, namespace: client.namespace.to_owned(), labels, gateways }
    }

    fn tables(
        &self,
        key: TableKey,
        make: impl FnOnce() -> Vec<RouteConfiguration>,
    ) -> Vec<Arc<RouteConfiguration>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = made.tables.entry(key).or_insert_with(|| make().into_iter().map(Arc::new).collect());
        tables.clone()
    }
}

/// Replaces an assignment by an equal one that was made before.
fn share(known: &mut HashMap<String, Vec<Arc<Assignment>>>, assignment: &mut Arc<Assignment>) {
    let same_name = known.entry(assignment.cluster.clone()).or_default();
    match same_name.iter().find(|other| *other == assignment) {
        Some(other) => *assignment = other.clone(),
        None => same_name.push(assignment.clone()),
    }
}

impl Default for Mesh {
    /// The mesh of an empty world.
    fn default() -> Self {
        translate(&World::default()).0
    }
}
