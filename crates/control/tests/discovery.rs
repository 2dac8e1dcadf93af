//! The control plane in this process, and xDS clients that follow it: what they get, when, and what is said of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::google::protobuf::Any;
use ieum_control::plane::start;
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn endpoints(any: &Any) -> usize {
    let assignment = ClusterLoadAssignment::decode(any.value.as_slice()).unwrap();
    assignment.endpoints.iter().map(|l| l.lb_endpoints.len()).sum()
}

#[tokio::test]
async fn a_saved_file_reaches_a_delta_client_within_a_second_and_alone() {
    let running = plane(&[("service.yaml", SERVICE), ("a.yaml", &entry("a", "127.1.0.6"))]).await;
    let mut client = running.delta(node(SIDECAR, &[])).await;
    client.ask(CDS, &[]).await;
    let clusters = client.accept().await;
    assert!(names(&clusters).contains(&REVIEWS), "{:?}", names(&clusters));
    client.ask(EDS, &[REVIEWS]).await;
    assert_eq!(endpoints(client.accept().await.resources[0].resource.as_ref().unwrap()), 1);

    let saved = Instant::now();
    running.save("b.yaml", &entry("b", "127.1.0.7"));
    let change = client.accept().await;
    assert!(saved.elapsed() < Duration::from_secs(1), "{:?}", saved.elapsed());
    assert_eq!((change.type_url.as_str(), names(&change)), (EDS, vec![REVIEWS]), "nothing else was sent");
    assert_eq!(endpoints(change.resources[0].resource.as_ref().unwrap()), 2);

    std::fs::remove_file(running.path("a.yaml")).unwrap();
    assert_eq!(endpoints(client.accept().await.resources[0].resource.as_ref().unwrap()), 1);
    let revision = running.plane.revision();
    let status = running.status(|s| s["proxies"][0]["served_revision"] == revision).await;
    assert_eq!(status["proxies"][0]["id"], SIDECAR);
    assert_eq!(status["proxies"][0]["types"]["ClusterLoadAssignment"], revision.to_string());
}

#[tokio::test]
async fn a_state_of_the_world_client_follows_too() {
    let running = plane(&[("service.yaml", SERVICE), ("a.yaml", &entry("a", "127.1.0.6"))]).await;
    let mut client = running.sotw(node(SIDECAR, &[])).await;
    client.ask(CDS, &[], None).await;
    let clusters = client.response().await;
    client.ask(CDS, &[], Some(&clusters)).await;
    client.ask(EDS, &[REVIEWS], None).await;
    let first = client.response().await;
    assert_eq!((first.type_url.as_str(), endpoints(&first.resources[0])), (EDS, 1));
    client.ask(EDS, &[REVIEWS], Some(&first)).await;
    running.save("b.yaml", &entry("b", "127.1.0.7"));
    let second = client.response().await;
    assert_eq!((second.type_url.as_str(), endpoints(&second.resources[0])), (EDS, 2));
    client.ask(EDS, &[REVIEWS], Some(&second)).await;
    let revision = running.plane.revision();
    running.status(|s| s["proxies"][0]["served_revision"] == revision).await;
}

#[tokio::test]
async fn a_refusal_is_shown_with_the_file_and_line_that_caused_it() {
    let mut running = plane(&[("service.yaml", &format!("# a comment\n{SERVICE}"))]).await;
    let mut client = running.delta(node(SIDECAR, &[])).await;
    client.ask(CDS, &[]).await;
    let clusters = client.response().await.unwrap();
    client.answer(&clusters, Some(&format!("{REVIEWS}: I do not like it"))).await;
    let told = running.told("refused").await;
    let file = running.path("service.yaml").display().to_string();
    assert!(told.contains(&format!("{file}:4")) && told.contains("I do not like it"), "{told}");

    let status = running.status(|s| s["proxies"][0]["rejections"][0].is_object()).await;
    let rejection = &status["proxies"][0]["rejections"][0];
    assert_eq!(rejection["resource"], REVIEWS);
    assert_eq!((rejection["file"].as_str(), rejection["line"].as_u64()), (Some(file.as_str()), Some(4)));
    assert!(status["proxies"][0]["served_revision"].is_null());
    let metrics = http_get(running.plane.addresses().admin, "localhost", "/metrics").await;
    assert!(metrics.contains("\nieum_control_nacks_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn broken_yaml_keeps_the_last_good_version_and_is_told_once_and_again_when_mended() {
    let mut running = plane(&[("service.yaml", SERVICE)]).await;
    let mut client = running.delta(node(SIDECAR, &[])).await;
    client.ask(CDS, &[]).await;
    client.accept().await;
    let revision = running.plane.revision();

    running.save("service.yaml", &SERVICE.replace("port: 9080", "port: many"));
    let told = running.told("error").await;
    assert!(told.contains("service.yaml:7") && told.contains("many"), "{told}");
    let status = running.status(|s| s["config"]["errors"] == 1).await;
    assert_eq!((running.plane.revision(), status["revision"].as_u64()), (revision, Some(revision)));

    running.save("service.yaml", SERVICE);
    running.told("mended").await;
    running.status(|s| s["config"]["errors"] == 0).await;
    let mut other = running.delta(node(SIDECAR, &[])).await;
    other.ask(CDS, &[]).await;
    assert!(names(&other.accept().await).contains(&REVIEWS), "it was never gone");
    assert_eq!(running.events.lock().unwrap().iter().filter(|e| e.to_string().contains("many")).count(), 2);
}

#[tokio::test]
async fn proxies_of_one_class_get_the_same_bytes_and_the_same_versions() {
    let running = plane(&[("service.yaml", SERVICE)]).await;
    let mut versions = Vec::new();
    for name in ["a", "b"] {
        let id = format!("sidecar~127.1.0.5~{name}.default~default.svc.cluster.local");
        let mut client = running.delta(node(&id, &[])).await;
        client.ask(CDS, &[REVIEWS]).await;
        let response = client.accept().await;
        versions.push((response.resources[0].version.clone(), response.resources[0].resource.clone()));
    }
    assert_eq!(versions[0], versions[1]);
}

#[tokio::test]
async fn a_client_that_comes_back_is_sent_nothing_it_has() {
    let running = plane(&[("service.yaml", SERVICE)]).await;
    let mut client = running.delta(node(SIDECAR, &[])).await;
    client.ask(CDS, &[]).await;
    let clusters = client.accept().await;
    drop(client);
    running.status(|s| s["proxies"].as_array().is_some_and(Vec::is_empty)).await;
    let mut client = running.delta(node(SIDECAR, &[])).await;
    client
        .send(envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
            type_url: CDS.to_owned(),
            initial_resource_versions: clusters
                .resources
                .iter()
                .map(|r| (r.name.clone(), r.version.clone()))
                .collect(),
            ..Default::default()
        })
        .await;
    assert!(client.accept().await.resources.is_empty());
}

#[tokio::test]
async fn a_stream_without_a_node_or_with_too_many_names_is_ended_with_a_reason() {
    let running = plane(&[]).await;
    let mut client = running.delta(node("nobody", &[])).await;
    client.ask(CDS, &[]).await;
    let error = client.response().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("`nobody`"), "{error}");

    let mut client = running.delta(node(SIDECAR, &[])).await;
    let many: Vec<String> = (0..30_000).map(|n| n.to_string()).collect();
    client.ask(EDS, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(client.response().await.unwrap_err().code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn stopping_ends_streams_and_frees_the_ports() {
    let running = plane(&[]).await;
    let mut client = running.delta(node(SIDECAR, &[])).await;
    client.ask(CDS, &[]).await;
    client.accept().await;
    let addresses = running.plane.addresses();
    within(running.plane.stop()).await;
    assert_eq!(client.response().await.unwrap_err().code(), tonic::Code::Unavailable);
    let again = ieum_control::plane::PlaneOptions {
        xds: addresses.xds,
        xds_tls: addresses.xds_tls,
        admin: addresses.admin,
        ..options(running.folder.path())
    };
    let roots = std::fs::read(running.folder.path().join("state/root-cert.pem")).unwrap();
    let plane = start(again, Arc::new(|_| {})).await.unwrap();
    assert_eq!(plane.roots_pem().as_bytes(), roots, "the authority is the same after a restart");
}

#[tokio::test]
async fn a_taken_port_and_a_plaintext_port_for_others_are_refused_by_name() {
    let running = plane(&[]).await;
    let taken = running.plane.addresses().xds;
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = options(folder.path());
    wanted.xds = taken;
    let error = start(wanted, Arc::new(|_| {})).await.err().unwrap().to_string();
    assert!(error.contains(&format!("port {} is taken", taken.port())) && error.contains("--xds"), "{error}");
    let mut wanted = options(folder.path());
    wanted.xds = "0.0.0.0:0".parse().unwrap();
    let error = start(wanted, Arc::new(|_| {})).await.err().unwrap().to_string();
    assert!(error.contains("loopback") && error.contains("--xds"), "{error}");
}

#[tokio::test]
async fn the_admin_port_answers_nobody_who_came_by_another_name() {
    let running = plane(&[("service.yaml", SERVICE)]).await;
    let admin = running.plane.addresses().admin;
    let status = http_get(admin, &admin.to_string(), "/status").await;
    assert!(status.starts_with("HTTP/1.1 200") && status.contains("\"revision\": 1"), "{status}");
    assert!(http_get(admin, "localhost", "/ready").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(admin, "evil.example", "/status").await.starts_with("HTTP/1.1 421"));
    assert!(http_get(admin, "localhost", "/absent").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn everything_the_example_is_served_as_can_be_decoded_by_our_own_proxy() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookinfo");
    let running = plane_with(&[("reviews.yaml", &entry("r", "127.1.0.6"))], |mut options| {
        options.config.insert(0, example);
        options
    })
    .await;
    assert_eq!(running.plane.status()["config"]["errors"], 0, "{:#}", running.plane.status());
    let gateway = "router~127.0.0.1~ingress.istio-system~istio-system.svc.cluster.local";
    for id in [SIDECAR, gateway] {
        let mut client = running.delta(node(id, &[("OUTBOUND", "127.1.0.5:15001")])).await;
        for kind in [CDS, EDS, LDS, RDS] {
            client.ask(kind, &["*"]).await;
            let response = client.accept().await;
            assert!(!response.resources.is_empty(), "{id} gets no {kind}");
            for resource in response.resources {
                let decoded = xds::codec::decode(resource.resource.as_ref().unwrap());
                assert!(decoded.is_ok(), "{}: {decoded:?}", resource.name);
            }
        }
    }
}
