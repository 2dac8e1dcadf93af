//! Handshakes between configurations made by `identity` with certificates made by the authority: who gets in, and what
//! the one who does not is told.
#![allow(clippy::unwrap_used)]

mod common;

use common::{HOUR, Mesh, id, mesh, shake, shake_with};
use identity::certificate::peer_identity;
use identity::config::{client_config, server_config, server_name};
use model::matcher::StringMatch;
use model::tls::{
    CertificatePair, PeerValidation, SanKind, SanMatch, Secret, SecretContent, SecretSource, TlsVersion,
    TlsVersions,
};
use rustls::{HandshakeKind, ProtocolVersion};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::AsyncWriteExt;

fn expired_pair(mesh: &Mesh, account: &str) -> CertificatePair {
    mesh.authority.issue(&id(account), HOUR, SystemTime::now() - HOUR * 2).unwrap()
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let mesh = mesh();
    let (server, client) = shake(&mesh.server("reviews"), &mesh.client("web", "reviews")).await;
    let (server, client) = (server.unwrap(), client.unwrap());
    let seen = |chain: Option<&[_]>| peer_identity(chain.unwrap()).unwrap().spiffe.unwrap();
    assert_eq!(seen(server.get_ref().1.peer_certificates()), id("web").to_string());
    assert_eq!(seen(client.get_ref().1.peer_certificates()), id("reviews").to_string());
    assert_eq!(client.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(server.get_ref().1.server_name(), Some("outbound_.9080_._.reviews.shop.svc.cluster.local"));
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused_and_both_logs_say_why() {
    let (mesh, other) = (mesh(), common::mesh());
    let mut client = mesh.client("web", "reviews");
    client.certificate = Some(SecretSource::Inline(other.pair("web")));
    let (server, client) = shake(&mesh.server("reviews"), &client).await;
    let server = server.unwrap_err();
    for part in
        ["spiffe://cluster.local/ns/shop/sa/web", "expires 20", "issued by `O=cluster.local, CN=ieum root"]
    {
        assert!(server.contains(part), "{server}");
    }
    assert!(server.contains("not trusted here (trusted: `O=cluster.local, CN=ieum root"), "{server}");
    assert!(client.unwrap_err().contains("does not trust the authority that issued our certificate"));
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused_with_both_names() {
    let mesh = mesh();
    let (server, client) = shake(&mesh.server("ratings"), &mesh.client("web", "reviews")).await;
    let client = client.unwrap_err();
    assert!(client.contains("names `spiffe://cluster.local/ns/shop/sa/ratings`"), "{client}");
    assert!(client.contains("expected URI `spiffe://cluster.local/ns/shop/sa/reviews`"), "{client}");
    assert!(server.unwrap_err().contains("refused our certificate"));
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused() {
    let (mesh, other) = (mesh(), common::mesh());
    let (_, client) = shake(&other.server("reviews"), &mesh.client("web", "reviews")).await;
    assert!(client.unwrap_err().contains("was issued by an authority that is not trusted here"));
}

#[tokio::test]
async fn expired_certificates_are_refused_on_either_side_with_their_expiry() {
    let mesh = mesh();
    let mut client = mesh.client("web", "reviews");
    client.certificate = Some(SecretSource::Inline(expired_pair(&mesh, "web")));
    let (server, client) = shake(&mesh.server("reviews"), &client).await;
    let server = server.unwrap_err();
    assert!(server.contains("sa/web` (expires 20") && server.contains("expired 3"), "{server}");
    assert!(client.unwrap_err().contains("our certificate has expired"));

    let mut stale = mesh.server("reviews");
    stale.certificates = vec![SecretSource::Inline(expired_pair(&mesh, "reviews"))];
    let (_, client) = shake(&stale, &mesh.client("web", "reviews")).await;
    let client = client.unwrap_err();
    assert!(client.contains("sa/reviews` (expires 20") && client.contains("expired 3"), "{client}");
}

#[tokio::test]
async fn a_client_without_certificate_gets_in_only_where_none_is_required() {
    let mesh = mesh();
    let mut client = mesh.client("web", "reviews");
    client.certificate = None;
    let mut server = mesh.server("reviews");
    let (refused, told) = shake(&server, &client).await;
    assert_eq!(refused.unwrap_err(), "the client presented no certificate and one is required");
    assert!(told.unwrap_err().contains("requires a certificate and we presented none"));
    server.require_client_certificate = false;
    let (accepted, _) = shake(&server, &client).await;
    assert!(accepted.unwrap().get_ref().1.peer_certificates().is_none());
}

#[tokio::test]
async fn optional_client_certificates_are_still_judged() {
    let (mesh, other) = (mesh(), common::mesh());
    let mut server = mesh.server("reviews");
    server.require_client_certificate = false;
    let mut client = mesh.client("web", "reviews");
    client.certificate = Some(SecretSource::Inline(other.pair("web")));
    assert!(shake(&server, &client).await.0.is_err());
}

#[tokio::test]
async fn clients_can_be_limited_by_name() {
    let mesh = mesh();
    let mut server = mesh.server("reviews");
    server.validation = Some(mesh.validation(Some("web")));
    assert!(shake(&server, &mesh.client("web", "reviews")).await.0.is_ok());
    let refused = shake(&server, &mesh.client("ratings", "reviews")).await.0.unwrap_err();
    assert!(refused.contains("expected URI `spiffe://cluster.local/ns/shop/sa/web`"), "{refused}");
}

#[tokio::test]
async fn two_roots_are_trusted_during_a_root_change() {
    let (old, new) = (mesh(), common::mesh());
    let both = format!("{}{}", old.authority.roots_pem(), new.authority.roots_pem()).into_bytes();
    let trust_both = |names| {
        Some(PeerValidation {
            trust: SecretSource::Inline(both.clone()),
            subject_alt_names: names,
            checks: Default::default(),
        })
    };
    for (serving, calling) in [(&old, &new), (&new, &old), (&old, &old)] {
        let mut server = serving.server("reviews");
        server.validation = trust_both(vec![]);
        let mut client = calling.client("web", "reviews");
        client.validation = trust_both(old.validation(Some("reviews")).subject_alt_names).map(Arc::new);
        let (server, client) = shake(&server, &client).await;
        assert!(server.is_ok() && client.is_ok());
    }
}

#[tokio::test]
async fn without_validation_any_server_is_accepted_and_no_sni_is_sent() {
    let mesh = mesh();
    let mut client = mesh.client("web", "reviews");
    (client.validation, client.sni) = (None, None);
    let mut server = common::mesh().server("anyone");
    (server.validation, server.require_client_certificate) = (None, false);
    let (server, client) = shake(&server, &client).await;
    assert!(client.is_ok());
    assert_eq!(server.unwrap().get_ref().1.server_name(), None);
}

#[tokio::test]
async fn a_client_with_only_foreign_protocols_is_served_without_alpn() {
    let mesh = mesh();
    let mut client = mesh.client("web", "reviews");
    client.alpn = vec!["istio-peer-exchange".to_owned()];
    let (server, client) = shake(&mesh.server("reviews"), &client).await;
    assert_eq!(server.unwrap().get_ref().1.alpn_protocol(), None);
    assert_eq!(client.unwrap().get_ref().1.alpn_protocol(), None);
}

#[tokio::test]
async fn tls_versions_are_as_configured() {
    let mesh = mesh();
    let mut server = mesh.server("reviews");
    server.versions = TlsVersions { min: TlsVersion::V1_2, max: TlsVersion::V1_2, ..TlsVersions::default() };
    let (_, client) = shake(&server, &mesh.client("web", "reviews")).await;
    assert_eq!(client.unwrap().get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let mut modern = mesh.client("web", "reviews");
    modern.versions = TlsVersions { min: TlsVersion::V1_3, max: TlsVersion::V1_3, ..TlsVersions::default() };
    assert!(shake(&server, &modern).await.1.is_err());
}

#[tokio::test]
async fn sessions_resume_under_one_configuration_and_not_under_the_next() {
    let mesh = mesh();
    let tls = mesh.client("web", "reviews");
    let client = client_config(&tls, &|_| None).unwrap();
    let name = server_name(tls.sni.as_deref()).unwrap();
    let server = server_config(&mesh.server("reviews"), &|_| None).unwrap();
    let rebuilt = server_config(&mesh.server("reviews"), &|_| None).unwrap();
    for (server, expected) in
        [(&server, HandshakeKind::Full), (&server, HandshakeKind::Resumed), (&rebuilt, HandshakeKind::Full)]
    {
        let (served, called) = shake_with(server.clone(), client.clone(), name.clone()).await;
        assert_eq!(called.unwrap().get_ref().1.handshake_kind(), Some(expected));
        let served = served.unwrap();
        let peer = peer_identity(served.get_ref().1.peer_certificates().unwrap()).unwrap();
        assert_eq!(peer.spiffe, Some(id("web").to_string()), "a resumed session still has its peer");
    }
}

#[tokio::test]
async fn host_names_are_checked_where_they_are_asked_for() {
    let mesh = mesh();
    let pair = mesh
        .authority
        .control_plane_certificate(
            &id("istiod"),
            &["istiod.istio-system.svc", "127.0.0.1"],
            HOUR,
            SystemTime::now(),
        )
        .unwrap();
    let mut server = mesh.server("istiod");
    server.certificates = vec![SecretSource::Inline(pair)];
    let mut client = mesh.client("web", "istiod");
    let mut ask = async |kind, name: &str| {
        let names = vec![SanMatch { kind: Some(kind), matcher: StringMatch::exact(name) }];
        Arc::make_mut(client.validation.as_mut().unwrap()).subject_alt_names = names;
        shake(&server, &client).await.1.is_ok()
    };
    assert!(ask(SanKind::Dns, "ISTIOD.istio-system.svc").await);
    assert!(ask(SanKind::Ip, "127.0.0.1").await);
    assert!(!ask(SanKind::Dns, "istiod.other.svc").await);
    assert!(!ask(SanKind::Uri, "istiod.istio-system.svc").await);
}

#[tokio::test]
async fn plaintext_is_told_apart_from_tls() {
    let server = server_config(&mesh().server("reviews"), &|_| None).unwrap();
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = identity::handshake::accept(far, server).await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn openssl_gets_in_by_tls_1_3_and_sees_the_spiffe_id() {
    let mesh = mesh();
    let server = server_config(&mesh.server("reviews"), &|_| None).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let file = |name: &str, content: &[u8]| {
        let path = mesh.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pair = mesh.pair("web");
    let (chain, key) = (file("chain.pem", &pair.chain_pem), file("key.pem", &pair.key_pem));
    let roots = file("roots.pem", mesh.authority.roots_pem().as_bytes());
    let client = tokio::task::spawn_blocking(move || {
        let connect = ["s_client", "-connect", &address, "-verify_return_error", "-showcerts"];
        common::openssl(&[&connect[..], &["-cert", &chain, "-key", &key, "-CAfile", &roots]].concat(), b"")
    });
    let (stream, _) = listener.accept().await.unwrap();
    let mut served = identity::handshake::accept(stream, server).await.unwrap();
    let seen = peer_identity(served.get_ref().1.peer_certificates().unwrap()).unwrap();
    assert_eq!(seen.spiffe, Some(id("web").to_string()));
    served.shutdown().await.unwrap();
    let printed = client.await.unwrap();
    assert!(printed.contains("New, TLSv1.3") && printed.contains("Verify return code: 0 (ok)"), "{printed}");
    let leaf = common::openssl(&["x509", "-noout", "-ext", "subjectAltName"], printed.as_bytes());
    assert!(leaf.contains("URI:spiffe://cluster.local/ns/shop/sa/reviews"), "{leaf}");
}

#[test]
fn a_secret_that_is_missing_or_of_the_wrong_kind_is_an_error() {
    let mesh = mesh();
    let trust = Secret {
        name: "ROOTCA".to_owned(),
        content: SecretContent::TrustBundle(mesh.authority.roots_pem().as_bytes().to_vec()),
    };
    let mut server = mesh.server("reviews");
    server.certificates = vec![SecretSource::Sds("default".to_owned())];
    let missing = server_config(&server, &|_| None).unwrap_err();
    assert_eq!(missing.missing_secret(), Some("default"));
    let wrong = server_config(&server, &|_| Some(&trust)).unwrap_err();
    assert_eq!(wrong.to_string(), "secret `default` is not a certificate and its key");

    let mut client = mesh.client("web", "reviews");
    Arc::make_mut(client.validation.as_mut().unwrap()).trust = SecretSource::Sds("ROOTCA".to_owned());
    assert_eq!(client_config(&client, &|_| None).unwrap_err().missing_secret(), Some("ROOTCA"));
    assert!(client_config(&client, &|name| (name == "ROOTCA").then_some(&trust)).is_ok());
}

#[test]
fn what_cannot_protect_is_not_built() {
    let mesh = mesh();
    let says = |tls| server_config(&tls, &|_| None).unwrap_err().to_string();
    let mut server = mesh.server("reviews");
    server.validation = Some(PeerValidation {
        trust: SecretSource::Inline(b"x".to_vec()),
        subject_alt_names: vec![],
        checks: Default::default(),
    });
    assert_eq!(says(server), "inline trust bundle: no PEM certificate found");

    let mut server = mesh.server("reviews");
    server.validation = None;
    assert!(says(server).contains("client certificates are required but no trust bundle"));

    let mut server = mesh.server("reviews");
    server.certificates.clear();
    assert!(says(server).contains("without a server certificate"));

    let mut server = mesh.server("reviews");
    let mixed = CertificatePair { key_pem: mesh.pair("a").key_pem, ..mesh.pair("b") };
    server.certificates = vec![SecretSource::Inline(mixed)];
    let said = says(server);
    assert!(
        said.contains("the key cannot be used with certificate `spiffe://cluster.local/ns/shop/sa/b`"),
        "{said}"
    );

    let mut client = mesh.client("web", "reviews");
    client.versions = TlsVersions { min: TlsVersion::V1_3, max: TlsVersion::V1_2, ..TlsVersions::default() };
    assert!(client_config(&client, &|_| None).is_err());
}
