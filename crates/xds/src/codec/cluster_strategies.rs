//! Clusters, endpoints, TLS and secrets for property tests.

use super::spread_strategies::{balance, connections, hash_policy, health_check, limits, outlier_detection};
use super::strategies::{described, duration, json, metadata, name, string_match, text};
use model::balance::{LoadBalancing, Spread};
use model::cluster::{
    Cluster, Connections, Discovery, ProxyVersion, Transport, TransportMatch, UpstreamHttp,
};
use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health, Locality, LocalityEndpoints};
use model::tls::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;

type Of<T> = BoxedStrategy<T>;

pub(super) fn assignment(names: bool) -> Of<Assignment> {
    let socket = any::<std::net::SocketAddr>().prop_map(|address| {
        // A scope or flow id has no place in the proto.
        EndpointAddress::Socket((address.ip(), address.port()).into())
    });
    let address = match names {
        false => socket.boxed(),
        true => {
            prop_oneof![socket, ("[a-z]{3,9}", any::<u16>()).prop_map(|(n, p)| EndpointAddress::Name(n, p))]
                .boxed()
        }
    };
    let health =
        select(vec![Health::Unknown, Health::Healthy, Health::Unhealthy, Health::Draining, Health::Degraded]);
    let endpoint = (address, text(), 1u32..9999, health, metadata()).prop_map(
        |(address, hostname, weight, health, metadata)| Endpoint {
            address,
            hostname,
            weight,
            health,
            metadata,
        },
    );
    let locality =
        (text(), text(), text()).prop_map(|(region, zone, sub_zone)| Locality { region, zone, sub_zone });
    let group = (locality, option::of(1u32..9999), 0u32..3, vec(endpoint, 1..3)).prop_map(
        |(locality, weight, priority, endpoints)| LocalityEndpoints { locality, weight, priority, endpoints },
    );
    (name(), vec(group, 1..3)).prop_map(|(cluster, localities)| Assignment { cluster, localities }).boxed()
}

pub(super) fn secret() -> Of<Secret> {
    let content = prop_oneof![
        pair().prop_map(SecretContent::Certificate),
        vec(any::<u8>(), 1..20).prop_map(SecretContent::TrustBundle),
    ];
    (name(), content).prop_map(|(name, content)| Secret { name, content }).boxed()
}

fn pair() -> Of<CertificatePair> {
    (vec(any::<u8>(), 1..20), vec(any::<u8>(), 1..20))
        .prop_map(|(chain_pem, key_pem)| CertificatePair { chain_pem, key_pem })
        .boxed()
}

fn source<T: Clone + std::fmt::Debug + 'static>(inline: Of<T>) -> Of<SecretSource<T>> {
    prop_oneof![inline.prop_map(SecretSource::Inline), name().prop_map(SecretSource::Sds)].boxed()
}

fn files(key: &'static str) -> Of<SecretFiles> {
    name().prop_map(move |certificates| SecretFiles { certificates, key: key.to_owned() }).boxed()
}

fn certificate() -> Of<SecretSource<CertificatePair>> {
    prop_oneof![source(pair()), files("k").prop_map(SecretSource::Files)].boxed()
}

fn validation() -> Of<PeerValidation> {
    let kind = select(vec![SanKind::Dns, SanKind::Uri, SanKind::Ip, SanKind::Email]);
    let san = (kind, string_match()).prop_map(|(kind, matcher)| SanMatch { kind: Some(kind), matcher });
    let trust = prop_oneof![source(vec(any::<u8>(), 1..20).boxed()), files("").prop_map(SecretSource::Files)];
    let lists = prop_oneof![
        vec(any::<u8>(), 1..20).prop_map(SecretSource::Inline),
        files("").prop_map(SecretSource::Files)
    ];
    let checks = (any::<(bool, bool, bool)>(), option::of(lists)).prop_map(
        |((any_signer, key, certificate), revoked)| PeerChecks {
            any_signer,
            keys: KeyDigest::parse(&("A".repeat(43) + "=")).into_iter().filter(|_| key).collect(),
            certificates: CertificateDigest::parse(&"a0".repeat(32))
                .into_iter()
                .filter(|_| certificate)
                .collect(),
            revoked,
        },
    );
    (trust, vec(san, 0..3), checks)
        .prop_map(|(trust, subject_alt_names, checks)| PeerValidation { trust, subject_alt_names, checks })
        .boxed()
}

fn versions() -> Of<TlsVersions> {
    use TlsVersion::{V1_2, V1_3};
    select(vec![(V1_2, V1_2), (V1_2, V1_3), (V1_3, V1_3)])
        .prop_map(|(min, max)| TlsVersions { min, max, ..TlsVersions::default() })
        .boxed()
}

pub(super) fn downstream() -> Of<DownstreamTls> {
    let one = |source| vec![source];
    (certificate().prop_map(one), option::of(validation()), any::<bool>(), vec(name(), 0..3), versions())
        .prop_map(|(certificates, validation, require, alpn, versions)| DownstreamTls {
            // Any flag will do.
            tickets: alpn.len() != 1,
            certificates,
            require_client_certificate: require && validation.is_some(),
            validation,
            alpn,
            versions,
        })
        .boxed()
}

fn transport() -> Of<Transport> {
    let tls = (
        option::of(certificate()),
        option::of(validation()),
        option::of(name()),
        vec(name(), 0..3),
        versions(),
    )
        .prop_map(|(certificate, validation, sni, alpn, versions)| {
            let validation = validation.map(Arc::new);
            Transport::Tls(Box::new(UpstreamTls { certificate, validation, sni, alpn, versions }))
        });
    prop_oneof![Just(Transport::Plain), tls].boxed()
}

pub(super) fn cluster() -> Of<Cluster> {
    let one_endpoint = assignment(true).prop_map(|mut all| {
        all.localities.truncate(1);
        all.localities.iter_mut().for_each(|group| group.endpoints.truncate(1));
        all
    });
    let discovery = prop_oneof![
        assignment(false).prop_map(Discovery::Static),
        name().prop_map(Discovery::Eds),
        assignment(true).prop_map(Discovery::StrictDns),
        one_endpoint.prop_map(Discovery::LogicalDns),
        Just(Discovery::OriginalDestination),
        vec(name(), 1..3).prop_map(Discovery::Aggregate),
    ];
    let http = select(vec![
        UpstreamHttp::Http1,
        UpstreamHttp::Http2,
        UpstreamHttp::AsDownstream,
        UpstreamHttp::Alpn,
    ]);
    let choice =
        (name(), btree_map(name(), json(), 0..4), transport()).prop_map(|(name, labels, transport)| {
            TransportMatch { name, labels: labels.into_iter().collect(), transport }
        });
    (
        (name(), discovery, balance(), duration(), http),
        (
            limits(),
            option::of(outlier_detection()),
            connections(),
            vec(health_check(), 0..2),
            (vec(200u16..600, 0..3), vec(hash_policy(), 0..2)),
        ),
        (option::of(duration()), vec(choice, 0..3), transport(), described(), any::<bool>()),
    )
        .prop_map(
            |(
                (name, discovery, (policy, spread), connect_timeout, http),
                (limits, outlier_detection, connections, health_checks, (error_statuses, hash_policies)),
                (idle_timeout, transport_matches, transport, (metadata, provenance), announces),
            )| Cluster {
                dns: Default::default(),
                name,
                load_balancing: match discovery {
                    Discovery::OriginalDestination | Discovery::Aggregate(_) => LoadBalancing::default(),
                    _ => policy,
                },
                spread: Arc::new(match discovery {
                    Discovery::Aggregate(_) => Spread::default(),
                    Discovery::OriginalDestination => {
                        let destination_header = Some(http::HeaderName::from_static("x-to"));
                        Spread { destination_header, destination_port: Some(81), ..Spread::default() }
                    }
                    Discovery::StrictDns(_) => spread,
                    // Envoy wants names of endpoints that have one each.
                    _ => Spread { hash_host_names: false, ..spread },
                }),
                limits: Arc::new(limits),
                outlier_detection: outlier_detection.map(Arc::new),
                health_checks,
                connections: Arc::new(match http {
                    // Nobody could tell of what there is not.
                    UpstreamHttp::Http1 => Connections { max_streams: None, pings: None, ..connections },
                    UpstreamHttp::Http2 => Connections { header_case: Default::default(), ..connections },
                    _ => connections,
                }),
                error_statuses,
                hash_policies,
                discovery,
                connect_timeout,
                http,
                idle_timeout,
                transport_matches,
                transport,
                proxy_header: announces.then_some(ProxyVersion::V2),
                metadata,
                provenance,
            },
        )
        .boxed()
}
