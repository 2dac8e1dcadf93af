//! Tests of route lookup, the compiled table against a naive reading of the configuration.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::matcher::{Pattern, StringMatch};
use crate::route::{Action, Forward};
use http::{HeaderMap, Method};
use proptest::prelude::*;

fn route(name: &str, condition: RouteMatch) -> Route {
    Route {
        name: name.into(),
        condition,
        action: Action::forward(Forward::to(name)),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: None,
        metadata: Default::default(),
        provenance: None,
    }
}

fn host(name: &str, domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|d| (*d).into()).collect(),
        routes,
        ..Default::default()
    }
}

fn table(virtual_hosts: Vec<VirtualHost>) -> RouteTable {
    RouteTable::compile(RouteConfiguration { virtual_hosts, ..Default::default() }).unwrap()
}

fn found<'t>(table: &'t RouteTable, authority: &str, path: &str) -> Result<&'t str, NoRoute> {
    let headers = HeaderMap::new();
    let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
    let head =
        RequestHead { method: &Method::GET, scheme: "http", authority, path, query, headers: &headers };
    table.find(&head, 0).map(|f| f.route.name.as_str())
}

#[test]
fn an_exact_host_beats_a_suffix_which_beats_a_prefix_which_beats_the_star() {
    let one = |name: &str, domain: &str| host(name, &[domain], vec![route(name, RouteMatch::any())]);
    let t = table(vec![
        one("star", "*"),
        one("prefix", "www.*"),
        one("short", "*.com"),
        one("long", "*.b.com"),
        one("exact", "www.b.com"),
    ]);
    assert_eq!(found(&t, "www.b.com", "/"), Ok("exact"));
    assert_eq!(found(&t, "WWW.B.com", "/"), Ok("exact"));
    assert_eq!(found(&t, "www.a.b.com", "/"), Ok("long"));
    assert_eq!(found(&t, "www.a.com", "/"), Ok("short"));
    assert_eq!(found(&t, "www.a.org", "/"), Ok("prefix"));
    assert_eq!(found(&t, "else", "/"), Ok("star"));
}

#[test]
fn a_suffix_wildcard_does_not_match_the_bare_suffix() {
    let t = table(vec![host("a", &["*.example.com"], vec![route("a", RouteMatch::any())])]);
    assert_eq!(found(&t, "example.com", "/"), Err(NoRoute::UnknownHost));
    assert_eq!(found(&t, ".example.com", "/"), Err(NoRoute::UnknownHost));
}

#[test]
fn the_first_route_that_matches_wins_whatever_kind_it_is() {
    let t = table(vec![host(
        "h",
        &["*"],
        vec![
            route("regex", RouteMatch::path(PathMatch::Regex(Pattern::new("/a/[0-9]+").unwrap()))),
            route("exact", RouteMatch::path(PathMatch::Exact("/a/1".into()))),
            route("prefix", RouteMatch::path(PathMatch::Prefix("/a".into()))),
            route("never", RouteMatch::path(PathMatch::Exact("/a/x".into()))),
        ],
    )]);
    assert_eq!(found(&t, "h", "/a/1"), Ok("regex"));
    assert_eq!(found(&t, "h", "/a/x"), Ok("prefix"));
    assert_eq!(found(&t, "h", "/ab"), Ok("prefix"));
    assert_eq!(found(&t, "h", "/b"), Err(NoRoute::NoMatch));
}

#[test]
fn a_segment_prefix_ends_at_a_slash() {
    let t = table(vec![host(
        "h",
        &["*"],
        vec![route("s", RouteMatch::path(PathMatch::SegmentPrefix("/a".into())))],
    )]);
    assert_eq!(found(&t, "h", "/a/b"), Ok("s"));
    assert_eq!(found(&t, "h", "/a"), Ok("s"));
    assert_eq!(found(&t, "h", "/ab"), Err(NoRoute::NoMatch));
}

#[test]
fn a_query_parameter_is_matched_by_its_first_value() {
    let mut condition = RouteMatch::any();
    condition.query.push(QueryMatch { name: "v".into(), value: Some(StringMatch::exact("2")) });
    let t = table(vec![host("h", &["*"], vec![route("q", condition)])]);
    assert_eq!(found(&t, "h", "/?a=1&v=2&v=3"), Ok("q"));
    assert_eq!(found(&t, "h", "/?v=3&v=2"), Err(NoRoute::NoMatch));
    assert_eq!(found(&t, "h", "/"), Err(NoRoute::NoMatch));
}

#[test]
fn a_domain_may_be_claimed_once() {
    let config = RouteConfiguration {
        virtual_hosts: vec![host("a", &["x"], vec![]), host("b", &["X"], vec![])],
        ..Default::default()
    };
    let error = RouteTable::compile(config).unwrap_err();
    assert_eq!(error.to_string(), "domain `x` of virtual host `b` is claimed by another virtual host, too");
}

fn any_condition() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        "/[ab/]{0,3}".prop_map(PathMatch::Exact),
        "/[ab/]{0,3}".prop_map(PathMatch::Prefix),
        "/[ab]{1,2}".prop_map(PathMatch::SegmentPrefix),
        "/[ab]{0,2}".prop_map(|p| PathMatch::Regex(Pattern::new(&format!("{p}.*")).unwrap())),
    ];
    (path, any::<bool>(), any::<bool>()).prop_map(|(path, case_sensitive, with_query)| {
        let mut condition = RouteMatch { case_sensitive, ..RouteMatch::path(path) };
        if with_query {
            condition.query.push(QueryMatch { name: "q".into(), value: None });
        }
        condition
    })
}

proptest! {
    #[test]
    fn the_table_finds_what_reading_the_routes_in_order_finds(
        conditions in prop::collection::vec(any_condition(), 0..12),
        path in "/[abAB/]{0,4}",
        query: bool,
    ) {
        let routes: Vec<Route> = conditions.into_iter().enumerate().map(|(i, c)| route(&i.to_string(), c)).collect();
        let t = table(vec![host("h", &["*"], routes.clone())]);
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET, scheme: "http", authority: "h", path: &path, query: query.then_some("q"), headers: &headers,
        };
        let naive = routes.iter().find(|r| path_matches(&r.condition, &head) && rest_matches(&r.condition, &head, 0));
        prop_assert_eq!(t.find(&head, 0).ok().map(|f| &f.route.name), naive.map(|r| &r.name));
    }
}
