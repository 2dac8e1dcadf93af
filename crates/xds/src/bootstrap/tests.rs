//! What a bootstrap comes to, and how its faults are named.
#![allow(clippy::unwrap_used)]

use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use prost::Message as _;

use super::*;
use model::metadata::Value;

const FULL: &str = r#"
node:
  id: sidecar~127.1.0.5~a.default~default.svc.cluster.local
  cluster: a.default
  locality: {region: r, zone: z}
  metadata: {NAMESPACE: default, PORTS: {"80": 8080}, on: true, list: [1, x]}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
layered_runtime: {layers: [{name: static, static_layer: {a.b: 1}}]}
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc: {cluster_name: xds}
      initial_metadata: [{key: authorization, value: Bearer t}]
static_resources:
  listeners:
  - name: front
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: local
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: xds, timeout: 0.25s}}]}
  clusters:
  - name: xds
    connect_timeout: 1s
    type: STATIC
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 15010}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 100}}
"#;

fn fault(text: &str) -> String {
    let problems = parse(text, "b.yaml").unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    problems.to_string()
}

fn connection_manager(bootstrap: &Bootstrap) -> hcm::HttpConnectionManager {
    let filter = &bootstrap.static_listeners[0].filter_chains[0].filters[0];
    let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { panic!("{filter:?}") };
    hcm::HttpConnectionManager::decode(any.value.as_slice()).unwrap()
}

#[test]
fn a_bootstrap_says_who_asks_whom_for_what_and_brings_resources_of_its_own() {
    let bootstrap = parse(FULL, "b.yaml").unwrap();
    let node = &bootstrap.node;
    assert_eq!((node.cluster.as_str(), node.locality.zone.as_str()), ("a.default", "z"));
    assert_eq!(node.metadata.get("NAMESPACE"), Some(&Value::from("default")));
    assert_eq!(
        node.metadata.get("PORTS"),
        Some(&Value::Struct([("80".to_owned(), Value::Number(8080.0))].into()))
    );
    assert_eq!(node.metadata.get("list"), Some(&Value::List(vec![Value::Number(1.0), "x".into()])));
    assert_eq!(node.proto.user_agent_name, "ieum");
    assert_eq!(bootstrap.admin, Some(SocketAddr::from(([127, 0, 0, 1], 15000))));
    assert!(bootstrap.lds && bootstrap.cds);
    let ads = Ads {
        cluster: "xds".to_owned(),
        authority: "xds".to_owned(),
        delta: true,
        initial_metadata: vec![("authorization".to_owned(), "Bearer t".to_owned())],
        node_on_first_only: true,
    };
    assert_eq!(bootstrap.ads, Some(ads));
    assert_eq!(bootstrap.static_clusters[0].name, "xds");
    let manager = connection_manager(&bootstrap);
    assert_eq!((manager.stat_prefix.as_str(), manager.http_filters[0].name.as_str()), ("front", "router"));
    let ignored: Vec<String> = bootstrap.ignored.iter().map(ToString::to_string).collect();
    assert_eq!(ignored, ["b.yaml:8: `layered_runtime`: has no effect: there are no runtime keys"]);
}

#[test]
fn json_is_read_as_well_with_json_names_and_the_type_anywhere() {
    let text = r#"{
	"node": {"id": "n"},
	"staticResources": {"listeners": [{"filterChains": [{"filters": [{"name": "http", "typedConfig": {
		"statPrefix": "x",
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	}}]}]}]}
}"#;
    let bootstrap = parse(text, "b.json").unwrap();
    assert_eq!(connection_manager(&bootstrap).stat_prefix, "x");
    assert!(!bootstrap.lds && bootstrap.ads.is_none() && bootstrap.admin.is_none());
}

#[test]
fn an_unknown_field_is_named_with_its_line_inside_typed_configurations_too() {
    assert_eq!(fault("node: {id: n}\nnoad: {}\n"), "b.yaml:2: `noad`: unknown field");
    let inside = FULL.replace("stat_prefix: front", "stat_prefiks: front");
    assert_eq!(
        fault(&inside),
        "b.yaml:28: `static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefiks`: unknown field"
    );
}

#[test]
fn an_unknown_type_or_value_is_named() {
    let unknown = FULL.replace("http.router.v3.Router", "http.rooter.v3.Rooter");
    let said = fault(&unknown);
    assert!(
        said.contains(
            "http_filters[0].typed_config.@type`: unknown type `envoy.extensions.filters.http.rooter"
        ),
        "{said}"
    );
    assert!(said.starts_with("b.yaml:31: "), "{said}");
    let value = FULL.replace("type: STATIC", "type: STATICK");
    assert_eq!(fault(&value), "b.yaml:39: `static_resources.clusters[0].type`: unknown value `STATICK`");
    let shape = FULL.replace("port_value: 10000", "port_value: ten");
    assert!(
        fault(&shape)
            .starts_with("b.yaml:22: `static_resources.listeners[0].address.socket_address.port_value`: ")
    );
}

#[test]
fn a_syntax_error_has_its_line() {
    assert!(fault("node: {id: n}\nadmin: [\n").starts_with("b.yaml:3: "));
    assert_eq!(fault(""), "b.yaml:1: the file is empty");
    assert!(fault("- a\n").contains("a mapping of fields"));
    assert!(fault("node: {id: n}\n---\nnode: {}\n").contains("one document"));
    assert!(
        fault("node: {id: n}\nnode: {id: m}\n").contains("`node` stands here a second time; first on line 1")
    );
    for text in ["a: [!,", "a: &a [*a]", &"[".repeat(10_000), &"- ".repeat(10_000), "a: \u{1}"] {
        assert!(!fault(text).is_empty());
    }
    assert!(read(Path::new("/nonexistent/b.yaml")).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn what_would_change_traffic_and_is_not_followed_is_refused_all_at_once() {
    let text = FULL
        .replace("envoy_grpc: {cluster_name: xds}", "google_grpc: {target_uri: 'h:1', stat_prefix: x}")
        .replace("lds_config: {ads: {}", "lds_config: {path_config_source: {path: /l.yaml}")
        .replace("layered_runtime", "header_prefix: x-other\nlayered_runtime");
    let said = parse(&text, "b.yaml").unwrap_err().to_string();
    for part in [
        "b.yaml:8: `header_prefix`: another prefix",
        "google_grpc`: is not supported: declare `h:1` as a static cluster",
        "b.yaml:11: `dynamic_resources.lds_config`: resources from watched files are not supported",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn ads_needs_a_static_cluster_a_node_and_version_3() {
    let text = FULL
        .replace("cluster_name: xds}\n", "cluster_name: other}\n")
        .replace("transport_api_version: V3", "transport_api_version: V2")
        .replace("  id: sidecar~127.1.0.5~a.default~default.svc.cluster.local\n", "");
    let said = parse(&text, "b.yaml").unwrap_err().to_string();
    assert!(
        said.contains("envoy_grpc.cluster_name`: `other` is not one of `static_resources.clusters`"),
        "{said}"
    );
    assert!(
        said.contains("transport_api_version`: must be `V3`") && said.contains("`node.id`: is required"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 3, "{said}");
    let alone = "dynamic_resources: {cds_config: {ads: {}}}";
    assert!(fault(alone).contains("there is no `dynamic_resources.ads_config`"));
}

#[test]
fn two_clusters_of_one_name_are_refused() {
    let said = fault("static_resources: {clusters: [{name: a}, {name: a}]}");
    assert!(said.contains("more than one cluster is named `a`"), "{said}");
}

#[test]
fn every_type_that_is_described_can_be_loaded() {
    descriptors::check().unwrap();
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[ \\-a:\\[\\]{}&*\"'|>\n#,.%!<\t]{0,60}") {
        let _ = parse(&text, "b.yaml");
    }
}
