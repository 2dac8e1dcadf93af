//! Clusters and virtual hosts that are asked for because a request needs them.

use super::super::demands::IDLE;
use super::*;
use crate::snapshot::Need;

fn virtual_host(name: &str, domain: &str, cluster: &str) -> Any {
    let mut table = rds::RouteConfiguration::decode(table("t", cluster).value.as_slice()).unwrap();
    let mut host = table.virtual_hosts.pop().unwrap();
    (host.name, host.domains) = (name.to_owned(), vec![domain.to_owned()]);
    any(VIRTUAL_HOST, &host)
}

/// A table that asks for its hosts; `own` is the domain of one that it has itself.
fn lean_table(own: Option<&str>) -> Any {
    let mut table = rds::RouteConfiguration::decode(table("t", "a").value.as_slice()).unwrap();
    match own {
        Some(own) => table.virtual_hosts[0].domains = vec![own.to_owned()],
        None => table.virtual_hosts.clear(),
    }
    table.vhds = Some(rds::Vhds { config_source: Some(ads()) });
    any(ROUTES, &table)
}

fn aliased(name: &str, aliases: &[&str], host: Option<Any>) -> Response {
    let resource = Resource {
        name: name.to_owned(),
        version: "1".into(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        resource: host,
        ..Default::default()
    };
    let Response::Delta(mut response) = delta(VIRTUAL_HOST, &[], &[]) else { unreachable!() };
    response.resources.push(resource);
    Response::Delta(response)
}

fn cluster_need(name: &str) -> Need {
    Need::Cluster(name.to_owned())
}

fn host_need(name: &str) -> Need {
    Need::Host(name.to_owned())
}

impl World {
    fn need(&mut self, need: Need) -> Vec<String> {
        self.discovery.need(vec![need], self.now);
        self.discovery.take_output().requests.iter().map(told).collect()
    }

    fn is_answered(&self, need: &Need) -> bool {
        self.discovery.config().answered.contains(need)
    }

    /// Domains of the table `t`, in order.
    fn domains(&self) -> String {
        let hosts = &self.discovery.config().routes["t"].config().virtual_hosts;
        let domains: Vec<&str> = hosts.iter().flat_map(|host| &host.domains).map(String::as_str).collect();
        domains.join(" ")
    }

    /// A world whose table has no hosts.
    fn lean() -> Self {
        let mut world = Self::serving();
        world.send(delta(ROUTES, &[("t", lean_table(None))], &[]));
        world
    }
}

#[test]
fn a_cluster_is_asked_for_once_and_comes_into_force_with_its_endpoints() {
    let mut world = World::serving();
    assert_eq!(world.need(cluster_need("b")), ["Cluster +b"]);
    assert!(world.need(cluster_need("b")).is_empty());
    assert!(world.need(cluster_need("a")).is_empty(), "what is there is not asked for");
    world.send(delta(CLUSTER, &[("b", cluster("b"))], &[]));
    assert_eq!(world.in_force(), "a|t|l");
    world.send(delta(ASSIGNMENT, &[("b", assignment("b", 2))], &[]));
    assert_eq!(world.in_force(), "a,b|t|l");
    assert!(!world.is_answered(&cluster_need("b")), "whoever waits finds it");
}

#[test]
fn a_cluster_that_is_missing_or_cannot_be_used_is_not_waited_for() {
    let mut world = World::serving();
    world.need(cluster_need("b"));
    assert!(!world.is_answered(&cluster_need("b")));
    world.send(delta(CLUSTER, &[], &["b"]));
    assert!(world.is_answered(&cluster_need("b")));
    world.need(cluster_need("c"));
    world.send(delta(CLUSTER, &[("c", cluster("other"))], &[]));
    assert!(world.is_answered(&cluster_need("c")));
    // One of them comes to be.
    world.send(delta(CLUSTER, &[("b", cluster("b"))], &[]));
    assert!(!world.is_answered(&cluster_need("b")));
}

#[test]
fn a_virtual_host_joins_its_table_under_whatever_name_it_was_asked_for() {
    let mut world = World::lean();
    assert_eq!(world.need(host_need("t/x.test")), ["VirtualHost +t/x.test"]);
    world.send(aliased("t/x", &["t/x.test"], Some(virtual_host("t/x", "x.test", "a"))));
    assert_eq!(world.domains(), "x.test");
    assert!(world.is_answered(&host_need("t/x.test")));
    // A change comes under its own name alone.
    world.send(aliased("t/x", &[], Some(virtual_host("t/x", "y.test", "a"))));
    assert_eq!(world.domains(), "y.test");
    world.send(delta(VIRTUAL_HOST, &[], &["t/x"]));
    assert_eq!(world.domains(), "");
    assert!(world.is_answered(&host_need("t/x.test")) || world.need(host_need("t/x.test")).is_empty());
}

#[test]
fn that_there_is_no_such_host_is_an_answer() {
    let mut world = World::lean();
    world.need(host_need("t/x.test"));
    assert!(!world.is_answered(&host_need("t/x.test")));
    world.send(aliased("t/x.test", &["t/x.test"], None));
    assert!(world.is_answered(&host_need("t/x.test")));
    assert_eq!(world.domains(), "");
}

#[test]
fn a_domain_that_the_table_has_itself_stays_its_own() {
    let mut world = World::serving();
    world.send(delta(ROUTES, &[("t", lean_table(Some("x.test")))], &[]));
    world.need(host_need("t/x.test"));
    world.send(delta(VIRTUAL_HOST, &[("t/x.test", virtual_host("t/x.test", "x.test", "b"))], &[]));
    assert_eq!(world.domains(), "x.test");
    // Another table gets nothing of it.
    world.need(host_need("t/2/x.test"));
    world.send(delta(VIRTUAL_HOST, &[("t/2/x.test", virtual_host("v", "z.test", "b"))], &[]));
    assert_eq!(world.domains(), "x.test");
}

#[test]
fn a_new_table_keeps_the_hosts_that_came_by_themselves() {
    let mut world = World::lean();
    world.need(host_need("t/x.test"));
    world.send(delta(VIRTUAL_HOST, &[("t/x.test", virtual_host("t/x.test", "x.test", "a"))], &[]));
    world.send(delta(ROUTES, &[("t", lean_table(Some("own.test")))], &[]));
    assert_eq!(world.domains(), "own.test x.test");
    world.send(delta(ROUTES, &[("t", table("t", "a"))], &[]));
    assert_eq!(world.domains(), "*");
}

#[test]
fn hosts_of_a_table_that_nothing_refers_to_are_asked_for_no_longer() {
    let mut world = World::lean();
    world.need(host_need("t/x.test"));
    let asked = world.send(delta(LISTENER, &[], &["l"]));
    assert_eq!(asked, ["Listener", "RouteConfiguration -t", "VirtualHost -t/x.test"]);
}

#[test]
fn what_no_request_needed_for_long_is_let_go() {
    let mut world = World::lean();
    world.need(host_need("t/x.test"));
    world.send(delta(VIRTUAL_HOST, &[("t/x.test", virtual_host("t/x.test", "x.test", "b"))], &[]));
    world.need(cluster_need("b"));
    world.send(delta(CLUSTER, &[("b", cluster("b"))], &[]));
    world.send(delta(ASSIGNMENT, &[("b", assignment("b", 2))], &[]));
    let look = |world: &mut World, is_used: bool| -> Vec<String> {
        world.now += IDLE;
        world.discovery.let_idle_go(|_| is_used, world.now);
        world.wait(LINGER);
        world.discovery.take_output().requests.iter().map(told).collect()
    };
    assert!(look(&mut world, true).is_empty());
    assert_eq!(look(&mut world, false), ["Cluster -b", "VirtualHost -t/x.test", "ClusterLoadAssignment -b"]);
    assert_eq!((world.in_force().as_str(), world.domains().as_str()), ("a|t|l", ""));
    assert_eq!(world.need(cluster_need("b")), ["Cluster +b"], "it can be asked for again");
}

#[test]
fn what_was_asked_for_is_there_after_a_restart_and_asked_for_again() {
    let mut world = World::lean();
    world.need(host_need("t/x.test"));
    world.need(host_need("t/nobody.test"));
    world.send(aliased("t/x", &["t/x.test"], Some(virtual_host("t/x", "x.test", "b"))));
    world.need(cluster_need("b"));
    world.send(delta(CLUSTER, &[("b", cluster("b"))], &[]));
    world.send(delta(ASSIGNMENT, &[("b", assignment("b", 2))], &[]));
    let saved = world.discovery.export();
    let mut discovery = Discovery::new(DELTA);
    discovery.restore(saved, world.now);
    let mut world = World { discovery, now: world.now };
    assert_eq!((world.in_force().as_str(), world.domains().as_str()), ("a,b|t|l", "x.test"));
    let asked: Vec<String> = world.discovery.connected().iter().map(told).collect();
    assert_eq!(
        asked,
        [
            "Cluster +* +b",
            "ClusterLoadAssignment +a +b",
            "Listener +*",
            "RouteConfiguration +t",
            "VirtualHost +t/x.test",
        ]
    );
}

#[test]
fn in_a_state_of_the_world_stream_nothing_can_be_asked_for_by_name() {
    let mut discovery = Discovery::new(Scope { delta: false, ..DELTA });
    let now = Instant::now();
    discovery.need(vec![cluster_need("b")], now);
    let output = discovery.take_output();
    assert!(output.requests.is_empty());
    assert!(output.told[0].contains("`b` cannot be asked for"), "{:?}", output.told);
    assert!(discovery.config().answered.contains(&cluster_need("b")));
}
