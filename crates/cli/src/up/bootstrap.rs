//! The bootstrap of a proxy: Envoy's, which ours and stock Envoy read alike. It says who the proxy is and where the control
//! plane is; everything else comes from there.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// Annotation by which sidecar and clients learn where applications really listen.
pub(super) const APPLICATION_PORTS: &str = "ieum.dev/application-ports";

/// Annotation by which workloads learn where a gateway really listens for the ports of its Gateways.
pub(super) const GATEWAY_PORTS: &str = "ieum.dev/gateway-ports";

/// Annotation with a process of a workload that is in a network of its own, by which others find the way there.
pub(super) const PROCESS: &str = "ieum.dev/process";

/// The port of a sidecar's outbound HTTP proxy.
pub(super) const OUTBOUND_PORT: u16 = 15001;

/// Who a proxy is.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) role: Role<'a>,
    pub(super) address: Ipv4Addr,
    /// Of the pod, or the gateway.
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) service_account: &'a str,
    pub(super) workload: &'a str,
    pub(super) trust_domain: &'a str,
    /// Worker threads, where somebody says how many; 0 for one per core.
    pub(super) threads: Option<u32>,
}

/// What differs between sidecars and gateways.
#[derive(Clone, Debug)]
pub(super) enum Role<'a> {
    /// With the private port for each port of the workload.
    Sidecar(&'a [(u16, u16)]),
    /// With the ports of the workload. It is in one network with it, whose rules send it what comes and goes.
    Captured(&'a [(u16, u16)]),
    /// With the local port for each listener port, and the address to listen on.
    Gateway(&'a BTreeMap<u16, u16>, Ipv4Addr),
}

/// `9080=40123,7070=40124`.
pub(super) fn application_ports(pairs: &[(u16, u16)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(port, private)| format!("{port}={private}")).collect();
    pairs.join(",")
}

/// The bootstrap. `token` is shown to the control plane on every stream, for proxies that cannot ask for a certificate.
pub(super) fn bootstrap(node: &Node, admin: SocketAddr, xds: SocketAddr, token: Option<&str>) -> Value {
    let mut grpc = json!({"envoy_grpc": {"cluster_name": "xds-grpc"}});
    if let Some(token) = token {
        grpc["initial_metadata"] = json!([{"key": "authorization", "value": format!("Bearer {token}")}]);
    }
    let over_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let mut bootstrap = json!({
        "node": node_json(node),
        "admin": {"address": socket_address(admin.ip().to_string(), admin.port())},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [grpc],
            },
            "lds_config": over_ads,
            "cds_config": over_ads,
        },
        "static_resources": {"clusters": [{
            "name": "xds-grpc",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "load_assignment": {
                "cluster_name": "xds-grpc",
                "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": socket_address(xds.ip().to_string(), xds.port()),
                }}]}],
            },
        }]},
    });
    if let Role::Captured(_) = node.role {
        bootstrap["cluster_manager"] = json!({"upstream_bind_config": {"socket_options": [mark()]}});
    }
    bootstrap
}

/// What a sidecar sends is not sent to it again.
fn mark() -> Value {
    // `SOL_SOCKET` and `SO_MARK` of Linux.
    json!({"level": 1, "name": 36, "int_value": ::capture::rules::SIDECAR_MARK, "state": "STATE_PREBIND"})
}

fn socket_address(address: String, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn node_json(node: &Node) -> Value {
    let Node { address, name, namespace, .. } = node;
    let app = node.labels.get("app").map_or(node.workload, String::as_str);
    let mut metadata: Map<String, Value> = Map::new();
    let mut set = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    set("NAME", json!(name));
    set("NAMESPACE", json!(namespace));
    set("LABELS", json!(node.labels));
    set("SERVICE_ACCOUNT", json!(node.service_account));
    set("WORKLOAD_NAME", json!(node.workload));
    set("CLUSTER_ID", json!("Kubernetes"));
    set("MESH_ID", json!(node.trust_domain));
    set("INSTANCE_IPS", json!(address.to_string()));
    let role = match &node.role {
        Role::Sidecar(ports) => {
            set("OUTBOUND", json!(format!("{address}:{OUTBOUND_PORT}")));
            set("ANNOTATIONS", json!({APPLICATION_PORTS: application_ports(ports)}));
            "sidecar"
        }
        Role::Captured(ports) => {
            set("INTERCEPTION_MODE", json!("REDIRECT"));
            set("DNS_CAPTURE", json!("true"));
            set("ANNOTATIONS", json!({APPLICATION_PORTS: application_ports(ports)}));
            "sidecar"
        }
        Role::Gateway(ports, bind) => {
            set("BIND", json!(bind.to_string()));
            let ports: Map<String, Value> = ports.iter().map(|(p, l)| (p.to_string(), json!(l))).collect();
            set("PORTS", Value::Object(ports));
            "router"
        }
    };
    json!({
        "id": format!("{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        "cluster": format!("{app}.{namespace}"),
        "metadata": metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node<'a>(role: Role<'a>, labels: &'a BTreeMap<String, String>) -> Node<'a> {
        Node {
            role,
            address: Ipv4Addr::new(127, 9, 0, 5),
            name: "reviews-v1-0",
            namespace: "shop",
            labels,
            service_account: "bookinfo-reviews",
            workload: "reviews-v1",
            trust_domain: "cluster.local",
            threads: None,
        }
    }

    const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 20003);
    const XDS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15010);

    #[test]
    fn a_sidecar_is_told_who_it_is_and_where_the_control_plane_is() {
        let labels = BTreeMap::from([("app".to_owned(), "reviews".to_owned())]);
        let ports = [(9080, 20001), (7070, 20002)];
        let json = bootstrap(&node(Role::Sidecar(&ports), &labels), ADMIN, XDS, None);
        assert_eq!(json["node"]["id"], "sidecar~127.9.0.5~reviews-v1-0.shop~shop.svc.cluster.local");
        assert_eq!(json["node"]["cluster"], "reviews.shop");
        let metadata = &json["node"]["metadata"];
        assert_eq!(metadata["OUTBOUND"], "127.9.0.5:15001");
        assert_eq!(metadata["ANNOTATIONS"][APPLICATION_PORTS], "9080=20001,7070=20002");
        assert_eq!(metadata["LABELS"]["app"], "reviews");
        assert_eq!(json["admin"]["address"]["socket_address"]["port_value"], 20003);
        let endpoint =
            "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
        assert_eq!(json.pointer(endpoint), Some(&socket_address("127.0.0.1".to_owned(), 15010)));
        assert_eq!(json.pointer("/dynamic_resources/ads_config/grpc_services/0/initial_metadata"), None);
    }

    #[test]
    fn a_gateway_is_told_its_local_ports_and_a_foreign_proxy_its_token() {
        let labels = BTreeMap::new();
        let ports = BTreeMap::from([(80, 8080)]);
        let json =
            bootstrap(&node(Role::Gateway(&ports, Ipv4Addr::LOCALHOST), &labels), ADMIN, XDS, Some("secret"));
        assert_eq!(json["node"]["id"], "router~127.9.0.5~reviews-v1-0.shop~shop.svc.cluster.local");
        assert_eq!(json["node"]["metadata"]["PORTS"]["80"], 8080);
        let shown = json.pointer("/dynamic_resources/ads_config/grpc_services/0/initial_metadata/0");
        assert_eq!(shown, Some(&json!({"key": "authorization", "value": "Bearer secret"})));
    }

    #[test]
    fn a_captured_sidecar_marks_what_it_sends() {
        let labels = BTreeMap::new();
        let json = bootstrap(&node(Role::Captured(&[(9080, 9080)]), &labels), ADMIN, XDS, None);
        assert_eq!(json["node"]["metadata"]["INTERCEPTION_MODE"], "REDIRECT");
        assert_eq!(json["node"]["metadata"].get("OUTBOUND"), None);
        let option = json.pointer("/cluster_manager/upstream_bind_config/socket_options/0/int_value");
        assert_eq!(option, Some(&json!(1337)));
    }
}
