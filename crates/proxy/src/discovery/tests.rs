//! A control plane's messages in, requests and configurations out: no socket, no clock.
#![allow(clippy::unwrap_used)]

use super::warming::{DELIVERY, LINGER, UNKNOWN_CLUSTER};
use super::*;
use envoy_types::pb::envoy::config::cluster::v3 as cds;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ConfigSource, SocketAddress, address, config_source, socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3 as eds;
use envoy_types::pb::envoy::config::listener::v3 as lds;
use envoy_types::pb::envoy::config::route::v3 as rds;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use std::time::Duration;

mod demands;

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

fn ads() -> ConfigSource {
    let specifier = config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    ConfigSource { config_source_specifier: Some(specifier), resource_api_version: 2, ..Default::default() }
}

fn socket(port: u32) -> Address {
    let socket = SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// A cluster whose endpoints come over EDS.
fn cluster(name: &str) -> Any {
    let kind = cds::cluster::ClusterDiscoveryType::Type(cds::cluster::DiscoveryType::Eds as i32);
    let eds = cds::cluster::EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() };
    let cluster = cds::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(kind),
        eds_cluster_config: Some(eds),
        ..Default::default()
    };
    any(CLUSTER, &cluster)
}

fn assignment(name: &str, port: u32) -> Any {
    let endpoint = eds::Endpoint { address: Some(socket(port)), ..Default::default() };
    let endpoint = eds::LbEndpoint {
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    };
    let locality = eds::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    let assignment = eds::ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![locality],
        ..Default::default()
    };
    any(ASSIGNMENT, &assignment)
}

/// A table that sends everything to `cluster`.
fn table(name: &str, cluster: &str) -> Any {
    let specifier = rds::route_action::ClusterSpecifier::Cluster(cluster.into());
    let action = rds::RouteAction { cluster_specifier: Some(specifier), ..Default::default() };
    let condition = rds::RouteMatch {
        path_specifier: Some(rds::route_match::PathSpecifier::Prefix("/".into())),
        ..Default::default()
    };
    let route = rds::Route {
        r#match: Some(condition),
        action: Some(rds::route::Action::Route(action)),
        ..Default::default()
    };
    let host = rds::VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..Default::default()
    };
    any(
        ROUTES,
        &rds::RouteConfiguration { name: name.into(), virtual_hosts: vec![host], ..Default::default() },
    )
}

/// A listener that asks for the table `routes`.
fn listener(name: &str, port: u32, routes: &str) -> Any {
    let rds = hcm::Rds { config_source: Some(ads()), route_config_name: routes.into() };
    let router = hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(Any {
            type_url: "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router".into(),
            value: Vec::new(),
        })),
        ..Default::default()
    };
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "x".into(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(rds)),
        http_filters: vec![router],
        ..Default::default()
    };
    let url = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let filter = lds::Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(lds::filter::ConfigType::TypedConfig(any(url, &manager))),
    };
    let chain = lds::FilterChain { filters: vec![filter], ..Default::default() };
    let listener = lds::Listener {
        name: name.into(),
        address: Some(socket(port)),
        filter_chains: vec![chain],
        ..Default::default()
    };
    any(LISTENER, &listener)
}

fn delta(type_url: &str, resources: &[(&str, Any)], removed: &[&str]) -> Response {
    let resource = |(name, any): &(&str, Any)| Resource {
        name: (*name).to_owned(),
        version: "1".into(),
        resource: Some(any.clone()),
        ..Default::default()
    };
    Response::Delta(DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        nonce: "n".into(),
        ..Default::default()
    })
}

const DELTA: Scope = Scope { ads: true, delta: true, listeners: true, clusters: true, identity: false };

/// A discovery and its clock.
struct World {
    discovery: Discovery,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut discovery = Discovery::new(DELTA);
        let now = Instant::now();
        discovery.advance(now);
        discovery.take_output();
        Self { discovery, now }
    }

    /// Sends a response; returns what is asked for after it, as `type: +names -names`, and any refusal.
    fn send(&mut self, response: Response) -> Vec<String> {
        self.discovery.receive(response, self.now);
        let output = self.discovery.take_output();
        output.requests.iter().map(told).collect()
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.discovery.advance(self.now);
    }

    /// Clusters, tables and listeners in force.
    fn in_force(&self) -> String {
        let config = self.discovery.config();
        let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>().join(",");
        let clusters = names(config.clusters.keys().collect());
        let routes = names(config.routes.keys().collect());
        let listeners = names(config.listeners.keys().collect());
        format!("{clusters}|{routes}|{listeners}")
    }

    /// Everything from a cluster `a` to a listener `l` with the table `t`.
    fn serving() -> Self {
        let mut world = Self::new();
        world.send(delta(CLUSTER, &[("a", cluster("a"))], &[]));
        world.send(delta(ASSIGNMENT, &[("a", assignment("a", 1))], &[]));
        world.send(delta(LISTENER, &[("l", listener("l", 80, "t"))], &[]));
        world.send(delta(ROUTES, &[("t", table("t", "a"))], &[]));
        assert_eq!(world.in_force(), "a|t|l");
        world
    }
}

fn told(request: &Request) -> String {
    let Request::Delta(DeltaDiscoveryRequest {
        type_url,
        resource_names_subscribe: more,
        resource_names_unsubscribe: less,
        error_detail,
        ..
    }) = request
    else {
        return "not delta".to_owned();
    };
    let kind = type_url.rsplit('.').next().unwrap();
    let mut text = kind.to_owned();
    more.iter().for_each(|name| text.push_str(&format!(" +{name}")));
    less.iter().for_each(|name| text.push_str(&format!(" -{name}")));
    error_detail.iter().for_each(|error| text.push_str(&format!(" refused {}", error.message)));
    text
}

#[test]
fn names_are_asked_for_as_they_are_referred_to_and_no_longer() {
    let mut world = World::new();
    let asked = world.send(delta(CLUSTER, &[("a", cluster("a")), ("b", cluster("b"))], &[]));
    assert_eq!(asked, ["Cluster", "ClusterLoadAssignment +a +b"]);
    assert_eq!(
        world.send(delta(LISTENER, &[("l", listener("l", 80, "t"))], &[])),
        ["Listener", "RouteConfiguration +t"]
    );
    assert_eq!(world.send(delta(CLUSTER, &[], &["b"])), ["Cluster", "ClusterLoadAssignment -b"]);
    let asked = world.send(delta(LISTENER, &[("l", listener("l", 80, "u"))], &[]));
    assert_eq!(asked, ["Listener", "RouteConfiguration +u", "RouteConfiguration -t"]);
}

#[test]
fn nothing_is_in_force_before_what_it_needs_is_there() {
    let mut world = World::new();
    assert_eq!(world.discovery.stage(), Stage::Clusters);
    world.send(delta(CLUSTER, &[("a", cluster("a"))], &[]));
    world.send(delta(LISTENER, &[("l", listener("l", 80, "t"))], &[]));
    world.send(delta(ROUTES, &[("t", table("t", "a"))], &[]));
    assert_eq!((world.in_force().as_str(), world.discovery.stage()), ("||", Stage::Clusters));
    world.send(delta(ASSIGNMENT, &[("a", assignment("a", 1))], &[]));
    assert_eq!((world.in_force().as_str(), world.discovery.stage()), ("a|t|l", Stage::Complete));
}

#[test]
fn what_does_not_come_is_not_waited_for_for_ever() {
    let mut world = World::new();
    world.send(delta(CLUSTER, &[("a", cluster("a"))], &[]));
    world.send(delta(LISTENER, &[("l", listener("l", 80, "t"))], &[]));
    assert_eq!(world.discovery.next(), Some(world.now + DELIVERY));
    world.wait(DELIVERY);
    assert_eq!(world.in_force(), "a||l");
    assert_eq!(world.discovery.next(), None);
}

#[test]
fn endpoints_and_tables_that_do_not_exist_are_not_waited_for() {
    let mut world = World::new();
    world.send(delta(CLUSTER, &[("a", cluster("a"))], &[]));
    world.send(delta(ASSIGNMENT, &[], &["a"]));
    world.send(delta(LISTENER, &[("l", listener("l", 80, "t"))], &[]));
    world.send(delta(ROUTES, &[], &["t"]));
    assert_eq!(world.in_force(), "a||l");
}

#[test]
fn a_table_waits_for_a_new_cluster_and_the_old_one_stays_until_then() {
    let mut world = World::serving();
    world.send(delta(ROUTES, &[("t", table("t", "b"))], &[]));
    world.send(delta(CLUSTER, &[("b", cluster("b"))], &["a"]));
    // `b` waits for its endpoints, the new table for `b`, and `a` stays for the old table.
    assert_eq!(world.in_force(), "a|t|l");
    world.send(delta(ASSIGNMENT, &[("b", assignment("b", 1))], &[]));
    assert_eq!(world.in_force(), "b|t|l");
    assert_eq!(world.discovery.config().routes["t"].config().virtual_hosts[0].name, "all");
}

#[test]
fn a_cluster_nobody_has_heard_of_holds_a_table_up_only_briefly() {
    let mut world = World::serving();
    let before = world.discovery.config().routes["t"].clone();
    world.send(delta(ROUTES, &[("t", table("t", "nowhere"))], &[]));
    assert!(Arc::ptr_eq(&before, &world.discovery.config().routes["t"]));
    world.wait(UNKNOWN_CLUSTER);
    assert!(!Arc::ptr_eq(&before, &world.discovery.config().routes["t"]));
}

#[test]
fn a_removed_cluster_lingers_while_a_table_still_sends_to_it() {
    let mut world = World::serving();
    world.send(delta(CLUSTER, &[], &["a"]));
    assert_eq!(world.in_force(), "a|t|l");
    assert_eq!(world.discovery.config().assignments["a"].endpoints().count(), 1);
    world.wait(LINGER);
    assert_eq!(world.in_force(), "|t|l");
}

#[test]
fn endpoints_change_at_once() {
    let mut world = World::serving();
    world.send(delta(ASSIGNMENT, &[("a", assignment("a", 2))], &[]));
    let first = world.discovery.config().assignments["a"].endpoints().next().unwrap().address.to_string();
    assert_eq!(first, "127.0.0.1:2");
}

#[test]
fn a_bad_resource_is_refused_by_name_and_its_last_good_version_stays() {
    let mut world = World::serving();
    let bad = any(
        ROUTES,
        &rds::RouteConfiguration {
            name: "t".into(),
            virtual_hosts: vec![
                rds::VirtualHost { name: "x".into(), domains: vec!["a.test".into()], ..Default::default() },
                rds::VirtualHost { name: "y".into(), domains: vec!["a.test".into()], ..Default::default() },
            ],
            ..Default::default()
        },
    );
    let answer = world.send(delta(ROUTES, &[("t", bad)], &[]));
    assert!(answer[0].contains("refused t: ") && answer[0].contains("a.test"), "{answer:?}");
    assert_eq!(world.in_force(), "a|t|l");
    let entry = &world.discovery.catalog().routes.entries["t"];
    assert!(entry.refusal.is_some() && entry.active.is_some());
    world.send(delta(ROUTES, &[("t", table("t", "a"))], &[]));
    assert!(world.discovery.catalog().routes.entries["t"].refusal.is_none());
}

#[test]
fn a_second_listener_on_an_address_is_refused_and_used_when_it_is_free() {
    let mut world = World::serving();
    let answer = world.send(delta(LISTENER, &[("m", listener("m", 80, "t"))], &[]));
    assert!(answer[0].contains("127.0.0.1:80 is taken by the listener `l`"), "{answer:?}");
    assert_eq!(world.in_force(), "a|t|l");
    world.send(delta(LISTENER, &[], &["l"]));
    assert_eq!(world.in_force(), "a|t|m");
}

#[test]
fn listeners_can_trade_addresses_in_one_response() {
    let mut world = World::serving();
    world.send(delta(LISTENER, &[("m", listener("m", 81, "t"))], &[]));
    let answer =
        world.send(delta(LISTENER, &[("l", listener("l", 81, "t")), ("m", listener("m", 80, "t"))], &[]));
    assert_eq!(answer, ["Listener"]);
}

#[test]
fn a_resource_under_another_name_or_of_another_type_is_refused() {
    let mut world = World::new();
    let answer = world.send(delta(CLUSTER, &[("a", cluster("b"))], &[]));
    assert!(answer[0].contains("calls itself `b`"), "{answer:?}");
    let answer = world.send(delta(CLUSTER, &[("a", assignment("a", 1))], &[]));
    assert!(answer[0].contains("not asked for here"), "{answer:?}");
}

#[test]
fn what_was_accepted_survives_a_restart_and_is_resumed_by_version() {
    let saved = World::serving().discovery.export();
    let mut discovery = Discovery::new(DELTA);
    let now = Instant::now();
    discovery.restore(saved, now);
    let mut world = World { discovery, now };
    assert_eq!((world.in_force().as_str(), world.discovery.stage()), ("a|t|l", Stage::Complete));
    let requests = world.discovery.connected();
    let held: Vec<usize> = requests
        .iter()
        .map(|request| match request {
            Request::Delta(request) => request.initial_resource_versions.len(),
            Request::Whole(_) => 0,
        })
        .collect();
    assert_eq!(held, [1, 1, 1, 1]);
    // What changed meanwhile is told on connecting.
    world.send(delta(LISTENER, &[], &["l"]));
    assert_eq!(world.in_force(), "a||");
}

#[test]
fn what_was_in_force_before_a_restart_is_so_at_once_after_it() {
    let mut world = World::serving();
    world.send(delta(ROUTES, &[("t", table("t", "nowhere"))], &[]));
    world.wait(UNKNOWN_CLUSTER);
    let saved = world.discovery.export();
    let mut discovery = Discovery::new(DELTA);
    discovery.restore(saved, world.now);
    assert_eq!((discovery.stage(), discovery.next()), (Stage::Complete, None));
}

#[test]
fn a_state_of_the_world_server_is_followed_as_well() {
    let now = Instant::now();
    let mut discovery = Discovery::new(Scope { delta: false, ..DELTA });
    let mut send = |type_url: &str, resources: Vec<Any>| {
        let response = DiscoveryResponse {
            version_info: "1".into(),
            type_url: type_url.to_owned(),
            resources,
            nonce: "n".into(),
            ..Default::default()
        };
        discovery.receive(Response::Whole(response), now);
        let config = discovery.config();
        (config.clusters.len(), config.routes.len(), config.listeners.len())
    };
    send(CLUSTER, vec![cluster("a"), cluster("b")]);
    send(ASSIGNMENT, vec![assignment("a", 1), assignment("b", 1)]);
    send(LISTENER, vec![listener("l", 80, "t")]);
    assert_eq!(send(ROUTES, vec![table("t", "a")]), (2, 1, 1));
    // What a response leaves out is gone, as far as nothing sends to it.
    assert_eq!(send(CLUSTER, vec![cluster("a")]), (1, 1, 1));
    assert_eq!(send(LISTENER, vec![]), (1, 0, 0));
}

#[test]
fn what_a_state_of_the_world_server_lost_during_a_restart_is_gone() {
    let saved = World::serving().discovery.export();
    let now = Instant::now();
    let mut discovery = Discovery::new(Scope { delta: false, ..DELTA });
    discovery.restore(saved, now);
    assert_eq!((discovery.config().listeners.len(), discovery.stage()), (1, Stage::Complete));
    let response = DiscoveryResponse { type_url: LISTENER.to_owned(), ..Default::default() };
    discovery.receive(Response::Whole(response), now);
    assert!(discovery.config().listeners.is_empty());
}

#[test]
fn what_is_delivered_again_unchanged_is_not_compiled_again() {
    let mut world = World::serving();
    let before = world.discovery.config().clone();
    world.send(delta(CLUSTER, &[("a", cluster("a"))], &[]));
    world.send(delta(LISTENER, &[("l", listener("l", 80, "t"))], &[]));
    let after = world.discovery.config();
    assert!(Arc::ptr_eq(&before.clusters["a"], &after.clusters["a"]));
    assert!(Arc::ptr_eq(&before.listeners["l"], &after.listeners["l"]));
}

#[test]
fn a_control_plane_cannot_replace_a_static_cluster() {
    let mut world = World::new();
    let judged = judge::judge(CLUSTER, "a", &cluster("a"), None).unwrap();
    world.discovery.accept("a", Origin::Static, judged, &"".into(), None, world.now);
    let answer = world.send(delta(CLUSTER, &[("a", cluster("a"))], &[]));
    assert!(answer[0].contains("a static resource has this name"), "{answer:?}");
    world.send(delta(CLUSTER, &[], &["a"]));
    assert!(world.discovery.catalog().clusters.latest("a").is_some());
}
