//! The small pieces that many messages share: durations, wrappers, `Any`, addresses, where bytes come from, where a
//! resource is subscribed to, metadata.

use super::place::{Decoded, Place, fields};
use super::wire_order::{Shape, ordered};
use envoy_types::pb::envoy::config::core::v3 as proto;
use envoy_types::pb::google::protobuf::{self, Any, BoolValue, ListValue, Struct, UInt32Value, value::Kind};
use model::address::AddressRange;
use model::endpoint::EndpointAddress;
use model::metadata::{Fields, Metadata, Value};
use model::provenance::{NAMESPACE, Provenance};
use prost::{Message, Name};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn decode_duration(place: &Place<'_>, duration: &protobuf::Duration) -> Decoded<Duration> {
    let parts = (u64::try_from(duration.seconds), u32::try_from(duration.nanos));
    match parts {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(place.error(format_args!(
            "{} s and {} ns are no duration from 0 up",
            duration.seconds, duration.nanos
        ))),
    }
}

/// A duration of which 0 means "no limit" and absence means `default`.
pub(crate) fn decode_limit(
    place: &Place<'_>,
    duration: &Option<protobuf::Duration>,
    default: Option<Duration>,
) -> Decoded<Option<Duration>> {
    match duration {
        None => Ok(default),
        Some(duration) => Ok(Some(decode_duration(place, duration)?).filter(|d| !d.is_zero())),
    }
}

/// Fails unless the duration is absent or 0, which both mean "no limit".
pub(crate) fn refuse_limit(
    place: &Place<'_>,
    name: &str,
    duration: &Option<protobuf::Duration>,
) -> Decoded<()> {
    place.refuse(name, &duration.filter(|d| (d.seconds, d.nanos) != (0, 0)))
}

pub(crate) fn encode_duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// The counterpart of [`decode_limit`].
pub(crate) fn encode_limit(limit: Option<Duration>) -> Option<protobuf::Duration> {
    Some(encode_duration(limit.unwrap_or_default()))
}

pub(crate) fn flag(value: &Option<BoolValue>) -> bool {
    value.is_some_and(|v| v.value)
}

pub(crate) fn flag_or(value: &Option<BoolValue>, default: bool) -> bool {
    value.map_or(default, |v| v.value)
}

pub(crate) fn encode_flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(crate) fn encode_number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// The message's name without what stands before it in a type URL.
pub(crate) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

pub(crate) fn unpack<M: Message + Default>(place: &Place<'_>, any: &Any) -> Decoded<M> {
    M::decode(any.value.as_slice())
        .map_err(|e| place.error(format_args!("not a valid {}: {e}", type_name(any))))
}

pub(crate) fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The same for a message with maps, which come in any order.
pub(crate) fn pack_ordered<M: Message + Name>(message: &M, shape: &Shape) -> Any {
    Any { type_url: M::type_url(), value: ordered(&message.encode_to_vec(), shape) }
}

/// A typed extension without its name, for which nobody but people looks.
pub(crate) fn extension(name: &str, config: Any) -> proto::TypedExtensionConfig {
    proto::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}

pub(crate) fn decode_port(place: &Place<'_>, port: u32) -> Decoded<u16> {
    u16::try_from(port).map_err(|_| place.error(format_args!("{port} is no port")))
}

pub(crate) fn decode_address(
    place: &Place<'_>,
    address: &Option<proto::Address>,
) -> Decoded<EndpointAddress> {
    match address.as_ref().and_then(|a| a.address.as_ref()) {
        None => Err(place.error("an address is missing")),
        Some(proto::address::Address::Pipe(pipe)) => {
            Err(place.field("pipe").unsupported(format_args!("Unix socket `{}`", pipe.path)))
        }
        Some(proto::address::Address::EnvoyInternalAddress(_)) => {
            Err(place.field("envoy_internal_address").unsupported("an internal address"))
        }
        Some(proto::address::Address::SocketAddress(socket)) => {
            decode_socket(&place.field("socket_address"), socket)
        }
    }
}

pub(crate) fn decode_socket(place: &Place<'_>, socket: &proto::SocketAddress) -> Decoded<EndpointAddress> {
    fields!(place, socket => proto::SocketAddress {
        honoured: protocol, address, port_specifier;
        ignored: ipv4_compat;
        refused: resolver_name, network_namespace_filepath;
    });
    place.refuse("protocol", protocol)?;
    let port = match port_specifier {
        Some(proto::socket_address::PortSpecifier::PortValue(port)) => {
            decode_port(&place.field("port_value"), *port)?
        }
        Some(proto::socket_address::PortSpecifier::NamedPort(name)) => {
            return Err(place.field("named_port").unsupported(format_args!("named port `{name}`")));
        }
        None => return Err(place.error("a port is missing")),
    };
    match address.parse::<IpAddr>() {
        Ok(ip) => Ok(EndpointAddress::Socket(SocketAddr::new(ip, port))),
        Err(_) if address.is_empty() => Err(place.error("an address is missing")),
        Err(_) => Ok(EndpointAddress::Name(address.clone(), port)),
    }
}

pub(crate) fn encode_address(address: &EndpointAddress) -> Option<proto::Address> {
    let address = Some(proto::address::Address::SocketAddress(encode_socket(address)));
    Some(proto::Address { address })
}

pub(crate) fn encode_socket(address: &EndpointAddress) -> proto::SocketAddress {
    let (address, port) = match address {
        EndpointAddress::Socket(socket) => (socket.ip().to_string(), socket.port()),
        EndpointAddress::Name(name, port) => (name.clone(), *port),
    };
    proto::SocketAddress {
        address,
        port_specifier: Some(proto::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    }
}

/// Bytes given in the configuration or in a file it names; `None` when nothing is said.
pub(crate) fn decode_data(place: &Place<'_>, data: &Option<proto::DataSource>) -> Decoded<Option<Vec<u8>>> {
    use proto::data_source::Specifier;
    let Some(data) = data else { return Ok(None) };
    fields!(place, data => proto::DataSource { honoured: specifier; ignored: watched_directory; refused: ; });
    match specifier {
        None => Ok(None),
        Some(Specifier::InlineBytes(bytes)) => Ok(Some(bytes.clone())),
        Some(Specifier::InlineString(text)) => Ok(Some(text.clone().into_bytes())),
        Some(Specifier::Filename(path)) => place.field("filename").read_file(path).map(Some),
        Some(Specifier::EnvironmentVariable(name)) => {
            Err(place.field("environment_variable").unsupported(format_args!("variable `{name}`")))
        }
    }
}

pub(crate) fn encode_data(bytes: &[u8]) -> Option<proto::DataSource> {
    let specifier = Some(proto::data_source::Specifier::InlineBytes(bytes.to_vec()));
    Some(proto::DataSource { specifier, ..Default::default() })
}

pub(crate) fn encode_text(text: &str) -> proto::DataSource {
    let specifier = Some(proto::data_source::Specifier::InlineString(text.to_owned()));
    proto::DataSource { specifier, ..Default::default() }
}

/// Fails unless resources are to be asked for on the one stream there is.
pub(crate) fn check_config_source(place: &Place<'_>, source: &Option<proto::ConfigSource>) -> Decoded<()> {
    use proto::config_source::ConfigSourceSpecifier as From;
    let Some(source) = source else {
        return Err(place.error("a config source is missing; only `ads` is supported"));
    };
    fields!(place, source => proto::ConfigSource {
        honoured: config_source_specifier, resource_api_version;
        ignored: initial_fetch_timeout;
        refused: authorities;
    });
    if !matches!(*resource_api_version, 0 | 2) {
        return Err(place.field("resource_api_version").error("only V3 is supported"));
    }
    let other = match config_source_specifier {
        Some(From::Ads(_) | From::Self_(_)) => return Ok(()),
        None => return Err(place.error("nothing is said about where from; only `ads` is supported")),
        Some(From::Path(_)) => "path",
        Some(From::PathConfigSource(_)) => "path_config_source",
        Some(From::ApiConfigSource(_)) => "api_config_source",
    };
    Err(place.field(other).error("only `ads` is supported"))
}

/// Over ADS, waited for as long as it takes.
pub(crate) fn ads() -> Option<proto::ConfigSource> {
    use proto::config_source::ConfigSourceSpecifier;
    Some(proto::ConfigSource {
        initial_fetch_timeout: Some(protobuf::Duration::default()),
        resource_api_version: proto::ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(proto::AggregatedConfigSource {})),
        ..Default::default()
    })
}

/// Metadata, provenance included. Typed metadata is left out: nothing here reads it.
pub(crate) fn decode_metadata(metadata: &Option<proto::Metadata>) -> Metadata {
    let Some(metadata) = metadata else { return Metadata::default() };
    Metadata(Arc::new(metadata.filter_metadata.iter().map(|(k, v)| (k.clone(), decode_struct(v))).collect()))
}

/// Takes the provenance out of `metadata`.
pub(crate) fn take_provenance(metadata: &mut Metadata) -> Option<Provenance> {
    let entry = metadata.remove(NAMESPACE)?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().into();
    let line = match entry.get("line") {
        // Numbers travel as doubles; an `as` cast saturates.
        Some(Value::Number(line)) => *line as u32,
        _ => 0,
    };
    Some(Provenance { resource: text("resource"), file: text("file"), line })
}

pub(crate) fn encode_metadata(
    metadata: &Metadata,
    provenance: Option<&Provenance>,
) -> Option<proto::Metadata> {
    let mut filter_metadata: std::collections::HashMap<String, Struct> =
        metadata.0.iter().map(|(k, v)| (k.clone(), encode_struct(v))).collect();
    if let Some(p) = provenance {
        let entry = Fields::from([
            ("resource".to_owned(), Value::from(&*p.resource)),
            ("file".to_owned(), Value::from(&*p.file)),
            ("line".to_owned(), Value::from(f64::from(p.line))),
        ]);
        filter_metadata.insert(NAMESPACE.to_owned(), encode_struct(&entry));
    }
    match filter_metadata.is_empty() {
        true => None,
        false => Some(proto::Metadata { filter_metadata, ..Default::default() }),
    }
}

pub(crate) fn decode_struct(value: &Struct) -> Fields {
    value.fields.iter().map(|(k, v)| (k.clone(), decode_value(v))).collect()
}

pub(crate) fn encode_struct(value: &Fields) -> Struct {
    Struct { fields: value.iter().map(|(k, v)| (k.clone(), encode_value(v))).collect() }
}

fn decode_value(value: &protobuf::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::NumberValue(n)) => Value::Number(*n),
        Some(Kind::StringValue(s)) => Value::String(s.clone()),
        Some(Kind::ListValue(list)) => Value::List(list.values.iter().map(decode_value).collect()),
        Some(Kind::StructValue(inner)) => Value::Struct(decode_struct(inner)),
    }
}

fn encode_value(value: &Value) -> protobuf::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(*n),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::List(list) => Kind::ListValue(ListValue { values: list.iter().map(encode_value).collect() }),
        Value::Struct(inner) => Kind::StructValue(encode_struct(inner)),
    };
    protobuf::Value { kind: Some(kind) }
}

pub(crate) fn decode_range(place: &Place<'_>, range: &proto::CidrRange) -> Decoded<AddressRange> {
    let Ok(address) = range.address_prefix.parse::<IpAddr>() else {
        let place = place.field("address_prefix");
        return Err(place.error(format_args!("`{}` is not an IP address", range.address_prefix)));
    };
    let widest = if address.is_ipv4() { 32 } else { 128 };
    match range.prefix_len.map_or(0, |len| len.value) {
        len if len <= widest => Ok(AddressRange { address, prefix_length: len as u8 }),
        len => Err(place.field("prefix_len").error(format_args!("{len} is more than {widest}"))),
    }
}

pub(crate) fn encode_range(range: &AddressRange) -> proto::CidrRange {
    proto::CidrRange {
        address_prefix: range.address.to_string(),
        prefix_len: encode_number(range.prefix_length.into()),
    }
}
