//! When an accepted resource comes into force: make before break. A cluster waits for its endpoints, a table for the
//! clusters it newly sends to, a listener for its tables; what they wait for and does not come is not waited for
//! for ever; what is removed goes when nothing in force refers to it any more.
//!
//! Pure: time is an argument, and [`Settled::next`] says when to look again.

use super::catalog::{Catalog, Version, Wanted};
use super::references::{
    asks_for_clusters, clusters_of_host, clusters_of_listener, clusters_of_routes, eds_name, is_dns,
    secrets_of_cluster, secrets_of_listener, tables,
};
use crate::snapshot::Config;
use model::cluster::Cluster;
use model::listener::Listener;
use model::on_demand::{host_name, split_host_name};
use model::route::VirtualHost;
use model::routing::RouteTable;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for endpoints, tables and secrets that were asked for (Envoy's `initial_fetch_timeout`).
pub(super) const DELIVERY: Duration = Duration::from_secs(15);
/// Longest wait for the first answer of DNS.
pub(super) const RESOLUTION: Duration = Duration::from_secs(5);
/// Longest wait for a cluster that a new table names and nobody has heard of.
pub(super) const UNKNOWN_CLUSTER: Duration = Duration::from_millis(500);
/// How long a removed cluster stays for tables that still send to it.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What came of [`settle`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// The configuration in force is another one.
    pub(super) changed: bool,
    /// When something that is waited for is given up.
    pub(super) next: Option<Instant>,
}

/// Whether clusters that nobody has heard of may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// There is no CDS.
    Never,
    /// CDS has not answered yet.
    All,
    /// CDS has answered, and may do so again.
    More,
}

/// Brings into force what is ready, and takes out what is gone.
pub(super) fn settle(
    catalog: &mut Catalog,
    config: &mut Config,
    expected: Expected,
    now: Instant,
) -> Settled {
    let mut turn =
        Turn { catalog, config, expected, now, settled: Settled::default(), stale: BTreeSet::new() };
    turn.secrets();
    turn.assignments();
    turn.clusters();
    turn.virtual_hosts();
    turn.routes();
    turn.listeners();
    turn.drop_listeners();
    turn.drop_unwanted();
    turn.drop_clusters();
    turn.settled
}

/// Names that listeners and clusters ask for, be they in force or about to be.
pub(super) fn wanted(catalog: &Catalog) -> Wanted {
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut wanted = Wanted::default();
    for cluster in catalog.clusters.values() {
        wanted.assignments.extend(eds_name(cluster).map(str::to_owned));
        wanted.secrets.extend(owned(secrets_of_cluster(cluster)));
    }
    for listener in catalog.listeners.values() {
        wanted.routes.extend(tables(listener).map(str::to_owned));
        wanted.secrets.extend(owned(secrets_of_listener(listener)));
    }
    wanted
}

/// The table of this name that is in force, with the virtual hosts that came by themselves. A domain that it has itself
/// stays its own.
fn compose(catalog: &Catalog, name: &str) -> Option<Arc<RouteTable>> {
    let table = &catalog.routes.active(name)?.value;
    if !table.config().asks_for_hosts {
        return Some(table.clone());
    }
    let mut config = table.config().clone();
    let mut taken: BTreeSet<String> =
        config.virtual_hosts.iter().flat_map(|host| &host.domains).cloned().collect();
    let hosts = catalog.virtual_hosts.entries.range(host_name(name, "")..);
    let hosts = hosts.take_while(|(host, _)| host.starts_with(&host_name(name, "")));
    for (host, entry) in hosts {
        let is_its_own = split_host_name(host).is_some_and(|(table, _)| table == name);
        if let Some(version) = entry.active.as_ref().filter(|_| is_its_own) {
            let mut host = VirtualHost::clone(&version.value);
            host.domains.retain(|domain| taken.insert(domain.clone()));
            config.virtual_hosts.push(host);
        }
    }
    // Each was compiled by itself before, and no domain is there twice.
    Some(RouteTable::compile(config).map_or_else(|_| table.clone(), Arc::new))
}

struct Turn<'a> {
    catalog: &'a mut Catalog,
    config: &'a mut Config,
    expected: Expected,
    now: Instant,
    settled: Settled,
    /// Tables whose hosts changed.
    stale: BTreeSet<String>,
}

impl Turn<'_> {
    /// Whether what began `since` is still worth waiting for.
    fn waits(&mut self, since: Instant, bound: Duration) -> bool {
        let until = since + bound;
        let waits = self.now < until;
        if waits {
            self.settled.next = Some(self.settled.next.map_or(until, |next| next.min(until)));
        }
        waits
    }

    fn secrets(&mut self) {
        for name in self.catalog.secrets.unsettled() {
            let Some(entry) = self.catalog.secrets.entries.get_mut(&name) else { continue };
            let Some(latest) = entry.latest.clone() else { continue };
            let same = self.config.secrets.get(&name).is_some_and(|old| **old == *latest.value);
            if !same {
                self.config.secrets.insert(name, latest.value.clone());
                self.config.secrets_revision += 1;
                self.settled.changed = true;
            }
            entry.active = Some(latest);
        }
    }

    fn assignments(&mut self) {
        let mut fresh = BTreeSet::new();
        for name in self.catalog.assignments.unsettled() {
            if let Some(entry) = self.catalog.assignments.entries.get_mut(&name)
                && entry.latest.is_some()
            {
                entry.active = entry.latest.clone();
                fresh.insert(name);
            }
        }
        if fresh.is_empty() {
            return;
        }
        let all = self.config.clusters.values();
        let concerned = all.filter(|c| eds_name(c).is_some_and(|name| fresh.contains(name))).cloned();
        for cluster in concerned.collect::<Vec<_>>() {
            self.assign(&cluster);
        }
    }

    /// Gives a cluster in force the endpoints it has by now.
    fn assign(&mut self, cluster: &Cluster) {
        let found = match eds_name(cluster) {
            Some(name) => self.catalog.assignments.active(name).map(|version| &version.value),
            None if is_dns(cluster) => self.catalog.resolved.get(&cluster.name),
            None => None,
        };
        let changed = match (found, self.config.assignments.get(&cluster.name)) {
            (None, None) => false,
            (Some(new), Some(old)) => !Arc::ptr_eq(new, old) && new != old,
            _ => true,
        };
        if changed {
            match found {
                Some(found) => self.config.assignments.insert(cluster.name.clone(), found.clone()),
                None => self.config.assignments.remove(&cluster.name),
            };
            self.settled.changed = true;
        }
    }

    fn clusters(&mut self) {
        for name in self.catalog.clusters.unsettled() {
            let Some(latest) = self.catalog.clusters.latest(&name).cloned() else { continue };
            if !self.is_cluster_ready(&latest) {
                continue;
            }
            self.config.clusters.insert(name.clone(), latest.value.clone());
            self.catalog.touched = true;
            self.assign(&latest.value);
            self.settled.changed = true;
            if let Some(entry) = self.catalog.clusters.entries.get_mut(&name) {
                entry.active = Some(latest);
            }
        }
        // DNS answers for clusters that are in force already.
        let resolved: Vec<_> =
            self.catalog.resolved.keys().filter_map(|name| self.config.clusters.get(name)).cloned().collect();
        for cluster in resolved.iter().filter(|cluster| is_dns(cluster)) {
            self.assign(cluster);
        }
    }

    fn is_cluster_ready(&mut self, version: &Version<Cluster>) -> bool {
        let cluster = &version.value;
        let has_endpoints = eds_name(cluster).is_none_or(|name| self.catalog.assignments.is_answered(name));
        if !has_endpoints && self.waits(version.since, DELIVERY) {
            return false;
        }
        let is_resolved = !is_dns(cluster) || self.catalog.resolved.contains_key(&cluster.name);
        if !is_resolved && self.waits(version.since, RESOLUTION) {
            return false;
        }
        self.has_secrets(&secrets_of_cluster(cluster), version.since)
    }

    fn has_secrets(&mut self, names: &BTreeSet<&str>, since: Instant) -> bool {
        let secrets = &self.catalog.secrets;
        let all = names.iter().all(|name| secrets.is_answered(name));
        all || !self.waits(since, DELIVERY)
    }

    fn routes(&mut self) {
        for name in self.catalog.routes.unsettled() {
            let Some(latest) = self.catalog.routes.latest(&name).cloned() else { continue };
            let old: BTreeSet<String> = match self.catalog.routes.active(&name) {
                Some(old) => clusters_of_routes(old.value.config()).map(str::to_owned).collect(),
                None => BTreeSet::new(),
            };
            let named: BTreeSet<&str> = clusters_of_routes(latest.value.config()).collect();
            // What the table in force sends to in vain is not worth waiting for.
            let new = named.into_iter().filter(|cluster| !old.contains(*cluster));
            let new = self.without_later_ones(&name, new);
            if !self.has_clusters(&new.iter().map(String::as_str).collect(), latest.since) {
                continue;
            }
            if let Some(entry) = self.catalog.routes.entries.get_mut(&name) {
                entry.active = Some(latest);
            }
            self.stale.insert(name);
        }
        for name in std::mem::take(&mut self.stale) {
            if let Some(table) = compose(self.catalog, &name) {
                self.config.routes.insert(name, table);
                self.settled.changed = true;
            }
        }
    }

    /// Brings virtual hosts into force that came by themselves, and takes out those that are gone.
    fn virtual_hosts(&mut self) {
        for name in self.catalog.virtual_hosts.unsettled() {
            let table = split_host_name(&name).map_or("", |(table, _)| table).to_owned();
            let latest = self.catalog.virtual_hosts.latest(&name).cloned();
            if let Some(latest) = &latest {
                let named = self.without_later_ones(&table, clusters_of_host(&latest.value));
                if !self.has_clusters(&named.iter().map(String::as_str).collect(), latest.since) {
                    continue;
                }
            }
            if let Some(entry) = self.catalog.virtual_hosts.entries.get_mut(&name) {
                entry.active = latest;
            }
            self.stale.insert(table);
        }
        let hosts = &mut self.catalog.virtual_hosts.entries;
        hosts.retain(|_, e| e.latest.is_some() || e.active.is_some() || e.refusal.is_some());
    }

    /// Of clusters that a table sends to, those that do not wait for a request to be asked for.
    fn without_later_ones<'n>(&self, table: &str, names: impl Iterator<Item = &'n str>) -> BTreeSet<String> {
        let is_lazy = self.catalog.listeners.values().any(|listener| asks_for_clusters(listener, table));
        let is_due = |name: &&str| !is_lazy || self.catalog.clusters.latest(name).is_some();
        names.filter(is_due).map(str::to_owned).collect()
    }

    fn has_clusters(&mut self, names: &BTreeSet<&str>, since: Instant) -> bool {
        let missing = |name: &&&str| !self.config.clusters.contains_key(**name);
        let missing: Vec<&str> = names.iter().filter(missing).copied().collect();
        let mut complete = true;
        for name in missing {
            // One that is known is on its way.
            let known = self.catalog.clusters.latest(name).is_some();
            complete &= match (known, self.expected) {
                (true, _) | (false, Expected::All) => !self.waits(since, DELIVERY),
                (false, Expected::More) => !self.waits(since, UNKNOWN_CLUSTER),
                (false, Expected::Never) => true,
            };
        }
        complete
    }

    fn listeners(&mut self) {
        for name in self.catalog.listeners.unsettled() {
            let Some(latest) = self.catalog.listeners.latest(&name).cloned() else { continue };
            if !self.is_listener_ready(&latest) {
                continue;
            }
            self.config.listeners.insert(name.clone(), latest.value.clone());
            self.catalog.touched = true;
            self.settled.changed = true;
            if let Some(entry) = self.catalog.listeners.entries.get_mut(&name) {
                entry.active = Some(latest);
            }
        }
    }

    fn is_listener_ready(&mut self, version: &Version<Listener>) -> bool {
        let listener = &version.value;
        let has_table = |name: &str| {
            let entry = self.catalog.routes.entries.get(name);
            entry.is_some_and(|e| e.active.is_some() || (e.gone.is_some() && e.latest.is_none()))
        };
        let has_tables = tables(listener).all(has_table);
        if !has_tables && self.waits(version.since, DELIVERY) {
            return false;
        }
        self.has_secrets(&secrets_of_listener(listener), version.since)
            && self.has_clusters(&clusters_of_listener(listener), version.since)
    }

    fn drop_listeners(&mut self) {
        for name in self.catalog.listeners.unsettled() {
            if let Some(entry) = self.catalog.listeners.entries.get_mut(&name)
                && entry.latest.is_none()
            {
                entry.active = None;
                self.config.listeners.remove(&name);
                self.catalog.touched = true;
                self.settled.changed = true;
            }
        }
        self.catalog.listeners.entries.retain(|_, e| e.latest.is_some() || e.refusal.is_some());
    }

    /// Tables, endpoints and secrets that nothing asks for any more.
    fn drop_unwanted(&mut self) {
        if !self.catalog.touched {
            return;
        }
        let wanted = wanted(self.catalog);
        self.catalog.assignments.entries.retain(|name, _| wanted.assignments.contains(name));
        let table = |name: &str| split_host_name(name).is_some_and(|(t, _)| wanted.routes.contains(t));
        self.catalog.virtual_hosts.entries.retain(|name, _| table(name));
        let (config, changed) = (&mut *self.config, &mut self.settled.changed);
        self.catalog.routes.entries.retain(|name, _| {
            let keep = wanted.routes.contains(name);
            *changed |= !keep && config.routes.remove(name).is_some();
            keep
        });
        let secrets = &mut self.catalog.secrets;
        let kept = |name: &str, secrets: &super::catalog::Kind<_>| {
            wanted.secrets.contains(name) || secrets.is_fixed(name)
        };
        let dropped: Vec<String> =
            secrets.entries.keys().filter(|name| !kept(name, secrets)).cloned().collect();
        for name in dropped {
            secrets.entries.remove(&name);
            if config.secrets.remove(&name).is_some() {
                config.secrets_revision += 1;
                *changed = true;
            }
        }
    }

    fn drop_clusters(&mut self) {
        let is_leaving = |name: &String| self.catalog.clusters.latest(name).is_none();
        let leaving: Vec<String> = self.catalog.clusters.unsettled().into_iter().filter(is_leaving).collect();
        if !leaving.is_empty() {
            let used = self.clusters_in_use();
            for name in leaving {
                let entry = self.catalog.clusters.entries.get(&name);
                let since = entry.and_then(|entry| entry.gone).unwrap_or(self.now);
                if used.contains(&name) && self.waits(since, LINGER) {
                    continue;
                }
                if let Some(entry) = self.catalog.clusters.entries.get_mut(&name) {
                    entry.active = None;
                }
                self.config.clusters.remove(&name);
                self.catalog.touched = true;
                self.config.assignments.remove(&name);
                self.settled.changed = true;
            }
        }
        let clusters = &mut self.catalog.clusters.entries;
        clusters.retain(|_, e| e.latest.is_some() || e.active.is_some() || e.refusal.is_some());
        self.catalog.resolved.retain(|name, _| clusters.contains_key(name));
    }

    /// Clusters that something in force sends to.
    fn clusters_in_use(&self) -> BTreeSet<String> {
        let tables = self.config.routes.values().flat_map(|table| clusters_of_routes(table.config()));
        let listeners = self.config.listeners.values().flat_map(|listener| clusters_of_listener(listener));
        tables.chain(listeners).map(str::to_owned).collect()
    }
}
