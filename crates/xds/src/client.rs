//! The asking side of delta ADS: what to ask for, what to make of a response, how to resume on a new stream.
//! Keeping the decoded resources, transport and the pace of reconnecting are left to the caller.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;

/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;

/// Reasons quoted in one refusal; the rest are counted, so that a refusal stays small.
const MAX_REASONS: usize = 10;

/// What a response came to; `R` is what the protocol answers with.
#[derive(Debug)]
pub struct Applied<T, R = DeltaDiscoveryRequest> {
    /// Decoded resources by name, to be used from now on.
    pub accepted: Vec<(String, T)>,
    /// Names that the server no longer has.
    pub removed: Vec<String>,
    /// Names with the reason for which the new version is not used; an accepted older version stays in use.
    pub rejected: Vec<(String, String)>,
    /// The acknowledgement, or the refusal naming every rejected resource: send it.
    pub answer: R,
}

#[derive(Debug, Default)]
struct Interest {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Versions by the name that the resource gives itself.
    held: BTreeMap<String, String>,
    /// Names asked for that stand for a resource of another name.
    aliases: BTreeMap<String, String>,
}

/// What a client wants and holds, over all the streams it opens one after the other.
#[derive(Debug, Default)]
pub struct DeltaClient {
    types: BTreeMap<String, Interest>,
}

impl DeltaClient {
    /// A client that asks for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for names of a type, `*` being all of them. Send the request, if there is a stream.
    pub fn subscribe(&mut self, type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
        let interest = self.types.entry(type_url.to_owned()).or_default();
        for name in names {
            if *name == "*" {
                interest.wildcard = true;
            } else {
                interest.names.insert((*name).to_owned());
            }
        }
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Stops asking for names of a type; the caller drops what only they kept. Send the request.
    pub fn unsubscribe(&mut self, type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
        if let Some(interest) = self.types.get_mut(type_url) {
            interest.wildcard &= !names.contains(&"*");
            interest.names.retain(|name| !names.contains(&name.as_str()));
            interest.drop_unwanted();
        }
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_unsubscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// The first requests of a new stream: all that is wanted, with the versions already held.
    pub fn resume(&self) -> Vec<DeltaDiscoveryRequest> {
        // Without a name the first request would mean everything.
        let wanted =
            self.types.iter().filter(|(_, interest)| interest.wildcard || !interest.names.is_empty());
        let resume = |(type_url, interest): (&String, &Interest)| DeltaDiscoveryRequest {
            type_url: type_url.clone(),
            resource_names_subscribe: interest.wanted(),
            initial_resource_versions: interest.held.clone().into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        };
        wanted.map(resume).collect()
    }

    /// Takes a response apart: each resource is accepted or rejected for itself, by `decode`.
    pub fn apply<T>(
        &mut self,
        response: DeltaDiscoveryResponse,
        mut decode: impl FnMut(&str, &Any) -> Result<T, String>,
    ) -> Applied<T> {
        let DeltaDiscoveryResponse { resources, type_url, removed_resources, nonce, .. } = response;
        let mut unwanted = Interest::default();
        let interest = self.types.get_mut(&type_url).unwrap_or(&mut unwanted);
        let (mut accepted, mut rejected, mut missing) = (Vec::new(), Vec::new(), BTreeSet::new());
        for resource in resources {
            let name = resource.name;
            let aliases = resource.aliases;
            // The server may not have heard yet that a name is no longer wanted.
            if !interest.is_wanted(&name, &aliases) {
                continue;
            }
            let decoded = match &resource.resource {
                Some(any) => decode(&name, any),
                // So it is said of a virtual host that there is none.
                None if !aliases.is_empty() => {
                    missing.extend(aliases.into_iter().chain([name]));
                    continue;
                }
                None => Err("it has no content".to_owned()),
            };
            match decoded {
                Ok(value) => {
                    interest.remember_aliases(&name, aliases);
                    interest.held.insert(name.clone(), resource.version);
                    accepted.push((name, value));
                }
                Err(reason) => rejected.push((name, reason)),
            }
        }
        let mut removed = removed_resources;
        removed.extend(missing);
        for name in &removed {
            interest.held.remove(name);
            interest.aliases.retain(|_, of| of != name);
        }
        let error_detail = refusal(&rejected);
        let answer = DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        Applied { accepted, removed, rejected, answer }
    }
}

impl Interest {
    /// Whether somebody asks for a resource with these names.
    fn is_wanted(&self, name: &str, aliases: &[String]) -> bool {
        let known = self.wildcard || self.names.contains(name) || self.held.contains_key(name);
        known || aliases.iter().any(|alias| self.names.contains(alias))
    }

    fn remember_aliases(&mut self, name: &str, aliases: Vec<String>) {
        for alias in aliases.into_iter().filter(|alias| self.names.contains(alias)) {
            self.aliases.insert(alias, name.to_owned());
        }
    }

    /// Forgets versions of what nobody asks for, under whatever name.
    fn drop_unwanted(&mut self) {
        let (wildcard, names) = (self.wildcard, &self.names);
        self.aliases.retain(|alias, _| names.contains(alias));
        let aliased: BTreeSet<&String> = self.aliases.values().collect();
        self.held.retain(|name, _| wildcard || names.contains(name) || aliased.contains(name));
    }

    fn wanted(&self) -> Vec<String> {
        self.wildcard.then(|| "*".to_owned()).into_iter().chain(self.names.iter().cloned()).collect()
    }
}

/// The error detail of a refusal; `None` when nothing is rejected.
pub(crate) fn refusal(rejected: &[(String, String)]) -> Option<Status> {
    if rejected.is_empty() {
        return None;
    }
    let quoted = rejected.iter().take(MAX_REASONS).map(|(name, reason)| format!("{name}: {reason}"));
    let mut message = quoted.collect::<Vec<_>>().join("; ");
    if rejected.len() > MAX_REASONS {
        message.push_str(&format!("; and {} more", rejected.len() - MAX_REASONS));
    }
    Some(Status { code: INVALID_ARGUMENT, message, ..Status::default() })
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
