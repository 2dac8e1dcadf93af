//! How little is sent: what a change makes different, and nothing else.

use super::*;

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: a, namespace: x}
spec: {selector: {app: a}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: x}
spec: {selector: {app: b}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: y}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: other, namespace: y}
spec: {selector: {istio: edge}, servers: [{port: {number: 81, name: http, protocol: HTTP}, hosts: [\"*\"]}]}
";

fn entry(address: u8, app: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {app}-{address}, namespace: x}}\n\
         spec: {{address: 127.1.0.{address}, labels: {{app: {app}}}}}\n"
    )
}

fn rule(gateways: &str, to: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, namespace: x}}\n\
         spec: {{hosts: [a.x.svc.cluster.local], gateways: [{gateways}], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}\n"
    )
}

/// What every proxy is told when `after` takes the place of `before`.
fn told(before: &[(&str, String)], after: &[(&str, String)]) -> Vec<(String, Vec<(&'static str, String)>)> {
    let documents = |all: &[(&str, String)]| {
        let all = all.iter().map(|(name, text)| ((*name).to_owned(), text.clone()));
        all.chain([("services".to_owned(), SERVICES.to_owned())]).collect::<BTreeMap<_, _>>()
    };
    let mut plane = Plane::new(nodes());
    for state in [before, after] {
        plane.proxies.iter_mut().for_each(|proxy| drop(proxy.delta.take_told()));
        plane.update(&documents(state));
        for proxy in &mut plane.proxies {
            proxy.follow(&plane.generation);
        }
    }
    plane.proxies.iter_mut().map(|proxy| (proxy.node.id.clone(), proxy.delta.take_told())).collect()
}

#[test]
fn a_change_of_endpoints_is_sent_as_endpoints_of_that_service_and_nothing_else() {
    let before = [("1", entry(1, "a")), ("2", entry(2, "b"))];
    let after = [("1", entry(1, "a")), ("2", entry(2, "b")), ("3", entry(3, "a"))];
    let expected = vec![(type_url::ENDPOINT, "outbound|80||a.x.svc.cluster.local".to_owned())];
    for (before, after) in [(&before[..], &after[..]), (&after[..], &before[..])] {
        for (proxy, told) in told(before, after) {
            assert_eq!(told, expected, "{proxy}");
        }
    }
}

#[test]
fn a_changed_route_of_sidecars_is_sent_as_one_resource_to_those_that_have_it() {
    let (before, after) = ([("rule", rule("mesh", "a"))], [("rule", rule("mesh", "b"))]);
    for (proxy, told) in told(&before, &after) {
        let expected = match proxy.as_str() {
            id if id.starts_with("router") => Vec::new(),
            // It asked for no host of the table.
            id if id.starts_with("sidecar~127.1.0.4~") => Vec::new(),
            id if id.starts_with("sidecar") => vec![(type_url::ROUTE, "http_proxy".to_owned())],
            _ => vec![(type_url::ROUTE, "outbound|80||a.x.svc.cluster.local".to_owned())],
        };
        assert_eq!(told, expected, "{proxy}");
    }
}

#[test]
fn a_changed_route_of_one_gateway_is_sent_as_one_resource_and_to_nobody_else() {
    let (before, after) = ([("rule", rule("y/other", "a"))], [("rule", rule("y/other", "b"))]);
    for (proxy, told) in told(&before, &after) {
        let expected = match proxy.starts_with("router") {
            true => vec![(type_url::ROUTE, "http.81".to_owned())],
            false => Vec::new(),
        };
        assert_eq!(told, expected, "{proxy}");
    }
}

#[test]
fn an_edit_that_changes_nothing_sends_nothing() {
    let before = [("rule", rule("mesh", "b")), ("1", entry(1, "a"))];
    let after = [("rule", rule("mesh", "b.x.svc.cluster.local")), ("1", entry(1, "a"))];
    for (proxy, told) in told(&before, &after) {
        assert_eq!(told, [], "{proxy}");
    }
}

#[test]
fn what_a_sidecar_does_not_let_see_is_not_sent_when_it_changes() {
    let scope = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: z}\n\
                 spec: {egress: [{hosts: [\"x/b.x.svc.cluster.local\"]}]}\n";
    let before = [("1", entry(1, "a")), ("2", entry(2, "b")), ("scope", scope.to_owned())];
    let after = [("1", entry(3, "a")), ("2", entry(2, "b")), ("scope", scope.to_owned())];
    for (proxy, told) in told(&before, &after) {
        assert_eq!(told.len(), usize::from(!proxy.ends_with("z.svc.cluster.local")), "{proxy}: {told:?}");
    }
}
