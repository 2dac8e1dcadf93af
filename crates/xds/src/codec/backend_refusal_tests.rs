//! What cannot be obeyed of clusters, endpoints, secrets and TLS is refused by name.
#![allow(clippy::unwrap_used)]

use super::value::{encode_address, pack};
use super::{Decoder, decode, decode_cluster, decode_endpoints, decode_secret};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::{Any, BoolValue, UInt32Value, UInt64Value};
use model::endpoint::EndpointAddress;

fn refused_cluster(change: impl FnOnce(&mut cluster::Cluster)) -> String {
    let mut proto = cluster::Cluster { name: "c".to_owned(), ..Default::default() };
    change(&mut proto);
    let error = decode_cluster(&proto).unwrap_err().to_string();
    error.strip_prefix("cluster `c`: ").unwrap_or_else(|| panic!("{error}")).to_owned()
}

#[test]
fn what_a_cluster_cannot_do_is_refused_by_field() {
    use cluster::cluster::{ClusterDiscoveryType, CustomClusterType};
    type Change = fn(&mut cluster::Cluster);
    let cases: [(Change, &str); 8] = [
        (|c| c.lb_policy = 7, "lb_policy: LOAD_BALANCING_POLICY_CONFIG is not supported"),
        (
            |c| c.health_checks.push(Default::default()),
            "health_checks[0]: nothing is said about what is asked",
        ),
        (
            |c| c.outlier_detection.get_or_insert_default().monitors.push(Default::default()),
            "outlier_detection.monitors: ",
        ),
        (
            |c| {
                let config =
                    cluster::cluster::MaglevLbConfig { table_size: Some(UInt64Value { value: 100 }) };
                c.lb_policy = 5;
                c.lb_config = Some(cluster::cluster::LbConfig::MaglevLbConfig(config));
            },
            "maglev_lb_config.table_size: 100 is no prime",
        ),
        (
            |c| {
                let freebind = Some(BoolValue { value: true });
                c.upstream_bind_config = Some(core_proto::BindConfig { freebind, ..Default::default() });
            },
            "upstream_bind_config.freebind: ",
        ),
        (
            |c| {
                let custom =
                    CustomClusterType { name: "envoy.clusters.redis".to_owned(), typed_config: None };
                c.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
            },
            "cluster_type: cluster type `envoy.clusters.redis` is not supported",
        ),
        (
            |c| c.cluster_discovery_type = Some(ClusterDiscoveryType::Type(3)),
            "eds_cluster_config: an EDS cluster needs this field",
        ),
        (
            |c| {
                let socket = core_proto::TransportSocket {
                    name: "envoy.transport_sockets.quic".to_owned(),
                    config_type: None,
                };
                c.transport_socket = Some(socket);
            },
            "transport_socket: transport socket `envoy.transport_sockets.quic` is not supported",
        ),
    ];
    for (change, wanted) in cases {
        let found = refused_cluster(change);
        assert!(found.starts_with(wanted), "{found} should start with {wanted}");
    }
}

#[test]
fn limits_are_envoys_where_nothing_is_said_and_none_where_they_are_as_large_as_can_be() {
    let limits = |thresholds| {
        let breakers = cluster::CircuitBreakers { thresholds, ..Default::default() };
        let proto =
            cluster::Cluster { name: "c".to_owned(), circuit_breakers: Some(breakers), ..Default::default() };
        decode_cluster(&proto).unwrap().limits
    };
    let default = limits(vec![]);
    assert_eq!((default.default.requests, default.high.retries), (Some(1024), Some(3)));
    let given = cluster::circuit_breakers::Thresholds {
        max_requests: Some(UInt32Value { value: 7 }),
        max_connections: Some(UInt32Value { value: u32::MAX }),
        ..Default::default()
    };
    let found = limits(vec![given]).default;
    assert_eq!((found.requests, found.connections, found.pending), (Some(7), None, Some(1024)));
}

#[test]
fn an_endpoint_over_eds_is_an_address_and_not_a_name() {
    let host = endpoint::Endpoint {
        address: encode_address(&EndpointAddress::Name("example.com".to_owned(), 80)),
        ..Default::default()
    };
    let lb_endpoint = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
        ..Default::default()
    };
    let found = decode_endpoints(&endpoint::ClusterLoadAssignment {
        cluster_name: "c".to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint],
            ..Default::default()
        }],
        ..Default::default()
    });
    assert_eq!(
        found.unwrap_err().to_string(),
        "endpoints `c`: endpoints[0].lb_endpoints[0].endpoint.address: `example.com` is not an IP address; only DNS \
         clusters resolve names"
    );
}

fn secret_file() -> tls::Secret {
    let file = |name: &str| {
        let specifier = Some(core_proto::data_source::Specifier::Filename(name.to_owned()));
        Some(core_proto::DataSource { specifier, ..Default::default() })
    };
    let certificate = tls::TlsCertificate {
        certificate_chain: file("/chain.pem"),
        private_key: file("/key.pem"),
        ..Default::default()
    };
    tls::Secret { name: "s".to_owned(), r#type: Some(tls::secret::Type::TlsCertificate(certificate)) }
}

#[test]
fn files_are_read_only_where_a_way_to_is_given() {
    let found = decode_secret(&secret_file()).unwrap_err();
    assert_eq!(found.path, "tls_certificate.certificate_chain.filename");
    let read = |path: &str| Ok(format!("what is in {path}").into_bytes());
    let secret = Decoder::reading(&read).secret(&secret_file()).unwrap();
    let model::tls::SecretContent::Certificate(pair) = secret.content else { panic!("a certificate") };
    assert_eq!(pair.key_pem, b"what is in /key.pem");
    let missing = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let found = Decoder::reading(&missing).secret(&secret_file()).unwrap_err();
    assert_eq!(found.problem, "file `/chain.pem`: entity not found");
}

#[test]
fn tls_is_never_weaker_than_what_was_asked_for() {
    let refused = |common: tls::CommonTlsContext, wanted: &str| {
        let context = tls::UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
        let config_type = Some(core_proto::transport_socket::ConfigType::TypedConfig(pack(&context)));
        let socket = core_proto::TransportSocket { config_type, ..Default::default() };
        let found = refused_cluster(|c| c.transport_socket = Some(socket));
        let wanted = format!("transport_socket.typed_config.common_tls_context.{wanted}");
        assert!(found.starts_with(&wanted), "{found} should start with {wanted}");
    };
    let params = |tls_params| tls::CommonTlsContext { tls_params: Some(tls_params), ..Default::default() };
    let ciphers = tls::TlsParameters { cipher_suites: vec!["AES128-SHA".to_owned()], ..Default::default() };
    refused(params(ciphers), "tls_params.cipher_suites: ");
    let old = tls::TlsParameters { tls_minimum_protocol_version: 1, ..Default::default() };
    refused(params(old), "tls_params.tls_minimum_protocol_version: a TLS version below 1.2");
    let validated = |context| {
        let kind = tls::common_tls_context::ValidationContextType::ValidationContext(context);
        tls::CommonTlsContext { validation_context_type: Some(kind), ..Default::default() }
    };
    let pinned = tls::CertificateValidationContext {
        verify_certificate_hash: vec!["00".to_owned()],
        ..Default::default()
    };
    refused(validated(pinned), "validation_context.verify_certificate_hash[0]: ");
    let names_only = tls::CertificateValidationContext {
        match_typed_subject_alt_names: vec![tls::SubjectAltNameMatcher {
            san_type: 3,
            matcher: Some(super::text::encode_string_match(&model::matcher::StringMatch::exact(
                "spiffe://x",
            ))),
            ..Default::default()
        }],
        ..Default::default()
    };
    refused(validated(names_only), "validation_context: names are asked for, but nothing says whom to trust");
}

#[test]
fn a_resource_of_an_unknown_type_or_with_broken_bytes_is_an_error() {
    let any = |type_url: &str, value: &[u8]| Any { type_url: type_url.to_owned(), value: value.to_vec() };
    let found = decode(&any("type.googleapis.com/x.Y", b"")).unwrap_err();
    assert_eq!(found.to_string(), "resources of type `type.googleapis.com/x.Y` are not supported");
    let found = decode(&any(super::type_url::CLUSTER, b"\xff")).unwrap_err();
    assert!(found.to_string().starts_with("not a valid envoy.config.cluster.v3.Cluster: "), "{found}");
}
