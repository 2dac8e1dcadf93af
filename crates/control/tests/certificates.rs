//! Certificates from the running control plane: over SDS for proxies that cannot ask, over its CA service for those that can.
#![allow(clippy::unwrap_used)]

mod common;

use ca::tokens::{TokenLine, random_token};
use common::*;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use identity::certificate::{facts, parse_chain};
use identity::workload::{JoinToken, WorkloadOptions, run};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const ACCOUNT: &str = "spiffe://cluster.local/ns/default/sa/web";

fn write_token(running: &Running, identity: &str, reusable: bool) -> String {
    let line = TokenLine { token: random_token().unwrap(), identity: identity.parse().unwrap(), reusable };
    std::fs::write(running.folder.path().join("tokens"), line.to_json() + "\n").unwrap();
    line.token
}

/// The SPIFFE id and serial number of the certificate in a response.
fn certified(response: &DeltaDiscoveryResponse) -> (Option<String>, String) {
    let any = response.resources[0].resource.as_ref().unwrap();
    let secret = Secret::decode(any.value.as_slice()).unwrap();
    let text = format!("{:?}", secret.r#type);
    assert!(text.contains("TlsCertificate"), "{text}");
    let pem = match secret.r#type.unwrap() {
        envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type::TlsCertificate(
            pair,
        ) => pair.certificate_chain.unwrap().specifier.unwrap(),
        other => panic!("{other:?}"),
    };
    use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
    let bytes = match pem {
        Specifier::InlineBytes(bytes) => bytes,
        Specifier::InlineString(text) => text.into_bytes(),
        other => panic!("{other:?}"),
    };
    let facts = facts(&parse_chain(&bytes).unwrap()[0]).unwrap();
    (facts.spiffe, facts.serial)
}

#[tokio::test]
async fn without_proof_the_trust_bundle_is_given_and_a_certificate_is_not() {
    let mut running = plane(&[]).await;
    let mut client = running.delta(node(SIDECAR, &[])).await;
    client.ask(SDS, &["default", "ROOTCA"]).await;
    let response = client.accept().await;
    assert_eq!(names(&response), ["ROOTCA"]);
    assert_eq!(response.removed_resources, ["default"]);
    let told = running.told("no certificate").await;
    assert!(told.contains("join token"), "{told}");
    let status = running.status(|s| s["proxies"][0]["no_certificate"].is_string()).await;
    assert_eq!(status["ca"]["denied_over_sds"], 1);
}

#[tokio::test]
async fn a_reusable_token_gets_the_certificate_of_its_identity_and_of_no_other() {
    let mut running = plane(&[]).await;
    let token = write_token(&running, ACCOUNT, true);
    let mut client = running.delta_with(node(SIDECAR, &[("SERVICE_ACCOUNT", "web")]), Some(&token)).await;
    client.ask(SDS, &["default"]).await;
    assert_eq!(certified(&client.accept().await).0.as_deref(), Some(ACCOUNT));

    let mut liar = running.delta_with(node(SIDECAR, &[("SERVICE_ACCOUNT", "db")]), Some(&token)).await;
    liar.ask(SDS, &["default"]).await;
    assert_eq!(liar.accept().await.removed_resources, ["default"]);
    assert!(running.told("no certificate").await.contains("`db`"));
}

#[tokio::test]
async fn a_one_time_token_is_for_the_authority_only() {
    let mut running = plane(&[]).await;
    let token = write_token(&running, ACCOUNT, false);
    let mut client = running.delta_with(node(SIDECAR, &[]), Some(&token)).await;
    client.ask(SDS, &["default"]).await;
    assert_eq!(client.accept().await.removed_resources, ["default"]);
    assert!(running.told("no certificate").await.contains("not for a session"));
}

#[tokio::test]
async fn certificates_over_sds_are_replaced_at_half_of_their_life() {
    let running = plane_with(&[], |options| ieum_control::plane::PlaneOptions {
        certificate_lifetime: Duration::from_secs(1),
        ..options
    })
    .await;
    let token = write_token(&running, ACCOUNT, true);
    let mut client = running.delta_with(node(SIDECAR, &[]), Some(&token)).await;
    client.ask(SDS, &["default"]).await;
    let mut serials = std::collections::HashSet::new();
    for _ in 0..3 {
        serials.insert(certified(&client.accept().await).1);
    }
    assert_eq!(serials.len(), 3);
}

#[tokio::test]
async fn a_workload_joins_and_renews_while_our_own_certificate_is_replaced() {
    let running = plane_with(&[], |options| ieum_control::plane::PlaneOptions {
        certificate_lifetime: Duration::from_secs(2),
        ..options
    })
    .await;
    let token = write_token(&running, ACCOUNT, false);
    let (publish, mut secrets) = watch::channel(None);
    let options = WorkloadOptions {
        ca_address: running.plane.addresses().xds_tls.to_string(),
        ca_roots_pem: std::fs::read(running.plane.roots_file()).unwrap(),
        ca_server_name: "istiod.istio-system.svc".to_owned(),
        join_token: Some(JoinToken::Inline(token)),
        state_dir: running.folder.path().join("workload"),
        lifetime: Duration::from_secs(3600),
    };
    let joined = tokio::spawn(run(options, publish, |_| {}));
    let mut serials = std::collections::HashSet::new();
    while serials.len() < 4 {
        within(secrets.changed()).await.unwrap();
        let now: Option<Arc<identity::workload::WorkloadSecrets>> = secrets.borrow_and_update().clone();
        serials.extend(now.map(|s| s.facts.serial.clone()));
    }
    joined.abort();
}
