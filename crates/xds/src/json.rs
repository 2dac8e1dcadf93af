//! Resources as JSON, in Envoy's field names, for people who look at what a proxy was given. Nothing reads it back.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use envoy_types::pb::google::protobuf::Any;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

use crate::bootstrap::descriptors;

/// How every type URL that a resource contains begins.
const DOMAIN: &[u8] = b"type.googleapis.com/";

/// Writes resources of some types. It is a few megabytes while it lives: make one for a whole dump, then drop it.
pub struct JsonWriter {
    pool: Result<DescriptorPool, String>,
}

impl JsonWriter {
    /// For these resources and whatever is packed inside them.
    pub fn new(resources: impl Iterator<Item = impl Borrow<Any>>) -> Self {
        let mut types = BTreeSet::new();
        for any in resources {
            let any = any.borrow();
            types.extend(message_name(&any.type_url).map(str::to_owned));
            collect_packed(&any.value, &mut types);
        }
        let known = types.iter().map(String::as_str).filter(|name| descriptors::is_known(name));
        Self { pool: descriptors::pool(known).map_err(|error| error.to_string()) }
    }

    /// The resource with its `@type`; one that cannot be written says why instead.
    pub fn value(&self, any: &Any) -> Value {
        match self.write(any) {
            Ok(value) => value,
            Err(reason) => json!({ "@type": any.type_url, "unreadable": reason }),
        }
    }

    fn write(&self, any: &Any) -> Result<Value, String> {
        let pool = self.pool.as_ref().map_err(String::clone)?;
        let name = message_name(&any.type_url).ok_or("it has no type")?;
        let descriptor = pool.get_message_by_name(name).ok_or("its type is not described")?;
        let message =
            DynamicMessage::decode(descriptor, any.value.as_slice()).map_err(|error| error.to_string())?;
        let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(true);
        let value = message.serialize_with_options(serde_json::value::Serializer, &options);
        let mut value = value.map_err(|error| error.to_string())?;
        if let Value::Object(fields) = &mut value {
            let rest = std::mem::take(fields);
            fields.insert("@type".to_owned(), Value::String(any.type_url.clone()));
            fields.extend(rest);
        }
        Ok(value)
    }
}

fn message_name(type_url: &str) -> Option<&str> {
    type_url.rsplit('/').next().filter(|name| !name.is_empty())
}

/// Names of messages that are packed somewhere in `bytes`: each is written out in full.
fn collect_packed(bytes: &[u8], types: &mut BTreeSet<String>) {
    for (at, _) in bytes.windows(DOMAIN.len()).enumerate().filter(|(_, window)| *window == DOMAIN) {
        let name = bytes.get(at + DOMAIN.len()..).unwrap_or_default();
        let is_name = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_');
        let name: Vec<u8> = name.iter().take_while(is_name).copied().collect();
        // A byte that happens to look like a letter may follow: every shorter name is tried, too.
        for end in (1..=name.len()).rev() {
            let name = std::str::from_utf8(name.get(..end).unwrap_or_default()).unwrap_or_default();
            if descriptors::is_known(name) {
                types.insert(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
    use prost::Message;

    use super::*;

    fn packed(type_url: &str, message: &impl Message) -> Any {
        Any { type_url: format!("type.googleapis.com/{type_url}"), value: message.encode_to_vec() }
    }

    #[test]
    fn a_resource_is_written_with_what_is_packed_inside_it() {
        let tls = UpstreamTlsContext { sni: "a.test".into(), ..UpstreamTlsContext::default() };
        let tls = packed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", &tls);
        let socket = TransportSocket { name: "tls".into(), config_type: Some(ConfigType::TypedConfig(tls)) };
        let cluster = Cluster { name: "c".into(), transport_socket: Some(socket), ..Cluster::default() };
        let any = packed("envoy.config.cluster.v3.Cluster", &cluster);
        let value = JsonWriter::new([&any].into_iter()).value(&any);
        assert_eq!(value["name"], "c");
        assert_eq!(value["transport_socket"]["typed_config"]["sni"], "a.test");
    }

    #[test]
    fn what_cannot_be_written_says_why() {
        let any = Any { type_url: "type.googleapis.com/a.B".into(), value: vec![1, 2, 3] };
        let value = JsonWriter::new([&any].into_iter()).value(&any);
        assert_eq!(value["unreadable"], "its type is not described");
    }
}
