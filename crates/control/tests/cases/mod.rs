//! The cases of `testdata`: resources, and in comments the nodes that ask for theirs.

use ieum_control::node::ProxyNode;
use ieum_control::source::SourceFile;
use ieum_control::store::Store;
use ieum_control::world::World;
use model::metadata::{Fields, Value};
use std::path::{Path, PathBuf};

pub(crate) fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("in.yaml").exists());
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

pub(crate) fn world(text: &str) -> (World, Vec<api::Diagnostic>) {
    // Keys are made anew: none is ever kept.
    let made = rcgen::generate_simple_self_signed(vec!["secure.example.com".to_owned()]).unwrap();
    let quoted = |pem: String| pem.replace('\n', "\\n");
    let text = text
        .replace("@FILES@", &files(&made))
        .replace("@CERTIFICATE@", &quoted(made.cert.pem()))
        .replace("@KEY@", &quoted(made.signing_key.serialize_pem()));
    let mut store = Store::default();
    let update = store.update(&[SourceFile { name: "in.yaml".into(), text: text.into() }]);
    (World::of(store.objects()), update.diagnostics)
}

/// A folder with a certificate, its key and its authority's list, for proxies that read them themselves.
fn files(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files");
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        if !file.exists() {
            // Whoever reads it reads all of it.
            let part = folder.join(format!("{name}.{}", std::process::id()));
            std::fs::write(&part, text).unwrap();
            std::fs::rename(part, file).unwrap();
        }
    };
    std::fs::create_dir_all(&folder).unwrap();
    if !folder.join("cert.pem").exists() {
        write("key.pem", made.signing_key.serialize_pem());
        write("crl.pem", revoked(made));
        write("cert.pem", made.cert.pem());
    }
    of_one_length(folder.to_str().unwrap())
}

/// The same folder, written in as many bytes wherever it is: columns of what is said do not depend on it.
pub(crate) fn of_one_length(folder: &str) -> String {
    let mut path = folder.to_owned();
    while path.len() + 2 <= 240 {
        path.push_str("/.");
    }
    if path.len() < 240 {
        path.push('/');
    }
    path
}

fn revoked(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2124, 1, 1),
        crl_number: 1u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let issuer = rcgen::Issuer::from_ca_cert_der(made.cert.der(), &made.signing_key).unwrap();
    list.signed_by(&issuer).unwrap().pem().unwrap()
}

/// The nodes that comments of `text` name: an id, then labels, `PORTS=80:8080` and other metadata.
pub(crate) fn nodes(text: &str) -> Vec<ProxyNode> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# node: "));
    lines.map(node).collect()
}

pub(crate) fn node(line: &str) -> ProxyNode {
    let mut words = line.split_whitespace();
    let id = words.next().unwrap();
    let mut metadata = Fields::new();
    let mut labels = Fields::new();
    for (key, value) in words.map(|word| word.split_once('=').unwrap()) {
        match key {
            "PORTS" => {
                let pair = |pair: &str| {
                    let (port, local) = pair.split_once(':').unwrap();
                    (port.to_owned(), Value::from(local))
                };
                metadata.insert(key.to_owned(), Value::Struct(value.split(',').map(pair).collect()));
            }
            key if key.chars().all(|c| c.is_ascii_uppercase()) => {
                metadata.insert(key.to_owned(), Value::from(value));
            }
            label => {
                labels.insert(label.to_owned(), Value::from(value));
            }
        }
    }
    metadata.insert("LABELS".to_owned(), Value::Struct(labels));
    ProxyNode::from_node(id, "", &metadata, "envoy").unwrap()
}
