//! Clusters and virtual hosts that are asked for when a request needs them.

use super::ads::Plane;
use super::bench::{Bench, Server, both, get_on, shown};
use std::time::{Duration, Instant};
use testing::exchange::Connection;
use testing::upstream::Upstream;
use xds::codec;
use xds::codec::type_url::{CLUSTER, ROUTE, VIRTUAL_HOST};

const CLUSTERS: &str = include_str!("on_demand_clusters.yaml");
const HOSTS: &str = include_str!("on_demand_hosts.yaml");
const PATIENCE: Duration = Duration::from_secs(20);

fn cluster(name: &str, port: u16) -> Vec<u8> {
    let text = format!(
        "static_resources: {{clusters: [{{name: {name}, connect_timeout: 1s, load_assignment: {{cluster_name: {name},
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{
         address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}]}}"
    );
    let parsed = xds::bootstrap::parse(&text, "boot.yaml").unwrap();
    codec::encode_cluster(&codec::decode_cluster(&parsed.static_clusters[0]).unwrap())
}

fn host(name: &str, domains: &[&str], cluster: &str) -> Vec<u8> {
    use model::route::{Action, Forward, Route, RouteMatch, VirtualHost};
    let route = Route {
        name: String::new(),
        condition: RouteMatch::any(),
        action: Action::forward(Forward::to(cluster)),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: None,
        metadata: Default::default(),
        provenance: None,
    };
    codec::encode_virtual_host(&VirtualHost {
        name: name.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes: vec![route],
        ..VirtualHost::default()
    })
}

fn table() -> Vec<u8> {
    codec::encode_routes(&model::route::RouteConfiguration {
        name: "table".to_owned(),
        asks_for_hosts: true,
        ..Default::default()
    })
}

fn ask(bench: &Bench, port: &str, path: &str, lines: &[&str]) -> String {
    shown(&bench.get(port, path, lines))
}

/// Asks until the answer is this.
fn until(bench: &Bench, port: &str, path: &str, lines: &[&str], expected: &str) -> String {
    let begun = Instant::now();
    loop {
        let answer = ask(bench, port, path, lines);
        if answer == expected || begun.elapsed() > PATIENCE {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cluster_is_fetched_when_a_request_needs_it() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let plane = Plane::start();
    plane.serve(CLUSTER, "one", &[], cluster("one", one.port()));
    plane.serve(CLUSTER, "two", &[], cluster("two", two.port()));
    plane.serve(CLUSTER, "unasked", &[], cluster("unasked", two.port()));
    plane.keep_silent("silent");
    let play = |bench: &Bench| {
        let at = bench.at("IN_CLUSTERS");
        let (asked, silently) = (plane.times_asked("one"), plane.times_asked("unasked"));
        let together: Vec<String> = std::thread::scope(|scope| {
            let ask = || shown(&get_on(&mut Connection::open(at), "/one", &[]));
            let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            all.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        let mut seen = vec![together.join(" ")];
        seen.push(format!("asked {}", plane.times_asked("one") - asked));
        seen.push(ask(bench, "IN_CLUSTERS", "/named", &["x-cluster: two"]));
        seen.push(ask(bench, "IN_CLUSTERS", "/split", &[]));
        seen.push(ask(bench, "IN_CLUSTERS", "/named", &[]));
        seen.push(ask(bench, "IN_CLUSTERS", "/nowhere", &[]));
        seen.push(ask(bench, "IN_CLUSTERS", "/here", &[]));
        let begun = Instant::now();
        seen.push(ask(bench, "IN_CLUSTERS", "/silent", &[]));
        let waited = begun.elapsed();
        seen.push(format!("{}", waited > Duration::from_millis(400) && waited < Duration::from_secs(4)));
        seen.push(ask(bench, "IN_CLUSTERS", "/off", &[]));
        seen.push(format!("asked {}", plane.times_asked("unasked") - silently));
        seen
    };
    let eight = ["one"; 8].join(" ");
    let expected =
        [eight.as_str(), "asked 1", "two", "two", "503", "503", "here", "503", "true", "503", "asked 0"];
    both(CLUSTERS, &[("PLANE", plane.port)], play, &expected);
}

#[test]
fn what_was_fetched_is_followed() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let plane = Plane::start();
    let play = |bench: &Bench| {
        plane.serve(CLUSTER, "one", &[], cluster("one", one.port()));
        let mut seen = vec![ask(bench, "IN_CLUSTERS", "/one", &[])];
        plane.serve(CLUSTER, "one", &[], cluster("one", two.port()));
        plane.push(CLUSTER, "one", true);
        seen.push(until(bench, "IN_CLUSTERS", "/one", &[], "two"));
        plane.push(CLUSTER, "one", false);
        seen.push(until(bench, "IN_CLUSTERS", "/one", &[], "503"));
        // There again: pushed to those who still ask for it.
        plane.serve(CLUSTER, "one", &[], cluster("one", one.port()));
        plane.push(CLUSTER, "one", true);
        seen.push(until(bench, "IN_CLUSTERS", "/one", &[], "one"));
        seen
    };
    both(CLUSTERS, &[("PLANE", plane.port)], play, &["one", "two", "503", "one"]);
}

#[test]
fn a_request_that_waited_for_its_cluster_has_its_whole_time() {
    let one = Server::start("one");
    let plane = Plane::start();
    plane.keep_silent("late");
    let play = |bench: &Bench| {
        let at = bench.at("IN_CLUSTERS");
        let asked = plane.times_asked("late");
        plane.serve(CLUSTER, "late", &[], cluster("late", one.port()));
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| shown(&get_on(&mut Connection::open(at), "/patient", &[])));
            let begun = Instant::now();
            while plane.times_asked("late") == asked && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Longer than the route's timeout.
            std::thread::sleep(Duration::from_millis(400));
            plane.push(CLUSTER, "late", true);
            vec![asking.join().unwrap()]
        })
    };
    both(CLUSTERS, &[("PLANE", plane.port)], play, &["one"]);
}

#[test]
fn a_virtual_host_is_fetched_when_a_request_needs_it() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let plane = Plane::start();
    plane.serve(ROUTE, "table", &[], table());
    plane.serve(CLUSTER, "one", &[], cluster("one", one.port()));
    plane.serve(CLUSTER, "two", &[], cluster("two", two.port()));
    let play = |bench: &Bench| {
        let of = |line: &str| ask(bench, "IN_HOSTS", "/", &[line]);
        plane.serve(VIRTUAL_HOST, "table/first", &["table/a.test", "table/b.test"], {
            host("table/first", &["a.test", "b.test"], "one")
        });
        plane.serve(VIRTUAL_HOST, "table/c.test:81", &[], host("table/c.test:81", &["c.test:81"], "two"));
        let asked = plane.times_asked("table/a.test");
        let mut seen =
            vec![of("host: a.test"), of("host: A.test"), of("host: b.test"), of("host: c.test:81")];
        seen.push(format!("asked {}", plane.times_asked("table/a.test") - asked));
        seen.push(of("host: c.test"));
        seen.push(of("host: nobody.test"));
        // It comes to be, changes and goes.
        plane.serve(
            VIRTUAL_HOST,
            "table/nobody.test",
            &[],
            host("table/nobody.test", &["nobody.test"], "one"),
        );
        plane.push(VIRTUAL_HOST, "table/nobody.test", true);
        seen.push(until(bench, "IN_HOSTS", "/", &["host: nobody.test"], "one"));
        plane.serve(VIRTUAL_HOST, "table/first", &[], host("table/first", &["a.test", "b.test"], "two"));
        plane.push(VIRTUAL_HOST, "table/first", true);
        seen.push(until(bench, "IN_HOSTS", "/", &["host: a.test"], "two"));
        plane.push(VIRTUAL_HOST, "table/nobody.test", false);
        seen.push(until(bench, "IN_HOSTS", "/", &["host: nobody.test"], "404"));
        seen
    };
    let expected = ["one", "one", "one", "two", "asked 1", "404", "404", "one", "two", "404"];
    both(HOSTS, &[("PLANE", plane.port)], play, &expected);
}

/// A POST with a body, the first request that needs its virtual host and its cluster.
#[test]
fn a_request_that_waits_keeps_its_body() {
    let one = Upstream::start("one");
    let plane = Plane::start();
    plane.serve(ROUTE, "table", &[], table());
    plane.serve(CLUSTER, "one", &[], cluster("one", one.address.port()));
    plane.serve(VIRTUAL_HOST, "table/a.test", &[], host("table/a.test", &["a.test"], "one"));
    let play = |bench: &Bench| {
        let mut connection = Connection::open(bench.at("IN_HOSTS"));
        connection.send(
            b"POST / HTTP/1.1\r\nHost: a.test\r\nx-case: post\r\nx-answer: echo\r\nContent-Length: 5\r\n\r\nhello",
        );
        vec![shown(&connection.read_answer(false))]
    };
    both(HOSTS, &[("PLANE", plane.port)], play, &["hello"]);
}
