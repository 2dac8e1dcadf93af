//! One conversation with a control plane, delta or state-of-the-world, as what both come to: resources that were
//! accepted, refused or removed, and the answer. The protocols themselves are `xds`'s.

use super::Scope;
use super::catalog::{Catalog, Kind, ORDER, Origin};
use super::judge::Judged;
use super::raw::Raw;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use xds::client::DeltaClient;
use xds::sotw_client::SotwClient;

/// What the control plane sends.
#[derive(Debug, Clone)]
pub enum Response {
    /// On a delta stream.
    Delta(DeltaDiscoveryResponse),
    /// On a state-of-the-world stream.
    Whole(DiscoveryResponse),
}

impl Response {
    /// The type of the resources it brings.
    pub fn type_url(&self) -> &str {
        match self {
            Self::Delta(response) => &response.type_url,
            Self::Whole(response) => &response.type_url,
        }
    }

    /// What the control plane calls its state.
    pub fn revision(&self) -> &str {
        match self {
            Self::Delta(response) => &response.system_version_info,
            Self::Whole(response) => &response.version_info,
        }
    }

    /// Names of resources that it changes or takes away in so many words.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (resources, removed) = match self {
            Self::Delta(response) => (&response.resources[..], &response.removed_resources[..]),
            Self::Whole(_) => (&[][..], &[][..]),
        };
        resources.iter().map(|resource| resource.name.as_str()).chain(removed.iter().map(String::as_str))
    }
}

/// What is sent to the control plane.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// On a delta stream.
    Delta(DeltaDiscoveryRequest),
    /// On a state-of-the-world stream.
    Whole(DiscoveryRequest),
}

/// A resource that can be used, with the bytes it came in.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) judged: Judged,
    pub(super) version: Rc<str>,
    pub(super) raw: Rc<Raw>,
}

/// What a response came to.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) type_url: String,
    pub(super) accepted: Vec<(String, Accepted)>,
    /// Name, version, reason.
    pub(super) refused: Vec<(String, String, String)>,
    pub(super) removed: Vec<String>,
}

impl Delivered {
    fn nothing(type_url: String) -> Self {
        Self { type_url, accepted: Vec::new(), refused: Vec::new(), removed: Vec::new() }
    }
}

/// Judges a resource by its name, its version and its bytes.
pub(super) type Judge<'a> = dyn FnMut(&str, &str, &Any) -> Result<Judged, String> + 'a;

/// The protocol spoken.
#[derive(Debug)]
pub(super) enum Session {
    Delta(DeltaClient),
    Whole(SotwClient),
}

impl Session {
    pub(super) fn new(scope: Scope) -> Self {
        match scope.delta || !scope.ads {
            true => Self::Delta(DeltaClient::new()),
            false => Self::Whole(SotwClient::new()),
        }
    }

    pub(super) fn subscribe(&mut self, type_url: &str, names: &[String]) -> Option<Request> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match self {
            _ if names.is_empty() => None,
            Self::Delta(client) => Some(Request::Delta(client.subscribe(type_url, &names))),
            Self::Whole(client) => Some(Request::Whole(client.subscribe(type_url, &names))),
        }
    }

    fn unsubscribe(&mut self, type_url: &str, names: &[String]) -> Option<Request> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match self {
            _ if names.is_empty() => None,
            Self::Delta(client) => Some(Request::Delta(client.unsubscribe(type_url, &names))),
            Self::Whole(client) => client.unsubscribe(type_url, &names).map(Request::Whole),
        }
    }

    /// Asks for `more` and no longer for `less`.
    pub(super) fn change(&mut self, type_url: &str, more: &[String], less: &[String]) -> Vec<Request> {
        let requests = [self.subscribe(type_url, more), self.unsubscribe(type_url, less)];
        requests.into_iter().flatten().collect()
    }

    pub(super) fn resume(&mut self) -> Vec<Request> {
        match self {
            Self::Delta(client) => client.resume().into_iter().map(Request::Delta).collect(),
            Self::Whole(client) => client.resume().into_iter().map(Request::Whole).collect(),
        }
    }

    /// Takes a response apart. There may be no answer to one of a type that was never asked for.
    pub(super) fn apply(
        &mut self,
        response: Response,
        judge: &mut Judge<'_>,
    ) -> (Delivered, Option<Request>) {
        match (self, response) {
            (Self::Whole(client), Response::Whole(response)) => apply_whole(client, response, judge),
            (Self::Delta(client), Response::Delta(response)) => apply_delta(client, response, judge),
            // A saved configuration in a state-of-the-world session: nothing of it can be resumed there.
            (Self::Whole(_), Response::Delta(response)) => {
                let mut client = DeltaClient::new();
                let names: Vec<&str> = response.resources.iter().map(|r| r.name.as_str()).collect();
                client.subscribe(&response.type_url, &names);
                apply_delta(&mut client, response, judge)
            }
            // A stream brings only what was asked in it.
            (Self::Delta(_), Response::Whole(response)) => (Delivered::nothing(response.type_url), None),
        }
    }
}

fn apply_delta(
    client: &mut DeltaClient,
    response: DeltaDiscoveryResponse,
    judge: &mut Judge<'_>,
) -> (Delivered, Option<Request>) {
    let type_url = response.type_url.clone();
    let versions = response.resources.iter().map(|r| (r.name.clone(), r.version.clone()));
    let versions: BTreeMap<String, String> = versions.collect();
    let version = |name: &str| versions.get(name).cloned().unwrap_or_default();
    let applied = client.apply(response, |name, any| {
        let version = version(name);
        let judged = judge(name, &version, any)?;
        Ok(Accepted { version: version.into(), raw: Raw::new(judged.type_url(), &any.value), judged })
    });
    let refused = applied.rejected.into_iter().map(|(name, reason)| {
        let version = version(&name);
        (name, version, reason)
    });
    let delivered = Delivered {
        type_url,
        accepted: applied.accepted,
        refused: refused.collect(),
        removed: applied.removed,
    };
    (delivered, Some(Request::Delta(applied.answer)))
}

fn apply_whole(
    client: &mut SotwClient,
    response: DiscoveryResponse,
    judge: &mut Judge<'_>,
) -> (Delivered, Option<Request>) {
    let type_url = response.type_url.clone();
    let version = response.version_info.clone();
    let applied = client.apply(response, |name, any| {
        let judged = judge(name, &version, any)?;
        Ok(Accepted {
            version: version.as_str().into(),
            raw: Raw::new(judged.type_url(), &any.value),
            judged,
        })
    });
    let refused = applied.rejected.into_iter().map(|(name, reason)| (name, version.clone(), reason));
    let delivered = Delivered {
        type_url,
        accepted: applied.accepted,
        refused: refused.collect(),
        removed: applied.removed,
    };
    (delivered, applied.answer.map(Request::Whole))
}

/// Everything that was accepted from the control plane, as responses to be taken again.
pub(super) fn export(catalog: &Catalog, revision: &str) -> Vec<DeltaDiscoveryResponse> {
    let response = |type_url: &str, (resources, removed_resources): (Vec<Resource>, Vec<String>)| {
        DeltaDiscoveryResponse {
            system_version_info: revision.to_owned(),
            type_url: type_url.to_owned(),
            resources,
            removed_resources,
            ..DeltaDiscoveryResponse::default()
        }
    };
    let [cluster, assignment, listener, routes, virtual_host, secret] = ORDER;
    let mut all = Vec::new();
    // Only what was answered: an empty answer is not the same as none.
    if catalog.clusters.answered {
        all.push(response(cluster, resources(&catalog.clusters)));
    }
    all.push(response(assignment, resources(&catalog.assignments)));
    if catalog.listeners.answered {
        all.push(response(listener, resources(&catalog.listeners)));
    }
    all.push(response(routes, resources(&catalog.routes)));
    all.push(response(virtual_host, resources(&catalog.virtual_hosts)));
    all.push(response(secret, resources(&catalog.secrets)));
    all
}

fn resources<T>(kind: &Kind<T>) -> (Vec<Resource>, Vec<String>) {
    let dynamic = kind.entries.iter().filter(|(_, entry)| entry.origin == Origin::Dynamic);
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for (name, entry) in dynamic {
        match &entry.latest {
            Some(version) => there.push(Resource {
                name: name.clone(),
                version: version.version.to_string(),
                resource: version.raw.as_ref().map(|raw| raw.to_any()),
                ..Resource::default()
            }),
            None if entry.gone.is_some() => gone.push(name.clone()),
            None => {}
        }
    }
    (there, gone)
}
