//! What the proxy is told to do: the bootstrap's static resources, an ADS stream, DNS and the workload's identity, made
//! into one [`Config`]. Static and dynamic resources take the same way.
//!
//! [`Discovery`] is pure: responses, answers and the time go in, requests and configurations come out. The stream
//! itself is `stream`'s, the file that survives a restart `last_good`'s.

mod catalog;
mod hub;
mod judge;
mod last_good;
mod references;
mod session;
mod start;
mod stream;
mod warming;

pub use catalog::{ASSIGNMENT, CLUSTER, Catalog, Entry, LISTENER, Origin, ROUTES, Refusal, SECRET, Version};
pub use hub::Hub;
pub use last_good::LastGood;
pub use references::{eds_name, is_dns};
pub use session::{Request, Response};
pub use start::add_static;
pub use stream::{Status, Stream, follow};

use crate::snapshot::Config;
use catalog::Wanted;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use identity::workload::WorkloadSecrets;
use judge::Judged;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::tls::{Secret, WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE};
use session::{Delivered, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use warming::Expected;

/// What is asked for over ADS, and what is not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope {
    /// There is an ADS stream.
    pub ads: bool,
    /// It is delta.
    pub delta: bool,
    /// Listeners are asked for.
    pub listeners: bool,
    /// Clusters are asked for.
    pub clusters: bool,
    /// The secrets `default` and `ROOTCA` come from the workload's own identity.
    pub identity: bool,
}

/// How far the proxy is on its way to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Clusters, or the identity, are still awaited.
    Clusters,
    /// Listeners are still awaited.
    Listeners,
    /// The first configuration is complete.
    Complete,
}

/// What a [`Discovery`] wants done.
#[derive(Debug, Default)]
pub struct Output {
    /// The configuration is another one: publish it.
    pub changed: bool,
    /// Requests for the stream, if there is one.
    pub requests: Vec<Request>,
    /// Something that would be written to disk changed.
    pub accepted: bool,
    /// Lines for people.
    pub told: Vec<String>,
}

/// All that was told to the proxy, and what is in force of it.
#[derive(Debug)]
pub struct Discovery {
    scope: Scope,
    catalog: Catalog,
    config: Config,
    session: Session,
    wanted: Wanted,
    next: Option<Instant>,
    complete: bool,
    /// Types that were restored into a session which cannot tell what is gone since.
    unsure: BTreeSet<String>,
    output: Output,
}

impl Discovery {
    /// Nothing is known yet.
    pub fn new(scope: Scope) -> Self {
        let mut session = Session::new(scope);
        for (asked, type_url) in [(scope.clusters, CLUSTER), (scope.listeners, LISTENER)] {
            if asked {
                session.subscribe(type_url, &["*".to_owned()]);
            }
        }
        Self {
            scope,
            catalog: Catalog::default(),
            config: Config::default(),
            session,
            wanted: Wanted::default(),
            next: None,
            complete: false,
            unsure: BTreeSet::new(),
            output: Output::default(),
        }
    }

    /// What there is, with its history.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// When to call [`Discovery::advance`] although nothing has come.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Hands over what has to be done since the last call.
    pub fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// The first requests of a new stream.
    pub fn connected(&mut self) -> Vec<Request> {
        self.session.resume()
    }

    /// Takes a response of the control plane.
    pub fn receive(&mut self, response: Response, now: Instant) {
        let (delivered, answer) = self.take_response(response, now);
        self.output.requests.extend(answer);
        self.conclude(&delivered.type_url, now);
        self.output.accepted = true;
    }

    /// Takes what was in force before a restart. Whatever the control plane changed meanwhile it tells on connecting.
    pub fn restore(&mut self, saved: Vec<DeltaDiscoveryResponse>, now: Instant) {
        for response in saved {
            if self.scope.ads && !self.scope.delta {
                self.unsure.insert(response.type_url.clone());
            }
            let (delivered, _) = self.take_response(Response::Delta(response), now);
            self.conclude(&delivered.type_url, now);
        }
        // A new stream begins with all of these.
        self.output.requests.clear();
    }

    /// Looks again at what was waited for.
    pub fn advance(&mut self, now: Instant) {
        let expected = match (self.scope.clusters, self.catalog.clusters.answered) {
            (false, _) => Expected::Never,
            (true, false) => Expected::All,
            (true, true) => Expected::More,
        };
        let settled = warming::settle(&mut self.catalog, &mut self.config, expected, now);
        self.output.changed |= settled.changed;
        self.next = settled.next;
        if std::mem::take(&mut self.catalog.touched) {
            self.ask();
        }
        self.complete |= self.stage() == Stage::Complete;
    }

    /// DNS answered for a cluster; `None` when it could not. An answer that was there before stays.
    pub fn resolved(&mut self, cluster: &str, assignment: Option<Assignment>, now: Instant) {
        let known = self.catalog.resolved.get(cluster);
        let assignment = match (known, assignment) {
            (Some(_), None) => return,
            (None, None) => Assignment { cluster: cluster.to_owned(), ..Assignment::default() },
            (Some(known), Some(new)) if **known == new => return,
            (_, Some(new)) => new,
        };
        self.catalog.resolved.insert(cluster.to_owned(), Arc::new(assignment));
        self.advance(now);
    }

    /// The workload's identity is this from now on.
    pub fn identify(&mut self, secrets: &WorkloadSecrets, now: Instant) {
        for secret in [&secrets.certificate, &secrets.trust_bundle] {
            self.accept(
                &secret.name,
                Origin::Identity,
                Judged::Secret(Arc::new(secret.clone())),
                "",
                None,
                now,
            );
        }
        self.advance(now);
    }

    /// Clusters whose endpoints are to be resolved.
    pub fn dns_clusters(&self) -> Vec<Arc<model::cluster::Cluster>> {
        let latest = self.catalog.clusters.entries.values().filter_map(|entry| entry.latest.as_ref());
        latest.map(|version| &version.value).filter(|cluster| is_dns(cluster)).cloned().collect()
    }

    /// How far it is. Once complete, it stays so.
    pub fn stage(&self) -> Stage {
        if self.complete {
            return Stage::Complete;
        }
        let catalog = &self.catalog;
        let clusters_open =
            catalog.clusters.entries.values().any(|e| e.latest.is_some() && e.active.is_none());
        let own = [WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE];
        let lacks =
            |name: &str| self.wanted.secrets.contains(name) && !self.config.secrets.contains_key(name);
        let identity_open = self.scope.identity && own.into_iter().any(lacks);
        if (self.scope.clusters && !catalog.clusters.answered) || clusters_open || identity_open {
            return Stage::Clusters;
        }
        let listeners_open =
            catalog.listeners.entries.values().any(|e| e.latest.is_some() && e.active.is_none());
        if (self.scope.listeners && !catalog.listeners.answered) || listeners_open {
            return Stage::Listeners;
        }
        Stage::Complete
    }

    /// Resources as they were accepted from the control plane, in the order in which [`Discovery::restore`] needs them.
    pub fn export(&self) -> Vec<DeltaDiscoveryResponse> {
        session::export(&self.catalog, &self.config.revision)
    }

    fn take_response(&mut self, response: Response, now: Instant) -> (Delivered, Option<Request>) {
        if !response.revision().is_empty() {
            self.config.revision = response.revision().to_owned();
        }
        let type_url = response.type_url().to_owned();
        let is_whole = matches!(response, Response::Whole(_));
        let catalog = &self.catalog;
        let mut taken = match type_url == LISTENER {
            true => addresses_kept(catalog, &response),
            false => BTreeMap::new(),
        };
        let mut blocked = Vec::new();
        let (delivered, answer) = self.session.apply(response, &mut |name, version, any| {
            if is_fixed(catalog, &type_url, name) {
                return Err("a static resource has this name".to_owned());
            }
            let judged = judge::judge(&type_url, name, any);
            let listener = match &judged {
                Ok(Judged::Listener(listener)) => listener.clone(),
                Ok(_) => return judged,
                Err(_) => {
                    // Its version in force keeps its address.
                    let old = catalog.listeners.latest(name).and_then(|version| version.value.address);
                    taken.extend(old.map(|address| (address, name.to_owned())));
                    return judged;
                }
            };
            match claim(&mut taken, name, &listener) {
                None => judged,
                Some(reason) => {
                    let raw = Some(Arc::new(any.clone()));
                    let version = Version { value: listener, version: version.to_owned(), raw, since: now };
                    blocked.push((name.to_owned(), version));
                    Err(reason)
                }
            }
        });
        self.catalog.blocked.extend(blocked);
        for (name, resource) in &delivered.accepted {
            let raw = Some(resource.raw.clone());
            self.accept(name, Origin::Dynamic, resource.judged.clone(), &resource.version, raw, now);
        }
        for (name, version, reason) in &delivered.refused {
            self.refuse(
                &type_url,
                name,
                Refusal { reason: reason.clone(), version: version.clone(), at: now },
            );
        }
        for name in &delivered.removed {
            self.remove(&type_url, name, now);
        }
        if is_whole && self.unsure.remove(&type_url) {
            self.remove_restored(&delivered, now);
        }
        (delivered, answer)
    }

    /// Removes what was there before a restart, and is not in a response that lists all there is.
    fn remove_restored(&mut self, delivered: &Delivered, now: Instant) {
        let named = delivered.accepted.iter().map(|(name, _)| name);
        let named: BTreeSet<&String> = named.chain(delivered.refused.iter().map(|(name, ..)| name)).collect();
        let names: Vec<String> = match delivered.type_url.as_str() {
            LISTENER => self.catalog.listeners.entries.keys().cloned().collect(),
            CLUSTER => self.catalog.clusters.entries.keys().cloned().collect(),
            _ => Vec::new(),
        };
        for name in names.iter().filter(|name| !named.contains(name)) {
            self.remove(&delivered.type_url, name, now);
        }
    }

    /// What follows from a response: new names to ask for, and perhaps a new configuration.
    fn conclude(&mut self, type_url: &str, now: Instant) {
        match type_url {
            LISTENER => {
                self.catalog.listeners.answered = true;
                self.unblock(now);
            }
            CLUSTER => self.catalog.clusters.answered = true,
            _ => {}
        }
        self.advance(now);
    }

    /// Accepts a resource from wherever it comes.
    fn accept(
        &mut self,
        name: &str,
        origin: Origin,
        judged: Judged,
        version: &str,
        raw: Option<Arc<envoy_types::pb::google::protobuf::Any>>,
        now: Instant,
    ) {
        let version = version.to_owned();
        let catalog = &mut self.catalog;
        match judged {
            Judged::Listener(value) => {
                catalog.touched = true;
                catalog.blocked.remove(name);
                catalog.listeners.accept(name, origin, Version { value, version, raw, since: now });
            }
            Judged::Routes(value) => {
                catalog.routes.accept(name, origin, Version { value, version, raw, since: now });
            }
            Judged::Cluster(value) => {
                catalog.touched = true;
                catalog.clusters.accept(name, origin, Version { value, version, raw, since: now });
            }
            Judged::Assignment(value) => {
                catalog.assignments.accept(name, origin, Version { value, version, raw, since: now });
            }
            Judged::Secret(value) => {
                catalog.secrets.accept(name, origin, Version { value, version, raw, since: now });
            }
        }
    }

    fn refuse(&mut self, type_url: &str, name: &str, refusal: Refusal) {
        let kind = type_url.rsplit('.').next().unwrap_or(type_url);
        self.output.told.push(format!("{kind} `{name}` is refused: {}", refusal.reason));
        match type_url {
            LISTENER => self.catalog.listeners.refuse(name, refusal),
            ROUTES => self.catalog.routes.refuse(name, refusal),
            CLUSTER => self.catalog.clusters.refuse(name, refusal),
            ASSIGNMENT => self.catalog.assignments.refuse(name, refusal),
            SECRET => self.catalog.secrets.refuse(name, refusal),
            _ => {}
        }
    }

    fn remove(&mut self, type_url: &str, name: &str, now: Instant) {
        let catalog = &mut self.catalog;
        match type_url {
            LISTENER => {
                catalog.touched = true;
                catalog.blocked.remove(name);
                if !catalog.listeners.is_fixed(name) {
                    let entry = catalog.listeners.entries.get_mut(name);
                    entry.into_iter().for_each(|entry| (entry.latest, entry.refusal) = (None, None));
                }
            }
            CLUSTER => {
                catalog.touched = true;
                if !catalog.clusters.is_fixed(name) {
                    let entry = catalog.clusters.entries.get_mut(name);
                    entry.into_iter().for_each(|entry| {
                        (entry.latest, entry.refusal, entry.gone) = (None, None, Some(now));
                    });
                }
            }
            // These live as long as something asks for them; Envoy keeps them as well. That there is none is an answer.
            ROUTES => catalog.routes.entries.entry(name.to_owned()).or_default().gone = Some(now),
            ASSIGNMENT => catalog.assignments.entries.entry(name.to_owned()).or_default().gone = Some(now),
            SECRET if !catalog.secrets.is_fixed(name) => {
                catalog.secrets.entries.entry(name.to_owned()).or_default().gone = Some(now);
            }
            _ => {}
        }
    }

    /// Asks for names that are wanted now, and stops asking for those that are not.
    fn ask(&mut self) {
        if !self.scope.ads {
            self.wanted = warming::wanted(&self.catalog);
            return;
        }
        let wanted = warming::wanted(&self.catalog);
        let own = [WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE];
        let catalog = &self.catalog;
        let elsewhere = |name: &String| {
            let fixed = catalog.secrets.entries.get(name).is_some_and(|e| e.origin == Origin::Static);
            fixed || (self.scope.identity && own.contains(&name.as_str()))
        };
        let secrets =
            |w: &Wanted| w.secrets.iter().filter(|n| !elsewhere(n)).cloned().collect::<BTreeSet<_>>();
        let changes = [
            (ASSIGNMENT, self.wanted.assignments.clone(), wanted.assignments.clone()),
            (ROUTES, self.wanted.routes.clone(), wanted.routes.clone()),
            (SECRET, secrets(&self.wanted), secrets(&wanted)),
        ];
        for (type_url, old, new) in changes {
            let more: Vec<String> = new.difference(&old).cloned().collect();
            let less: Vec<String> = old.difference(&new).cloned().collect();
            let requests = self.session.change(type_url, &more, &less);
            self.output.requests.extend(requests);
        }
        self.wanted = wanted;
    }

    /// Accepts listeners whose address has become free.
    fn unblock(&mut self, now: Instant) {
        for (name, version) in std::mem::take(&mut self.catalog.blocked) {
            let entries = &self.catalog.listeners.entries;
            let has_address = |listener: &Listener| listener.address == version.value.address;
            let others = entries.iter().filter(|(other, _)| **other != name);
            let taken = others.filter_map(|(_, e)| e.latest.as_ref()).any(|v| has_address(&v.value));
            if taken {
                self.catalog.blocked.insert(name, version);
            } else {
                self.output.told.push(format!("Listener `{name}` is used, now that its address is free"));
                let Version { value, version, raw, .. } = version;
                self.accept(&name, Origin::Dynamic, Judged::Listener(value), &version, raw, now);
            }
        }
    }
}

/// Whether a control plane cannot change a resource of this name.
fn is_fixed(catalog: &Catalog, type_url: &str, name: &str) -> bool {
    match type_url {
        LISTENER => catalog.listeners.is_fixed(name),
        CLUSTER => catalog.clusters.is_fixed(name),
        SECRET => catalog.secrets.is_fixed(name),
        _ => false,
    }
}

/// Addresses of the listeners that a response leaves as they are.
fn addresses_kept(catalog: &Catalog, response: &Response) -> BTreeMap<SocketAddr, String> {
    let changed: BTreeSet<&str> = response.names().collect();
    let whole = matches!(response, Response::Whole(_));
    let kept = catalog.listeners.entries.iter().filter(|(name, entry)| {
        !changed.contains(name.as_str()) && (entry.origin != Origin::Dynamic || !whole)
    });
    let address = |entry: &Entry<Listener>| entry.latest.as_ref().and_then(|version| version.value.address);
    kept.filter_map(|(name, entry)| Some((address(entry)?, name.clone()))).collect()
}

/// Claims the address of a listener, or tells who has it.
fn claim(taken: &mut BTreeMap<SocketAddr, String>, name: &str, listener: &Listener) -> Option<String> {
    // Port 0 is another one each time.
    let address = listener.address.filter(|address| address.port() != 0)?;
    if let Some(other) = taken.get(&address) {
        return Some(format!("address: {address} is taken by the listener `{other}`"));
    }
    taken.insert(address, name.to_owned());
    None
}

/// The secret of this content and name, as the identity gives it.
pub fn is_own_secret(secret: &Secret) -> bool {
    [WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE].contains(&secret.name.as_str())
}

#[cfg(test)]
mod tests;
