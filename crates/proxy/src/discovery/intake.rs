//! Filing what a response brings: accepted, refused with its reason, removed. Which names may be changed at all, and
//! who has an address, is decided here; when what was accepted comes into force, by `warming`.

use super::Discovery;
use super::catalog::{
    ASSIGNMENT, CLUSTER, Catalog, Entry, LISTENER, Origin, ROUTES, Refusal, SECRET, VIRTUAL_HOST, Version,
};
use super::demands::Names;
use super::judge::{self, Judged};
use super::raw::Raw;
use super::session::{Delivered, Request, Response};
use model::cluster::Cluster;
use model::listener::Listener;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

impl Discovery {
    /// Takes a response apart and files what it brings.
    pub(super) fn take_response(&mut self, response: Response, now: Instant) -> (Delivered, Option<Request>) {
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
        let names = Names::of(&response);
        let mut last = catalog.clusters.any().cloned();
        let (delivered, answer) = self.session.apply(response, &mut |name, version, any| {
            if is_fixed(catalog, &type_url, name) {
                return Err("a static resource has this name".to_owned());
            }
            let before = catalog.routes.latest(name).filter(|_| type_url == ROUTES);
            let mut judged = judge::judge(&type_url, name, any, before);
            if let Ok(Judged::Cluster(cluster)) = &mut judged {
                share(cluster, &mut last);
            }
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
                    let raw = Some(Raw::new(LISTENER, &any.value));
                    let version = Version { value: listener, version: version.into(), raw, since: now };
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
        self.note_answers(&delivered, &names);
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

    /// Accepts a resource from wherever it comes.
    pub(super) fn accept(
        &mut self,
        name: &str,
        origin: Origin,
        judged: Judged,
        version: &Rc<str>,
        raw: Option<Rc<Raw>>,
        now: Instant,
    ) {
        let version = version.clone();
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
            Judged::Host(value) => {
                catalog.virtual_hosts.accept(name, origin, Version { value, version, raw, since: now });
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
            VIRTUAL_HOST => self.catalog.virtual_hosts.refuse(name, refusal),
            CLUSTER => self.catalog.clusters.refuse(name, refusal),
            ASSIGNMENT => self.catalog.assignments.refuse(name, refusal),
            SECRET => self.catalog.secrets.refuse(name, refusal),
            _ => {}
        }
    }

    pub(super) fn remove(&mut self, type_url: &str, name: &str, now: Instant) {
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
            VIRTUAL_HOST => {
                let entry = catalog.virtual_hosts.entries.get_mut(name);
                entry.into_iter().for_each(|entry| (entry.latest, entry.refusal) = (None, None));
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

    /// Accepts listeners whose address has become free.
    pub(super) fn unblock(&mut self, now: Instant) {
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

/// What a new cluster has in common with the `last` one is there once.
fn share(cluster: &mut Arc<Cluster>, last: &mut Option<Arc<Cluster>>) {
    if let (Some(new), Some(last)) = (Arc::get_mut(cluster), last.as_deref()) {
        new.share_with(last);
    }
    *last = Some(cluster.clone());
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
pub(super) fn claim(
    taken: &mut BTreeMap<SocketAddr, String>,
    name: &str,
    listener: &Listener,
) -> Option<String> {
    // Port 0 is another one each time.
    let address = listener.address.filter(|address| address.port() != 0)?;
    if let Some(other) = taken.get(&address) {
        return Some(format!("address: {address} is taken by the listener `{other}`"));
    }
    taken.insert(address, name.to_owned());
    None
}
