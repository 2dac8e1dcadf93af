//! DestinationRules: which of them count for a client and a service, and what they say of one port and subset.
//!
//! Rules of the client's namespace count before those of the service's, and those before the mesh's; in a namespace
//! the most specific host counts, and all rules for that host together: the policy of the first, the subsets of all.

use super::authentication::is_subset;
use super::localities::Whereabouts;
use super::registry::{Registry, Service, provenance};
use super::scope::Scope;
use super::visibility::{Visibility, covers, specificity};
use crate::hosts::full_name;
use crate::world::World;
use api::Object;
use api::networking::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, OutlierDetection,
    PortTrafficPolicy, ProxyProtocol, RetryBudget, Subset, TrafficPolicy, TunnelSettings,
};
use model::provenance::Provenance;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Chosen {
    rules: Vec<usize>,
    /// The client is in the namespace of the rules, whose Secrets it may have.
    pub(super) may_have_secrets: bool,
    /// Where the client is, if that makes a difference.
    pub(super) client: Option<Whereabouts>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'c> {
    pub(super) namespace: &'c str,
    pub(super) labels: &'c BTreeMap<String, String>,
    /// `region/zone/subzone`; empty where nobody knows.
    pub(super) locality: &'c str,
    /// Its address, where that is known.
    pub(super) address: Option<IpAddr>,
    /// What it sees, where that is not everything.
    pub(super) scope: Option<&'c Scope>,
}

/// What rules say of one port of a service or of a subset of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    pub(super) load_balancer: Option<LoadBalancerSettings>,
    pub(super) connection_pool: Option<ConnectionPoolSettings>,
    pub(super) outlier_detection: Option<OutlierDetection>,
    pub(super) tls: Option<ClientTlsSettings>,
    pub(super) retry_budget: Option<RetryBudget>,
    pub(super) tunnel: Option<TunnelSettings>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

impl Policies {
    pub(super) fn of(world: &World) -> Self {
        let of_mesh = &world.settings().default_destination_rule_export_to;
        let rule = |(object, spec): (&Arc<Object>, &DestinationRule)| Rule {
            host: full_name(&spec.host, object.namespace()),
            namespace: object.namespace().to_owned(),
            visibility: Visibility::of(&spec.export_to, of_mesh, object.namespace()),
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
            if is_about_others
                || rule.has_secrets()
                || !rule.clients.is_empty()
                || rule.visibility != Visibility::Everywhere
            {
                namespaces.insert(rule.namespace.clone());
            }
            namespaces.extend(rule.visibility.namespaces().iter().cloned());
            if !rule.clients.is_empty() {
                labels.insert(rule.clients.clone());
            }
        }
        (namespaces, labels)
    }

    /// Whether no rule says anything that routes would have to carry.
    pub(super) fn is_silent_of_routes(&self) -> bool {
        let speaks = |balancer: &Option<LoadBalancerSettings>, pool: &Option<ConnectionPoolSettings>| {
            balancer.as_ref().is_some_and(|balancer| balancer.consistent_hash.is_some())
                || pool.as_ref().and_then(|pool| pool.tcp.as_ref()?.idle_timeout).is_some()
        };
        let of_policy = |traffic: &TrafficPolicy| {
            let ports = &traffic.port_level_settings;
            speaks(&traffic.load_balancer, &traffic.connection_pool)
                || ports.iter().any(|port| speaks(&port.load_balancer, &port.connection_pool))
        };
        !self.rules.iter().flat_map(Rule::policies).any(of_policy)
    }

    /// The rules that count for `client` and `service`.
    pub(super) fn choose(&self, client: Client<'_>, service: &Service) -> Chosen {
        let namespaces = [client.namespace, &service.namespace, &self.root_namespace];
        let rules = namespaces
            .into_iter()
            .map(|namespace| self.in_namespace(namespace, client, service))
            .find(|c| !c.is_empty())
            .unwrap_or_default();
        let chosen = || rules.iter().filter_map(|at| self.rules.get(*at));
        let is_local = chosen().any(Rule::is_about_places) && !client.locality.is_empty();
        Chosen {
            may_have_secrets: chosen().any(|rule| rule.has_secrets() && rule.namespace == client.namespace),
            client: is_local
                .then(|| Whereabouts { locality: client.locality.to_owned(), labels: client.labels.clone() }),
            rules,
        }
    }

    /// Whether it makes a difference where clients are.
    pub(super) fn is_about_places(&self) -> bool {
        self.rules.iter().any(Rule::is_about_places)
    }

    /// The namespace of the chosen rules: all are of one.
    pub(super) fn namespace(&self, chosen: &Chosen) -> &str {
        chosen.rules.first().and_then(|at| self.rules.get(*at)).map_or("", |rule| &rule.namespace)
    }

    fn in_namespace(&self, namespace: &str, client: Client<'_>, service: &Service) -> Vec<usize> {
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
        for rule in chosen.rules.iter().filter_map(|at| self.rules.get(*at)) {
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
        let rules = || chosen.rules.iter().filter_map(|at| self.rules.get(*at));
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

impl Rule {
    /// Every policy it writes.
    fn policies(&self) -> impl Iterator<Item = &TrafficPolicy> {
        let subsets = self.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        self.spec.traffic_policy.iter().chain(subsets)
    }

    /// Whether endpoints near a client may be preferred.
    fn is_about_places(&self) -> bool {
        let balances = |lb: &Option<LoadBalancerSettings>| {
            lb.as_ref().is_some_and(|lb| lb.locality_lb_setting.is_some())
        };
        self.policies().any(|policy| {
            policy.outlier_detection.is_some()
                || balances(&policy.load_balancer)
                || policy
                    .port_level_settings
                    .iter()
                    .any(|port| port.outlier_detection.is_some() || balances(&port.load_balancer))
        })
    }

    /// Whether it names Secrets.
    fn has_secrets(&self) -> bool {
        let names =
            |tls: &Option<ClientTlsSettings>| tls.as_ref().is_some_and(|tls| !tls.credential_name.is_empty());
        self.policies().any(|policy| {
            names(&policy.tls) || policy.port_level_settings.iter().any(|port| names(&port.tls))
        })
    }
}

impl Policy {
    /// Blocks that are there replace what was said before; settings of the port replace all blocks that ports have.
    fn override_with(&mut self, traffic: &TrafficPolicy, port: u16) {
        if traffic.retry_budget.is_some() {
            self.retry_budget.clone_from(&traffic.retry_budget);
        }
        if traffic.tunnel.is_some() {
            self.tunnel.clone_from(&traffic.tunnel);
        }
        if traffic.proxy_protocol.is_some() {
            self.proxy_protocol.clone_from(&traffic.proxy_protocol);
        }
        let here = |p: &&PortTrafficPolicy| p.port.as_ref().is_some_and(|selector| selector.number == port);
        if let Some(own) = traffic.port_level_settings.iter().find(here) {
            self.load_balancer.clone_from(&own.load_balancer);
            self.connection_pool.clone_from(&own.connection_pool);
            self.outlier_detection.clone_from(&own.outlier_detection);
            self.tls.clone_from(&own.tls);
            return;
        }
        if traffic.load_balancer.is_some() {
            self.load_balancer.clone_from(&traffic.load_balancer);
        }
        if traffic.connection_pool.is_some() {
            self.connection_pool.clone_from(&traffic.connection_pool);
        }
        if traffic.outlier_detection.is_some() {
            self.outlier_detection.clone_from(&traffic.outlier_detection);
        }
        if traffic.tls.is_some() {
            self.tls.clone_from(&traffic.tls);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::networking::PortSelector;

    #[test]
    fn settings_of_a_port_inherit_no_block_but_what_ports_cannot_say_holds_for_all_of_them() {
        let pool = ConnectionPoolSettings::default();
        let port = PortTrafficPolicy {
            port: Some(PortSelector { number: 80 }),
            outlier_detection: Some(OutlierDetection::default()),
            ..PortTrafficPolicy::default()
        };
        let traffic = TrafficPolicy {
            connection_pool: Some(pool),
            retry_budget: Some(RetryBudget::default()),
            proxy_protocol: Some(ProxyProtocol::default()),
            port_level_settings: vec![port],
            ..TrafficPolicy::default()
        };
        let of = |port| {
            let mut policy = Policy::default();
            policy.override_with(&traffic, port);
            policy
        };
        let (own, whole) = (of(80), of(81));
        assert!(own.connection_pool.is_none() && own.outlier_detection.is_some());
        assert!(whole.connection_pool.is_some() && whole.outlier_detection.is_none());
        assert!(own.retry_budget.is_some() && own.proxy_protocol.is_some());
    }

    #[test]
    fn settings_of_a_subset_override_by_block() {
        let mut policy = Policy::default();
        let whole = TrafficPolicy {
            connection_pool: Some(ConnectionPoolSettings::default()),
            outlier_detection: Some(OutlierDetection::default()),
            ..TrafficPolicy::default()
        };
        policy.override_with(&whole, 80);
        let errors = OutlierDetection { consecutive_5xx_errors: Some(7), ..OutlierDetection::default() };
        let subset = TrafficPolicy { outlier_detection: Some(errors.clone()), ..TrafficPolicy::default() };
        policy.override_with(&subset, 80);
        assert!(policy.connection_pool.is_some());
        assert_eq!(policy.outlier_detection, Some(errors));
    }
}
