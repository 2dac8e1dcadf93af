//! Who a proxy is, as it says in the `Node` of its xDS stream: Istio's node ids and metadata keys, and a few of ours.
//! Whether it is entitled to be that is decided where it connects.

use model::metadata::{Fields, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What a client of the control plane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyKind {
    /// Beside a workload.
    Sidecar,
    /// A gateway.
    Router,
    /// No proxy at all: a gRPC library that speaks xDS.
    Grpc,
}

/// A proxy, as far as what it is sent depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyNode {
    /// What it is.
    pub kind: ProxyKind,
    /// Its node id, as sent.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name: of the pod, or of the gateway.
    pub name: String,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Labels of the workload it stands for.
    pub labels: BTreeMap<String, String>,
    /// Service account it runs as.
    pub service_account: Option<String>,
    /// Local port for each port of its Gateways.
    pub ports: BTreeMap<u16, u16>,
    /// Address a gateway listens on.
    pub bind: Option<IpAddr>,
    /// Where it is, `region/zone/subzone`; empty when it does not say.
    pub locality: String,
    /// Where a sidecar takes outbound requests.
    pub outbound: Option<SocketAddr>,
    /// Ports of the workload, each with the port on which its application really listens; these and no others, where told.
    pub application_ports: Option<BTreeMap<u16, u16>>,
    /// Rules of its network send all that its workload sends and receives to it (`INTERCEPTION_MODE`).
    pub captured: bool,
    /// Whether it is sent only what it asks for (`ON_DEMAND`), where it says so itself.
    pub on_demand: Option<bool>,
}

/// Port for outbound requests where a node names none.
pub const OUTBOUND_PORT: u16 = 15001;

/// Annotation with the ports on which an application really listens: `9080=40123,7070=40124`.
pub const APPLICATION_PORTS: &str = "ieum.dev/application-ports";

/// Annotation of a WorkloadEntry that stands for a gateway proxy: each port of its Gateways, with the one of this machine at
/// which it listens for it (`80=8080,443=8443`).
pub const GATEWAY_PORTS: &str = "ieum.dev/gateway-ports";

/// A node that does not say who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeError {
    /// The id is not in Istio's form.
    Id(String),
    /// A metadata key holds something else than it should.
    Metadata {
        /// The node's id.
        id: String,
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(
                f,
                "node id `{id}` is not of the form `sidecar~IP~NAME.NAMESPACE~NAMESPACE.svc.cluster.local` \
                 (or `router~…`)"
            ),
            Self::Metadata { id, key, expected } => {
                write!(f, "metadata `{key}` of node `{id}` is not {expected}")
            }
        }
    }
}

impl std::error::Error for NodeError {}

impl ProxyNode {
    /// Reads a node. What metadata do not say is taken from the id; of metadata, only keys that are known count.
    pub fn from_node(
        id: &str,
        _cluster: &str,
        metadata: &Fields,
        user_agent: &str,
    ) -> Result<Self, NodeError> {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
        let parts: Vec<&str> = id.split('~').collect();
        let grpc = text("GENERATOR") == Some("grpc") || user_agent.starts_with("gRPC");
        let (role, address, name) = match parts.as_slice() {
            [role @ ("sidecar" | "router"), address, name, _domain] => (*role, *address, *name),
            // gRPC libraries are given ids by whoever writes their bootstrap.
            _ if grpc => ("", "", id),
            _ => return Err(NodeError::Id(id.to_owned())),
        };
        let (short, namespace) = name.rsplit_once('.').unwrap_or((name, ""));
        let namespace = text("NAMESPACE").or(Some(namespace).filter(|n| !n.is_empty())).unwrap_or("default");
        let wrong = |key, expected| NodeError::Metadata { id: id.to_owned(), key, expected };
        let kind = match role {
            _ if grpc => ProxyKind::Grpc,
            "router" => ProxyKind::Router,
            _ => ProxyKind::Sidecar,
        };
        let parsed =
            |key: &'static str, expected| text(key).map(|t| t.parse().map_err(|_| wrong(key, expected)));
        let socket =
            |key: &'static str, expected| text(key).map(|t| t.parse().map_err(|_| wrong(key, expected)));
        let annotation = match metadata.get("ANNOTATIONS") {
            Some(Value::Struct(all)) => all.get(APPLICATION_PORTS).and_then(Value::as_str),
            _ => None,
        };
        Ok(Self {
            kind,
            id: id.to_owned(),
            namespace: namespace.to_owned(),
            name: text("NAME").unwrap_or(short).to_owned(),
            address: address.parse().ok(),
            labels: labels(metadata),
            service_account: text("SERVICE_ACCOUNT").map(str::to_owned),
            ports: ports(metadata.get("PORTS")).ok_or_else(|| wrong("PORTS", "an object of port numbers"))?,
            bind: parsed("BIND", "an IP address").transpose()?,
            outbound: socket("OUTBOUND", "an address with a port").transpose()?,
            application_ports: annotation.map(application_ports),
            captured: matches!(text("INTERCEPTION_MODE"), Some("REDIRECT" | "TPROXY")),
            on_demand: match metadata.get("ON_DEMAND") {
                Some(Value::Bool(on)) => Some(*on),
                other => is_true(other.and_then(Value::as_str)),
            },
            locality: locality(&labels(metadata)),
        })
    }
}

/// The ports of an annotation such as [`APPLICATION_PORTS`]. What is no pair of ports is left out.
pub fn application_ports(text: &str) -> BTreeMap<u16, u16> {
    let pair = |pair: &str| {
        let (port, application) = pair.split_once('=')?;
        Some((port.trim().parse().ok()?, application.trim().parse().ok()?))
    };
    text.split(',').filter_map(pair).collect()
}

/// What a setting says that is on or off.
pub fn is_true(text: Option<&str>) -> Option<bool> {
    match text?.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn labels(metadata: &Fields) -> BTreeMap<String, String> {
    let Some(Value::Struct(labels)) = metadata.get("LABELS") else { return BTreeMap::new() };
    labels.iter().filter_map(|(k, v)| Some((k.clone(), v.as_text()?))).collect()
}

/// Where labels say that a workload is.
pub fn locality(labels: &BTreeMap<String, String>) -> String {
    if let Some(place) = labels.get("istio-locality") {
        return place.replace('.', "/");
    }
    let parts = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];
    let known = parts.into_iter().map_while(|key| labels.get(key)).map(String::as_str);
    known.collect::<Vec<_>>().join("/")
}

fn ports(value: Option<&Value>) -> Option<BTreeMap<u16, u16>> {
    let number = |value: &Value| match value {
        Value::Number(n) if n.fract() == 0.0 && (0.0..=65535.0).contains(n) => Some(*n as u16),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    match value {
        None | Some(Value::Null) => Some(BTreeMap::new()),
        Some(Value::Struct(ports)) => {
            ports.iter().map(|(port, local)| Some((port.parse().ok()?, number(local)?))).collect()
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn structure(pairs: &[(&str, Value)]) -> Fields {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
    }

    #[test]
    fn a_sidecar_says_who_it_is_in_its_id_and_the_rest_in_its_metadata() {
        let metadata = structure(&[
            ("LABELS", Value::Struct(structure(&[("app", "reviews".into())]))),
            ("OUTBOUND", "127.1.0.5:15001".into()),
            ("SERVICE_ACCOUNT", "bookinfo-reviews".into()),
            ("ANNOTATIONS", Value::Struct(structure(&[(APPLICATION_PORTS, "9080=40123, x, 7070=1".into())]))),
        ]);
        let id = "sidecar~127.1.0.5~reviews-v1-0.default~default.svc.cluster.local";
        let node = ProxyNode::from_node(id, "reviews", &metadata, "envoy").unwrap();
        assert_eq!(
            (node.kind, node.name.as_str(), node.namespace.as_str()),
            (ProxyKind::Sidecar, "reviews-v1-0", "default")
        );
        assert_eq!(node.address, Some("127.1.0.5".parse().unwrap()));
        assert_eq!(node.labels.get("app").map(String::as_str), Some("reviews"));
        assert_eq!(node.outbound, Some("127.1.0.5:15001".parse().unwrap()));
        assert_eq!(node.application_ports, Some(BTreeMap::from([(9080, 40123), (7070, 1)])));
    }

    #[test]
    fn a_gateway_says_where_it_listens() {
        let ports = Value::Struct(structure(&[("80", Value::Number(8080.0)), ("443", "8443".into())]));
        let metadata = structure(&[("PORTS", ports), ("BIND", "127.0.0.1".into())]);
        let id = "router~127.0.0.1~ingress.istio-system~istio-system.svc.cluster.local";
        let node = ProxyNode::from_node(id, "", &metadata, "").unwrap();
        assert_eq!(node.kind, ProxyKind::Router);
        assert_eq!(node.ports, BTreeMap::from([(80, 8080), (443, 8443)]));
        let bad = structure(&[("PORTS", "80".into())]);
        let error = ProxyNode::from_node(id, "", &bad, "").unwrap_err().to_string();
        assert!(error.contains("`PORTS`") && error.contains("port numbers"), "{error}");
    }

    #[test]
    fn a_grpc_library_may_have_any_id_and_a_proxy_may_not() {
        let node = ProxyNode::from_node("client-7", "", &Fields::new(), "gRPC Python").unwrap();
        assert_eq!((node.kind, node.namespace.as_str()), (ProxyKind::Grpc, "default"));
        let error = ProxyNode::from_node("client-7", "", &Fields::new(), "envoy").unwrap_err();
        assert!(error.to_string().contains("`client-7`"));
    }
}
