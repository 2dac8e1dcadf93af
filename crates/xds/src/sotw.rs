//! The serving side of one state-of-the-world ADS stream: requests in, responses out.
//! Clusters and listeners are always sent whole, so what is missing is gone; other types are sent as they change,
//! because their removal follows from whatever referred to them. Delta streams are in [`crate::server`].

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;

use crate::resources::ResourceSet;
use crate::server::{MAKE_ORDER, Rejection, TooManySubscriptions};

#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    has_named: bool,
    names: BTreeSet<String>,
    sent: BTreeMap<String, String>,
    nonce: String,
    last_names: Vec<String>,
}

/// One state-of-the-world ADS stream.
#[derive(Debug)]
pub struct SotwStream {
    types: BTreeMap<String, Watch>,
    rejections: Vec<Rejection>,
    last_nonce: u64,
    limit: usize,
}

impl SotwStream {
    /// A stream that may hold `limit` names and types together.
    pub fn new(limit: usize) -> Self {
        Self { types: BTreeMap::new(), rejections: Vec::new(), last_nonce: 0, limit }
    }

    /// Takes a request and answers it, if an answer is due. After an error the stream is unchanged.
    pub fn request(
        &mut self,
        request: DiscoveryRequest,
        set: &ResourceSet,
    ) -> Result<Option<DiscoveryResponse>, TooManySubscriptions> {
        let type_url = request.type_url;
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        let others = self.types.iter().filter(|(url, _)| **url != type_url);
        let wanted = others.map(|(_, watch)| 1 + watch.names.len()).sum::<usize>() + 1 + names.len();
        if wanted > self.limit {
            return Err(TooManySubscriptions { wanted, limit: self.limit });
        }
        let first = !self.types.contains_key(&type_url);
        let watch = self.types.entry(type_url.clone()).or_default();
        if !first && request.response_nonce != watch.nonce {
            return Ok(None);
        }
        if let (Some(error), false) = (request.error_detail, first) {
            let names = watch.last_names.clone();
            self.rejections.push(Rejection { type_url: type_url.clone(), names, message: error.message });
        }
        let asks_more = watch.subscribe(names);
        let must_answer = (first && watch.wildcard) || (asks_more && is_whole(&type_url));
        Ok(self.respond(&type_url, set, must_answer))
    }

    /// What a new set changes for this client, from clusters to secrets.
    pub fn change(&mut self, set: &ResourceSet) -> Vec<DiscoveryResponse> {
        let mut types: Vec<String> = self.types.keys().cloned().collect();
        types.sort_by_key(|url| MAKE_ORDER.iter().position(|known| known == url).unwrap_or(MAKE_ORDER.len()));
        let mut responses = Vec::new();
        for type_url in types {
            let response = self.respond(&type_url, set, false);
            if type_url == MAKE_ORDER[0]
                && response.is_some()
                && let Some(endpoints) = self.types.get_mut(MAKE_ORDER[1])
            {
                // A client that replaces a cluster waits for its endpoints anew, and asks with the same names as before.
                endpoints.sent.clear();
            }
            responses.extend(response);
        }
        responses
    }

    /// Hands over the refusals since the last call.
    pub fn take_rejections(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.rejections)
    }

    fn respond(&mut self, type_url: &str, set: &ResourceSet, must_answer: bool) -> Option<DiscoveryResponse> {
        let watch = self.types.get_mut(type_url)?;
        let wanted = |name: &str| watch.wildcard || watch.names.contains(name);
        let view: Vec<_> = set.of_type(type_url).filter(|(name, _)| wanted(name)).collect();
        let is_news = |name: &str, version: &str| watch.sent.get(name).is_none_or(|sent| sent != version);
        let has_news = view.iter().any(|(name, resource)| is_news(name, resource.version()));
        let whole = is_whole(type_url);
        let has_lost = whole && watch.sent.keys().any(|name| set.find(type_url, name).is_none());
        let sending: Vec<_> =
            view.iter().filter(|(name, resource)| whole || is_news(name, resource.version())).collect();
        let last_names = sending.iter().map(|(name, _)| (*name).to_owned()).collect();
        let any = |body: &[u8]| Any { type_url: type_url.to_owned(), value: body.to_vec() };
        let resources = sending.iter().map(|(_, resource)| any(resource.body())).collect();
        watch.sent =
            view.iter().map(|(name, resource)| ((*name).to_owned(), resource.version().to_owned())).collect();
        if !(has_news || has_lost || must_answer) {
            return None;
        }
        self.last_nonce += 1;
        watch.nonce = format!("{:016x}", self.last_nonce);
        watch.last_names = last_names;
        Some(DiscoveryResponse {
            version_info: (*set.version).to_owned(),
            resources,
            type_url: type_url.to_owned(),
            nonce: watch.nonce.clone(),
            ..DiscoveryResponse::default()
        })
    }
}

impl Watch {
    /// Replaces what is asked for; whether a name is asked for that was not before.
    fn subscribe(&mut self, mut names: BTreeSet<String>) -> bool {
        // No names mean everything, until the first name; from then on they mean nothing.
        self.has_named |= !names.is_empty();
        self.wildcard = names.remove("*") || !self.has_named;
        let asks_more = !names.is_subset(&self.names);
        self.names = names;
        let (wildcard, names) = (self.wildcard, &self.names);
        self.sent.retain(|name, _| wildcard || names.contains(name));
        asks_more
    }
}

fn is_whole(type_url: &str) -> bool {
    type_url == MAKE_ORDER[0] || type_url == MAKE_ORDER[2]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use envoy_types::pb::google::rpc::Status;

    use super::*;

    const CDS: &str = MAKE_ORDER[0];
    const EDS: &str = MAKE_ORDER[1];

    fn set(resources: &[(&str, &str, &str)]) -> ResourceSet {
        let mut set = ResourceSet::new("1");
        for (type_url, name, version) in resources {
            set.insert(type_url, name, version, version.as_bytes());
        }
        set
    }

    fn ask(type_url: &str, names: &[&str], nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    #[test]
    fn clusters_are_sent_whole_and_an_acknowledgement_is_not_answered() {
        let mut stream = SotwStream::new(10);
        let now = set(&[(CDS, "a", "1"), (CDS, "b", "1")]);
        let first = stream.request(ask(CDS, &[], ""), &now).unwrap().unwrap();
        assert_eq!(first.resources.len(), 2);
        assert_eq!(stream.request(ask(CDS, &[], &first.nonce), &now), Ok(None));
        assert_eq!(stream.change(&set(&[(CDS, "a", "1")]))[0].resources.len(), 1);
    }

    #[test]
    fn endpoints_are_sent_as_they_change() {
        let mut stream = SotwStream::new(10);
        stream.request(ask(EDS, &["a", "b"], ""), &set(&[(EDS, "a", "1"), (EDS, "b", "1")])).unwrap();
        let next = stream.change(&set(&[(EDS, "a", "1"), (EDS, "b", "2"), (EDS, "c", "1")]));
        assert_eq!(next[0].resources.iter().map(|any| any.value.as_slice()).collect::<Vec<_>>(), [b"2"]);
    }

    #[test]
    fn a_changed_cluster_is_followed_by_endpoints_that_did_not_change() {
        let mut stream = SotwStream::new(10);
        let old = set(&[(CDS, "a", "1"), (EDS, "a", "1")]);
        stream.request(ask(CDS, &[], ""), &old).unwrap();
        stream.request(ask(EDS, &["a"], ""), &old).unwrap();
        let next = stream.change(&set(&[(CDS, "a", "2"), (EDS, "a", "1")]));
        assert_eq!(next.iter().map(|r| r.type_url.as_str()).collect::<Vec<_>>(), [CDS, EDS]);
    }

    #[test]
    fn a_stale_nonce_is_ignored_and_a_refusal_is_recorded_without_sending_again() {
        let mut stream = SotwStream::new(10);
        let now = set(&[(CDS, "a", "1")]);
        let first = stream.request(ask(CDS, &[], ""), &now).unwrap().unwrap();
        let mut refusal = ask(CDS, &[], "stale");
        refusal.error_detail = Some(Status { message: "bad a".to_owned(), ..Status::default() });
        assert_eq!(stream.request(refusal.clone(), &now), Ok(None));
        assert!(stream.take_rejections().is_empty());
        refusal.response_nonce = first.nonce;
        assert_eq!(stream.request(refusal, &now), Ok(None));
        assert_eq!(stream.take_rejections()[0].names, ["a"]);
    }
}
