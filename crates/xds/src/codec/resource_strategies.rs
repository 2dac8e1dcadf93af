//! Resources of every type for property tests.

use super::Resource;
use super::cluster_strategies::{assignment, cluster, secret};
use super::listener_strategies::listener;
use super::route_strategies::routes;
use super::strategies::Of;
use proptest::prelude::*;

pub(super) fn resource() -> Of<Resource> {
    prop_oneof![
        listener().prop_map(Resource::Listener),
        routes().prop_map(Resource::Routes),
        routes().prop_filter_map("a host", |mut table| table.virtual_hosts.pop().map(Resource::VirtualHost)),
        cluster().prop_map(Resource::Cluster),
        assignment(false).prop_map(Resource::Endpoints),
        secret().prop_map(Resource::Secret),
    ]
    .boxed()
}

/// The `Any` of a resource.
pub(super) fn any_of(resource: &Resource) -> envoy_types::pb::google::protobuf::Any {
    let value = match resource {
        Resource::Listener(listener) => super::encode_listener(listener),
        Resource::Routes(table) => super::encode_routes(table),
        Resource::VirtualHost(host) => super::encode_virtual_host(host),
        Resource::Cluster(cluster) => super::encode_cluster(cluster),
        Resource::Endpoints(assignment) => super::encode_endpoints(assignment),
        Resource::Secret(secret) => super::encode_secret(secret),
    };
    envoy_types::pb::google::protobuf::Any { type_url: resource.type_url().to_owned(), value }
}
