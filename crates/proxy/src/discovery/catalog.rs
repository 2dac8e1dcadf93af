//! The resources the proxy was given, with their history: the newest version that was accepted, the one that is in
//! force, and the last one that was refused. Whether a resource is acceptable is `judge`'s, when it comes into force
//! `warming`'s.

use super::raw::Raw;
use model::cluster::Cluster;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::route::VirtualHost;
use model::routing::RouteTable;
use model::tls::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

pub use xds::codec::type_url::{
    CLUSTER, ENDPOINT as ASSIGNMENT, LISTENER, ROUTE as ROUTES, SECRET, VIRTUAL_HOST,
};

/// In which order types are asked for and restored: each after what refers to it, clusters before listeners.
pub(super) const ORDER: [&str; 6] = [CLUSTER, ASSIGNMENT, LISTENER, ROUTES, VIRTUAL_HOST, SECRET];

/// Names kept only to show why they were refused; beyond it the refusal is answered and not kept.
const MAX_REFUSED_NAMES: usize = 1000;

/// One accepted version of a resource.
#[derive(Debug)]
pub struct Version<T> {
    /// What it says.
    pub value: Arc<T>,
    /// As the control plane calls it; empty for static resources.
    pub version: Rc<str>,
    /// The bytes it was decoded from; `None` for what was made here.
    pub raw: Option<Rc<Raw>>,
    /// When it was accepted.
    pub since: Instant,
}

// Derived, it would ask for `T: Clone`.
impl<T> Clone for Version<T> {
    fn clone(&self) -> Self {
        let Self { value, version, raw, since } = self;
        Self { value: value.clone(), version: version.clone(), raw: raw.clone(), since: *since }
    }
}

impl<T> Version<T> {
    /// Whether both are the same delivery.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
    }
}

/// A version that was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The field and what is wrong with it.
    pub reason: String,
    /// As the control plane calls it.
    pub version: String,
    /// When.
    pub at: Instant,
}

/// Where a resource comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A control plane, which may change it.
    #[default]
    Dynamic,
    /// The bootstrap; no control plane can change it.
    Static,
    /// The proxy's own identity.
    Identity,
}

/// What is known under one name.
#[derive(Debug)]
pub struct Entry<T> {
    /// Where it comes from.
    pub origin: Origin,
    /// The newest accepted version; `None` when it was removed or never accepted.
    pub latest: Option<Version<T>>,
    /// The version in force.
    pub active: Option<Version<T>>,
    /// The last refusal, until a version is accepted.
    pub refusal: Option<Box<Refusal>>,
    /// The control plane says that there is no such resource, since then.
    pub gone: Option<Instant>,
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self { origin: Origin::Dynamic, latest: None, active: None, refusal: None, gone: None }
    }
}

impl<T> Entry<T> {
    /// The newest accepted version is in force.
    pub fn is_settled(&self) -> bool {
        match (&self.latest, &self.active) {
            (Some(latest), Some(active)) => latest.is(active),
            (None, None) => true,
            _ => false,
        }
    }
}

/// All resources of one type.
#[derive(Debug)]
pub struct Kind<T> {
    /// By name.
    pub entries: BTreeMap<String, Entry<T>>,
    /// A first answer for this type has come, now or before a restart.
    pub answered: bool,
    /// What the bytes of such resources are like.
    model: Option<Rc<[u8]>>,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), answered: false, model: None }
    }
}

impl<T> Kind<T> {
    /// Makes `version` the newest of its name. What was delivered before and is delivered again stays what it is, so
    /// that nothing is compiled anew for it.
    pub fn accept(&mut self, name: &str, origin: Origin, mut version: Version<T>) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        entry.origin = origin;
        entry.refusal = None;
        entry.gone = None;
        let known = entry.latest.iter().chain(&entry.active);
        let same = known.into_iter().find(|known| known.raw.is_some() && known.raw == version.raw);
        if let Some(same) = same {
            version.value = same.value.clone();
            version.raw = same.raw.clone();
            version.since = same.since;
        }
        if let Some(active) = entry.active.as_mut().filter(|active| active.is(&version)) {
            active.version.clone_from(&version.version);
        }
        entry.latest = Some(version);
    }

    /// Remembers why a version was refused.
    pub fn refuse(&mut self, name: &str, refusal: Refusal) {
        let crowded = self.entries.len() >= MAX_REFUSED_NAMES;
        match self.entries.get_mut(name) {
            Some(entry) => entry.refusal = Some(refusal.into()),
            None if crowded => {}
            None => {
                let entry = Entry { refusal: Some(refusal.into()), ..Entry::default() };
                self.entries.insert(name.to_owned(), entry);
            }
        }
    }

    /// The newest accepted version.
    pub fn latest(&self, name: &str) -> Option<&Version<T>> {
        self.entries.get(name)?.latest.as_ref()
    }

    /// The version in force.
    pub fn active(&self, name: &str) -> Option<&Version<T>> {
        self.entries.get(name)?.active.as_ref()
    }

    /// Whether the control plane has said something usable about it, be it that it does not exist.
    pub fn is_answered(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|e| e.latest.is_some() || e.gone.is_some())
    }

    /// The newest versions and those in force, without telling them apart.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let both = self.entries.values().flat_map(|e| e.latest.iter().chain(&e.active));
        both.map(|version| version.value.as_ref())
    }

    /// One of them.
    pub fn any(&self) -> Option<&Arc<T>> {
        self.entries.values().find_map(|entry| Some(&entry.latest.as_ref()?.value))
    }

    /// Names fixed by the bootstrap or by the identity.
    pub fn is_fixed(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|e| e.origin != Origin::Dynamic)
    }

    /// Names of the bootstrap.
    pub fn is_static(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|e| e.origin == Origin::Static)
    }

    /// Lets the bytes of all take less room.
    fn pack(&mut self) {
        let versions = self.entries.values().flat_map(|entry| entry.latest.iter().chain(&entry.active));
        versions.filter_map(|version| version.raw.as_ref()).for_each(|raw| raw.pack(&mut self.model));
    }

    /// Names of whatever is not in force as it was last accepted.
    pub fn unsettled(&self) -> Vec<String> {
        let open = self.entries.iter().filter(|(_, entry)| !entry.is_settled());
        open.map(|(name, _)| name.clone()).collect()
    }
}

/// Everything the proxy was given.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Listeners by name.
    pub listeners: Kind<Listener>,
    /// Route tables by the name RDS asks for.
    pub routes: Kind<RouteTable>,
    /// Virtual hosts that came by themselves, by the names of their resources: table, slash, and what the server says.
    pub virtual_hosts: Kind<VirtualHost>,
    /// Clusters by name.
    pub clusters: Kind<Cluster>,
    /// Endpoints by EDS name.
    pub assignments: Kind<Assignment>,
    /// Secrets by SDS name.
    pub secrets: Kind<Secret>,
    /// Resolved endpoints of DNS clusters, by cluster name.
    pub resolved: BTreeMap<String, Arc<Assignment>>,
    /// Listeners whose address another one has, kept until it is free.
    pub blocked: BTreeMap<String, Version<Listener>>,
    /// Clusters or listeners changed since it was last looked at what they refer to.
    pub touched: bool,
}

impl Catalog {
    /// Lets the bytes of all resources take less room.
    pub(super) fn pack(&mut self) {
        self.listeners.pack();
        self.routes.pack();
        self.virtual_hosts.pack();
        self.clusters.pack();
        self.assignments.pack();
        // Secrets stay as they are: there are few, and no other keeps a copy of them.
    }
}

/// What is asked for by name, as listeners and clusters tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// EDS names.
    pub(super) assignments: BTreeSet<String>,
    /// RDS names.
    pub(super) routes: BTreeSet<String>,
    /// SDS names.
    pub(super) secrets: BTreeSet<String>,
}
