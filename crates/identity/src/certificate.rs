//! Reading certificates and keys: PEM into what rustls wants, and the facts of one certificate that people and
//! policies ask about. It judges nothing; that is `verifier`'s work.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most certificates read from one PEM text; beyond it the text is refused.
const MAX_CERTIFICATES: usize = 1000;

/// What a certificate says about its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The SPIFFE id, when there is exactly one URI name and it begins with `spiffe://` (X509-SVID 2).
    pub spiffe: Option<String>,
    /// All `uniformResourceIdentifier` names.
    pub uri_sans: Vec<String>,
    /// All `dNSName` names, as written.
    pub dns_sans: Vec<String>,
    /// All `iPAddress` names.
    pub ip_sans: Vec<IpAddr>,
    /// All `rfc822Name` names.
    pub email_sans: Vec<String>,
    /// The subject's distinguished name, empty for most SVIDs.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number in hex with colons.
    pub serial: String,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
}

impl CertificateFacts {
    /// What to call the certificate: its SPIFFE id, else its first name, else its subject, else its serial number.
    pub fn name(&self) -> &str {
        let names = [self.spiffe.as_deref(), self.uri_sans.first().map(String::as_str)];
        let names = names.into_iter().chain([self.dns_sans.first().map(String::as_str), Some(&self.subject)]);
        names.flatten().find(|n| !n.is_empty()).unwrap_or(&self.serial)
    }
}

impl fmt::Display for CertificateFacts {
    /// Names the certificate, its expiry and its issuer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "certificate `{}` (expires {}, issued by `{}`)",
            self.name().escape_debug(),
            Rfc3339(self.not_after),
            self.issuer.escape_debug()
        )
    }
}

/// A time printed as RFC 3339 in UTC, to the second.
pub struct Rfc3339(pub SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = match self.0.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
        };
        let text = time::OffsetDateTime::from_unix_timestamp(seconds)
            .ok()
            .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("at an unprintable time"))
    }
}

/// The certificates of a PEM text, in order; other PEM sections are passed over.
pub fn parse_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        if chain.len() == MAX_CERTIFICATES {
            return Err(CertificateError::TooMany);
        }
        let at = chain.len();
        chain.push(certificate.map_err(|e| CertificateError::Pem { at, reason: e.to_string() })?);
    }
    match chain.is_empty() {
        true => Err(CertificateError::Empty),
        false => Ok(chain),
    }
}

/// The first private key of a PEM text (PKCS#8, SEC1 or PKCS#1).
pub fn parse_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| CertificateError::Key { reason: e.to_string() })
}

/// Reads one certificate. Never panics, whatever the bytes.
pub fn facts(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, CertificateError> {
    let malformed = |reason: String| CertificateError::Malformed { reason };
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|e| malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes after its end", rest.len())));
    }
    let mut facts = CertificateFacts {
        spiffe: None,
        uri_sans: Vec::new(),
        dns_sans: Vec::new(),
        ip_sans: Vec::new(),
        email_sans: Vec::new(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: parsed.raw_serial_as_string(),
        not_before: system_time(parsed.validity().not_before.timestamp()),
        not_after: system_time(parsed.validity().not_after.timestamp()),
    };
    let names = parsed.subject_alternative_name().map_err(|e| malformed(e.to_string()))?;
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(uri) => facts.uri_sans.push((*uri).to_owned()),
            GeneralName::DNSName(dns) => facts.dns_sans.push((*dns).to_owned()),
            GeneralName::RFC822Name(email) => facts.email_sans.push((*email).to_owned()),
            GeneralName::IPAddress(bytes) => facts.ip_sans.extend(ip_address(bytes)),
            _ => {}
        }
    }
    if let [only] = facts.uri_sans.as_slice()
        && only.starts_with("spiffe://")
    {
        facts.spiffe = Some(only.clone());
    }
    Ok(facts)
}

/// The facts of the peer's leaf, from the chain a finished handshake yields. `None` without a readable certificate.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Option<CertificateFacts> {
    facts(chain.first()?).ok()
}

/// The SHA-256 of a certificate in lower-case hex.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn system_time(unix_s: i64) -> SystemTime {
    let distance = Duration::from_secs(unix_s.unsigned_abs());
    let time = if unix_s < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// A certificate or key that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// The PEM text holds no certificate.
    Empty,
    /// The PEM text holds more certificates than are read.
    TooMany,
    /// The PEM text is broken at the certificate with this index, counted from 0.
    Pem {
        /// Index of the certificate.
        at: usize,
        /// What the PEM reader says.
        reason: String,
    },
    /// The PEM text holds no usable private key.
    Key {
        /// What the PEM reader says; never holds key bytes.
        reason: String,
    },
    /// The DER is not a certificate.
    Malformed {
        /// What the X.509 reader says.
        reason: String,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "no PEM certificate found"),
            Self::TooMany => write!(f, "more than {MAX_CERTIFICATES} certificates"),
            Self::Pem { at, reason } => write!(f, "certificate {at} is not readable PEM: {reason}"),
            Self::Key { reason } => write!(f, "no readable PEM private key: {reason}"),
            Self::Malformed { reason } => write!(f, "not an X.509 certificate: {reason}"),
        }
    }
}

impl std::error::Error for CertificateError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    fn sample(uris: &[&str]) -> CertificateDer<'static> {
        let mut params =
            CertificateParams::new(vec!["web.example".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())));
        params.not_after = date_time_ymd(2031, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn facts_name_the_certificate_its_expiry_and_its_issuer() {
        let facts = facts(&sample(&["spiffe://td/ns/a/sa/b"])).unwrap();
        assert_eq!(
            facts.to_string(),
            "certificate `spiffe://td/ns/a/sa/b` (expires 2031-02-03T00:00:00Z, issued by `CN=rcgen self signed cert`)"
        );
        assert_eq!(facts.dns_sans, ["web.example"]);
        assert_eq!(facts.ip_sans, [IpAddr::from([127, 0, 0, 1])]);
    }

    #[test]
    fn two_uris_make_no_spiffe_id() {
        let facts = facts(&sample(&["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c"])).unwrap();
        assert_eq!((facts.spiffe, facts.uri_sans.len()), (None, 2));
    }

    #[test]
    fn a_text_without_certificates_is_an_error() {
        assert_eq!(parse_chain(b"hello"), Err(CertificateError::Empty));
        assert!(matches!(parse_key(b"hello"), Err(CertificateError::Key { .. })));
        let broken = b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(parse_chain(broken), Err(CertificateError::Pem { at: 0, .. })));
    }

    proptest! {
        #[test]
        fn no_mutation_of_a_certificate_makes_the_reader_panic(at in 0usize..400, value: u8, keep in 0usize..600) {
            let mut bytes = sample(&["spiffe://td/ns/a/sa/b"]).to_vec();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(keep.max(1));
            let _ = facts(&CertificateDer::from(bytes)).map(|f| f.to_string());
        }
    }
}
