//! The asking side of state-of-the-world ADS, for servers that do not speak delta; the same shape as [`crate::client`].
//!
//! Here a request names all that is wanted, and acknowledges or refuses a response as a whole. Resources are still
//! accepted one by one: a bad one does not keep the good ones beside it from being used. Clusters and listeners come
//! whole, so what a response leaves out is gone; other types lose nothing by absence, because their removal follows
//! from whatever referred to them.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use crate::client::{Applied, refusal};
use crate::server::MAKE_ORDER;

/// A resource may come wrapped in this, with its name beside it.
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

#[derive(Debug, Default)]
struct Interest {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Names of accepted resources.
    held: BTreeSet<String>,
    /// Of the last response accepted as a whole.
    version: String,
    /// Of the last response on this stream.
    nonce: String,
    /// A name was sent on this stream, so that none no longer means all.
    has_named: bool,
}

/// What a client wants and holds, over all the streams it opens one after the other.
#[derive(Debug, Default)]
pub struct SotwClient {
    types: BTreeMap<String, Interest>,
}

impl SotwClient {
    /// A client that asks for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for names of a type, `*` being all of them. Send the request, if there is a stream.
    pub fn subscribe(&mut self, type_url: &str, names: &[&str]) -> DiscoveryRequest {
        let interest = self.types.entry(type_url.to_owned()).or_default();
        for name in names {
            if *name == "*" {
                interest.wildcard = true;
            } else {
                interest.names.insert((*name).to_owned());
            }
        }
        interest.request(type_url)
    }

    /// Stops asking for names of a type; the caller drops what only they kept. Send the request, if there is one:
    /// giving up everything where no name was ever sent cannot be said in this protocol, and would mean all again.
    pub fn unsubscribe(&mut self, type_url: &str, names: &[&str]) -> Option<DiscoveryRequest> {
        let interest = self.types.get_mut(type_url)?;
        interest.wildcard &= !names.contains(&"*");
        interest.names.retain(|name| !names.contains(&name.as_str()));
        let (wildcard, kept) = (interest.wildcard, &interest.names);
        interest.held.retain(|name| wildcard || kept.contains(name));
        let can_be_said = interest.is_wanted() || interest.has_named || !is_whole(type_url);
        can_be_said.then(|| interest.request(type_url))
    }

    /// The first requests of a new stream: all that is wanted, with the version held where it covers that.
    pub fn resume(&mut self) -> Vec<DiscoveryRequest> {
        let wanted = self.types.iter_mut().filter(|(_, interest)| interest.is_wanted());
        let resume = |(type_url, interest): (&String, &mut Interest)| {
            interest.nonce.clear();
            interest.has_named = false;
            let covers = interest.names.is_subset(&interest.held);
            let mut request = interest.request(type_url);
            if !covers {
                request.version_info.clear();
            }
            request
        };
        wanted.map(resume).collect()
    }

    /// Takes a response apart: each resource is accepted or rejected for itself, by `decode`. There is no answer to a
    /// response of a type that was never asked for, because any answer would ask for it.
    pub fn apply<T>(
        &mut self,
        response: DiscoveryResponse,
        mut decode: impl FnMut(&str, &Any) -> Result<T, String>,
    ) -> Applied<T, Option<DiscoveryRequest>> {
        let DiscoveryResponse { version_info, resources, type_url, nonce, .. } = response;
        let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
        let Some(interest) = self.types.get_mut(&type_url) else {
            return Applied { accepted, removed: Vec::new(), rejected, answer: None };
        };
        let (mut present, mut all_named) = (BTreeSet::new(), true);
        for (at, resource) in resources.iter().enumerate() {
            let (name, any) = match unwrap(resource) {
                Ok(named) => named,
                Err(reason) => {
                    all_named = false;
                    rejected.push((format!("resource {at}"), reason));
                    continue;
                }
            };
            present.insert(name.clone());
            // The server may not have heard yet that a name is no longer wanted.
            if !interest.wildcard && !interest.names.contains(&name) {
                continue;
            }
            match decode(&name, &any) {
                Ok(value) => {
                    interest.held.insert(name.clone());
                    accepted.push((name, value));
                }
                Err(reason) => rejected.push((name, reason)),
            }
        }
        // A resource whose name cannot be read may be any of those held.
        let may_remove = is_whole(&type_url) && all_named;
        let gone = interest.held.iter().filter(|name| may_remove && !present.contains(*name));
        let removed: Vec<String> = gone.cloned().collect();
        interest.held.retain(|name| !removed.contains(name));
        interest.nonce = nonce;
        if rejected.is_empty() {
            interest.version = version_info;
        }
        let mut answer = interest.request(&type_url);
        answer.error_detail = refusal(&rejected);
        Applied { accepted, removed, rejected, answer: Some(answer) }
    }
}

impl Interest {
    fn is_wanted(&self) -> bool {
        self.wildcard || !self.names.is_empty()
    }

    /// All that is wanted, in answer to the last response.
    fn request(&mut self, type_url: &str) -> DiscoveryRequest {
        let mut names: Vec<String> = self.names.iter().cloned().collect();
        // Older servers know no `*`; to them, as long as no name was sent, none means all.
        let needs_star = self.has_named || !names.is_empty() || !is_whole(type_url);
        if self.wildcard && needs_star {
            names.insert(0, "*".to_owned());
        }
        self.has_named |= !names.is_empty();
        DiscoveryRequest {
            type_url: type_url.to_owned(),
            version_info: self.version.clone(),
            resource_names: names,
            response_nonce: self.nonce.clone(),
            ..DiscoveryRequest::default()
        }
    }
}

fn is_whole(type_url: &str) -> bool {
    type_url == MAKE_ORDER[0] || type_url == MAKE_ORDER[2]
}

/// The name of a resource, and the resource itself.
fn unwrap(any: &Any) -> Result<(String, Any), String> {
    if any.type_url == WRAPPER {
        let wrapped =
            Resource::decode(any.value.as_slice()).map_err(|error| format!("cannot be read: {error}"))?;
        let inner = wrapped.resource.ok_or_else(|| format!("`{}` has no content", wrapped.name))?;
        return match wrapped.name.is_empty() {
            true => unwrap_bare(inner),
            false => Ok((wrapped.name, inner)),
        };
    }
    unwrap_bare(any.clone())
}

/// The one thing that all kinds of resources have in common: their name is field 1.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

fn unwrap_bare(any: Any) -> Result<(String, Any), String> {
    let named = Named::decode(any.value.as_slice()).map_err(|error| format!("cannot be read: {error}"))?;
    match named.name.is_empty() {
        true => Err("has no name".to_owned()),
        false => Ok((named.name, any)),
    }
}

#[cfg(test)]
#[path = "sotw_client_tests.rs"]
mod tests;
