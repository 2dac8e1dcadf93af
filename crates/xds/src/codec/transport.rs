//! Transport sockets: plain bytes or TLS, by the type of their configuration.

use super::place::{Decoded, Place, fields};
use super::tls;
use super::value::{pack, type_name, unpack};
use envoy_types::pb::envoy::config::core::v3::{
    ProxyProtocolConfig, TransportSocket, proxy_protocol_config::Version, transport_socket::ConfigType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, UpstreamTlsContext,
};
use envoy_types::pb::google::protobuf::Any;
use model::cluster::{ProxyVersion, Transport};
use model::tls::DownstreamTls;

const TLS: &str = "envoy.transport_sockets.tls";
const PLAIN: &str = "envoy.transport_sockets.raw_buffer";
const PROXY: &str = "envoy.transport_sockets.upstream_proxy_protocol";
const PROXY_TYPE: &str =
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
const UPSTREAM_TYPE: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM_TYPE: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const PLAIN_TYPE: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

/// A transport, and the version of the PROXY protocol's header that goes before it.
pub(crate) fn decode_upstream(
    place: &Place<'_>,
    socket: &Option<TransportSocket>,
) -> Decoded<(Transport, Option<ProxyVersion>)> {
    if let Some(TransportSocket { config_type: Some(ConfigType::TypedConfig(any)), .. }) = socket
        && type_name(any) == PROXY_TYPE
    {
        let place = place.field("transport_socket");
        let place = place.field("typed_config");
        let wrapped: ProxyProtocolUpstreamTransport = unpack(&place, any)?;
        let version = decode_header(&place, &wrapped)?;
        return Ok((decode_inner(&place, &wrapped.transport_socket)?, Some(version)));
    }
    Ok((decode_inner(place, socket)?, None))
}

fn decode_header(place: &Place<'_>, wrapped: &ProxyProtocolUpstreamTransport) -> Decoded<ProxyVersion> {
    fields!(place, wrapped => ProxyProtocolUpstreamTransport {
        honoured: config, transport_socket;
        ignored: tlv_as_pool_key;
        refused: allow_unspecified_address;
    });
    let place = place.field("config");
    let (nothing, _) = (ProxyProtocolConfig::default(), transport_socket);
    let config = config.as_ref().unwrap_or(&nothing);
    fields!(place, config => ProxyProtocolConfig {
        honoured: version;
        ignored: ;
        refused: pass_through_tlvs, added_tlvs;
    });
    match Version::try_from(*version) {
        Ok(Version::V1) => Ok(ProxyVersion::V1),
        Ok(Version::V2) => Ok(ProxyVersion::V2),
        Err(_) => Err(place.field("version").unsupported(format_args!("version {version}"))),
    }
}

fn decode_inner(place: &Place<'_>, socket: &Option<TransportSocket>) -> Decoded<Transport> {
    let place = place.field("transport_socket");
    match tls_config(&place, socket, UPSTREAM_TYPE)? {
        None => Ok(Transport::Plain),
        Some(any) => {
            let place = place.field("typed_config");
            let context: UpstreamTlsContext = unpack(&place, any)?;
            Ok(Transport::Tls(Box::new(tls::decode_upstream(&place, &context)?)))
        }
    }
}

pub(crate) fn decode_downstream(
    place: &Place<'_>,
    socket: &Option<TransportSocket>,
) -> Decoded<Option<DownstreamTls>> {
    let place = place.field("transport_socket");
    match tls_config(&place, socket, DOWNSTREAM_TYPE)? {
        None => Ok(None),
        Some(any) => {
            let place = place.field("typed_config");
            let context: DownstreamTlsContext = unpack(&place, any)?;
            tls::decode_downstream(&place, &context).map(Some)
        }
    }
}

/// The configuration of TLS, which has to be of type `wanted`; `None` where there is no TLS.
fn tls_config<'s>(
    place: &Place<'_>,
    socket: &'s Option<TransportSocket>,
    wanted: &str,
) -> Decoded<Option<&'s Any>> {
    let Some(socket) = socket else { return Ok(None) };
    let any = match &socket.config_type {
        None if socket.name == PLAIN || socket.name == "raw_buffer" => return Ok(None),
        None => return Err(place.unsupported(format_args!("transport socket `{}`", socket.name))),
        Some(ConfigType::TypedConfig(any)) => any,
    };
    match type_name(any) {
        PLAIN_TYPE => Ok(None),
        found if found == wanted => Ok(Some(any)),
        _ => {
            Err(place.unsupported(format_args!("transport socket `{}` (type {})", socket.name, any.type_url)))
        }
    }
}

/// Plain bytes are what is spoken where there is no socket.
pub(crate) fn encode_upstream(transport: &Transport) -> Option<TransportSocket> {
    match transport {
        Transport::Plain => None,
        Transport::Tls(tls) => Some(socket(TLS, pack(&tls::encode_upstream(tls)))),
    }
}

/// Like [`encode_upstream`], with a header before it.
pub(crate) fn encode_announced(
    transport: &Transport,
    header: Option<ProxyVersion>,
) -> Option<TransportSocket> {
    let Some(header) = header else { return encode_upstream(transport) };
    Some(announced(encode_choice(transport), header))
}

/// `inner` with a header before it.
pub(crate) fn announced(inner: TransportSocket, header: ProxyVersion) -> TransportSocket {
    let version = match header {
        ProxyVersion::V1 => Version::V1,
        ProxyVersion::V2 => Version::V2,
    };
    let config = ProxyProtocolConfig { version: version as i32, ..Default::default() };
    let wrapped = ProxyProtocolUpstreamTransport {
        config: Some(config),
        transport_socket: Some(inner),
        ..Default::default()
    };
    socket(PROXY, pack(&wrapped))
}

/// Like [`encode_upstream`], with a socket in any case.
pub(crate) fn encode_choice(transport: &Transport) -> TransportSocket {
    use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
    encode_upstream(transport).unwrap_or_else(|| socket(PLAIN, pack(&RawBuffer {})))
}

pub(crate) fn encode_downstream(tls: &Option<DownstreamTls>) -> Option<TransportSocket> {
    tls.as_ref().map(|tls| socket(TLS, pack(&tls::encode_downstream(tls))))
}

fn socket(name: &str, config: Any) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}
