//! The serving side of one delta ADS stream: requests in, responses out.
//! Transport, authentication and the choice of the resource set are left to the caller.
//! Reference: "xDS REST and gRPC protocol", section "Incremental xDS".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;

use crate::resources::{ResourceSet, VersionedResource};

/// Types in the order in which additions are sent, so that nothing refers to what has not arrived yet.
pub(crate) const MAKE_ORDER: [&str; 5] = [
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
];

/// Unanswered responses remembered per type; a client that answers none of them costs no more than this.
const MAX_UNANSWERED: usize = 64;

/// A response that the client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The type of the refused resources.
    pub type_url: String,
    /// The resources that the refused response carried or removed.
    pub names: Vec<String>,
    /// The client's reason.
    pub message: String,
}

/// A request would take the stream over its bound; the stream should be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooManySubscriptions {
    /// How many names the stream would have held, over all types.
    pub wanted: usize,
    /// How many it may hold.
    pub limit: usize,
}

impl fmt::Display for TooManySubscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream asks for {} names and types, the limit is {}", self.wanted, self.limit)
    }
}

impl std::error::Error for TooManySubscriptions {}

/// What the client was last told about a name.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Version(String),
    Absent,
    /// It may hold something, and is owed an answer.
    Unsure,
}

#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    told: BTreeMap<String, Told>,
    unanswered: BTreeMap<String, Vec<String>>,
}

/// One delta ADS stream.
#[derive(Debug)]
pub struct DeltaStream {
    types: BTreeMap<String, Subscription>,
    rejections: Vec<Rejection>,
    last_nonce: u64,
    limit: usize,
}

impl DeltaStream {
    /// A stream that may hold `limit` names and types together.
    pub fn new(limit: usize) -> Self {
        Self { types: BTreeMap::new(), rejections: Vec::new(), last_nonce: 0, limit }
    }

    /// Takes a request and answers it, if an answer is due. After an error the stream is unchanged.
    pub fn request(
        &mut self,
        request: DeltaDiscoveryRequest,
        set: &ResourceSet,
    ) -> Result<Option<DeltaDiscoveryResponse>, TooManySubscriptions> {
        self.check_limit(&request)?;
        let type_url = request.type_url.clone();
        let first = !self.types.contains_key(&type_url);
        let subscription = self.types.entry(type_url.clone()).or_default();
        // An unknown nonce answers nothing, but a subscription in the same request still counts.
        if let Some(names) = subscription.unanswered.remove(&request.response_nonce)
            && let Some(error) = &request.error_detail
        {
            let rejection = Rejection { type_url: type_url.clone(), names, message: error.message.clone() };
            self.rejections.push(rejection);
        }
        subscription.apply(request, first);
        let (changed, removed) = subscription.due(&type_url, set);
        // A first wildcard is answered even with nothing: clients wait for it before they start.
        if changed.is_empty() && removed.is_empty() && !(first && subscription.wildcard) {
            return Ok(None);
        }
        Ok(Some(self.respond(&type_url, set, changed, removed)))
    }

    /// What a new set changes for this client: additions from clusters to secrets, then removals in reverse.
    pub fn change(&mut self, set: &ResourceSet) -> Vec<DeltaDiscoveryResponse> {
        let mut types: Vec<String> = self.types.keys().cloned().collect();
        types.sort_by_key(|url| MAKE_ORDER.iter().position(|known| known == url).unwrap_or(MAKE_ORDER.len()));
        let mut responses = Vec::new();
        let mut removals = Vec::new();
        for type_url in types {
            let Some(subscription) = self.types.get(&type_url) else { continue };
            let (changed, removed) = subscription.due(&type_url, set);
            if !changed.is_empty() {
                responses.push(self.respond(&type_url, set, changed, Vec::new()));
            }
            if !removed.is_empty() {
                removals.push((type_url, removed));
            }
        }
        for (type_url, removed) in removals.into_iter().rev() {
            responses.push(self.respond(&type_url, set, Vec::new(), removed));
        }
        responses
    }

    /// Hands over the refusals since the last call.
    pub fn take_rejections(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.rejections)
    }

    fn check_limit(&self, request: &DeltaDiscoveryRequest) -> Result<(), TooManySubscriptions> {
        let held: usize = self.types.values().map(|held| 1 + held.names.len()).sum();
        let known = self.types.get(&request.type_url);
        let is_new = |name: &&String| known.is_none_or(|held| !held.names.contains(*name));
        let asked: BTreeSet<_> = request.resource_names_subscribe.iter().filter(is_new).collect();
        let wanted = held + usize::from(known.is_none()) + asked.len();
        if wanted > self.limit {
            return Err(TooManySubscriptions { wanted, limit: self.limit });
        }
        Ok(())
    }

    fn respond(
        &mut self,
        type_url: &str,
        set: &ResourceSet,
        changed: Vec<(String, VersionedResource)>,
        removed: Vec<String>,
    ) -> DeltaDiscoveryResponse {
        self.last_nonce += 1;
        // Fixed width, so that the oldest nonce sorts first.
        let nonce = format!("{:016x}", self.last_nonce);
        if let Some(subscription) = self.types.get_mut(type_url) {
            subscription.sent(&nonce, &changed, &removed);
        }
        let resources = changed.into_iter().map(|(name, resource)| Resource {
            name,
            version: resource.version,
            resource: Some(Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }),
            ..Resource::default()
        });
        DeltaDiscoveryResponse {
            system_version_info: set.version.clone(),
            resources: resources.collect(),
            type_url: type_url.to_owned(),
            removed_resources: removed,
            nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

impl Subscription {
    fn apply(&mut self, request: DeltaDiscoveryRequest, first: bool) {
        if first && request.resource_names_subscribe.is_empty() {
            self.wildcard = true;
        }
        for name in request.resource_names_subscribe {
            if name == "*" {
                self.wildcard = true;
            } else {
                // Asking again for a name means that the client forgot it.
                self.told.remove(&name);
                self.names.insert(name);
            }
        }
        for name in request.resource_names_unsubscribe {
            if name == "*" {
                self.wildcard = false;
            } else if self.names.remove(&name) && self.wildcard {
                // Still covered by the wildcard: the client must hear whether it stays.
                self.told.insert(name, Told::Unsure);
            }
        }
        if first {
            let held = request.initial_resource_versions.into_iter();
            self.told.extend(held.map(|(name, version)| (name, Told::Version(version))));
        }
        let (wildcard, names) = (self.wildcard, &self.names);
        self.told.retain(|name, _| wildcard || names.contains(name));
    }

    fn due(&self, type_url: &str, set: &ResourceSet) -> (Vec<(String, VersionedResource)>, Vec<String>) {
        let is_news = |name: &str, resource: &VersionedResource| {
            (self.wildcard || self.names.contains(name))
                && !matches!(self.told.get(name), Some(Told::Version(version)) if *version == resource.version)
        };
        let changed = set.of_type(type_url).filter(|(name, resource)| is_news(name, resource));
        let changed = changed.map(|(name, resource)| (name.to_owned(), resource.clone())).collect();
        let known: BTreeSet<&String> = self.names.iter().chain(self.told.keys()).collect();
        let is_gone = |name: &&&String| {
            self.told.get(**name) != Some(&Told::Absent) && set.find(type_url, name).is_none()
        };
        let removed = known.iter().filter(is_gone).map(|name| (*name).clone()).collect();
        (changed, removed)
    }

    fn sent(&mut self, nonce: &str, changed: &[(String, VersionedResource)], removed: &[String]) {
        for (name, resource) in changed {
            self.told.insert(name.clone(), Told::Version(resource.version.clone()));
        }
        for name in removed {
            // Only a name that was asked for needs remembering; others are simply gone.
            if self.names.contains(name) {
                self.told.insert(name.clone(), Told::Absent);
            } else {
                self.told.remove(name);
            }
        }
        let names = changed.iter().map(|(name, _)| name).chain(removed).cloned().collect();
        self.unanswered.insert(nonce.to_owned(), names);
        if self.unanswered.len() > MAX_UNANSWERED {
            self.unanswered.pop_first();
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
