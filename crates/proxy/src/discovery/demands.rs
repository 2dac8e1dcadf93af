//! Clusters and virtual hosts that are asked for by name because a request needs them: who is asked for, what was
//! answered, and which are let go so that their number has a bound.

use super::catalog::{CLUSTER, VIRTUAL_HOST};
use super::references::clusters_of_host;
use super::session::{Delivered, Response};
use super::{Discovery, Scope};
use crate::snapshot::Need;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use model::on_demand::split_host_name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names asked for at the same time, of both types together.
const MOST: usize = 8192;
/// What no request needed for so long is let go.
pub(super) const IDLE: Duration = Duration::from_secs(10 * 60);
/// How the names are kept on disk: as a response of a type that no control plane sends.
const KEPT: &str = "ieum.dev/asked-for/";

/// What is asked for, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Demands {
    asked: BTreeMap<Need, Demand>,
    /// Something was answered since the configuration was last told of it.
    stirred: bool,
}

#[derive(Debug)]
struct Demand {
    since: Instant,
    /// When it was last known to be of use.
    used: Instant,
    answer: Answer,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// None yet.
    Open,
    /// There is no such thing, or it cannot be used.
    Missing,
    /// It came as the resource of this name.
    Came(String),
}

impl Demands {
    fn answer(&mut self, need: Need, answer: Answer) {
        if let Some(demand) = self.asked.get_mut(&need) {
            self.stirred |= demand.answer != answer;
            demand.answer = answer;
        }
    }

    /// So many names, those asked for longest, those without an answer of use first.
    fn oldest(&self, number: usize) -> Vec<Need> {
        let mut all: Vec<(bool, Instant, &Need)> = self
            .asked
            .iter()
            .map(|(need, demand)| (matches!(demand.answer, Answer::Came(_)), demand.since, need))
            .collect();
        all.sort();
        all.into_iter().take(number).map(|(.., need)| need.clone()).collect()
    }
}

fn need(type_url: &str, name: &str) -> Option<Need> {
    match type_url {
        CLUSTER => Some(Need::Cluster(name.to_owned())),
        VIRTUAL_HOST => Some(Need::Host(name.to_owned())),
        _ => None,
    }
}

fn parts(need: &Need) -> (&'static str, &String) {
    match need {
        Need::Cluster(name) => (CLUSTER, name),
        Need::Host(name) => (VIRTUAL_HOST, name),
    }
}

impl Discovery {
    /// Asks for what requests need, unless that is done already.
    pub fn need(&mut self, needs: Vec<Need>, now: Instant) {
        for need in needs {
            let is_known = match &need {
                Need::Cluster(name) => self.catalog.clusters.latest(name).is_some(),
                Need::Host(_) => false,
            };
            if is_known || self.demands.asked.contains_key(&need) {
                continue;
            }
            if self.demands.asked.len() >= MOST {
                for old in self.demands.oldest(MOST / 8) {
                    self.let_go(&old, now);
                }
            }
            self.demand(need, now);
        }
        self.advance(now);
    }

    fn demand(&mut self, need: Need, now: Instant) {
        let (type_url, name) = parts(&need);
        let can_ask = matches!(self.scope, Scope { ads: true, delta: true, .. });
        let answer = match can_ask {
            true => {
                let request = self.session.subscribe(type_url, std::slice::from_ref(name));
                self.output.requests.extend(request);
                Answer::Open
            }
            false => {
                self.output
                    .told
                    .push(format!("`{name}` cannot be asked for: that takes ADS with DELTA_GRPC"));
                Answer::Missing
            }
        };
        self.demands.stirred |= answer != Answer::Open;
        self.demands.asked.insert(need, Demand { since: now, used: now, answer });
    }

    /// Asks no longer for something, and forgets it.
    fn let_go(&mut self, need: &Need, now: Instant) {
        let (type_url, name) = parts(need);
        let demand = self.demands.asked.remove(need);
        self.demands.stirred = true;
        let gone = [name.clone()];
        self.output.requests.extend(self.session.change(type_url, &[], &gone));
        self.remove(type_url, name, now);
        if let Some(Demand { answer: Answer::Came(other), .. }) = demand
            && other != *name
            && !self.demands.asked.values().any(|demand| demand.answer == Answer::Came(other.clone()))
        {
            self.remove(type_url, &other, now);
        }
    }

    /// Lets go what no request has needed for long. `is_used` says whether requests went to a cluster lately.
    pub fn let_idle_go(&mut self, is_used: impl Fn(&str) -> bool, now: Instant) {
        let config = &self.config;
        let mut used: BTreeSet<String> = BTreeSet::new();
        for (need, demand) in &mut self.demands.asked {
            // Clusters come before hosts.
            let is_used = match (need, &demand.answer) {
                (Need::Cluster(name), _) => is_used(name),
                (Need::Host(_), Answer::Came(name)) => {
                    let active = self.catalog.virtual_hosts.active(name);
                    active.is_some_and(|host| clusters_of_host(&host.value).any(|name| used.contains(name)))
                }
                (Need::Host(_), _) => false,
            };
            if is_used {
                demand.used = now;
            }
            if let Need::Cluster(name) = need
                && now < demand.used + IDLE
                && config.clusters.contains_key(name)
            {
                used.insert(name.clone());
            }
        }
        let idle = self.demands.asked.iter().filter(|(_, demand)| now >= demand.used + IDLE);
        let idle: Vec<Need> = idle.map(|(need, _)| need.clone()).collect();
        if idle.is_empty() {
            return;
        }
        idle.iter().for_each(|need| self.let_go(need, now));
        self.advance(now);
    }

    /// Notes what a response says of names that are asked for. `names` are those it calls resources by.
    pub(super) fn note_answers(&mut self, delivered: &Delivered, names: &Names) {
        let type_url = delivered.type_url.as_str();
        if self.demands.asked.is_empty() || need(type_url, "").is_none() {
            return;
        }
        for (name, _) in &delivered.accepted {
            let aliases = names.0.get(name).into_iter().flatten();
            for known in aliases.chain([name]).filter_map(|known| need(type_url, known)) {
                self.demands.answer(known, Answer::Came(name.clone()));
            }
        }
        let refused = delivered.refused.iter().map(|(name, ..)| name);
        for name in refused.chain(&delivered.removed) {
            let is_there = match type_url {
                CLUSTER => self.catalog.clusters.latest(name).is_some(),
                _ => self.catalog.virtual_hosts.latest(name).is_some(),
            };
            let aliases = names.0.get(name).into_iter().flatten();
            for known in aliases.chain([name]).filter(|_| !is_there) {
                if let Some(known) = need(type_url, known) {
                    self.demands.answer(known, Answer::Missing);
                }
            }
        }
    }

    /// Tells the configuration which names need not be waited for: there is nothing, or it is in force.
    pub(super) fn settle_demands(&mut self, settled: bool) {
        if !std::mem::take(&mut self.demands.stirred) && !settled {
            return;
        }
        let is_answered = |(need, demand): &(&Need, &Demand)| match (&demand.answer, need) {
            (Answer::Open, _) => false,
            (Answer::Missing, _) => true,
            (Answer::Came(_), Need::Cluster(_)) => false,
            (Answer::Came(name), Need::Host(_)) => self.catalog.virtual_hosts.active(name).is_some(),
        };
        let answered: BTreeSet<Need> =
            self.demands.asked.iter().filter(is_answered).map(|(need, _)| need.clone()).collect();
        if *self.config.answered != answered {
            self.config.answered = Arc::new(answered);
            self.output.changed = true;
        }
    }

    /// Stops asking for hosts of tables that nothing refers to any more.
    pub(super) fn drop_hosts_without_table(&mut self) {
        let tables = &self.wanted.routes;
        let is_lost = |need: &&Need| match need {
            Need::Host(name) => split_host_name(name).is_none_or(|(table, _)| !tables.contains(table)),
            Need::Cluster(_) => false,
        };
        let lost: Vec<Need> = self.demands.asked.keys().filter(is_lost).cloned().collect();
        for need in lost {
            let (type_url, name) = parts(&need);
            let requests = self.session.change(type_url, &[], std::slice::from_ref(name));
            self.output.requests.extend(requests);
            self.demands.asked.remove(&need);
        }
    }

    /// The names asked for, to be asked for again after a restart.
    pub(super) fn export_demands(&self) -> Vec<DeltaDiscoveryResponse> {
        let of_type = |type_url: &str| {
            let names =
                self.demands.asked.iter().filter(|(_, demand)| matches!(demand.answer, Answer::Came(_)));
            let names = names.map(|(need, _)| parts(need)).filter(|(of, _)| *of == type_url);
            let resources = names.map(|(_, name)| Resource { name: name.clone(), ..Resource::default() });
            let type_url = format!("{KEPT}{type_url}");
            DeltaDiscoveryResponse { type_url, resources: resources.collect(), ..Default::default() }
        };
        let all = [of_type(CLUSTER), of_type(VIRTUAL_HOST)];
        all.into_iter().filter(|kept| !kept.resources.is_empty()).collect()
    }

    /// Adds the names by which virtual hosts were asked for to those they give themselves.
    pub(super) fn add_aliases(&self, all: &mut [DeltaDiscoveryResponse]) {
        let hosts = all.iter_mut().filter(|response| response.type_url == VIRTUAL_HOST);
        for resource in hosts.flat_map(|response| &mut response.resources) {
            let came = Answer::Came(resource.name.clone());
            let known = self.demands.asked.iter().filter(|(_, demand)| demand.answer == came);
            let names = known.filter_map(|(need, _)| match need {
                Need::Host(name) if *name != resource.name => Some(name.clone()),
                _ => None,
            });
            resource.aliases = names.collect();
        }
    }

    /// Asks again for names that were kept. Returns whether `saved` is such names.
    pub(super) fn restore_demands(&mut self, saved: &DeltaDiscoveryResponse, now: Instant) -> bool {
        let Some(type_url) = saved.type_url.strip_prefix(KEPT) else { return false };
        for need in saved.resources.iter().filter_map(|resource| need(type_url, &resource.name)) {
            self.demand(need, now);
        }
        true
    }
}

/// Other names of the resources in a response.
pub(super) struct Names(BTreeMap<String, Vec<String>>);

impl Names {
    pub(super) fn of(response: &Response) -> Self {
        let Response::Delta(response) = response else { return Self(BTreeMap::new()) };
        let named = response.resources.iter().filter(|resource| !resource.aliases.is_empty());
        Self(named.map(|resource| (resource.name.clone(), resource.aliases.clone())).collect())
    }
}
