//! The real Envoy takes what every case of `testdata` translates to, as static resources with their tables inside. Passed
//! over where `make peers` has not been run.
#![allow(clippy::unwrap_used)]

mod cases;

use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap;
use envoy_types::pb::envoy::config::core::v3 as core;
use ieum_control::node::ProxyKind;
use ieum_control::translate::{ProxyResources, translate};
use model::listener::{Listener, Network, RouteSource};
use prost::Message;
use std::path::{Path, PathBuf};
use std::process::Command;

fn envoy() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.peers/venv/bin/envoy");
    path.exists().then_some(path)
}

/// The listener with the tables it asks for inside.
fn with_tables(listener: &Listener, resources: &ProxyResources) -> Listener {
    let mut listener = listener.clone();
    for chain in &mut listener.chains {
        if let Network::Http(http) = &mut chain.network
            && let RouteSource::Rds(name) = &http.routes
        {
            let table = resources.routes.iter().find(|table| table.name == *name).unwrap();
            http.routes = RouteSource::Inline(table.as_ref().clone());
        }
    }
    listener
}

fn bootstrap(resources: &ProxyResources) -> bootstrap::Bootstrap {
    let listeners =
        resources.listeners.iter().map(|l| xds::codec::listener_proto(&with_tables(l, resources)));
    let ads = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
                core::grpc_service::EnvoyGrpc { cluster_name: "xds".to_owned(), ..Default::default() },
            )),
            ..Default::default()
        }],
        ..Default::default()
    };
    let xds = envoy_types::pb::envoy::config::cluster::v3::Cluster {
        name: "xds".to_owned(),
        connect_timeout: Some(envoy_types::pb::google::protobuf::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let clusters = resources.clusters.iter().map(|cluster| xds::codec::cluster_proto(cluster));
    bootstrap::Bootstrap {
        node: Some(core::Node { id: "test".to_owned(), cluster: "test".to_owned(), ..Default::default() }),
        dynamic_resources: Some(bootstrap::bootstrap::DynamicResources {
            ads_config: Some(ads),
            ..Default::default()
        }),
        static_resources: Some(bootstrap::bootstrap::StaticResources {
            listeners: listeners.collect(),
            clusters: std::iter::once(xds).chain(clusters).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn envoy_takes_all_that_is_translated_for_proxies() {
    let Some(envoy) = envoy() else {
        return println!("passed over: no Envoy here (`make peers` brings it)");
    };
    let folder = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    for case in cases::cases() {
        let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
        let (mesh, _) = translate(&cases::world(&text).0);
        for node in cases::nodes(&text).iter().filter(|node| node.kind != ProxyKind::Grpc) {
            let file = folder.path().join("bootstrap.pb");
            std::fs::write(&file, bootstrap(&mesh.resources_for(node)).encode_to_vec()).unwrap();
            let output = Command::new(&envoy)
                .current_dir(folder.path())
                .args(["--mode", "validate", "-l", "error", "-c"])
                .arg(&file)
                .output()
                .unwrap();
            // It says so when it has looked at everything.
            if !String::from_utf8_lossy(&output.stdout).contains("OK") {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                refused.push(format!("{} {}: {said}", case.display(), node.id));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
