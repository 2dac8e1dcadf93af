//! What is encoded is decoded to the same; equal models give equal bytes; no bytes make the decoder panic.
#![allow(clippy::unwrap_used)]

use super::resource_strategies::{any_of, resource};
use super::route_strategies::routes;
use super::{decode, type_url};
use super::{listener_strategies, wire_order};
use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::google::protobuf::Any;
use model::listener::{Network, RouteSource};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use prost::Message;

const TYPES: [&str; 5] =
    [type_url::LISTENER, type_url::ROUTE, type_url::CLUSTER, type_url::ENDPOINT, type_url::SECRET];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 20_000, ..Default::default() })]

    #[test]
    fn what_is_encoded_is_decoded_to_the_same(resource in resource()) {
        prop_assert_eq!(decode(&any_of(&resource)).map_err(|e| e.to_string()), Ok(resource));
    }

    #[test]
    fn equal_models_give_equal_bytes(resource in resource()) {
        let first = any_of(&resource);
        for _ in 0..4 {
            prop_assert_eq!(&any_of(&resource.clone()), &first);
        }
    }

    #[test]
    fn a_listener_without_an_address_is_one_for_grpc_clients(listener in listener_strategies::api_listener()) {
        let any = any_of(&super::Resource::Listener(listener.clone()));
        prop_assert_eq!(decode(&any).map_err(|e| e.to_string()), Ok(super::Resource::Listener(listener)));
    }

    #[test]
    fn bytes_that_are_anything_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..5) {
        let _ = decode(&Any { type_url: TYPES[kind].to_owned(), value: bytes.clone() });
        prop_assert_eq!(wire_order::ordered(&bytes, &wire_order::CLUSTER).len(), bytes.len());
    }

    #[test]
    fn a_resource_with_some_bytes_changed_never_panics(
        resource in resource(), changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4), kind in 0usize..9,
    ) {
        let mut any = any_of(&resource);
        for (at, byte) in changes {
            let length = any.value.len().max(1);
            if let Some(here) = any.value.get_mut(usize::from(at) % length) {
                *here = byte;
            }
        }
        if let Some(other) = TYPES.get(kind) {
            any.type_url = (*other).to_owned();
        }
        let _ = decode(&any).map_err(|error| error.to_string());
    }

    #[test]
    fn putting_maps_in_order_changes_nothing_that_is_said(table in routes()) {
        let plain = super::routes_proto(&table);
        let ordered = super::encode_routes(&table);
        prop_assert_eq!(prost::Message::decode(ordered.as_slice()), Ok(plain));
    }
}

#[test]
fn a_grpc_client_is_sent_nothing_but_routes_and_the_router() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let listener = listener_strategies::api_listener().new_tree(&mut runner).unwrap().current();
    let sent = proto::Listener::decode(super::encode_api_listener(&listener).as_slice()).unwrap();
    assert!(sent.address.is_none() && sent.filter_chains.is_empty() && sent.listener_filters.is_empty());
    let read = super::decode_listener(&sent).unwrap();
    let [chain] = read.chains.as_slice() else { panic!("one chain") };
    let Network::Http(http) = &chain.network else { panic!("HTTP") };
    assert!(!http.stats && http.access_logs.is_empty() && http.tracing.is_none());
    assert!(matches!(&http.routes, RouteSource::Inline(_) | RouteSource::Rds(_)));
}
