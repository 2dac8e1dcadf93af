//! Where connections to a cluster's endpoints come from (`BindConfig`).

use super::place::{Decoded, Place, fields};
use super::value::{decode_socket, encode_socket};
use envoy_types::pb::envoy::config::core::v3::BindConfig;
use model::endpoint::EndpointAddress;
use std::net::SocketAddr;

pub(crate) fn decode(place: &Place<'_>, given: &Option<BindConfig>) -> Decoded<Option<SocketAddr>> {
    let Some(given) = given else { return Ok(None) };
    fields!(place, given => BindConfig {
        honoured: source_address;
        ignored: ;
        refused: freebind, socket_options, extra_source_addresses, additional_source_addresses,
            local_address_selector, validate_network_namespaces;
    });
    let Some(source) = source_address else { return Ok(None) };
    let place = place.field("source_address");
    match decode_socket(&place, source)? {
        EndpointAddress::Socket(address) => Ok(Some(address)),
        EndpointAddress::Name(name, _) => {
            Err(place.field("address").error(format_args!("`{name}` is no IP address")))
        }
    }
}

pub(crate) fn encode(source: SocketAddr) -> BindConfig {
    let source_address = Some(encode_socket(&EndpointAddress::Socket(source)));
    BindConfig { source_address, ..BindConfig::default() }
}
