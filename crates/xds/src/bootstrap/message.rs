//! From the tree to Envoy's message, `typed_config`s included; an error names the field.

use envoy_types::pb::envoy::config::bootstrap::v3 as pb;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage};
use serde_json::Value as Json;

use super::descriptors;
use super::yaml::Node as Tree;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Why a document is not a bootstrap: the field, and what is wrong with it.
pub(super) type FieldError = (String, String);

/// Reads a document in a thread of its own, which hands over nothing but the encoded message: descriptors take megabytes
/// for a moment, and what an allocator took for them goes back whole only when nothing that stays lies between.
pub(super) fn read(tree: &Tree) -> Result<pb::Bootstrap, FieldError> {
    let bytes = std::thread::scope(|scope| {
        let apart = std::thread::Builder::new().name("bootstrap".to_owned());
        match apart.spawn_scoped(scope, || encoded(tree.json())).map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // Without a thread it costs memory, no more.
            Err(_) => encoded(tree.json()),
        }
    })?;
    pb::Bootstrap::decode(bytes.as_slice()).map_err(|error| (String::new(), error.to_string()))
}

/// The message as Envoy would send it. Descriptors are loaded for it alone and dropped after it.
fn encoded(json: Json) -> Result<Vec<u8>, FieldError> {
    let mut types = vec![BOOTSTRAP.to_owned()];
    collect_types(&json, &mut types);
    let broken =
        |error: &dyn std::fmt::Display| (String::new(), format!("Envoy's descriptors are broken: {error}"));
    let pool = descriptors::pool(types.iter().map(String::as_str)).map_err(|error| broken(&error))?;
    let descriptor = pool.get_message_by_name(BOOTSTRAP).ok_or_else(|| broken(&"no bootstrap"))?;
    let options = DeserializeOptions::new();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(json, &mut track);
    let message = DynamicMessage::deserialize_with_options(descriptor, deserializer, &options);
    let message = message.map_err(|error| explain(&track.path().to_string(), &error.to_string()))?;
    Ok(message.encode_to_vec())
}

/// The messages named by `@type` anywhere below, as far as they are known.
fn collect_types(json: &Json, types: &mut Vec<String>) {
    match json {
        Json::Array(items) => items.iter().for_each(|item| collect_types(item, types)),
        Json::Object(entries) => {
            let url = entries.get("@type").and_then(Json::as_str);
            let name = url.and_then(|url| url.rsplit('/').next()).filter(|name| descriptors::is_known(name));
            types.extend(name.map(str::to_owned));
            entries.values().for_each(|value| collect_types(value, types));
        }
        _ => {}
    }
}

/// What the reader says, in our words.
fn explain(path: &str, error: &str) -> FieldError {
    let path = if path == "." { "" } else { path };
    let quoted = |prefix: &str| error.strip_prefix(prefix)?.split('\'').next();
    if let Some(key) = quoted("unrecognized field name '") {
        let field = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        return (field, "unknown field".to_owned());
    }
    if let Some(name) = quoted("message '") {
        let advice = "an extension that Envoy 1.40 does not describe, or a misspelt name";
        return (format!("{path}.@type"), format!("unknown type `{name}`: {advice}"));
    }
    if let Some(name) = quoted("unrecognized enum value '") {
        return (path.to_owned(), format!("unknown value `{name}`"));
    }
    (path.to_owned(), error.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_stays_in_memory_when_a_bootstrap_has_been_read() {
        let manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let document = serde_json::json!({
            "node": {"id": "a", "metadata": {"LABELS": {"app": "a"}}},
            "static_resources": {
                "clusters": [{"name": "a", "connect_timeout": "1.5s", "typed_extension_protocol_options": {}}],
                "listeners": [{"name": "a", "filter_chains": [{"filters": [{"name": "a", "typed_config": {
                    "@type": format!("type.googleapis.com/{manager}"), "use_remote_address": true,
                }}]}]}],
            },
        });
        let found = allocation_counter::measure(|| {
            assert!(encoded(document.clone()).unwrap().len() > 100);
        });
        assert!(found.bytes_max > 100_000, "{found:?}");
        assert_eq!(found.bytes_current, 0, "{found:?}");
    }
}
