//! The codec between Envoy's v3 protos and the model, both ways, so that both planes mean the same by the same bytes.
//!
//! `decode(encode(m)) == m` for every model that says one thing in one way. What a message asks for and the model
//! cannot express is a [`DecodeError`] that names the field; every field of every message is listed in its module as
//! honoured, ignored or refused, and `docs/envoy-compatibility.md` tells users. No I/O: files that a static
//! configuration names are read by whoever hands in a way to.

// The format has deprecated fields, which have to be read.
#![allow(deprecated)]

mod access_log;
mod affinity;
mod answer;
mod authorization;
mod balance;
mod cluster;
mod condition;
mod dns;
mod endpoint;
mod filter;
mod forward;
mod header_case;
mod headers;
mod health;
mod http;
mod http_filter;
mod limits;
mod listener;
mod local_reply;
mod log_filter;
mod mutation;
mod network;
mod on_demand;
mod outlier;
mod place;
mod retry;
mod rewrite;
mod route;
mod secret;
mod small_filter;
mod source;
mod spread;
mod tables;
mod text;
mod tls;
mod transport;
mod upstream;
mod upstream_rules;
mod value;
mod wire_order;

#[cfg(test)]
mod backend_refusal_tests;
#[cfg(test)]
mod cluster_strategies;
#[cfg(test)]
mod resource_strategies;
#[cfg(test)]
mod route_strategies;
#[cfg(test)]
mod envoy_tests;
#[cfg(test)]
mod listener_strategies;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
mod shaping_strategies;
#[cfg(test)]
mod spread_strategies;
#[cfg(test)]
mod strategies;

pub use place::DecodeError;

use self::endpoint::Names;
use self::place::{Place, ReadFile};
use envoy_types::pb::envoy::config::cluster::v3::Cluster as ClusterProto;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment as EndpointsProto;
use envoy_types::pb::envoy::config::listener::v3::Listener as ListenerProto;
use envoy_types::pb::envoy::config::route::v3::{
    RouteConfiguration as RoutesProto, VirtualHost as VirtualHostProto,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;
use envoy_types::pb::google::protobuf::Any;
use model::cluster::Cluster;
use model::endpoint::Assignment;
use model::listener::Listener;
use model::route::{RouteConfiguration, VirtualHost};
use model::tls::Secret;
use prost::Message;
use std::fmt;
use std::io;

/// The types of resources, as they are asked for.
pub mod type_url {
    /// LDS.
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// RDS.
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    /// VHDS.
    pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
    /// CDS.
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// EDS.
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// SDS.
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
}

/// A resource, decoded. Taken apart at once where it arrives, so its size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// From LDS.
    Listener(Listener),
    /// From RDS.
    Routes(RouteConfiguration),
    /// From VHDS.
    VirtualHost(VirtualHost),
    /// From CDS.
    Cluster(Cluster),
    /// From EDS.
    Endpoints(Assignment),
    /// From SDS.
    Secret(Secret),
}

impl Resource {
    /// The name by which it is asked for.
    pub fn name(&self) -> &str {
        match self {
            Self::Listener(listener) => &listener.name,
            Self::Routes(table) => &table.name,
            Self::VirtualHost(host) => &host.name,
            Self::Cluster(cluster) => &cluster.name,
            Self::Endpoints(assignment) => &assignment.cluster,
            Self::Secret(secret) => &secret.name,
        }
    }

    /// The type URL of its kind.
    pub fn type_url(&self) -> &'static str {
        match self {
            Self::Listener(_) => type_url::LISTENER,
            Self::Routes(_) => type_url::ROUTE,
            Self::VirtualHost(_) => type_url::VIRTUAL_HOST,
            Self::Cluster(_) => type_url::CLUSTER,
            Self::Endpoints(_) => type_url::ENDPOINT,
            Self::Secret(_) => type_url::SECRET,
        }
    }
}

/// Decodes resources; those of a bootstrap may name files.
#[derive(Clone, Copy, Default)]
pub struct Decoder<'f> {
    files: Option<&'f ReadFile<'f>>,
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} files)", if self.files.is_some() { "with" } else { "without" })
    }
}

impl<'f> Decoder<'f> {
    /// One that refuses resources which name files, as those that come over the network must not.
    pub fn without_files() -> Self {
        Self { files: None }
    }

    /// One that reads the files which resources name with `files`.
    pub fn reading(files: &'f dyn Fn(&str) -> io::Result<Vec<u8>>) -> Self {
        Self { files: Some(files) }
    }

    /// Any resource, by its type URL.
    pub fn any(&self, any: &Any) -> Result<Resource, DecodeError> {
        let broken = |e: prost::DecodeError| DecodeError {
            resource: String::new(),
            path: String::new(),
            problem: format!("not a valid {}: {e}", value::type_name(any)),
        };
        let bytes = any.value.as_slice();
        match any.type_url.as_str() {
            type_url::LISTENER => {
                self.listener(&Message::decode(bytes).map_err(broken)?).map(Resource::Listener)
            }
            type_url::ROUTE => self.routes(&Message::decode(bytes).map_err(broken)?).map(Resource::Routes),
            type_url::VIRTUAL_HOST => {
                self.virtual_host(&Message::decode(bytes).map_err(broken)?).map(Resource::VirtualHost)
            }
            type_url::CLUSTER => {
                self.cluster(&Message::decode(bytes).map_err(broken)?).map(Resource::Cluster)
            }
            type_url::ENDPOINT => {
                self.endpoints(&Message::decode(bytes).map_err(broken)?).map(Resource::Endpoints)
            }
            type_url::SECRET => self.secret(&Message::decode(bytes).map_err(broken)?).map(Resource::Secret),
            other => Err(DecodeError {
                resource: String::new(),
                path: String::new(),
                problem: format!("resources of type `{other}` are not supported"),
            }),
        }
    }

    /// A listener.
    pub fn listener(&self, proto: &ListenerProto) -> Result<Listener, DecodeError> {
        listener::decode(&self.place("listener", &proto.name), proto)
    }

    /// A route configuration.
    pub fn routes(&self, proto: &RoutesProto) -> Result<RouteConfiguration, DecodeError> {
        // Clusters and routes may come in any order, so they are not asked for here unless the table says so.
        route::decode(&self.place("route configuration", &proto.name), proto, false)
    }

    /// A virtual host that comes by itself.
    pub fn virtual_host(&self, proto: &VirtualHostProto) -> Result<VirtualHost, DecodeError> {
        route::decode_host(&self.place("virtual host", &proto.name), proto, &[])
    }

    /// A cluster.
    pub fn cluster(&self, proto: &ClusterProto) -> Result<Cluster, DecodeError> {
        cluster::decode(&self.place("cluster", &proto.name), proto)
    }

    /// The endpoints of a cluster.
    pub fn endpoints(&self, proto: &EndpointsProto) -> Result<Assignment, DecodeError> {
        endpoint::decode(&self.place("endpoints", &proto.cluster_name), proto, Names::Refused)
    }

    /// A secret.
    pub fn secret(&self, proto: &SecretProto) -> Result<Secret, DecodeError> {
        secret::decode(&self.place("secret", &proto.name), proto)
    }

    fn place<'a>(&'a self, kind: &'a str, name: &'a str) -> Place<'a> {
        Place::resource(kind, name, self.files)
    }
}

/// Decodes a resource as it comes over xDS.
pub fn decode(any: &Any) -> Result<Resource, DecodeError> {
    Decoder::without_files().any(any)
}

/// Decodes a listener that names no files.
pub fn decode_listener(proto: &ListenerProto) -> Result<Listener, DecodeError> {
    Decoder::without_files().listener(proto)
}

/// Decodes a route configuration that names no files.
pub fn decode_routes(proto: &RoutesProto) -> Result<RouteConfiguration, DecodeError> {
    Decoder::without_files().routes(proto)
}

/// Decodes the route configuration in `bytes`, which differs little from `before`, whose bytes these are: what is the same
/// is taken from there. `None` when [`decode`] has to do it.
pub fn decode_routes_after(
    bytes: &[u8],
    before: &RouteConfiguration,
    before_bytes: &[u8],
) -> Option<RouteConfiguration> {
    tables::decode(&Decoder::without_files(), bytes, (before, before_bytes))
}

/// Decodes a cluster that names no files.
pub fn decode_cluster(proto: &ClusterProto) -> Result<Cluster, DecodeError> {
    Decoder::without_files().cluster(proto)
}

/// Decodes the endpoints of a cluster.
pub fn decode_endpoints(proto: &EndpointsProto) -> Result<Assignment, DecodeError> {
    Decoder::without_files().endpoints(proto)
}

/// Decodes a secret that names no files.
pub fn decode_secret(proto: &SecretProto) -> Result<Secret, DecodeError> {
    Decoder::without_files().secret(proto)
}

/// The listener's proto.
pub fn listener_proto(listener: &Listener) -> ListenerProto {
    listener::encode(listener)
}

/// The proto of the listener as gRPC clients read it (`api_listener`).
pub fn api_listener_proto(listener: &Listener) -> ListenerProto {
    listener::encode_api(listener)
}

/// The route configuration's proto.
pub fn routes_proto(table: &RouteConfiguration) -> RoutesProto {
    route::encode(table)
}

/// The cluster's proto.
pub fn cluster_proto(cluster: &Cluster) -> ClusterProto {
    cluster::encode(cluster)
}

/// The proto of a cluster's endpoints.
pub fn endpoints_proto(assignment: &Assignment) -> EndpointsProto {
    endpoint::encode(assignment)
}

/// The secret's proto.
pub fn secret_proto(secret: &Secret) -> SecretProto {
    secret::encode(secret)
}

/// The value of the listener's `Any`. Equal models give equal bytes, here and in all that follow.
pub fn encode_listener(listener: &Listener) -> Vec<u8> {
    wire_order::ordered(&listener_proto(listener).encode_to_vec(), &wire_order::LISTENER)
}

/// The value of the `Any` of the listener as gRPC clients read it.
pub fn encode_api_listener(listener: &Listener) -> Vec<u8> {
    api_listener_proto(listener).encode_to_vec()
}

/// The value of the route configuration's `Any`.
pub fn encode_routes(table: &RouteConfiguration) -> Vec<u8> {
    tables::encode(table, None)
}

/// The same, faster where it differs little from the table `before`, whose bytes these are.
pub fn encode_routes_after(table: &RouteConfiguration, before: &RouteConfiguration, bytes: &[u8]) -> Vec<u8> {
    tables::encode(table, Some((before, bytes)))
}

/// The value of the `Any` of a virtual host that goes by itself.
pub fn encode_virtual_host(host: &VirtualHost) -> Vec<u8> {
    tables::encode_host(host, None)
}

/// The value of the cluster's `Any`.
pub fn encode_cluster(cluster: &Cluster) -> Vec<u8> {
    wire_order::ordered(&cluster_proto(cluster).encode_to_vec(), &wire_order::CLUSTER)
}

/// The value of the `Any` of a cluster's endpoints.
pub fn encode_endpoints(assignment: &Assignment) -> Vec<u8> {
    wire_order::ordered(&endpoints_proto(assignment).encode_to_vec(), &wire_order::ENDPOINTS)
}

/// The value of the secret's `Any`.
pub fn encode_secret(secret: &Secret) -> Vec<u8> {
    secret_proto(secret).encode_to_vec()
}
