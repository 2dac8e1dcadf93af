//! Gateways, and the VirtualServices that are bound to them.

use super::*;

fn gateway_of(name: &str, namespace: &str, servers: &str) -> String {
    resource("Gateway", name, namespace, &format!("selector: {{istio: edge}}, servers: [{servers}]"))
}

fn http(hosts: &str) -> String {
    format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}")
}

fn bound(name: &str, namespace: &str, host: &str) -> String {
    let rules = format!("hosts: [\"{host}\"], gateways: [x/g], http: [{{{}}}]", to("a"));
    virtual_service(name, namespace, &rules)
}

#[test]
fn a_wildcard_does_not_stand_for_the_domain_itself() {
    let text =
        services() + &gateway_of("g", "x", &http("\"*.example.com\"")) + &bound("r", "x", "*.example.com");
    let seen = seen(&gateway(), &text);
    assert_eq!(seen.by("http.80", "shop.example.com", "/", &[]), "a.x");
    assert_eq!(seen.by("http.80", "example.com", "/", &[]), "404");
}

#[test]
fn only_hosts_that_both_the_gateway_and_the_rule_name_are_served() {
    let text = services()
        + &gateway_of("g", "x", &http("\"*.example.com\""))
        + &bound("in", "x", "shop.example.com")
        + &bound("out", "x", "shop.example.org");
    let seen = seen(&gateway(), &text);
    assert_eq!(seen.by("http.80", "shop.example.com", "/", &[]), "a.x");
    assert_eq!(seen.by("http.80", "shop.example.org", "/", &[]), "404");
}

#[test]
fn a_host_of_a_gateway_may_name_the_namespace_whose_rules_count() {
    let with = |hosts: &str| {
        let text = services() + &gateway_of("g", "x", &http(hosts)) + &bound("r", "y", "shop.com");
        seen(&gateway(), &text).by("http.80", "shop.com", "/", &[])
    };
    assert_eq!(with("\"*/shop.com\""), "a.y");
    assert_eq!(with("\"y/shop.com\""), "a.y");
    assert_eq!(with("\"./shop.com\""), "404");
    assert_eq!(with("\"x/shop.com\""), "404");
}

#[test]
fn https_servers_on_one_port_need_distinct_hosts_and_the_second_is_told() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: x}\n\
                  stringData: {tls.crt: \"@CERTIFICATE@\", tls.key: \"@KEY@\"}\n---\n";
    let server = |name: &str| {
        format!(
            "{{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: [shop.com], tls: {{mode: SIMPLE, credentialName: c}}}}"
        )
    };
    let both = format!("{}, {}", server("one"), server("two"));
    let seen = seen(&gateway(), &(services() + secret + &gateway_of("g", "x", &both)));
    assert!(seen.tells("shop.com"), "{:?}", seen.told);
    let chains: usize = seen.resources.listeners.iter().map(|listener| listener.chains.len()).sum();
    assert!(chains <= 1, "{chains}");
}

#[test]
fn a_redirect_to_https_is_301() {
    let server =
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.com], tls: {httpsRedirect: true}}";
    let text = services() + &gateway_of("g", "x", server) + &bound("r", "x", "shop.com");
    let seen = seen(&gateway(), &text);
    let table = seen.resources.routes.iter().find(|table| table.name == "http.80").unwrap();
    let host = table.virtual_hosts.iter().find(|host| host.domains.iter().any(|d| d == "shop.com")).unwrap();
    // Where a host requires TLS, proxies answer plain requests with 301.
    assert!(host.require_tls);
}
