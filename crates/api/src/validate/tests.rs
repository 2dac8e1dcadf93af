#![allow(clippy::unwrap_used)]

use super::names::*;
use crate::parse;

/// The errors of a VirtualService whose only HTTP rule is `rule`.
fn errors(rule: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{rule}]}}\n"
    );
    parse("f", &text)
        .diagnostics
        .into_iter()
        .map(|diagnostic| format!("{}: {}", diagnostic.field, diagnostic.message))
        .collect()
}

#[test]
fn names_and_hosts_are_told_from_what_only_looks_like_them() {
    assert!(is_label("reviews-v2") && is_label("1") && is_subdomain("a.b-c.d"));
    assert!(
        !is_label("") && !is_label("-a") && !is_label("a-") && !is_label("A") && !is_label(&"a".repeat(64))
    );
    assert!(!is_subdomain("a..b") && !is_subdomain("a."));
    assert!(is_host("a") && is_host("a.b.") && is_host("3scale.example") && is_host("localhost"));
    assert!(!is_host("10.0.0.1") && !is_host("a_b") && !is_host("a..b") && !is_host(".a") && !is_host(""));
    assert!(
        is_wildcard_host("*")
            && is_wildcard_host("*.a.b")
            && is_wildcard_host("*a")
            && is_wildcard_host("*-a.b")
    );
    assert!(!is_wildcard_host("a.*.b") && !is_wildcard_host("**") && !is_wildcard_host("*."));
    assert!(
        is_subnet("10.0.0.0/8") && is_subnet("::/0") && is_subnet("10.0.0.1") && !is_subnet("10.0.0.0/33")
    );
}

#[test]
fn a_wildcard_covers_what_ends_like_it() {
    assert!(covers("*.example.com", "a.example.com") && covers("*.example.com", "*.a.example.com"));
    assert!(covers("*", "a") && covers("*", "*.a") && covers("A.com", "a.com"));
    assert!(!covers("*.example.com", "example.com") && !covers("a.example.com", "*.example.com"));
    assert!(!covers("*.a.example.com", "*.example.com"));
}

#[test]
fn weights_are_relative_and_may_be_zero_but_not_all() {
    let route = |a: i64, b: i64| {
        errors(&format!(
            "{{route: [{{destination: {{host: a}}, weight: {a}}}, {{destination: {{host: b}}, weight: {b}}}]}}"
        ))
    };
    assert_eq!(route(80, 20), Vec::<String>::new());
    assert_eq!(route(1, 0), Vec::<String>::new());
    assert_eq!(route(2_000_000_000, 2_000_000_000), Vec::<String>::new());
    assert_eq!(route(0, 0), ["spec.http[0].route: the weights of several destinations sum up to 0"]);
    assert_eq!(errors("{route: [{destination: {host: a}}]}"), Vec::<String>::new());
}

#[test]
fn expressions_are_compiled_within_bounds() {
    let uri = |regex: &str| {
        errors(&format!("{{match: [{{uri: {{regex: '{regex}'}}}}], route: [{{destination: {{host: a}}}}]}}"))
    };
    assert_eq!(uri("/v[0-9]+/.*"), Vec::<String>::new());
    assert_eq!(uri("").len(), 1);
    assert_eq!(uri("(?=a)").len(), 1, "look-ahead is not RE2");
    assert_eq!(uri("((a{1000}){1000}){1000}").len(), 1);
    assert_eq!(uri(&"a".repeat(1025)).len(), 1);
}

#[test]
fn zero_as_timeout_means_no_limit() {
    assert_eq!(errors("{timeout: 0s, route: [{destination: {host: a}}]}"), Vec::<String>::new());
}

#[test]
fn the_last_rule_may_be_a_second_catch_all_but_is_said_to_be_hidden() {
    let warnings = errors(
        "{match: [{uri: {prefix: /}}], route: [{destination: {host: a}}]}, {route: [{destination: {host: b}}]}",
    );
    assert_eq!(warnings, ["spec.http[1]: the rule is never used: spec.http[0] takes every request"]);
}
