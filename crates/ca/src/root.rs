//! The root on disk: key and certificate in one private file, so that they are always of one piece.

use crate::stamp::{Round, date, random_serial};
use identity::certificate::{self, CertificateFacts, Rfc3339};
use identity::private_file;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Key and certificate of the root, PEM.
const ROOT_FILE: &str = "root.pem";
/// Certificates to trust besides the root, PEM; optional.
const ALSO_TRUSTED_FILE: &str = "also-trusted.pem";
/// Largest file read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Life of a new root.
const ROOT_LIFE: Duration = DAY.saturating_mul(3653);
/// Remaining life of a root below which it is time to plan its change.
const CHANGE_SOON: Duration = DAY.saturating_mul(365);

/// A root in use.
pub(crate) struct Root {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) not_after: SystemTime,
    /// The root's certificate and those also trusted.
    pub(crate) trusted_pem: String,
    pub(crate) warnings: Vec<String>,
}

/// Opens the root in `dir`, or makes it.
pub(crate) fn open(dir: &Path, trust_domain: &str, now: SystemTime) -> Result<Root, RootError> {
    let path = dir.join(ROOT_FILE);
    let mut warnings = Vec::new();
    let file = match private_file::read(&path, MAX_BYTES) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let made = make(trust_domain, now).map_err(|reason| RootError::new(&path, reason))?;
            match private_file::create(&path, made.as_bytes()) {
                Ok(()) => {}
                // Another process was first; its root counts.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(RootError::new(&path, format!("cannot be written: {e}"))),
            }
            private_file::read(&path, MAX_BYTES)
        }
        read => read,
    };
    let file = file.map_err(|e| RootError::new(&path, format!("cannot be read: {e}")))?;
    if file.was_exposed {
        warnings.push(format!(
            "CA key `{}` could be read by others; its mode is now 0600, consider a new root",
            path.display()
        ));
    }
    warnings.extend(directory_warning(dir));
    let (issuer, facts, own_pem) =
        load(&file.content, now).map_err(|reason| RootError::new(&path, reason))?;
    if facts.not_after.duration_since(now).is_ok_and(|left| left < CHANGE_SOON) {
        warnings.push(format!("CA root {facts} ends within a year: plan its change"));
    }
    let mut trusted_pem = own_pem;
    trusted_pem.push_str(&also_trusted(&dir.join(ALSO_TRUSTED_FILE))?);
    Ok(Root { issuer, not_after: facts.not_after, trusted_pem, warnings })
}

/// A new root: key and certificate in PEM.
fn make(trust_domain: &str, now: SystemTime) -> Result<String, String> {
    let text = |e: rcgen::Error| e.to_string();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    let serial = random_serial().ok_or("no randomness")?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, trust_domain);
    // Two roots of one mesh are told apart by name: by people, and by verifiers looking for the issuer.
    let tail: String = serial.to_bytes().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
    name.push(DnType::CommonName, format!("ieum root {tail}"));
    params.distinguished_name = name;
    params.serial_number = Some(serial);
    let end = now.checked_add(ROOT_LIFE).ok_or("the clock is off")?;
    // As leaves are backdated, so is what signs them.
    let start = now.checked_sub(DAY).ok_or("the clock is off")?;
    params.not_before = date(start, Round::Down).ok_or("the clock is off")?;
    params.not_after = date(end, Round::Up).ok_or("the clock is off")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(text)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

type Loaded = (Issuer<'static, KeyPair>, CertificateFacts, String);

fn load(content: &[u8], now: SystemTime) -> Result<Loaded, String> {
    let text = std::str::from_utf8(content).map_err(|_| "is not PEM text")?;
    let chain = certificate::parse_chain(content).map_err(|e| e.to_string())?;
    let [root] = chain.as_slice() else {
        return Err(format!("holds {} certificates instead of one", chain.len()));
    };
    let key_der = certificate::parse_key(content).map_err(|e| e.to_string())?;
    let key = KeyPair::try_from(&key_der).map_err(|e| format!("holds an unusable key: {e}"))?;
    let facts = certificate::facts(root).map_err(|e| e.to_string())?;
    check(root, &key)?;
    if facts.not_after <= now {
        return Err(format!("holds a root that expired {}", Rfc3339(facts.not_after)));
    }
    let issuer = Issuer::from_ca_cert_der(root, key).map_err(|e| format!("holds an unusable root: {e}"))?;
    let own_pem = certificate_section(text).ok_or("holds no certificate")?;
    Ok((issuer, facts, own_pem))
}

/// The certificate must be a CA's, and the key must be its key.
fn check(root: &CertificateDer<'_>, key: &KeyPair) -> Result<(), String> {
    let (_, parsed) = X509Certificate::from_der(root).map_err(|e| e.to_string())?;
    if !parsed.is_ca() {
        return Err("holds a certificate that is not a CA's".to_owned());
    }
    let certified: &[u8] = &parsed.public_key().subject_public_key.data;
    match certified == key.der_bytes() {
        true => Ok(()),
        false => Err("holds a key that is not the certificate's".to_owned()),
    }
}

fn certificate_section(text: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let start = text.find("-----BEGIN CERTIFICATE-----")?;
    let (_, from_start) = text.split_at_checked(start)?;
    let end = from_start.find(END)?.checked_add(END.len())?;
    Some(format!("{}\n", from_start.get(..end)?))
}

fn also_trusted(path: &Path) -> Result<String, RootError> {
    let fail = |reason| RootError::new(path, reason);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(fail(format!("cannot be read: {e}"))),
    };
    // It is sent to everyone, so a key in it would be a leak.
    if text.contains("PRIVATE KEY") {
        return Err(fail("holds a private key; only certificates belong here".to_owned()));
    }
    certificate::parse_chain(text.as_bytes()).map_err(|e| fail(e.to_string()))?;
    Ok(text)
}

fn directory_warning(dir: &Path) -> Option<String> {
    let mode = std::fs::metadata(dir).ok()?.permissions().mode();
    (mode & 0o022 != 0)
        .then(|| format!("CA directory `{}` can be written by others; make its mode 0700", dir.display()))
}

/// A root that cannot be used. Nothing on disk has been changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootError {
    path: PathBuf,
    reason: String,
}

impl RootError {
    fn new(path: &Path, reason: String) -> Self {
        Self { path: path.to_owned(), reason }
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CA file `{}`: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for RootError {}
