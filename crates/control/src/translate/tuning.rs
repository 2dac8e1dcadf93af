//! What DestinationRules say that routes and TCP proxies carry: what requests are hashed by, how long connections may be
//! silent, and what their bytes are wrapped in. They are the client's, so this comes last, when a table is made for one.

use super::balancing::hash_policy;
use super::policy::{Client, Policies, Policy};
use super::registry::Registry;
use model::affinity::HashPolicy;
use model::format::Template;
use model::header::HeaderEdits;
use model::listener::Tunnel;
use model::retry::RetryPolicy;
use model::route::{Action, Forward, PathMatch, RouteConfiguration};
use std::sync::Arc;
use std::time::Duration;

/// Looks up what rules say of clusters.
#[derive(Clone, Copy)]
pub(super) struct Tuner<'t> {
    pub(super) registry: &'t Registry,
    pub(super) policies: &'t Policies,
    pub(super) client: Client<'t>,
}

impl Tuner<'_> {
    /// Adds to `table` what is said of the clusters that it names.
    pub(super) fn tune(&self, table: &mut RouteConfiguration) {
        if self.policies.is_silent_of_routes() {
            return;
        }
        for host in &mut table.virtual_hosts {
            for route in &mut host.routes {
                let Action::Forward(forward) = &mut route.action else { continue };
                if route.condition.path == PathMatch::Connect {
                    let idle = self.idle(forward.target.clusters());
                    let forward = Arc::make_mut(forward);
                    forward.idle_timeout = forward.idle_timeout.or(idle);
                } else {
                    self.hash(forward, host.retry.as_ref());
                }
            }
        }
    }

    fn hash(&self, forward: &mut Arc<Forward>, retry: Option<&RetryPolicy>) {
        let mut policies: Vec<HashPolicy> = Vec::new();
        for policy in forward.target.clusters().filter_map(|name| self.policy(name)) {
            let hash = policy.load_balancer.and_then(|balancer| hash_policy(&balancer.consistent_hash?));
            policies.extend(hash.filter(|hash| !policies.contains(hash)));
        }
        if policies.is_empty() {
            return;
        }
        let forward = Arc::make_mut(forward);
        // The same hash leads to the same endpoint; to look for another would be in vain.
        if let Some(retry) = forward.retry.as_ref().or(retry) {
            forward.retry = Some(RetryPolicy { avoid_previous_hosts: false, host_picks: 1, ..retry.clone() });
        }
        forward.hash_policies = policies;
    }

    /// How long connections to the first of these clusters of which anything is said may be silent.
    pub(super) fn idle<'n>(&self, mut clusters: impl Iterator<Item = &'n str>) -> Option<Duration> {
        clusters.find_map(|name| self.policy(name)?.connection_pool?.tcp?.idle_timeout)
    }

    /// How bytes for the first of these clusters of which that is said are wrapped.
    pub(super) fn tunnel<'n>(&self, mut clusters: impl Iterator<Item = &'n str>) -> Option<Tunnel> {
        let written = clusters.find_map(|name| self.policy(name)?.tunnel)?;
        let host = match written.target_host.contains(':') {
            true => format!("[{}]:{}", written.target_host, written.target_port),
            false => format!("{}:{}", written.target_host, written.target_port),
        };
        Some(Tunnel {
            host: Template::parse(&host.replace('%', "%%")).ok()?,
            post_path: (written.protocol == "POST").then(|| "/".to_owned()),
            headers: HeaderEdits::default(),
        })
    }

    /// What is said of the cluster of this name.
    fn policy(&self, cluster: &str) -> Option<Policy> {
        let mut parts = cluster.splitn(4, '|').skip(1);
        let (port, subset, host) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        let chosen = self.policies.choose(self.client, self.registry.find(host)?);
        let subset = match subset {
            "" => None,
            name => Some(self.policies.subsets(&chosen).into_iter().find(|(s, _)| s.name == name)?.0),
        };
        Some(self.policies.policy(&chosen, subset, port).0)
    }
}
