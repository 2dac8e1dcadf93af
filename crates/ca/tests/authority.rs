//! The authority as its files and its certificates show it, the latter read by openssl.
#![allow(clippy::unwrap_used)]

mod common;

use common::{HOUR, id, mesh, openssl};
use identity::certificate;
use identity::spiffe::SpiffeId;
use ieum_ca::authority::{Authority, AuthorityError};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

fn root_file(mesh: &common::Mesh) -> PathBuf {
    mesh.dir.path().join("ca/root.pem")
}

fn reopen(mesh: &common::Mesh) -> Result<Authority, String> {
    Authority::open(&mesh.dir.path().join("ca"), "cluster.local", SystemTime::now())
        .map_err(|e| e.to_string())
}

#[test]
fn the_root_is_private_and_the_same_after_a_restart() {
    let mesh = mesh();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(root_file(&mesh)), mode(mesh.dir.path().join("ca"))), (0o600, 0o700));
    let again = reopen(&mesh).unwrap();
    assert_eq!(again.roots_pem(), mesh.authority.roots_pem());
    assert!(again.warnings().is_empty(), "{:?}", again.warnings());
    assert!(!again.roots_pem().contains("PRIVATE"));
}

#[test]
fn several_processes_starting_at_once_agree_on_one_root() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        || Authority::open(dir.path(), "cluster.local", SystemTime::now()).unwrap().roots_pem().to_owned();
    let roots: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|r| *r == roots[0]));
}

#[test]
fn a_damaged_root_is_an_error_that_names_it_and_stays_as_it_is() {
    let mesh = mesh();
    let path = root_file(&mesh);
    let whole = std::fs::read_to_string(&path).unwrap();
    let other = std::fs::read_to_string(root_file(&common::mesh())).unwrap();
    let (key, certificate) = whole.split_at(whole.find("-----BEGIN CERT").unwrap());
    let other_certificate = &other[other.find("-----BEGIN CERT").unwrap()..];
    for (content, reason) in [
        (String::new(), "no PEM certificate found"),
        (key.to_owned(), "no PEM certificate found"),
        (certificate.to_owned(), "no readable PEM private key"),
        (format!("{key}{other_certificate}"), "a key that is not the certificate's"),
        (format!("{whole}{other_certificate}"), "2 certificates instead of one"),
        (whole.replacen("MI", "!!", 1), "certificate 0 is not readable PEM"),
    ] {
        std::fs::write(&path, &content).unwrap();
        let error = reopen(&mesh).unwrap_err();
        assert!(error.contains("ca/root.pem"), "{error}");
        assert!(error.contains(reason), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn an_exposed_root_is_tightened_and_reported() {
    let mesh = mesh();
    std::fs::set_permissions(root_file(&mesh), Permissions::from_mode(0o644)).unwrap();
    let again = reopen(&mesh).unwrap();
    assert!(again.warnings()[0].contains("could be read by others"), "{:?}", again.warnings());
    assert_eq!(std::fs::metadata(root_file(&mesh)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_second_root_is_handed_out_but_never_its_key() {
    let (mesh, next) = (mesh(), common::mesh());
    let also = mesh.dir.path().join("ca/also-trusted.pem");
    std::fs::write(&also, next.authority.roots_pem()).unwrap();
    let again = reopen(&mesh).unwrap();
    assert_eq!(again.roots_pem(), format!("{}{}", mesh.authority.roots_pem(), next.authority.roots_pem()));
    std::fs::write(&also, std::fs::read(root_file(&next)).unwrap()).unwrap();
    assert!(reopen(&mesh).unwrap_err().contains("holds a private key"));
}

#[test]
fn a_leaf_is_an_svid_and_nothing_more() {
    let mesh = mesh();
    // A request that wishes for a lot.
    let mut wish = rcgen::CertificateParams::new(vec!["google.com".to_owned()]).unwrap();
    wish.subject_alt_names
        .push(rcgen::SanType::URI("spiffe://cluster.local/ns/kube-system/sa/admin".try_into().unwrap()));
    wish.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wish.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = wish.serialize_request(&key).unwrap().pem().unwrap();

    let chain = mesh.authority.sign(&csr, &id("reviews"), HOUR, SystemTime::now()).unwrap();
    assert_eq!(chain[1], mesh.authority.roots_pem());
    let text = openssl(&["x509", "-noout", "-text"], chain[0].as_bytes());
    for line in [
        "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/shop/sa/reviews\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "CA:FALSE",
        "Subject: \n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("google") && !text.contains("admin") && !text.contains("rcgen"), "{text}");

    let files = tempfile::tempdir().unwrap();
    let root = files.path().join("root.pem");
    std::fs::write(&root, mesh.authority.roots_pem()).unwrap();
    let verdict =
        openssl(&["verify", "-x509_strict", "-CAfile", root.to_str().unwrap()], chain[0].as_bytes());
    assert!(verdict.contains("OK"), "{verdict}");
}

#[test]
fn a_lifetime_counts_from_now_and_ends_with_the_root() {
    let mesh = mesh();
    let now = SystemTime::now();
    let facts = |lifetime| {
        let pair = mesh.authority.issue(&id("a"), lifetime, now).unwrap();
        certificate::facts(&certificate::parse_chain(&pair.chain_pem).unwrap()[0]).unwrap()
    };
    let short = facts(Duration::from_secs(10));
    let life = short.not_after.duration_since(now).unwrap();
    assert!(life >= Duration::from_secs(10) && life < Duration::from_secs(11), "{life:?}");
    let backdated = now.duration_since(short.not_before).unwrap();
    assert!(backdated >= Duration::from_secs(60) && backdated < Duration::from_secs(61), "{backdated:?}");
    let root = certificate::parse_chain(mesh.authority.roots_pem().as_bytes()).unwrap();
    assert_eq!(facts(HOUR * 24 * 10_000).not_after, certificate::facts(&root[0]).unwrap().not_after);
}

#[test]
fn serial_numbers_differ() {
    let mesh = mesh();
    let serial = || {
        let pair = mesh.pair("a");
        certificate::facts(&certificate::parse_chain(&pair.chain_pem).unwrap()[0]).unwrap().serial
    };
    assert_ne!(serial(), serial());
}

#[test]
fn an_identity_of_another_trust_domain_is_not_signed() {
    let mesh = mesh();
    let foreign = SpiffeId::new("other.org", "shop", "a").unwrap();
    let refused = mesh.authority.issue(&foreign, HOUR, SystemTime::now());
    assert!(matches!(refused, Err(AuthorityError::ForeignIdentity { .. })), "{refused:?}");
}
