//! Whether a resource can be used: decoded, and compiled once as it will be when it runs, so that what is accepted
//! is what works. A refusal names the field and what is wrong with it.

use super::catalog::{ASSIGNMENT, CLUSTER, LISTENER, ROUTES, SECRET, VIRTUAL_HOST, Version};
use super::references::{chains, inline_routes};
use envoy_types::pb::google::protobuf::Any;
use model::cluster::{Cluster, Transport};
use model::endpoint::Assignment;
use model::listener::Listener;
use model::on_demand::split_host_name;
use model::route::{RouteConfiguration, VirtualHost};
use model::routing::RouteTable;
use model::tls::{
    CertificatePair, DownstreamTls, PeerValidation, Secret, SecretContent, SecretSource, TlsVersions,
    UpstreamTls,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use xds::codec::{self, Resource};

/// A resource that can be used.
#[derive(Debug, Clone)]
pub(super) enum Judged {
    /// A listener.
    Listener(Arc<Listener>),
    /// A table, compiled.
    Routes(Arc<RouteTable>),
    /// A virtual host that came by itself.
    Host(Arc<VirtualHost>),
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// Endpoints.
    Assignment(Arc<Assignment>),
    /// A secret.
    Secret(Arc<Secret>),
}

impl Judged {
    /// The type it is of.
    pub(super) fn type_url(&self) -> &'static str {
        match self {
            Self::Listener(_) => LISTENER,
            Self::Routes(_) => ROUTES,
            Self::Host(_) => VIRTUAL_HOST,
            Self::Cluster(_) => CLUSTER,
            Self::Assignment(_) => ASSIGNMENT,
            Self::Secret(_) => SECRET,
        }
    }

    /// The name it gives itself.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Listener(listener) => &listener.name,
            Self::Routes(table) => &table.config().name,
            Self::Host(host) => &host.name,
            Self::Cluster(cluster) => &cluster.name,
            Self::Assignment(assignment) => &assignment.cluster,
            Self::Secret(secret) => &secret.name,
        }
    }
}

/// Judges what came as `name` of the type `type_url`. `before` is the table of that name that is there already.
pub(super) fn judge(
    type_url: &str,
    name: &str,
    any: &Any,
    before: Option<&Version<RouteTable>>,
) -> Result<Judged, String> {
    let decoded = match before.and_then(|before| decode_after(any, before)) {
        Some(table) => Resource::Routes(table),
        None => codec::decode(any).map_err(|error| error.to_string())?,
    };
    let judged = check(decoded)?;
    if judged.type_url() != type_url {
        return Err(format!("it is a `{}`, which was not asked for here", any.type_url));
    }
    if let Judged::Host(_) = judged {
        // What it calls itself is for people.
        return match split_host_name(name) {
            Some(_) => Ok(judged),
            None => Err("its resource's name does not begin with the name of a table and `/`".to_owned()),
        };
    }
    if judged.name() != name {
        return Err(format!("it was sent as `{name}` and calls itself `{}`", judged.name()));
    }
    Ok(judged)
}

/// A table made from one that it differs little from.
fn decode_after(any: &Any, before: &Version<RouteTable>) -> Option<RouteConfiguration> {
    if any.type_url != ROUTES {
        return None;
    }
    let (table, raw) = (before.value.config(), before.raw.as_ref()?);
    raw.look(|bytes| codec::decode_routes_after(&any.value, table, bytes))
}

/// Judges what was decoded.
pub(super) fn check(resource: Resource) -> Result<Judged, String> {
    Ok(match resource {
        Resource::Listener(listener) => {
            check_listener(&listener)?;
            Judged::Listener(Arc::new(listener))
        }
        Resource::Routes(routes) => {
            Judged::Routes(Arc::new(RouteTable::compile(routes).map_err(|error| error.to_string())?))
        }
        Resource::VirtualHost(host) => {
            let alone = RouteConfiguration { virtual_hosts: vec![host.clone()], ..Default::default() };
            RouteTable::compile(alone).map_err(|error| error.to_string())?;
            Judged::Host(Arc::new(host))
        }
        Resource::Cluster(cluster) => {
            check_cluster(&cluster)?;
            Judged::Cluster(Arc::new(cluster))
        }
        Resource::Endpoints(assignment) => Judged::Assignment(Arc::new(assignment)),
        Resource::Secret(secret) => {
            check_secret(&secret)?;
            Judged::Secret(Arc::new(secret))
        }
    })
}

/// What can be told of a listener before anything it refers to is there.
pub(super) fn check_listener(listener: &Listener) -> Result<(), String> {
    for routes in inline_routes(listener) {
        RouteTable::compile(routes.clone()).map_err(|error| format!("route_config: {error}"))?;
    }
    let mut names = BTreeSet::new();
    for (at, chain) in chains(listener).enumerate() {
        if !chain.name.is_empty() && !names.insert(chain.name.as_str()) {
            return Err(format!("filter_chains[{at}].name: more than one chain is named `{}`", chain.name));
        }
        if let Some(tls) = &chain.tls {
            check_server_tls(tls)
                .map_err(|error| format!("filter_chains[{at}].transport_socket: {error}"))?;
        }
    }
    Ok(())
}

/// What can be told of a cluster before anything it refers to is there.
pub(super) fn check_cluster(cluster: &Cluster) -> Result<(), String> {
    let matched = cluster.transport_matches.iter();
    let transports = matched.map(|m| (format!("transport_socket_matches `{}`", m.name), &m.transport));
    for (field, transport) in transports.chain([("transport_socket".to_owned(), &cluster.transport)]) {
        if let Transport::Tls(tls) = transport {
            check_client_tls(tls).map_err(|error| format!("{field}: {error}"))?;
        }
    }
    Ok(())
}

/// Whether a secret holds what it says.
pub(super) fn check_secret(secret: &Secret) -> Result<(), String> {
    match &secret.content {
        SecretContent::Certificate(pair) => check_pair(pair),
        SecretContent::TrustBundle(pem) => {
            let trust = SecretSource::Inline(pem.clone());
            let validation =
                PeerValidation { trust, subject_alt_names: Vec::new(), checks: Default::default() };
            let validation = Some(Arc::new(validation));
            let (sni, alpn, versions) = (None, Vec::new(), TlsVersions::default());
            check_client_tls(&UpstreamTls { certificate: None, validation, sni, alpn, versions })
        }
    }
}

fn check_pair(pair: &CertificatePair) -> Result<(), String> {
    check_server_tls(&DownstreamTls {
        tickets: true,
        certificates: vec![SecretSource::Inline(pair.clone())],
        validation: None,
        require_client_certificate: false,
        alpn: Vec::new(),
        versions: TlsVersions::default(),
    })
}

/// A secret that has not come yet is no fault.
fn check_server_tls(tls: &DownstreamTls) -> Result<(), String> {
    match identity::config::server_config(tls, &|_| None) {
        Err(error) if error.missing_secret().is_none() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn check_client_tls(tls: &UpstreamTls) -> Result<(), String> {
    match identity::config::client_config(tls, &|_| None) {
        Err(error) if error.missing_secret().is_none() => Err(error.to_string()),
        _ => Ok(()),
    }
}
