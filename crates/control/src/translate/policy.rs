//! DestinationRules: which of them count for a client and a service, and what they say of one port and subset.
//!
//! Rules of the client's namespace count before those of the service's, and those before the mesh's; in a namespace
//! the most specific host counts, and all rules for that host together: the policy of the first, the subsets of all.

use super::authentication::is_subset;
use super::registry::{Registry, Service, provenance};
use super::visibility::{Visibility, covers, specificity};
use crate::hosts::full_name;
use crate::world::World;
use api::Object;
use api::networking::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, PortTrafficPolicy,
    Subset, TrafficPolicy,
};
use model::provenance::Provenance;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Every DestinationRule.
#[derive(Debug, Default)]
pub(super) struct Policies {
    rules: Vec<Rule>,
    /// Positions by host; those of wildcards are under `*`.
    by_host: HashMap<String, Vec<usize>>,
    root_namespace: String,
}

#[derive(Debug)]
struct Rule {
    host: String,
    namespace: String,
    visibility: Visibility,
    /// Labels of the clients it is for.
    clients: BTreeMap<String, String>,
    spec: DestinationRule,
    object: Arc<Object>,
}

/// Positions of the rules that count for a client and a service; what makes one client's clusters another's.
pub(super) type Chosen = Vec<usize>;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'c> {
    pub(super) namespace: &'c str,
    pub(super) labels: &'c BTreeMap<String, String>,
}

/// What rules say of one port of a service or of a subset of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    pub(super) load_balancer: Option<LoadBalancerSettings>,
    pub(super) connection_pool: Option<ConnectionPoolSettings>,
    pub(super) tls: Option<ClientTlsSettings>,
}

impl Policies {
    pub(super) fn of(world: &World) -> Self {
        let rule = |(object, spec): (&Arc<Object>, &DestinationRule)| Rule {
            host: full_name(&spec.host, object.namespace()),
            namespace: object.namespace().to_owned(),
            visibility: Visibility::of(&spec.export_to, object.namespace()),
            clients: spec.workload_selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
            spec: spec.clone(),
            object: object.clone(),
        };
        let rules: Vec<Rule> = world.destination_rules().map(rule).collect();
        let mut by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, rule) in rules.iter().enumerate() {
            let host = if rule.host.starts_with('*') { "*" } else { &rule.host };
            by_host.entry(host.to_owned()).or_default().push(at);
        }
        Self { rules, by_host, root_namespace: world.root_namespace().to_owned() }
    }

    /// What rules can tell clients apart by: namespaces whose clients may get other clusters than most, and labels.
    pub(super) fn distinctions(
        &self,
        registry: &Registry,
    ) -> (BTreeSet<String>, BTreeSet<BTreeMap<String, String>>) {
        let (mut namespaces, mut labels) = (BTreeSet::new(), BTreeSet::new());
        for rule in &self.rules {
            // Everybody obeys a namespace's rules for its own services, if everybody sees them.
            let service = registry.find(&rule.host).filter(|_| !rule.host.starts_with('*'));
            let is_about_others = service.is_none_or(|service| service.namespace != rule.namespace);
            if is_about_others || rule.has_secrets() || !rule.clients.is_empty() || rule.visibility != Visibility::Everywhere {
                namespaces.insert(rule.namespace.clone());
            }
            namespaces.extend(rule.visibility.namespaces().iter().cloned());
            if !rule.clients.is_empty() {
                labels.insert(rule.clients.clone());
            }
        }
        (namespaces, labels)
    }

    /// The rules that count for `client` and `service`.
    pub(super) fn choose(&self, client: Client<'_>, service: &Service) -> Chosen {
        let namespaces = [client.namespace, &service.namespace, &self.root_namespace];
        namespaces
            .into_iter()
            .map(|namespace| self.in_namespace(namespace, client, service))
            .find(|c| !c.is_empty())
            .unwrap_or_default()
    }

    fn in_namespace(&self, namespace: &str, client: Client<'_>, service: &Service) -> Chosen {
        let suits = |(_, rule): &(usize, &Rule)| {
            rule.namespace == namespace
                && rule.visibility.includes(client.namespace)
                && covers(&rule.host, &service.host)
                && is_subset(&rule.clients, client.labels)
                && (rule.clients.is_empty() || rule.namespace == client.namespace)
        };
        let candidates =
            [service.host.as_str(), "*"].into_iter().filter_map(|host| self.by_host.get(host)).flatten();
        let all = candidates.filter_map(|at| Some((*at, self.rules.get(*at)?)));
        let all: Vec<(usize, &Rule)> = all.filter(suits).collect();
        // A rule for some clients counts before one for all.
        let rank = |rule: &Rule| (specificity(&rule.host), !rule.clients.is_empty());
        let best = all.iter().map(|(_, rule)| rank(rule)).max();
        all.into_iter().filter(|(_, rule)| Some(rank(rule)) == best).map(|(at, _)| at).collect()
    }

    /// The subsets that the chosen rules name, each name once.
    pub(super) fn subsets(&self, chosen: &Chosen) -> Vec<(&Subset, Provenance)> {
        let mut subsets: Vec<(&Subset, Provenance)> = Vec::new();
        for rule in chosen.iter().filter_map(|at| self.rules.get(*at)) {
            for (index, subset) in rule.spec.subsets.iter().enumerate() {
                if subsets.iter().all(|(known, _)| known.name != subset.name) {
                    subsets.push((subset, provenance(&rule.object, &format!("spec.subsets[{index}]"))));
                }
            }
        }
        subsets
    }

    /// What the chosen rules say of `port`, of the service as a whole or of `subset`, and where.
    pub(super) fn policy(
        &self,
        chosen: &Chosen,
        subset: Option<&Subset>,
        port: u16,
    ) -> (Policy, Option<Provenance>) {
        let rules = || chosen.iter().filter_map(|at| self.rules.get(*at));
        let whole = rules().find_map(|rule| Some((rule.spec.traffic_policy.as_ref()?, rule)));
        let mut policy = Policy::default();
        if let Some((traffic, _)) = whole {
            policy.override_with(traffic, port);
        }
        if let Some(traffic) = subset.and_then(|s| s.traffic_policy.as_ref()) {
            policy.override_with(traffic, port);
        }
        (policy, whole.map(|(_, rule)| provenance(&rule.object, "spec.trafficPolicy")))
    }
}

impl Policy {
    /// Blocks that are there replace what was said before; settings of the port replace everything.
    fn override_with(&mut self, traffic: &TrafficPolicy, port: u16) {
        let here = |p: &&PortTrafficPolicy| p.port.as_ref().is_some_and(|selector| selector.number == port);
        if let Some(own) = traffic.port_level_settings.iter().find(here) {
            *self = Self {
                load_balancer: own.load_balancer.clone(),
                connection_pool: own.connection_pool.clone(),
                tls: own.tls.clone(),
            };
            return;
        }
        if traffic.load_balancer.is_some() {
            self.load_balancer.clone_from(&traffic.load_balancer);
        }
        if traffic.connection_pool.is_some() {
            self.connection_pool.clone_from(&traffic.connection_pool);
        }
        if traffic.tls.is_some() {
            self.tls.clone_from(&traffic.tls);
        }
    }
}
