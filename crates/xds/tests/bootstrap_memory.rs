//! Reading a bootstrap must not raise the floor of a proxy's memory: descriptors are loaded in part and dropped.
//! A file of its own, so that nothing else runs in the process that is measured.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

const TEXT: &str = r#"
node: {id: n, cluster: c}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config: {virtual_hosts: [{name: all, domains: ["*"]}]}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn reading_a_bootstrap_costs_little_memory() {
    let before = resident_kilobytes();
    let start = std::time::Instant::now();
    let bootstrap = ieum_xds::bootstrap::parse(TEXT, "b.yaml").unwrap();
    let (took, after) = (start.elapsed(), resident_kilobytes());
    println!("reading a bootstrap: {took:?}, {} KiB resident", after - before);
    assert_eq!(bootstrap.static_listeners.len(), 1);
    assert!(after - before < 16 << 10, "{} KiB are resident more than before", after - before);
}
