//! From what users wrote to what proxies run: [`translate`] turns a [`World`] into a [`Mesh`], and
//! [`Mesh::resources_for`] says what one proxy is sent.
//!
//! Pure and total: no clock, no I/O (but that the system's authorities are read, once), and nothing a user writes stops the
//! rest. What cannot be done becomes an absent rule or a destination that does not exist, and a [`Diagnostic`]. Encoding and
//! serving are for others.
//!
//! Read on in this order: `registry` (which services there are), `rules` (what VirtualServices say), `policy` (what
//! DestinationRules say), `clusters`, then the four sides: `outbound`, `inbound`, `edge`, `grpc`, and at last `portions`, which
//! keeps what many proxies have in common.

mod portions;

mod captured;
mod captured_routes;
mod edge;
mod grpc;
mod inbound;
mod outbound;

mod auto_passthrough;
mod ingress;

mod gateways;

mod tuning;

mod clusters;
mod connection;

mod balancing;
mod localities;
mod pools;

mod policy;
mod scope;

mod rules;

mod connection_rules;
mod delegates;
mod interventions;

mod access_log;
mod actions;
mod edits;
mod matches;
mod gateway_tls;
mod retries;
mod upstream_tls;

mod captured_addresses;
mod place;
mod shares;

mod registry;

mod authentication;
mod credentials;
mod deployments;
mod on_demand;
mod protocol;
mod template;
mod unsupported;
mod visibility;
mod workload;

use self::actions::Defaults;
use self::authentication::Authentication;
use self::captured_addresses::VirtualAddresses;
use self::clusters::ClusterSettings;
use self::connection::ConnectionSettings;
use self::credentials::Credentials;
use self::deployments::Deployments;
use self::gateways::Gateways;
use self::on_demand::OnDemandSettings;
pub(crate) use self::on_demand::{LeanTables, always_needed};
use self::policy::Policies;
use self::portions::Made;
pub use self::portions::ProxyResources;
pub(crate) use self::portions::{Common, CommonKey, Own, Portion, Slot, Tables};
use self::registry::{Before, Registry};
use self::rules::Rules;
use self::scope::Scopes;
use self::workload::Workloads;
use crate::node::ProxyNode;
use crate::world::World;
use api::local_mesh::GatewayProxy;
use api::mesh_config::{MeshH2UpgradePolicy, OutboundTrafficMode};
use api::{Diagnostic, Object, Spec};
use model::address::AddressRange;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// What runs, ready to be asked for by proxies. Resources that do not depend on who asks are the same `Arc` for all, and
/// those that did not change are the same as in the mesh before.
#[derive(Debug)]
pub struct Mesh {
    rest: Arc<Frame>,
    registry: Registry,
    workloads: Workloads,
    /// What was found wrong; nothing that changes with workloads.
    found: Arc<Vec<Diagnostic>>,
    made: Mutex<Made>,
}

/// What does not depend on workloads: it stays while endpoints come and go.
#[derive(Debug)]
pub struct Frame {
    /// All resources it is made of.
    objects: Vec<Arc<Object>>,
    deployments: Deployments,
    rules: Rules,
    policies: Policies,
    scopes: Scopes,
    gateways: Gateways,
    credentials: Credentials,
    authentication: Authentication,
    defaults: Defaults,
    connections: ConnectionSettings,
    clusters: ClusterSettings,
    virtual_addresses: VirtualAddresses,
    /// What happens to connections that lead to nothing that is declared, where capture brings them.
    unknown_hosts: OutboundTrafficMode,
    /// Gateway proxies by name, for what they do not say themselves.
    gateway_proxies: HashMap<String, GatewayProxy>,
    /// Which sidecars are sent only what they ask for.
    on_demand: OnDemandSettings,
    /// Ranges of addresses by which rules tell clients apart.
    client_subnets: Vec<AddressRange>,
    /// Sets of labels by which rules for routes tell clients apart.
    client_labels: BTreeSet<BTreeMap<String, String>>,
    /// Namespaces whose clients may have other clusters than most, and sets of labels by which clients are told apart.
    distinctions: (BTreeSet<String>, BTreeSet<BTreeMap<String, String>>),
}

impl Deref for Mesh {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.rest
    }
}

/// Translates everything. Diagnostics are sorted by file and line, and do not repeat what `references` tells.
pub fn translate(world: &World) -> (Mesh, Vec<Diagnostic>) {
    translate_after(world, None)
}

/// Translates everything, and takes from `before` what comes to the same. What is had is what [`translate`] gives.
pub fn translate_after(world: &World, before: Option<&Mesh>) -> (Mesh, Vec<Diagnostic>) {
    let is_workload = |object: &&Arc<Object>| matches!(object.spec, Spec::WorkloadEntry(_));
    let objects: Vec<Arc<Object>> = world.objects().iter().filter(|o| !is_workload(o)).cloned().collect();
    let same = |(a, b): (&Arc<Object>, &Arc<Object>)| Arc::ptr_eq(a, b);
    let is_frame =
        |mesh: &&Mesh| mesh.objects.len() == objects.len() && mesh.objects.iter().zip(&objects).all(same);
    let before = before.filter(is_frame);
    let known = before.map(|mesh| Before { registry: &mesh.registry, workloads: &mesh.workloads });
    let mut found = Vec::new();
    let workloads = Workloads::of(world, before.map(|mesh| &mesh.workloads));
    let registry = Registry::of(world, &workloads, known, &mut found);
    if let Some(before) = before {
        let made = Mutex::new(before.made_for(&registry));
        let (rest, found) = (before.rest.clone(), before.found.clone());
        let told = found.to_vec();
        return (Mesh { rest, registry, workloads, found, made }, told);
    }
    let rest = Arc::new(Frame::of(world, objects, &registry, &mut found));
    let mut mesh = Mesh { rest, registry, workloads, found: Arc::default(), made: Mutex::default() };
    unsupported::settings(world, &mut found);
    unsupported::fields(world, &mut found);
    mesh.gateways.conflicts(&mut found);
    gateways::unreachable(&mesh, &mut found);
    gateways::homeless(&mesh, world, &mut found);
    found.sort();
    found.dedup();
    mesh.found = Arc::new(found.clone());
    (mesh, found)
}

impl Frame {
    fn of(
        world: &World,
        objects: Vec<Arc<Object>>,
        registry: &Registry,
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let defaults = defaults(world, found);
        let rules = Rules::of(world, registry, &defaults, found);
        let proxies = world.local_mesh().map(|mesh| mesh.gateways.as_slice()).unwrap_or_default();
        let settings = world.settings();
        let credentials = Credentials::of(world, found);
        upstream_tls::unsupported(world, &credentials, found);
        let policies = Policies::of(world);
        let mut distinctions = policies.distinctions(registry);
        distinctions.0.extend(registry.privileged().cloned());
        Self {
            objects,
            client_subnets: rules.client_subnets(),
            client_labels: rules.client_labels().into_iter().chain(distinctions.1.iter().cloned()).collect(),
            scopes: Scopes::of(world, registry, found),
            deployments: Deployments::of(world),
            rules,
            policies,
            gateways: Gateways::of(world, &credentials, found),
            credentials,
            authentication: Authentication::of(world),
            defaults,
            connections: ConnectionSettings::of(world, found),
            clusters: ClusterSettings {
                trust_domain: world.trust_domain().to_owned(),
                trust_domain_aliases: settings.trust_domain_aliases.clone(),
                upgrades: settings.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade,
                auto_mtls: settings.enable_auto_mtls.unwrap_or(true),
                connect_timeout: settings.connect_timeout.filter(|timeout| !timeout.is_zero()),
                keepalive: settings.tcp_keepalive.clone(),
                locality: settings.locality_lb_setting.clone(),
            },
            virtual_addresses: VirtualAddresses::of(world, registry),
            unknown_hosts: settings
                .outbound_traffic_policy
                .as_ref()
                .map(|policy| policy.mode)
                .unwrap_or_default(),
            gateway_proxies: proxies.iter().map(|proxy| (proxy.name.clone(), proxy.clone())).collect(),
            on_demand: OnDemandSettings::of(world),
            distinctions,
        }
    }
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
    /// Whether the two differ in nothing but workloads, as far as is known.
    pub fn differs_only_in_workloads(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rest, &other.rest)
    }

    /// What `node` is sent.
    pub fn resources_for(&self, node: &ProxyNode) -> ProxyResources {
        self.portion(node, None).resources(&self.routes(node))
    }
}

impl Default for Mesh {
    /// The mesh of an empty world.
    fn default() -> Self {
        translate(&World::default()).0
    }
}
