//! VirtualServices.

use super::*;

const A: &str = "a.x.svc.cluster.local";

#[test]
fn the_first_matching_rule_wins() {
    let rules = format!(
        "hosts: [a], http: [{{match: [{{uri: {{prefix: /p}}}}], {}}}, {{match: [{{uri: {{exact: /p/q}}}}], {}}}, {{{}}}]",
        to("b"),
        to("b.y.svc.cluster.local"),
        to("a.y.svc.cluster.local")
    );
    let seen = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", &rules)));
    assert_eq!(seen.get(A, "/p/q"), "b.x");
    assert_eq!(seen.get(A, "/other"), "a.y");
}

#[test]
fn a_catch_all_moves_to_the_end_where_rules_are_merged() {
    let gateway_resource = resource(
        "Gateway",
        "g",
        "x",
        "selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]",
    );
    let all =
        virtual_service("all", "x", &format!("hosts: [shop.com], gateways: [g], http: [{{{}}}]", to("a")));
    let some = format!(
        "hosts: [shop.com], gateways: [g], http: [{{match: [{{uri: {{prefix: /b}}}}], {}}}]",
        to("b")
    );
    let text = services() + &gateway_resource + &all + &virtual_service("some", "x", &some);
    let seen = seen(&gateway(), &text);
    assert_eq!(seen.by("http.80", "shop.com", "/b", &[]), "b.x");
    assert_eq!(seen.by("http.80", "shop.com", "/c", &[]), "a.x");
}

#[test]
fn a_prefix_is_a_prefix_of_the_text_and_not_of_segments() {
    let rules = format!("hosts: [a], http: [{{match: [{{uri: {{prefix: /foo}}}}], {}}}]", to("b"));
    let seen = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", &rules)));
    assert_eq!(seen.get(A, "/foobar"), "b.x");
    assert_eq!(seen.get(A, "/foo/bar"), "b.x");
}

#[test]
fn a_regular_expression_must_match_the_whole_path() {
    let rules = format!("hosts: [a], http: [{{match: [{{uri: {{regex: \"/[0-9]+\"}}}}], {}}}]", to("b"));
    let seen = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", &rules)));
    assert_eq!(seen.get(A, "/42"), "b.x");
    assert_eq!(seen.get(A, "/42/more"), "404");
    assert_eq!(seen.get(A, "/x/42"), "404");
}

#[test]
fn an_empty_header_matcher_means_that_the_header_is_there() {
    let rules = format!("hosts: [a], http: [{{match: [{{headers: {{x-user: {{}}}}}}], {}}}]", to("b"));
    let seen = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", &rules)));
    assert_eq!(seen.by("http_proxy", A, "/", &[("x-user", "any")]), "b.x");
    assert_eq!(seen.by("http_proxy", A, "/", &[("x-user", "")]), "b.x");
    assert_eq!(seen.get(A, "/"), "404");
}

#[test]
fn weights_are_relative_and_a_single_destination_gets_everything() {
    let rules = "hosts: [a], http: [{match: [{uri: {prefix: /one}}], route: [{destination: {host: b}, weight: 7}]}, \
                 {route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 3}]}]";
    let seen = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", rules)));
    assert_eq!(seen.get(A, "/one"), "b.x");
    assert_eq!(seen.get(A, "/"), "1*a.x 3*b.x");
}

#[test]
fn a_short_host_name_is_of_the_rules_namespace_and_not_of_the_clients() {
    let rules = virtual_service("r", "x", &format!("hosts: [a], http: [{{{}}}]", to("b")));
    let seen = seen(&sidecar("y", ""), &(services() + &rules));
    assert_eq!(seen.get(A, "/"), "b.x");
    assert_eq!(seen.get("a.y.svc.cluster.local", "/"), "a.y");
}

#[test]
fn a_rule_without_gateways_is_for_the_mesh_and_one_for_a_gateway_alone_is_not() {
    let gateway_resource = resource(
        "Gateway",
        "g",
        "x",
        "selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]",
    );
    let with = |gateways: &str| {
        let rules = virtual_service("r", "x", &format!("hosts: [{A}], {gateways}http: [{{{}}}]", to("b")));
        let text = services() + &gateway_resource + &rules;
        let at_edge = seen(&gateway(), &text).by("http.80", A, "/", &[]);
        (seen(&sidecar("x", ""), &text).get(A, "/"), at_edge)
    };
    assert_eq!(with(""), ("b.x".to_owned(), "404".to_owned()));
    assert_eq!(with("gateways: [g], "), ("a.x".to_owned(), "b.x".to_owned()));
    assert_eq!(with("gateways: [g, mesh], "), ("b.x".to_owned(), "b.x".to_owned()));
}

#[test]
fn labels_and_namespace_of_the_source_choose_the_proxies_that_have_a_rule() {
    let rules = format!(
        "hosts: [a], http: [{{match: [{{sourceLabels: {{app: w}}}}], {}}}, {{match: [{{sourceNamespace: y}}], {}}}, {{{}}}]",
        to("b"),
        to("b.y.svc.cluster.local"),
        to("a")
    );
    let text = services() + &virtual_service("r", "x", &rules);
    assert_eq!(seen(&sidecar("x", "app=w"), &text).get(A, "/"), "b.x");
    assert_eq!(seen(&sidecar("y", "app=v"), &text).get(A, "/"), "b.y");
    assert_eq!(seen(&sidecar("x", "app=v"), &text).get(A, "/"), "a.x");
}

#[test]
fn of_two_rules_for_a_host_sidecars_obey_the_older_and_gateways_both() {
    let gateway_resource = resource(
        "Gateway",
        "g",
        "x",
        "selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]",
    );
    let rule = |name: &str, path: &str, host: &str| {
        let rules = format!(
            "hosts: [{A}], gateways: [g, mesh], http: [{{match: [{{uri: {{prefix: {path}}}}}], {}}}]",
            to(host)
        );
        virtual_service(name, "x", &rules)
    };
    // Files have no time of creation: what is written first is older, whatever its name.
    let text = services() + &gateway_resource + &rule("z", "/z", "a") + &rule("m", "/m", "b");
    let near = seen(&sidecar("x", ""), &text);
    assert_eq!((near.get(A, "/z"), near.get(A, "/m")), ("a.x".to_owned(), "404".to_owned()));
    let edge = seen(&gateway(), &text);
    assert_eq!(edge.by("http.80", A, "/z", &[]), "a.x");
    assert_eq!(edge.by("http.80", A, "/m", &[]), "b.x");
}

#[test]
fn a_virtual_service_replaces_default_routing() {
    let rules = format!("hosts: [a], http: [{{match: [{{uri: {{prefix: /only}}}}], {}}}]", to("a"));
    let with = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", &rules)));
    assert_eq!(with.get(A, "/else"), "404");
    assert_eq!(seen(&sidecar("x", ""), &services()).get(A, "/else"), "a.x");
}

#[test]
fn the_most_specific_host_of_a_rule_counts_before_an_older_one() {
    let wild =
        virtual_service("wild", "x", &format!("hosts: [\"*.x.svc.cluster.local\"], http: [{{{}}}]", to("b")));
    let exact =
        virtual_service("exact", "x", &format!("hosts: [a], http: [{{{}}}]", to("a.y.svc.cluster.local")));
    let seen = seen(&sidecar("x", ""), &(services() + &wild + &exact));
    assert_eq!(seen.get(A, "/"), "a.y");
    assert_eq!(seen.get("b.x.svc.cluster.local", "/"), "b.x");
}

#[test]
fn a_delegate_is_one_level_deep_without_hosts_and_within_what_delegates() {
    let root = virtual_service(
        "root",
        "x",
        "hosts: [a], http: [{match: [{uri: {prefix: /p}}], delegate: {name: d}}, {match: [{uri: {prefix: /q}}], delegate: {name: e}}]",
    );
    let inside = format!("http: [{{match: [{{uri: {{prefix: /p/in}}}}], {}}}", to("b"));
    let outside = format!(", {{match: [{{uri: {{prefix: /out}}}}], {}}}]", to("a"));
    let again = virtual_service("e", "x", "http: [{match: [{uri: {prefix: /q/r}}], delegate: {name: d}}]");
    let text = services() + &root + &virtual_service("d", "x", &(inside + &outside)) + &again;
    let seen = seen(&sidecar("x", ""), &text);
    assert_eq!(seen.get(A, "/p/in"), "b.x");
    assert_eq!(seen.get(A, "/p/else"), "404", "the delegate's own conditions count, too");
    assert_eq!(seen.get(A, "/out"), "404");
    assert_eq!(seen.get(A, "/q/r"), "404", "a delegate does not delegate");
}

#[test]
fn a_subset_that_nobody_declares_has_no_cluster_and_is_told_before() {
    let rules = "hosts: [a], http: [{route: [{destination: {host: a, subset: v9}}]}]";
    let seen = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", rules)));
    assert_eq!(seen.get(A, "/"), "v9.a.x");
    assert!(seen.cluster("outbound|80|v9|a.x.svc.cluster.local").is_none());
    assert!(seen.tells("has no subset `v9`"), "{:?}", seen.told);
}

#[test]
fn a_rule_that_makes_failures_has_no_timeout_and_no_retries() {
    let rules = format!(
        "hosts: [a], http: [{{fault: {{abort: {{httpStatus: 503, percentage: {{value: 10}}}}}}, timeout: 3s, retries: {{attempts: 4}}, {}}}]",
        to("a")
    );
    let seen = seen(&sidecar("x", ""), &(services() + &virtual_service("r", "x", &rules)));
    let hosts = &seen.resources.routes[0].virtual_hosts;
    let host = hosts.iter().find(|host| host.name.starts_with(A)).unwrap();
    let Action::Forward(forward) = &host.routes.last().unwrap().action else { panic!("it forwards") };
    assert_eq!(forward.timeout, None);
    assert_eq!(forward.retry.as_ref().map(|retry| retry.retries), Some(0));
}
