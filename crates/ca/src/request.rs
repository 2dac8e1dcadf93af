//! A certificate request as far as it is believed: the public key, and that whoever asks holds the private one.
//! Subject, names and extensions that a request wishes for are not even read.

use aws_lc_rs::digest;
use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// Longest PEM request looked at, in bytes.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// Shortest RSA key certified, in bits.
const MIN_RSA_BITS: usize = 2048;
/// `prime256v1`, `secp384r1` (RFC 5480, 2.1.1.1) and `id-Ed25519` (RFC 8410, 3).
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ED25519: &str = "1.3.101.112";

/// A request whose signature has been checked.
#[derive(Debug)]
pub struct CertificateRequest {
    public_key: SubjectPublicKeyInfo,
    fingerprint: [u8; 32],
}

impl CertificateRequest {
    /// Reads a PKCS#10 request in PEM; the first one counts.
    pub fn parse(csr_pem: &str) -> Result<Self, RequestError> {
        if csr_pem.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLong { bytes: csr_pem.len() });
        }
        let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
            .map_err(|e| RequestError::Malformed { reason: e.to_string() })?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|e| RequestError::Malformed { reason: e.to_string() })?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed { reason: format!("{} bytes after its end", rest.len()) });
        }
        let key = &request.certification_request_info.subject_pki;
        if !is_accepted(key) {
            return Err(RequestError::Key);
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let public_key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::Key)?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, key.raw).as_ref());
        Ok(Self { public_key, fingerprint })
    }

    /// The key to certify.
    pub(crate) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }

    /// SHA-256 of the key, to recognise it by.
    pub fn key_fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

fn is_accepted(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> bool {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => rsa.key_size() >= MIN_RSA_BITS,
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
            curve.is_some_and(|oid| matches!(oid.to_id_string().as_str(), P256 | P384))
        }
        _ => key.algorithm.algorithm.to_id_string() == ED25519,
    }
}

/// A request that is not considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// Longer than any honest request.
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not a PKCS#10 request in PEM.
    Malformed {
        /// What the reader says.
        reason: String,
    },
    /// Not a key this CA certifies.
    Key,
    /// Not signed by the key it asks to certify.
    Signature,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "certificate request has {bytes} bytes, at most {MAX_REQUEST_BYTES} are read")
            }
            Self::Malformed { reason } => write!(f, "certificate request is not PKCS#10 in PEM: {reason}"),
            Self::Key => {
                write!(
                    f,
                    "certificate request has a key other than EC P-256, EC P-384, Ed25519 or RSA of 2048 bits and more"
                )
            }
            Self::Signature => write!(f, "certificate request is not signed by its own key"),
        }
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    fn request_of(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn keys_of_the_accepted_kinds_are_accepted() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            CertificateRequest::parse(&request_of(&key)).unwrap();
        }
        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        CertificateRequest::parse(&request_of(&rsa)).unwrap();
    }

    #[test]
    fn a_curve_outside_the_list_is_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        assert_eq!(CertificateRequest::parse(&request_of(&key)).unwrap_err(), RequestError::Key);
    }

    #[test]
    fn a_request_changed_after_signing_is_refused() {
        let pem = request_of(&KeyPair::generate().unwrap());
        let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        // The subject's text: "rcgen self signed cert".
        let at = der.windows(5).position(|w| w == b"rcgen").unwrap();
        der[at] = b'R';
        assert_eq!(CertificateRequest::parse(&pem_of(&der)).unwrap_err(), RequestError::Signature);
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        for text in
            ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
        {
            assert!(matches!(CertificateRequest::parse(text), Err(RequestError::Malformed { .. })), "{text}");
        }
        let long = "x".repeat(MAX_REQUEST_BYTES + 1);
        assert!(matches!(CertificateRequest::parse(&long), Err(RequestError::TooLong { .. })));
    }

    fn pem_of(der: &[u8]) -> String {
        use std::io::Write;
        let mut encoder = std::process::Command::new("openssl")
            .args(["req", "-inform", "DER", "-outform", "PEM"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        encoder.stdin.take().unwrap().write_all(der).unwrap();
        String::from_utf8(encoder.wait_with_output().unwrap().stdout).unwrap()
    }
}
