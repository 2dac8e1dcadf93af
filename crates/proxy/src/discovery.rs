//! What the proxy is told to do: the bootstrap's static resources, an ADS stream, DNS and the workload's identity, made
//! into one [`Config`]. Static and dynamic resources take the same way.
//!
//! [`Discovery`] is pure: responses, answers and the time go in, requests and configurations come out. The stream
//! itself is `stream`'s, the file that survives a restart `last_good`'s.

mod catalog;
mod demands;
mod hub;
mod intake;
mod judge;
mod last_good;
mod raw;
mod references;
mod session;
mod start;
mod stream;
mod warming;

pub use catalog::{
    ASSIGNMENT, CLUSTER, Catalog, Entry, LISTENER, Origin, ROUTES, Refusal, SECRET, VIRTUAL_HOST, Version,
};
pub use hub::Hub;
pub use last_good::LastGood;
pub use raw::Raw;
pub use references::{eds_name, is_dns};
pub use session::{Request, Response};
pub use start::add_static;
pub use stream::{Status, Stream, follow};

use crate::snapshot::Config;
use catalog::Wanted;
use demands::Demands;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use identity::workload::WorkloadSecrets;
use judge::Judged;
use model::endpoint::Assignment;
use model::tls::{Secret, WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE};
use session::Session;
use std::collections::BTreeSet;
use std::rc::Rc;
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
    demands: Demands,
    next: Option<Instant>,
    complete: bool,
    /// Types that were restored into a session which cannot tell what is gone since.
    unsure: BTreeSet<String>,
    /// What was saved is being taken: there is nothing to wait for beyond it.
    restoring: bool,
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
            demands: Demands::default(),
            next: None,
            complete: false,
            unsure: BTreeSet::new(),
            restoring: false,
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
        self.restoring = true;
        for response in saved {
            if self.restore_demands(&response, now) {
                continue;
            }
            if self.scope.ads && !self.scope.delta {
                self.unsure.insert(response.type_url.clone());
            }
            let (delivered, _) = self.take_response(Response::Delta(response), now);
            self.conclude(&delivered.type_url, now);
        }
        self.restoring = false;
        self.advance(now);
        // A new stream begins with all of these.
        self.output.requests.clear();
    }

    /// Looks again at what was waited for.
    pub fn advance(&mut self, now: Instant) {
        let expected = match (self.scope.clusters && !self.restoring, self.catalog.clusters.answered) {
            (false, _) => Expected::Never,
            (true, false) => Expected::All,
            (true, true) => Expected::More,
        };
        let settled = warming::settle(&mut self.catalog, &mut self.config, expected, now);
        self.output.changed |= settled.changed;
        self.settle_demands(settled.changed);
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
                &Rc::from(""),
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

    /// Nothing happens at the moment: what is seldom looked at is put where it takes less room.
    pub fn rest(&mut self) {
        self.catalog.pack();
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
        let mut all = self.export_demands();
        all.extend(session::export(&self.catalog, &self.config.revision));
        self.add_aliases(&mut all);
        all
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
        // What is restored comes one type after the other.
        if !self.restoring {
            self.drop_hosts_without_table();
        }
    }
}

/// The secret of this content and name, as the identity gives it.
pub fn is_own_secret(secret: &Secret) -> bool {
    [WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE].contains(&secret.name.as_str())
}

#[cfg(test)]
mod tests;
