//! DestinationRules.

use super::*;
use model::cluster::Transport;
use std::time::Duration;

const A: &str = "outbound|80||a.x.svc.cluster.local";

fn rule(name: &str, namespace: &str, host: &str, seconds: u32, more: &str) -> String {
    let spec = format!(
        "host: {host}, trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {seconds}s}}}}}}{more}"
    );
    resource("DestinationRule", name, namespace, &spec)
}

/// Seconds that connecting to `a.x` may take for a sidecar in `namespace`.
fn timeout(namespace: &str, text: &str) -> u64 {
    let seen = seen(&sidecar(namespace, ""), &(services() + text));
    seen.cluster(A).unwrap().connect_timeout.as_secs()
}

#[test]
fn rules_are_looked_up_in_the_clients_namespace_then_the_services_then_the_root() {
    let host = "a.x.svc.cluster.local";
    let root = rule("r", "istio-system", host, 1, "");
    let service = rule("r", "x", host, 2, "");
    let client = rule("r", "y", host, 3, "");
    assert_eq!(timeout("y", ""), 10);
    assert_eq!(timeout("y", &root), 1);
    assert_eq!(timeout("y", &(root.clone() + &service)), 2);
    assert_eq!(timeout("y", &(root.clone() + &service + &client)), 3);
    // What is written in a third namespace is for nobody else.
    assert_eq!(timeout("z", &client), 10);
    assert_eq!(timeout("z", &(root + &service + &client)), 2);
}

#[test]
fn the_most_specific_host_counts_whatever_was_written_first() {
    let wide = rule("wide", "x", "\"*.cluster.local\"", 1, "");
    let narrow = rule("narrow", "x", "\"*.x.svc.cluster.local\"", 2, "");
    let exact = rule("exact", "x", "a", 3, "");
    assert_eq!(timeout("x", &wide), 1);
    assert_eq!(timeout("x", &(wide.clone() + &narrow)), 2);
    assert_eq!(timeout("x", &(wide + &narrow + &exact)), 3);
}

#[test]
fn rules_of_one_namespace_for_one_host_merge_their_subsets_and_the_first_policy_counts() {
    let one = rule("one", "x", "a", 1, ", subsets: [{name: v1, labels: {version: v1}}]");
    let two = rule("two", "x", "a", 2, ", subsets: [{name: v2, labels: {version: v2}}]");
    let seen = seen(&sidecar("x", ""), &(services() + &one + &two));
    for subset in ["v1", "v2"] {
        assert!(seen.cluster(&format!("outbound|80|{subset}|a.x.svc.cluster.local")).is_some(), "{subset}");
    }
    assert_eq!(seen.cluster(A).unwrap().connect_timeout, Duration::from_secs(1));
}

#[test]
fn settings_of_a_port_have_nothing_from_those_of_the_destination() {
    let spec = "host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s}}, outlierDetection: {consecutive5xxErrors: 3}, \
                portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}";
    let seen = seen(&sidecar("x", ""), &(services() + &resource("DestinationRule", "r", "x", spec)));
    let cluster = seen.cluster(A).unwrap();
    assert_eq!(cluster.connect_timeout, Duration::from_secs(10));
    assert!(cluster.outlier_detection.is_none());
}

#[test]
fn settings_of_a_subset_replace_those_of_the_whole_block_by_block() {
    let spec = "host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s}, http: {http2MaxRequests: 9}}, \
                outlierDetection: {consecutive5xxErrors: 3}}, \
                subsets: [{name: v1, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}}]";
    let seen = seen(&sidecar("x", ""), &(services() + &resource("DestinationRule", "r", "x", spec)));
    let subset = seen.cluster("outbound|80|v1|a.x.svc.cluster.local").unwrap();
    // The pool as a whole is the subset's; what it does not speak of stays.
    assert_eq!(subset.connect_timeout, Duration::from_secs(10));
    assert_eq!((subset.limits.default.connections, subset.limits.default.requests), (Some(5), None));
    assert!(subset.outlier_detection.is_some());
}

#[test]
fn a_rule_without_tls_keeps_mutual_tls_and_one_with_tls_is_always_obeyed() {
    let with = |policy: &str| {
        let spec = format!("host: a, trafficPolicy: {{{policy}}}");
        let seen = seen(&sidecar("x", ""), &(services() + &resource("DestinationRule", "r", "x", &spec)));
        let cluster = seen.cluster(A).unwrap();
        (cluster.transport_matches.len(), matches!(cluster.transport, Transport::Plain))
    };
    assert_eq!(with("loadBalancer: {simple: RANDOM}"), (1, true), "by endpoint");
    assert_eq!(with("tls: {mode: DISABLE}"), (0, true));
    assert_eq!(with("tls: {mode: ISTIO_MUTUAL}"), (0, false));
    assert_eq!(with("tls: {mode: SIMPLE}"), (0, false));
}

#[test]
fn tls_of_a_destinations_own_has_its_name_from_the_host_unless_one_is_written() {
    let entry = resource(
        "ServiceEntry",
        "e",
        "x",
        "hosts: [api.example.com], resolution: DNS, ports: [{number: 443, name: https, protocol: HTTPS}]",
    );
    let with = |tls: &str| {
        let spec = format!("host: api.example.com, trafficPolicy: {{tls: {{mode: SIMPLE{tls}}}}}");
        let text = services() + &entry + &resource("DestinationRule", "r", "x", &spec);
        let seen = seen(&sidecar("x", ""), &text);
        let cluster = seen.cluster("outbound|443||api.example.com").unwrap().clone();
        let Transport::Tls(tls) = cluster.transport else { panic!("no TLS") };
        (tls.sni.clone(), tls.validation.map(|validation| validation.subject_alt_names.len()))
    };
    assert_eq!(with(""), (Some("api.example.com".to_owned()), Some(1)));
    let (sni, names) = with(", sni: other.example.com, subjectAltNames: [one, two]");
    assert_eq!((sni.as_deref(), names), (Some("other.example.com"), Some(2)));
}

#[test]
fn a_rule_that_is_not_exported_is_for_its_own_namespace_only() {
    let rule = rule("r", "x", "a", 1, ", exportTo: [\".\"]");
    assert_eq!((timeout("x", &rule), timeout("y", &rule)), (1, 10));
}
