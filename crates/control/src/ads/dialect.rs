//! The two dialects of ADS, delta and state-of-the-world, as one stream sees them. What either answers is for `xds`.

use crate::node::ProxyNode;
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value as WireValue};
use model::metadata::{Fields, Value};
use prost::Message;
use xds::resources::{Names, ResourceSet};
use xds::server::{DeltaResponse, DeltaStream, Rejection, TooManySubscriptions};
use xds::sotw::SotwStream;

/// Deepest nesting of metadata that is read; what lies deeper is null.
const METADATA_DEPTH: usize = 16;

/// Largest node read, in bytes: it is remembered as long as its proxy is connected.
const MAX_NODE_BYTES: usize = 64 << 10;

/// One dialect's stream.
pub(super) trait Dialect: Send + 'static {
    /// A request of the client.
    type Request: Request + Message + Default;
    /// A response to it.
    type Response: Response;
    /// What it is called.
    const NAME: &'static str;

    /// A stream that may hold `limit` names and types together.
    fn new(limit: usize) -> Self;
    /// Takes a request and answers it, if an answer is due.
    fn request(
        &mut self,
        request: Self::Request,
        set: &ResourceSet,
    ) -> Result<Vec<Self::Response>, TooManySubscriptions>;
    /// What a new set changes for this client.
    fn change(&mut self, set: &ResourceSet) -> Vec<Self::Response>;
    /// Hands over the refusals since the last call.
    fn take_rejections(&mut self) -> Vec<Rejection>;
    /// The client is stock Envoy.
    fn mind_envoy(&mut self) {}
}

/// What both dialects' requests say.
pub(super) trait Request: Send + 'static {
    /// Who asks; only the first request of a stream must say.
    fn take_node(&mut self) -> Option<Node>;
    /// The type asked for.
    fn type_url(&self) -> &str;
    /// The response that is acknowledged or refused.
    fn nonce(&self) -> &str;
    /// Whether it is refused.
    fn is_refusal(&self) -> bool;
    /// Whether a resource is asked for by this name.
    fn asks_for(&self, name: &str) -> bool;
    /// Names that are asked for from now on, where they are said one by one.
    fn subscribed(&self) -> &[String] {
        &[]
    }
    /// Names that are asked for no longer.
    fn unsubscribed(&self) -> &[String] {
        &[]
    }
    /// Whether the client has a resource of this name from an earlier stream.
    fn holds(&self, _: &str) -> bool {
        false
    }
}

/// What both dialects' responses say.
pub(super) trait Response: Send + 'static {
    /// The type of its resources.
    fn type_url(&self) -> &str;
    /// Its number on the stream.
    fn nonce(&self) -> &str;
    /// The version of the whole set.
    fn version(&self) -> &str;
    /// How many resources it carries.
    fn size(&self) -> usize;
    /// The names it carries, where it says them.
    fn changed(&self) -> &[Names];
    /// The names that it says are gone.
    fn removed(&self) -> &[String];
    /// The encoded message, in parts that may be shared.
    fn into_parts(self) -> Vec<Bytes>;
}

impl Dialect for DeltaStream {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaResponse;
    const NAME: &'static str = "delta";

    fn new(limit: usize) -> Self {
        Self::new(limit)
    }

    fn request(
        &mut self,
        request: Self::Request,
        set: &ResourceSet,
    ) -> Result<Vec<Self::Response>, TooManySubscriptions> {
        self.request(request, set)
    }

    fn change(&mut self, set: &ResourceSet) -> Vec<Self::Response> {
        self.change(set)
    }

    fn take_rejections(&mut self) -> Vec<Rejection> {
        self.take_rejections()
    }

    fn mind_envoy(&mut self) {
        self.repeat_endpoints();
    }
}

impl Dialect for SotwStream {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const NAME: &'static str = "sotw";

    fn new(limit: usize) -> Self {
        Self::new(limit)
    }

    fn request(
        &mut self,
        request: Self::Request,
        set: &ResourceSet,
    ) -> Result<Vec<Self::Response>, TooManySubscriptions> {
        Ok(self.request(request, set)?.into_iter().collect())
    }

    fn change(&mut self, set: &ResourceSet) -> Vec<Self::Response> {
        self.change(set)
    }

    fn take_rejections(&mut self) -> Vec<Rejection> {
        self.take_rejections()
    }
}

impl Request for DeltaDiscoveryRequest {
    fn take_node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn nonce(&self) -> &str {
        &self.response_nonce
    }

    fn is_refusal(&self) -> bool {
        self.error_detail.is_some()
    }

    fn asks_for(&self, name: &str) -> bool {
        self.resource_names_subscribe.iter().any(|n| n == name)
    }

    fn subscribed(&self) -> &[String] {
        &self.resource_names_subscribe
    }

    fn unsubscribed(&self) -> &[String] {
        &self.resource_names_unsubscribe
    }

    fn holds(&self, name: &str) -> bool {
        self.initial_resource_versions.contains_key(name)
    }
}

impl Request for DiscoveryRequest {
    fn take_node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn nonce(&self) -> &str {
        &self.response_nonce
    }

    fn is_refusal(&self) -> bool {
        self.error_detail.is_some()
    }

    fn asks_for(&self, name: &str) -> bool {
        self.resource_names.iter().any(|n| n == name)
    }
}

impl Response for DeltaResponse {
    fn type_url(&self) -> &str {
        self.type_url()
    }

    fn nonce(&self) -> &str {
        self.nonce()
    }

    fn version(&self) -> &str {
        self.version()
    }

    fn size(&self) -> usize {
        self.size()
    }

    fn changed(&self) -> &[Names] {
        self.changed()
    }

    fn removed(&self) -> &[String] {
        self.removed()
    }

    fn into_parts(self) -> Vec<Bytes> {
        self.into_parts()
    }
}

impl Response for DiscoveryResponse {
    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn nonce(&self) -> &str {
        &self.nonce
    }

    fn version(&self) -> &str {
        &self.version_info
    }

    fn size(&self) -> usize {
        self.resources.len()
    }

    fn changed(&self) -> &[Names] {
        &[]
    }

    fn removed(&self) -> &[String] {
        &[]
    }

    fn into_parts(self) -> Vec<Bytes> {
        vec![self.encode_to_vec().into()]
    }
}

/// The proxy that a node describes, or a sentence.
pub(super) fn read_node(node: &Node) -> Result<ProxyNode, String> {
    let size = node.encoded_len();
    if size > MAX_NODE_BYTES {
        return Err(format!("the node has {size} bytes; at most {MAX_NODE_BYTES} are read"));
    }
    let metadata = node.metadata.as_ref().map(|m| fields(m, METADATA_DEPTH)).unwrap_or_default();
    let read = ProxyNode::from_node(&node.id, &node.cluster, &metadata, &node.user_agent_name);
    let mut read = read.map_err(|error| error.to_string())?;
    if let Some(place) = &node.locality {
        let parts = [&place.region, &place.zone, &place.sub_zone].map(String::as_str);
        let said: Vec<&str> = parts.into_iter().take_while(|part| !part.is_empty()).collect();
        if !said.is_empty() {
            read.locality = said.join("/");
        }
    }
    Ok(read)
}

fn fields(wire: &Struct, depth: usize) -> Fields {
    wire.fields.iter().map(|(key, wire)| (key.clone(), value(wire, depth))).collect()
}

fn value(wire: &WireValue, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    match &wire.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::Number(*number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::BoolValue(truth)) => Value::Bool(*truth),
        Some(Kind::StructValue(wire)) => Value::Struct(fields(wire, depth)),
        Some(Kind::ListValue(wire)) => Value::List(wire.values.iter().map(|v| value(v, depth)).collect()),
    }
}
