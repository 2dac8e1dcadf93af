//! Who a workload is, for metrics: labels of this proxy from its node, and of its peers from what they say in
//! `x-envoy-peer-metadata`, from an endpoint's metadata, or from the name in a certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::google::protobuf as pb;
use http::HeaderValue;
use model::endpoint::Endpoint;
use model::metadata::{Fields, Value};
use pb::value::Kind;
use prost::Message;

/// Header with the sender's [`NodeLabels`], as Istio's proxies write it.
pub(crate) const PEER_METADATA: http::HeaderName = http::HeaderName::from_static("x-envoy-peer-metadata");
/// Header with the sender's node id.
pub(crate) const PEER_METADATA_ID: http::HeaderName =
    http::HeaderName::from_static("x-envoy-peer-metadata-id");
/// What Istio writes for anything that is not known.
pub(crate) const UNKNOWN: &str = "unknown";

/// A longer header is not looked at.
const LONGEST_METADATA: usize = 16 * 1024;
/// No name or label in Kubernetes is longer.
const LONGEST_NAME: usize = 253;
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

/// What metrics say of a workload; `unknown` where nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Peer {
    pub(crate) workload: String,
    pub(crate) namespace: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) canonical_service: String,
    pub(crate) canonical_revision: String,
    pub(crate) cluster: String,
}

impl Peer {
    /// A peer of whom nothing is known.
    pub(crate) fn unknown() -> Self {
        let unknown = || UNKNOWN.to_owned();
        Self {
            workload: unknown(),
            namespace: unknown(),
            app: unknown(),
            version: unknown(),
            canonical_service: unknown(),
            canonical_revision: "latest".to_owned(),
            cluster: unknown(),
        }
    }

    /// From node metadata, as Istio's proxies are started with it and tell it to each other.
    fn from_struct(metadata: &Fields) -> Self {
        let text = |map: &Fields, key: &str| {
            let text = map.get(key).and_then(Value::as_str)?;
            (!text.is_empty() && text.len() <= LONGEST_NAME).then(|| text.to_owned())
        };
        let none = Fields::new();
        let labels = match metadata.get("LABELS") {
            Some(Value::Struct(labels)) => labels,
            _ => &none,
        };
        let workload = text(metadata, "WORKLOAD_NAME");
        let app = text(labels, "app").or_else(|| text(labels, "app.kubernetes.io/name"));
        let version = text(labels, "version").or_else(|| text(labels, "app.kubernetes.io/version"));
        let unknown = || UNKNOWN.to_owned();
        Self {
            canonical_service: text(labels, CANONICAL_NAME)
                .or_else(|| app.clone())
                .or_else(|| workload.clone())
                .unwrap_or_else(unknown),
            canonical_revision: text(labels, CANONICAL_REVISION)
                .or_else(|| version.clone())
                .unwrap_or_else(|| "latest".to_owned()),
            workload: workload.unwrap_or_else(unknown),
            namespace: text(metadata, "NAMESPACE").unwrap_or_else(unknown),
            app: app.unwrap_or_else(unknown),
            version: version.unwrap_or_else(unknown),
            cluster: text(metadata, "CLUSTER_ID").unwrap_or_else(unknown),
        }
    }

    /// From the value of [`PEER_METADATA`]; `None` when it is not what it should be.
    pub(crate) fn from_header(value: &[u8]) -> Option<Self> {
        if value.len() > LONGEST_METADATA {
            return None;
        }
        let bytes = STANDARD.decode(value).ok()?;
        let metadata = pb::Struct::decode(bytes.as_slice()).ok()?;
        match value_of(Kind::StructValue(metadata)) {
            Value::Struct(metadata) => Some(Self::from_struct(&metadata)),
            _ => None,
        }
    }

    /// From `filter_metadata.istio.workload` of an endpoint: `name;namespace;canonical service;canonical
    /// revision;cluster`.
    pub(crate) fn from_endpoint(endpoint: &Endpoint) -> Option<Self> {
        let text = endpoint.metadata.string("istio", "workload")?;
        let mut parts = text.split(';');
        let mut next = || parts.next().filter(|s| !s.is_empty());
        let mut peer = Self { workload: next()?.to_owned(), ..Self::unknown() };
        if let Some(namespace) = next() {
            namespace.clone_into(&mut peer.namespace);
        }
        if let Some(service) = next() {
            service.clone_into(&mut peer.canonical_service);
            // The canonical service comes from the label `app` unless somebody says otherwise.
            service.clone_into(&mut peer.app);
        }
        if let Some(revision) = next() {
            revision.clone_into(&mut peer.canonical_revision);
            if revision != "latest" {
                revision.clone_into(&mut peer.version);
            }
        }
        if let Some(cluster) = next() {
            cluster.clone_into(&mut peer.cluster);
        }
        Some(peer)
    }

    /// From a SPIFFE id, which tells at least the namespace.
    pub(crate) fn from_principal(uri: &str) -> Option<Self> {
        let (_, path) = uri.strip_prefix("spiffe://")?.split_once("/ns/")?;
        let (namespace, _) = path.split_once("/sa/")?;
        (!namespace.is_empty()).then(|| Self { namespace: namespace.to_owned(), ..Self::unknown() })
    }
}

/// Who this proxy works for: what its metrics say of itself, and what it tells its peers.
#[derive(Debug, Clone)]
pub struct NodeLabels {
    pub(crate) id: String,
    pub(crate) peer: Peer,
    pub(crate) principal: String,
    /// Values of the two headers that tell all this to peers; `None` when there is nothing to tell.
    pub(crate) headers: Option<(HeaderValue, HeaderValue)>,
}

impl NodeLabels {
    /// From a bootstrap's `node.id` and `node.metadata`, both as Istio's proxies have them. What the metadata lacks is
    /// taken from an id of the form `sidecar~<ip>~<pod>.<namespace>~<domain>`.
    pub fn from_metadata(id: &str, metadata: &Value) -> Self {
        let mut metadata = match metadata {
            Value::Struct(metadata) => metadata.clone(),
            _ => Fields::new(),
        };
        let mut fill = |key: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                metadata.get_or_insert_with(key, || value.into());
            }
        };
        let pod = id.split('~').nth(2);
        let (name, namespace) = match pod.and_then(|p| p.rsplit_once('.')) {
            Some((name, namespace)) => (Some(name), Some(namespace)),
            None => (None, None),
        };
        fill("NAME", name);
        fill("NAMESPACE", namespace);
        fill("WORKLOAD_NAME", name);
        let peer = Peer::from_struct(&metadata);
        let principal = match metadata.get("SERVICE_ACCOUNT").and_then(Value::as_str) {
            Some(account) if peer.namespace != UNKNOWN => {
                format!("spiffe://cluster.local/ns/{}/sa/{account}", peer.namespace)
            }
            _ => UNKNOWN.to_owned(),
        };
        let headers = peer_headers(id, &metadata);
        Self { id: id.to_owned(), peer, principal, headers }
    }

    /// The same, with the name in the certificate that the mesh gave it.
    pub fn with_principal(mut self, uri: &str) -> Self {
        uri.clone_into(&mut self.principal);
        self
    }

    /// The node's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// What peers are told: the part of the node's metadata that metrics read, and no more.
fn peer_headers(id: &str, metadata: &Fields) -> Option<(HeaderValue, HeaderValue)> {
    const TOLD: [&str; 6] = ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "MESH_ID", "OWNER"];
    const TOLD_LABELS: [&str; 6] = [
        "app",
        "version",
        "app.kubernetes.io/name",
        "app.kubernetes.io/version",
        CANONICAL_NAME,
        CANONICAL_REVISION,
    ];
    let some_of = |map: &Fields, keys: &[&str]| -> Fields {
        map.iter().filter(|(k, _)| keys.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let mut told = some_of(metadata, &TOLD);
    if let Some(Value::Struct(labels)) = metadata.get("LABELS") {
        told.insert("LABELS".to_owned(), Value::Struct(some_of(labels, &TOLD_LABELS)));
    }
    if told.is_empty() {
        return None;
    }
    let fields = told.into_iter().map(|(k, v)| (k, value_to_proto(v))).collect();
    let text = STANDARD.encode(pb::Struct { fields }.encode_to_vec());
    Some((HeaderValue::try_from(text).ok()?, HeaderValue::try_from(id).ok()?))
}

fn value_of(kind: Kind) -> Value {
    let inner = |v: pb::Value| v.kind.map_or(Value::Null, value_of);
    match kind {
        Kind::NullValue(_) => Value::Null,
        Kind::NumberValue(n) => Value::Number(n),
        Kind::StringValue(s) => Value::String(s),
        Kind::BoolValue(b) => Value::Bool(b),
        Kind::StructValue(s) => Value::Struct(s.fields.into_iter().map(|(k, v)| (k, inner(v))).collect()),
        Kind::ListValue(l) => Value::List(l.values.into_iter().map(inner).collect()),
    }
}

fn value_to_proto(value: Value) -> pb::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(b),
        Value::Number(n) => Kind::NumberValue(n),
        Value::String(s) => Kind::StringValue(s),
        Value::List(l) => {
            Kind::ListValue(pb::ListValue { values: l.into_iter().map(value_to_proto).collect() })
        }
        Value::Struct(s) => Kind::StructValue(pb::Struct {
            fields: s.into_iter().map(|(k, v)| (k, value_to_proto(v))).collect(),
        }),
    };
    pb::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use model::endpoint::{EndpointAddress, Health};
    use model::metadata::Metadata;

    fn node() -> NodeLabels {
        let labels = Value::Struct(Fields::from([
            ("app".to_owned(), Value::from("reviews")),
            ("version".to_owned(), Value::from("v2")),
            ("team".to_owned(), Value::from("books")),
        ]));
        let metadata = Fields::from([
            ("LABELS".to_owned(), labels),
            ("SERVICE_ACCOUNT".to_owned(), Value::from("bookinfo-reviews")),
            ("WORKLOAD_NAME".to_owned(), Value::from("reviews-v2")),
            ("CLUSTER_ID".to_owned(), Value::from("Kubernetes")),
        ]);
        let id = "sidecar~127.1.0.5~reviews-v2-0.default~default.svc.cluster.local";
        NodeLabels::from_metadata(id, &Value::Struct(metadata))
    }

    #[test]
    fn what_a_node_tells_its_peers_is_read_back_as_what_it_says_of_itself() {
        let node = node();
        assert_eq!(node.principal, "spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
        let (metadata, id) = node.headers.clone().unwrap();
        assert_eq!(id.as_bytes(), node.id.as_bytes());
        let read = Peer::from_header(metadata.as_bytes()).unwrap();
        assert_eq!(read, node.peer);
        assert_eq!((read.workload.as_str(), read.namespace.as_str()), ("reviews-v2", "default"));
        assert_eq!((read.app.as_str(), read.version.as_str()), ("reviews", "v2"));
        assert_eq!((read.canonical_service.as_str(), read.canonical_revision.as_str()), ("reviews", "v2"));
        assert_eq!(read.cluster, "Kubernetes");
        let bytes = STANDARD.decode(metadata.as_bytes()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("team"), "other labels stay at home");
    }

    #[test]
    fn an_endpoint_and_a_certificate_name_a_peer_that_does_not_speak_for_itself() {
        let mut metadata = Metadata::default();
        metadata.set("istio", "workload", "ratings-v1;default;ratings;v1;c1");
        let endpoint = Endpoint {
            address: EndpointAddress::Name("a".into(), 1),
            hostname: String::new(),
            weight: 1,
            health: Health::Unknown,
            metadata,
        };
        let peer = Peer::from_endpoint(&endpoint).unwrap();
        assert_eq!(
            (peer.workload.as_str(), peer.version.as_str(), peer.cluster.as_str()),
            ("ratings-v1", "v1", "c1")
        );
        let peer = Peer::from_principal("spiffe://cluster.local/ns/books/sa/default").unwrap();
        assert_eq!((peer.workload.as_str(), peer.namespace.as_str()), ("unknown", "books"));
        assert_eq!(Peer::from_principal("https://x"), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_peer_says_does_harm(bytes: Vec<u8>) {
            Peer::from_header(&bytes);
            Peer::from_header(STANDARD.encode(&bytes).as_bytes());
        }
    }

    #[test]
    fn metadata_that_is_no_struct_is_nobody() {
        for bad in ["", "%%%", "AAAA", "////////"] {
            let read = Peer::from_header(bad.as_bytes());
            assert!(read.is_none_or(|p| p == Peer::unknown()), "{bad}");
        }
        assert_eq!(Peer::from_header(&vec![b'A'; LONGEST_METADATA + 4]), None);
    }
}
