//! ServiceEntries, Sidecars, visibility, protocols and PeerAuthentication.

use super::*;
use model::cluster::Discovery;
use model::endpoint::EndpointAddress;

fn addresses(seen: &Seen, cluster: &str) -> Vec<String> {
    let assigned = seen.resources.endpoints.iter().find(|one| one.cluster == cluster);
    let assigned = match (assigned, seen.cluster(cluster).map(|cluster| &cluster.discovery)) {
        (Some(assigned), _) => (**assigned).clone(),
        (None, Some(Discovery::StrictDns(assigned) | Discovery::LogicalDns(assigned))) => assigned.clone(),
        _ => return Vec::new(),
    };
    let endpoints = assigned.localities.into_iter().flat_map(|place| place.endpoints);
    endpoints.map(|endpoint| EndpointAddress::to_string(&endpoint.address)).collect()
}

#[test]
fn ports_of_an_endpoint_count_before_the_target_port_and_that_before_the_port() {
    let with = |port: &str, endpoint: &str| {
        let spec = format!(
            "hosts: [e.com], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP{port}}}], \
             endpoints: [{{address: 10.0.0.1{endpoint}}}]"
        );
        let seen = seen(&sidecar("x", ""), &resource("ServiceEntry", "e", "x", &spec));
        addresses(&seen, "outbound|80||e.com").join(" ")
    };
    assert_eq!(with("", ""), "10.0.0.1:80");
    assert_eq!(with(", targetPort: 81", ""), "10.0.0.1:81");
    assert_eq!(with(", targetPort: 81", ", ports: {http: 82}"), "10.0.0.1:82");
}

#[test]
fn a_wildcard_host_cannot_be_resolved_by_dns() {
    let spec = "hosts: [\"*.e.com\"], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]";
    let seen = seen(&sidecar("x", ""), &resource("ServiceEntry", "e", "x", spec));
    assert!(seen.tells("a wildcard cannot be looked up in DNS"), "{:?}", seen.told);
    assert!(seen.cluster("outbound|80||*.e.com").is_none());
}

#[test]
fn a_dot_exports_to_the_own_namespace_and_a_star_to_all() {
    let with = |export: &str, namespace: &str| {
        let spec = format!(
            "hosts: [e.com], resolution: DNS, exportTo: [\"{export}\"], ports: [{{number: 80, name: http, protocol: HTTP}}]"
        );
        let text = resource("ServiceEntry", "e", "x", &spec);
        seen(&sidecar(namespace, ""), &text).cluster("outbound|80||e.com").is_some()
    };
    assert_eq!((with(".", "x"), with(".", "y")), (true, false));
    assert_eq!((with("*", "x"), with("*", "y")), (true, true));
    assert_eq!((with("y", "x"), with("y", "y")), (false, true));
}

#[test]
fn a_sidecars_hosts_are_all_that_a_proxy_is_sent() {
    let with = |hosts: &str| {
        let spec = format!("egress: [{{hosts: [{hosts}]}}]");
        let seen = seen(&sidecar("x", ""), &(services() + &resource("Sidecar", "default", "x", &spec)));
        let mut names: Vec<String> = seen.resources.clusters.iter().map(|c| short(&c.name)).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(with("\"*/*\""), "a.x a.y b.x b.y");
    assert_eq!(with("\"./*\""), "a.x b.x");
    assert_eq!(with("\"y/*\""), "a.y b.y");
    assert_eq!(with("\"*/b.y.svc.cluster.local\", \"./a.x.svc.cluster.local\""), "a.x b.y");
    assert_eq!(with("\"*/*.y.svc.cluster.local\""), "a.y b.y");
    assert_eq!(with("\"x/a.y.svc.cluster.local\""), "");
    assert_eq!(with("\"~/*\""), "");
}

#[test]
fn of_sidecars_one_that_selects_counts_before_the_namespaces_and_that_before_the_roots() {
    let one = |name: &str, namespace: &str, selector: &str, hosts: &str| {
        resource("Sidecar", name, namespace, &format!("{selector}egress: [{{hosts: [\"{hosts}\"]}}]"))
    };
    let text = services()
        + &one("default", "istio-system", "", "./*")
        + &one("default", "x", "", "y/*")
        + &one("for-w", "x", "workloadSelector: {labels: {app: w}}, ", "*/a.x.svc.cluster.local");
    let names = |node: &ProxyNode| {
        let mut names: Vec<String> =
            seen(node, &text).resources.clusters.iter().map(|c| short(&c.name)).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&sidecar("x", "app=w")), "a.x");
    assert_eq!(names(&sidecar("x", "app=v")), "a.y b.y");
    assert_eq!(names(&sidecar("y", "")), "a.y b.y", "a dot in the root's is the namespace of the workload");
    assert_eq!(names(&sidecar("z", "")), "");
    assert_eq!(names(&gateway()), "a.x a.y b.x b.y", "gateways have no Sidecar");
}

#[test]
fn a_protocol_is_what_is_declared_then_what_the_name_begins_with_then_found_out() {
    let with = |port: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: x}}\n\
             spec: {{selector: {{app: a}}, ports: [{{port: 80, {port}}}]}}\n"
        );
        let seen = seen(&sidecar("x", ""), &text);
        let http = seen.cluster("outbound|80||a.x.svc.cluster.local").unwrap().http;
        let detected = seen.cluster("outbound-tunnel|80||a.x.svc.cluster.local").is_some();
        format!("{http:?}{}", if detected { " detected" } else { "" })
    };
    assert_eq!(with("name: http-web"), "Http1");
    assert_eq!(with("name: http-web, appProtocol: grpc"), "Http2");
    assert_eq!(with("name: web"), "AsDownstream detected");
    assert_eq!(with("name: tcp"), "AsDownstream");
}

#[test]
fn ports_where_the_server_speaks_first_are_not_waited_at() {
    for port in [25, 53, 3306, 27017] {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: x}}\n\
             spec: {{selector: {{app: a}}, ports: [{{port: {port}, name: any}}]}}\n"
        );
        let node = sidecar("x", "app=a");
        let seen = seen(&node, &text);
        let inbound =
            seen.resources.listeners.iter().find(|l| l.name == format!("127.1.0.5_{port}")).unwrap();
        assert!(!inbound.inspect.http, "{port}");
    }
}

#[test]
fn of_peer_authentications_the_workloads_counts_before_the_namespaces_and_that_before_the_roots() {
    let policy = |name: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let root = policy("default", "istio-system", "mtls: {mode: STRICT}");
    let namespace = policy("default", "x", "mtls: {mode: DISABLE}");
    let workload = policy(
        "w",
        "x",
        "selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {\"81\": {mode: DISABLE}}",
    );
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: x}\n\
                   spec: {selector: {app: a}, ports: [{port: 80, name: http, targetPort: 8080}, {port: 90, name: http-2, targetPort: 81}]}\n---\n";
    let chains = |text: &str, port: u16| {
        let seen = seen(&sidecar("x", "app=a"), &format!("{service}{text}"));
        let listener =
            seen.resources.listeners.iter().find(|l| l.name == format!("127.1.0.5_{port}")).unwrap();
        listener.chains.iter().map(|chain| chain.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(chains("", 8080), "mtls-http plain-http", "permissive where nobody says anything");
    assert_eq!(chains(&root, 8080), "mtls-http");
    assert_eq!(chains(&(root.clone() + &namespace), 8080), "plain-http");
    let all = root + &namespace + &workload;
    assert_eq!(chains(&all, 8080), "mtls-http");
    assert_eq!(chains(&all, 81), "plain-http", "the workload's port, not the service's");
}
