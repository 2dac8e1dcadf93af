//! Translates `testdata/<case>/in.yaml` and compares what each node named in it (`# node: ID KEY=VALUE…`) is sent, and
//! what is told, with `out.golden` beside it. `UPDATE_GOLDEN=1 cargo test -p ieum-control --test translate` writes the
//! latter anew; look at the difference before committing. `# show: routes clusters` limits what is printed.
#![allow(clippy::unwrap_used)]

mod cases;
mod describe;

use cases::{cases, node, nodes, world};

use ieum_control::node::ProxyNode;
use ieum_control::translate::{Mesh, ProxyResources, translate};
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

fn output(text: &str) -> String {
    let (world, mut told) = world(text);
    let (mesh, found) = translate(&world);
    told.extend(found);
    let mut out = String::new();
    for diagnostic in &told {
        writeln!(out, "{diagnostic}").unwrap();
    }
    let wanted: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# show: ")).flat_map(str::split_whitespace).collect();
    let shown = |kind: &str| wanted.is_empty() || wanted.contains(&kind);
    for node in nodes(text) {
        writeln!(out, "\n==== {}", node.id).unwrap();
        let resources = mesh.resources_for(&node);
        if shown("listeners") {
            resources.listeners.iter().for_each(|l| describe::listener(&mut out, l));
        }
        if shown("routes") {
            resources.routes.iter().for_each(|r| describe::routes(&mut out, r));
        }
        if shown("clusters") {
            resources.clusters.iter().for_each(|c| describe::cluster(&mut out, c));
        }
        if shown("endpoints") {
            resources.endpoints.iter().for_each(|e| describe::endpoints(&mut out, e));
        }
    }
    out.replace(&cases::of_one_length(concat!(env!("CARGO_TARGET_TMPDIR"), "/files")), "@FILES@")
}

#[test]
fn every_case_translates_as_before() {
    let mut changed = Vec::new();
    for case in cases() {
        let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
        let seen = output(&text);
        let golden = case.join("out.golden");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &seen).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != seen {
            changed.push(format!("{}:\n{seen}", case.display()));
        }
    }
    assert!(changed.is_empty(), "changed:\n{}", changed.join("\n"));
}

/// What every answer must keep, whatever is asked for.
fn assert_sound(resources: &ProxyResources) {
    fn assert_unique<'n>(kind: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = HashSet::new();
        names.for_each(|name| assert!(seen.insert(name), "two {kind} are called `{name}`"));
    }
    assert_unique("listeners", resources.listeners.iter().map(|l| l.name.as_str()));
    assert_unique("tables", resources.routes.iter().map(|r| r.name.as_str()));
    assert_unique("clusters", resources.clusters.iter().map(|c| c.name.as_str()));
    assert_unique("assignments", resources.endpoints.iter().map(|e| e.cluster.as_str()));
    for table in &resources.routes {
        model::routing::RouteTable::compile(table.as_ref().clone()).unwrap();
    }
    let endpoints: HashSet<&str> = resources.endpoints.iter().map(|e| e.cluster.as_str()).collect();
    for cluster in &resources.clusters {
        if let model::cluster::Discovery::Eds(name) = &cluster.discovery {
            assert!(endpoints.contains(name.as_str()), "nobody has the endpoints of `{}`", cluster.name);
        }
    }
    let tables: HashSet<&str> = resources.routes.iter().map(|r| r.name.as_str()).collect();
    for name in resources.listeners.iter().flat_map(|l| describe::tables_of(l)) {
        assert!(tables.contains(name), "nobody has the table `{name}`");
    }
}

fn extra_nodes() -> Vec<ProxyNode> {
    vec![
        node("sidecar~127.1.0.5~a.default~default.svc.cluster.local app=reviews version=v1"),
        node("router~127.0.0.1~ingress.istio-system~x istio=ingressgateway"),
        node("sidecar~127.1.0.9~c.other~x GENERATOR=grpc"),
    ]
}

#[test]
fn whatever_document_is_missing_the_rest_is_sound() {
    for case in cases() {
        let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
        let nodes: Vec<ProxyNode> = nodes(&text).into_iter().chain(extra_nodes()).collect();
        let documents: Vec<&str> = text.split("\n---\n").collect();
        // One past the end leaves nothing out; then each alone, and everything but each.
        for at in 0..=documents.len() {
            let alone = documents.get(at).copied().unwrap_or_default().to_owned();
            let without: Vec<&str> =
                documents.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, d)| *d).collect();
            for text in [without.join("\n---\n"), alone] {
                let (mesh, _) = translate(&world(&text).0);
                nodes.iter().for_each(|node| assert_sound(&mesh.resources_for(node)));
            }
        }
    }
}

#[test]
fn what_does_not_depend_on_who_asks_is_shared() {
    let text =
        std::fs::read_to_string(cases().iter().find(|c| c.ends_with("bookinfo")).unwrap().join("in.yaml"))
            .unwrap();
    let (mesh, _) = translate(&world(&text).0);
    let one = mesh.resources_for(&node("sidecar~127.1.0.5~a.default~x app=reviews"));
    let two = mesh.resources_for(&node("sidecar~127.1.0.6~b.default~x app=ratings"));
    // Tables are kept only as long as somebody holds them; it is their encoding that is shared.
    assert_eq!(one.routes, two.routes);
    assert!(one.endpoints.iter().zip(&two.endpoints).all(|(a, b)| Arc::ptr_eq(a, b)));
    let outbound = |r: &ProxyResources| {
        r.clusters.iter().filter(|c| c.name.starts_with("outbound")).cloned().collect::<Vec<_>>()
    };
    assert!(outbound(&one).iter().zip(&outbound(&two)).all(|(a, b)| Arc::ptr_eq(a, b)));
    let far = mesh.resources_for(&node("router~127.0.0.1~ingress.istio-system~x istio=ingressgateway"));
    assert!(one.endpoints.iter().zip(&far.endpoints).all(|(a, b)| Arc::ptr_eq(a, b)));
}

#[test]
fn an_empty_world_has_nothing_but_a_sidecars_way_out() {
    let mesh = Mesh::default();
    let resources = mesh.resources_for(&node("sidecar~127.1.0.5~a.default~x"));
    assert_eq!(resources.listeners.len(), 1);
    assert!(resources.clusters.is_empty() && resources.routes[0].virtual_hosts.is_empty());
}
