//! The real Envoy takes everything that is encoded.
#![allow(clippy::unwrap_used)]

use super::cluster_strategies::cluster;
use super::route_strategies::routes;
use super::{ClusterProto, cluster_proto, listener_proto, listener_strategies::listener, upstream};
use envoy_types::pb::envoy::config::bootstrap::v3::{Bootstrap, bootstrap};
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::google::protobuf::Duration;
use model::cluster::{Cluster, Discovery, Transport, UpstreamHttp};
use model::health::Probe;
use model::listener::{FilterChain, HttpConnectionManager, Listener, Network, RouteSource};
use model::route::RouteConfiguration;
use model::tls::{PeerValidation, SecretSource};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use std::process::Command;

/// As many of each kind are shown to it at once.
const EACH: usize = 60;

/// A table, apart from clusters that it would ask for.
fn table() -> impl Strategy<Value = RouteConfiguration> {
    routes().prop_map(|table| RouteConfiguration { validate_clusters: false, ..table })
}

/// A listener that could open its socket, with secrets that are asked for: random bytes are no certificate.
fn tame_listener(mut listener: Listener, table: RouteConfiguration, at: usize) -> Listener {
    listener.name = format!("listener-{at}");
    listener.address = Some(([127, 0, 0, 1], 20_000 + at as u16).into());
    for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
        match &mut chain.network {
            Network::Http(http) => match &mut http.routes {
                RouteSource::Inline(table) => table.validate_clusters = false,
                RouteSource::Rds(_) => {}
            },
            Network::Tcp(_) => {}
        }
        if let Some(tls) = &mut chain.tls {
            tls.certificates = vec![SecretSource::Sds("default".to_owned())];
            tame_validation(&mut tls.validation);
        }
    }
    let network = Network::Http(Box::new(HttpConnectionManager::new(RouteSource::Inline(table))));
    listener.default_chain.get_or_insert(FilterChain {
        name: "routed".to_owned(),
        condition: Default::default(),
        tls: None,
        network,
    });
    listener
}

fn tame_validation(validation: &mut Option<PeerValidation>) {
    if let Some(validation) = validation {
        validation.trust = SecretSource::Sds("ROOTCA".to_owned());
    }
}

fn tame_cluster(mut cluster: Cluster, at: usize) -> Cluster {
    cluster.name = format!("cluster-{at}");
    // A static cluster that asks for secrets over ADS is brought up before ADS is, which Envoy does not survive.
    let sds = matches!(cluster.discovery, Discovery::Eds(_));
    let transports = cluster.transport_matches.iter_mut().map(|choice| &mut choice.transport);
    for transport in transports.chain([&mut cluster.transport]) {
        if let Transport::Tls(tls) = transport {
            tls.certificate =
                tls.certificate.take().filter(|_| sds).map(|_| SecretSource::Sds("default".to_owned()));
            tls.validation = tls.validation.take().filter(|_| sds);
            let mut validation = tls.validation.as_deref().cloned();
            tame_validation(&mut validation);
            tls.validation = validation.map(Into::into);
        }
    }
    // Without TLS everywhere there is no ALPN that could choose.
    if cluster.http == UpstreamHttp::Alpn {
        cluster.http = UpstreamHttp::AsDownstream;
    }
    if cluster.health_checks.iter().any(|check| matches!(check.probe, Probe::Grpc { .. })) {
        cluster.http = UpstreamHttp::Http2;
    }
    cluster
}

fn ads() -> (bootstrap::DynamicResources, ClusterProto) {
    use core_proto::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let service = core_proto::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: "ads".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let source = core_proto::ApiConfigSource {
        api_type: core_proto::api_config_source::ApiType::DeltaGrpc as i32,
        transport_api_version: core_proto::ApiVersion::V3 as i32,
        grpc_services: vec![service],
        ..Default::default()
    };
    let cluster = ClusterProto {
        name: "ads".to_owned(),
        connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
        typed_extension_protocol_options: upstream::encode(&Cluster {
            http: UpstreamHttp::Http2,
            ..Cluster::new("c", Discovery::OriginalDestination)
        }),
        ..Default::default()
    };
    (bootstrap::DynamicResources { ads_config: Some(source), ..Default::default() }, cluster)
}

#[test]
fn the_real_envoy_takes_what_is_encoded() {
    let mut runner = TestRunner::deterministic();
    let (dynamic, ads_cluster) = ads();
    let (mut listeners, mut clusters) = (Vec::new(), vec![ads_cluster]);
    for at in 0..EACH {
        let (routed, table, sent_to) =
            (listener(), table(), cluster()).new_tree(&mut runner).unwrap().current();
        listeners.push(listener_proto(&tame_listener(routed, table, at)));
        clusters.push(cluster_proto(&tame_cluster(sent_to, at)));
    }
    let bootstrap = Bootstrap {
        node: Some(core_proto::Node { id: "test".into(), cluster: "test".into(), ..Default::default() }),
        static_resources: Some(bootstrap::StaticResources { listeners, clusters, ..Default::default() }),
        dynamic_resources: Some(dynamic),
        ..Default::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.pb");
    std::fs::write(&file, bootstrap.encode_to_vec()).unwrap();
    // The logs of the configuration are made where it runs.
    let mut envoy = Command::new(testing::peers::envoy());
    envoy.current_dir(folder.path());
    envoy.args(["--mode", "validate", "--log-level", "error", "--config-path"]).arg(&file);
    let output = envoy.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
