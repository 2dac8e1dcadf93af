//! The serving side of one delta ADS stream: requests in, responses out.
//! Transport, authentication and the choice of the resource set are left to the caller.
//!
//! What the client knows is a few shared layers and the names it asks for; only the names that differ between layers are
//! looked at when they change.
//! Reference: "xDS REST and gRPC protocol", section "Incremental xDS".

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

pub use crate::delta_response::DeltaResponse;
use crate::resources::{self, Layer, MAX_PIECE, Names, Piece, ResourceSet};

/// Types in the order in which additions are sent, so that nothing refers to what has not arrived yet.
pub(crate) const MAKE_ORDER: [&str; 6] = [
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.config.route.v3.VirtualHost",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
];

/// Unanswered responses remembered per type; a client that answers none of them costs no more than this.
const MAX_UNANSWERED: usize = 256;

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

/// Names that a response carried or removed, until it is answered.
#[derive(Debug)]
struct Unanswered {
    nonce: String,
    changed: Vec<Names>,
    removed: Vec<String>,
}

impl Unanswered {
    fn names(self) -> Vec<String> {
        let changed = self.changed.iter().flat_map(|names| names.iter()).map(|name| (**name).to_owned());
        changed.chain(self.removed).collect()
    }
}

#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    /// In order; shared where they are all there are.
    names: Names,
    /// What the client was told, as far as it asks for it.
    told: Vec<Arc<Layer>>,
    unanswered: VecDeque<Unanswered>,
}

/// What is to be told.
#[derive(Default)]
struct News {
    changed: Vec<Piece>,
    removed: Vec<String>,
}

/// One delta ADS stream.
#[derive(Debug)]
pub struct DeltaStream {
    types: BTreeMap<String, Subscription>,
    rejections: Vec<Rejection>,
    last_nonce: u64,
    limit: usize,
    repeats_endpoints: bool,
}

impl DeltaStream {
    /// A stream that may hold `limit` names and types together.
    pub fn new(limit: usize) -> Self {
        Self {
            types: BTreeMap::new(),
            rejections: Vec::new(),
            last_nonce: 0,
            limit,
            repeats_endpoints: false,
        }
    }

    /// From now on endpoints are sent once more whenever their cluster has changed. Envoy replaces such a cluster by one
    /// that waits for its endpoints, but does not ask again for what it has asked for before.
    pub fn repeat_endpoints(&mut self) {
        self.repeats_endpoints = true;
    }

    /// Takes a request and answers it, if an answer is due, in several responses where it is long. After an error the
    /// stream is unchanged.
    pub fn request(
        &mut self,
        request: DeltaDiscoveryRequest,
        set: &ResourceSet,
    ) -> Result<Vec<DeltaResponse>, TooManySubscriptions> {
        self.check_limit(&request)?;
        let type_url = request.type_url.clone();
        let first = !self.types.contains_key(&type_url);
        let subscription = self.types.entry(type_url.clone()).or_default();
        // An unknown nonce answers nothing, but a subscription in the same request still counts.
        if let Some(answered) = subscription.take_unanswered(&request.response_nonce)
            && let Some(error) = &request.error_detail
        {
            let rejection = Rejection {
                type_url: type_url.clone(),
                names: answered.names(),
                message: error.message.clone(),
            };
            self.rejections.push(rejection);
        }
        let layers = set.layers(&type_url);
        let news = subscription.apply(request, first, layers);
        // A first wildcard is answered even with nothing: clients wait for it before they start.
        if news.is_empty() && !(first && subscription.wildcard) {
            return Ok(Vec::new());
        }
        Ok(self.respond(&type_url, set, news))
    }

    /// What a new set changes for this client: additions from clusters to secrets, then removals in reverse.
    pub fn change(&mut self, set: &ResourceSet) -> Vec<DeltaResponse> {
        let is_behind = |(type_url, subscription): &(&String, &mut Subscription)| {
            let layers = set.layers(type_url);
            let same = |(a, b): (&Arc<Layer>, &Arc<Layer>)| Arc::ptr_eq(a, b);
            layers.len() != subscription.told.len() || !layers.iter().zip(&subscription.told).all(same)
        };
        let behind = self.types.iter_mut().filter(is_behind);
        let mut all: Vec<(String, News)> = behind
            .map(|(type_url, subscription)| (type_url.clone(), subscription.follow(set.layers(type_url))))
            .collect();
        if self.repeats_endpoints {
            self.add_endpoints(&mut all, set);
        }
        all.sort_by_key(|(url, _)| {
            MAKE_ORDER.iter().position(|known| known == url).unwrap_or(MAKE_ORDER.len())
        });
        let mut responses = Vec::new();
        let mut removals = Vec::new();
        for (type_url, mut news) in all {
            let removed = std::mem::take(&mut news.removed);
            if !news.is_empty() {
                responses.extend(self.respond(&type_url, set, news));
            }
            if !removed.is_empty() {
                removals.push((type_url, News { removed, ..News::default() }));
            }
        }
        for (type_url, news) in removals.into_iter().rev() {
            responses.extend(self.respond(&type_url, set, news));
        }
        responses
    }

    /// Hands over the refusals since the last call.
    pub fn take_rejections(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.rejections)
    }

    /// Adds the endpoints of every cluster that changes.
    fn add_endpoints(&self, all: &mut Vec<(String, News)>, set: &ResourceSet) {
        let [clusters, endpoints, ..] = MAKE_ORDER;
        let Some(subscription) = self.types.get(endpoints) else { return };
        let layers = set.layers(endpoints);
        let told = |all: &[(String, News)], type_url: &str| -> Vec<Arc<str>> {
            let news = all.iter().filter(|(url, _)| url == type_url);
            let names = news.flat_map(|(_, news)| &news.changed).flat_map(|piece| piece.names.iter());
            names.cloned().collect()
        };
        let mut due = told(all, clusters);
        due.retain(|name| subscription.has(name) && resources::find(layers, name).is_some());
        if due.is_empty() {
            return;
        }
        due.extend(told(all, endpoints));
        due.sort();
        due.dedup();
        let news = News::of(due, layers, |_, _| true);
        match all.iter_mut().find(|(url, _)| url == endpoints) {
            Some((_, known)) => *known = News { removed: std::mem::take(&mut known.removed), ..news },
            None => all.push((endpoints.to_owned(), news)),
        }
    }

    fn check_limit(&self, request: &DeltaDiscoveryRequest) -> Result<(), TooManySubscriptions> {
        if request.resource_names_subscribe.is_empty() && self.types.contains_key(&request.type_url) {
            return Ok(());
        }
        let held: usize = self.types.values().map(|held| 1 + held.names.len()).sum();
        let known = self.types.get(&request.type_url);
        let is_new = |name: &&String| known.is_none_or(|held| !held.has(name));
        let asked: BTreeSet<_> = request.resource_names_subscribe.iter().filter(is_new).collect();
        let wanted = held + usize::from(known.is_none()) + asked.len();
        if wanted > self.limit {
            return Err(TooManySubscriptions { wanted, limit: self.limit });
        }
        Ok(())
    }

    /// The responses that tell it, none longer than a piece; what is gone is told last.
    fn respond(&mut self, type_url: &str, set: &ResourceSet, news: News) -> Vec<DeltaResponse> {
        let mut groups: Vec<(usize, Vec<Piece>)> = vec![(0, Vec::new())];
        for piece in news.changed {
            let size = piece.size();
            match groups.last_mut() {
                Some((filled, group)) if group.is_empty() || *filled + size <= MAX_PIECE => {
                    *filled += size;
                    group.push(piece);
                }
                _ => groups.push((size, vec![piece])),
            }
        }
        let last = groups.len() - 1;
        let mut removed = news.removed;
        let respond = |(at, (_, pieces))| {
            let removed = if at == last { std::mem::take(&mut removed) } else { Vec::new() };
            self.response(type_url, set, pieces, removed)
        };
        groups.into_iter().enumerate().map(respond).collect()
    }

    fn response(
        &mut self,
        type_url: &str,
        set: &ResourceSet,
        pieces: Vec<Piece>,
        removed: Vec<String>,
    ) -> DeltaResponse {
        self.last_nonce += 1;
        let nonce = format!("{:016x}", self.last_nonce);
        let rest = DeltaDiscoveryResponse {
            system_version_info: (*set.version).to_owned(),
            type_url: type_url.to_owned(),
            removed_resources: removed.clone(),
            nonce: nonce.clone(),
            ..DeltaDiscoveryResponse::default()
        };
        let response = DeltaResponse::new(rest, pieces);
        if let Some(subscription) = self.types.get_mut(type_url) {
            let changed = response.changed().to_vec();
            subscription.unanswered.push_back(Unanswered { nonce, changed, removed });
            if subscription.unanswered.len() > MAX_UNANSWERED {
                subscription.unanswered.pop_front();
            }
        }
        response
    }
}

impl Subscription {
    fn has(&self, name: &str) -> bool {
        self.names.binary_search_by(|held| (**held).cmp(name)).is_ok()
    }

    fn take_unanswered(&mut self, nonce: &str) -> Option<Unanswered> {
        let at = self.unanswered.iter().position(|sent| sent.nonce == nonce)?;
        self.unanswered.remove(at)
    }

    /// Takes over what a request asks for, and says what that and a set of these layers make due.
    fn apply(&mut self, request: DeltaDiscoveryRequest, first: bool, layers: &[Arc<Layer>]) -> News {
        if !first
            && request.resource_names_subscribe.is_empty()
            && request.resource_names_unsubscribe.is_empty()
        {
            return self.follow(layers);
        }
        let was_wildcard = self.wildcard;
        let before = std::mem::take(&mut self.names);
        let known = |name: &str| before.binary_search_by(|held| (**held).cmp(name)).is_ok();
        if first && request.resource_names_subscribe.is_empty() {
            self.wildcard = true;
        }
        // Names of which the client has to hear, whatever it was told.
        let mut due: Vec<Arc<str>> = Vec::new();
        for name in request.resource_names_subscribe {
            if name == "*" {
                self.wildcard = true;
            } else {
                // Asking again for a name means that the client forgot it.
                due.push(
                    resources::find(layers, &name).map_or_else(|| name.into(), |(known, _)| known.clone()),
                );
            }
        }
        let mut names = due.clone();
        let mut left: BTreeSet<String> = request.resource_names_unsubscribe.into_iter().collect();
        if left.remove("*") {
            self.wildcard = false;
        }
        // Still covered by the wildcard: the client must hear whether it stays.
        let may_stay = left.iter().filter(|name| self.wildcard && known(name));
        due.extend(may_stay.map(|name| Arc::from(name.as_str())));
        names.extend(before.iter().cloned());
        names.retain(|name| !left.contains(&**name));
        names.sort();
        names.dedup();
        let is_all =
            |layer: &&Arc<Layer>| layer.len() == names.len() && layer.iter().map(|(name, _)| name).eq(&names);
        self.names = match layers.iter().find(is_all) {
            Some(layer) => layer.whole().names.clone(),
            None => names.into(),
        };
        let held = if first { request.initial_resource_versions } else { HashMap::new() };
        if self.wildcard && !was_wildcard {
            if held.is_empty() && due.is_empty() && before.is_empty() {
                self.told = layers.to_vec();
                return News::all(layers);
            }
            let all = layers.iter().flat_map(|layer| layer.iter()).map(|(name, _)| name);
            due.extend(all.filter(|name| !known(name)).cloned());
        }
        due.extend(held.keys().map(|name| Arc::from(name.as_str())));
        due.extend(resources::changes(&self.told, layers));
        due.retain(|name| self.wildcard || self.has(name));
        due.sort();
        due.dedup();
        self.told = layers.to_vec();
        let is_current =
            |name: &Arc<str>, version: &str| held.get(&**name).is_some_and(|held| held == version);
        News::of(due, layers, |name, version| !is_current(name, version))
    }

    /// What changes with these layers.
    fn follow(&mut self, layers: &[Arc<Layer>]) -> News {
        let mut due = resources::changes(&self.told, layers);
        due.retain(|name| self.wildcard || self.has(name));
        self.told = layers.to_vec();
        News::of(due, layers, |_, _| true)
    }
}

impl News {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    /// Everything that is in these layers.
    fn all(layers: &[Arc<Layer>]) -> Self {
        let changed = layers.iter().flat_map(|layer| layer.whole().pieces.iter().cloned());
        Self { changed: changed.collect(), removed: Vec::new() }
    }

    /// What these names, each there once and in order, stand for; `wants` says of a resource whether it is news.
    fn of(due: Vec<Arc<str>>, layers: &[Arc<Layer>], wants: impl Fn(&Arc<str>, &str) -> bool) -> Self {
        let mut removed = Vec::new();
        let mut changed = Vec::new();
        for name in due {
            match resources::find(layers, &name) {
                Some((name, resource)) if wants(name, resource.version()) => changed.push((name, resource)),
                Some(_) => {}
                None => removed.push((*name).to_owned()),
            }
        }
        if changed.len() > 1 && changed.len() == layers.iter().map(|layer| layer.len()).sum::<usize>() {
            return Self { removed, ..Self::all(layers) };
        }
        Self { changed: Piece::cut(changed), removed }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
