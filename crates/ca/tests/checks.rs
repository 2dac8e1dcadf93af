//! What is asked of certificates besides their issuer and names, what suites are offered, and certificates in files: in
//! real handshakes.
#![allow(clippy::unwrap_used)]

mod common;

use common::{mesh, shake};
use identity::certificate::{fingerprint, parse_chain};
use identity::config::server_config;
use model::tls::{
    CertificateDigest, CipherSuites, PeerChecks, SecretFiles, SecretSource, TlsVersion, TlsVersions,
};
use rustls::CipherSuite;

#[tokio::test]
async fn certificates_in_files_are_as_good_as_any_and_one_that_is_not_there_is_a_reason() {
    let mesh = mesh();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pair = mesh.pair("reviews");
    let files = SecretFiles { certificates: path("cert.pem"), key: path("key.pem") };
    let roots = SecretFiles { certificates: path("roots.pem"), key: String::new() };
    let mut server = mesh.server("reviews");
    server.certificates = vec![SecretSource::Files(files.clone())];
    server.validation.as_mut().unwrap().trust = SecretSource::Files(roots.clone());
    let missing = server_config(&server, &|_| None).unwrap_err();
    assert_eq!(missing.missing_secret(), Some(files.certificates.as_str()), "it may come yet");
    assert!(missing.to_string().contains("cert.pem"), "{missing}");
    std::fs::write(&files.certificates, &pair.chain_pem).unwrap();
    std::fs::write(&files.key, &pair.key_pem).unwrap();
    std::fs::write(&roots.certificates, mesh.authority.roots_pem()).unwrap();
    let (server, client) = shake(&server, &mesh.client("web", "reviews")).await;
    assert!(server.is_ok() && client.is_ok());
}

#[tokio::test]
async fn a_client_may_be_asked_for_by_the_hash_of_its_certificate_whoever_signed_it() {
    let (mesh, other) = (mesh(), common::mesh());
    let mut client = mesh.client("web", "reviews");
    let pair = other.pair("web");
    let own = fingerprint(&parse_chain(&pair.chain_pem).unwrap()[0]);
    client.certificate = Some(SecretSource::Inline(pair));
    let asked = |hash: &str, any_signer| {
        let certificates = CertificateDigest::parse(hash).into_iter().collect();
        PeerChecks { any_signer, certificates, ..PeerChecks::default() }
    };
    let mut server = mesh.server("reviews");
    for (hash, any_signer, gets_in) in
        [(own.as_str(), true, true), (&"0".repeat(64), true, false), (own.as_str(), false, false)]
    {
        server.validation.as_mut().unwrap().checks = asked(hash, any_signer);
        let (server, _) = shake(&server, &client).await;
        assert_eq!(server.is_ok(), gets_in, "{hash} {any_signer} {:?}", server.err());
    }
}

#[tokio::test]
async fn only_suites_that_are_written_are_taken() {
    let mesh = mesh();
    let mut server = mesh.server("reviews");
    let ciphers = CipherSuites::named(["ECDHE-ECDSA-CHACHA20-POLY1305"]).unwrap();
    server.versions = TlsVersions { max: TlsVersion::V1_2, ciphers, ..TlsVersions::default() };
    let (_, client) = shake(&server, &mesh.client("web", "reviews")).await;
    let suite = client.unwrap().get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
    let mut others = mesh.client("web", "reviews");
    others.versions.ciphers = CipherSuites::named(["ECDHE-ECDSA-AES128-GCM-SHA256"]).unwrap();
    assert!(shake(&server, &others).await.1.is_err());
}
