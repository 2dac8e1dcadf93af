//! What is looked at in a peer's certificate besides its issuer and its names: hashes that are asked for, and lists of
//! what was revoked.

use crate::certificate::fingerprint;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::tls::{CertificateDigest, KeyDigest, PeerChecks};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// What is asked of a certificate.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    keys: Vec<KeyDigest>,
    certificates: Vec<CertificateDigest>,
    /// Serial numbers that were revoked, by issuer, both as encoded.
    revoked: Option<HashMap<Vec<u8>, HashSet<Vec<u8>>>>,
}

impl Checks {
    /// The checks that `written` asks for, with the list of what was revoked in PEM.
    pub(crate) fn new(written: &PeerChecks, revoked: Option<&[u8]>) -> Result<Self, String> {
        Ok(Self {
            keys: written.keys.clone(),
            certificates: written.certificates.clone(),
            revoked: revoked.map(read_lists).transpose()?,
        })
    }

    /// Fails unless `leaf` is what is asked for.
    pub(crate) fn pass(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.keys.is_empty() && self.certificates.is_empty() && self.revoked.is_none() {
            return Ok(());
        }
        let (_, read) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let (key, hash) = (key_digest(&read), fingerprint(leaf));
        let is_pinned = self.keys.iter().any(|wanted| wanted.as_str() == key)
            || self.certificates.iter().any(|wanted| wanted.as_str() == hash);
        let is_asked = !self.keys.is_empty() || !self.certificates.is_empty();
        if is_asked && !is_pinned {
            return Err(refused("has neither a key nor a certificate of those asked for by their hash"));
        }
        let Some(lists) = &self.revoked else { return Ok(()) };
        match lists.get(read.issuer().as_raw()) {
            // As OpenSSL sees it: who asks for lists wants one that tells.
            None => Err(CertificateError::UnknownRevocationStatus.into()),
            Some(serials) if serials.contains(read.raw_serial()) => Err(CertificateError::Revoked.into()),
            Some(_) => Ok(()),
        }
    }
}

fn key_digest(certificate: &X509Certificate<'_>) -> String {
    STANDARD.encode(digest(&SHA256, certificate.public_key().raw))
}

fn read_lists(pem: &[u8]) -> Result<HashMap<Vec<u8>, HashSet<Vec<u8>>>, String> {
    let mut lists: HashMap<Vec<u8>, HashSet<Vec<u8>>> = HashMap::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "X509 CRL" {
            continue;
        }
        let (_, list) =
            CertificateRevocationList::from_der(&block.contents).map_err(|error| error.to_string())?;
        let serials = lists.entry(list.issuer().as_raw().to_vec()).or_default();
        serials.extend(list.iter_revoked_certificates().map(|one| one.raw_serial().to_vec()));
    }
    match lists.is_empty() {
        true => Err("it holds no list (`X509 CRL`)".to_owned()),
        false => Ok(lists),
    }
}

fn refused(reason: &'static str) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(reason)))))
}

#[derive(Debug)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

/// Takes any client's certificate, whoever signed it; that the client has its key is checked.
#[derive(Debug)]
pub(crate) struct AnyClient {
    pub(crate) mandatory: bool,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn certificate() -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages.push(rcgen::KeyUsagePurpose::CrlSign);
        params.serial_number = Some(7u64.into());
        (params.self_signed(&key).unwrap(), key)
    }

    #[test]
    fn one_of_the_hashes_that_are_asked_for_is_enough() {
        let (made, _) = certificate();
        let own = CertificateDigest::parse(&fingerprint(made.der())).unwrap();
        let key = key_digest(&X509Certificate::from_der(made.der()).unwrap().1);
        let (key, other) =
            (KeyDigest::parse(&key).unwrap(), KeyDigest::parse(&("A".repeat(43) + "=")).unwrap());
        let pass = |keys: &[&KeyDigest], certificates: &[&CertificateDigest]| {
            let (keys, certificates) = (keys.iter().copied().cloned(), certificates.iter().copied().cloned());
            let written = PeerChecks {
                keys: keys.collect(),
                certificates: certificates.collect(),
                ..PeerChecks::default()
            };
            Checks::new(&written, None).unwrap().pass(made.der()).is_ok()
        };
        assert!(pass(&[], &[]) && pass(&[&key], &[]) && pass(&[], &[&own]) && pass(&[&other], &[&own]));
        assert!(!pass(&[&other], &[]));
    }

    #[test]
    fn what_its_issuer_revoked_is_refused_and_so_is_what_no_list_tells_of() {
        let (made, key) = certificate();
        let list = |serial: u64| {
            let now = rcgen::date_time_ymd(2024, 1, 1);
            let params = rcgen::CertificateRevocationListParams {
                this_update: now,
                next_update: rcgen::date_time_ymd(2124, 1, 1),
                crl_number: 1u64.into(),
                issuing_distribution_point: None,
                revoked_certs: vec![rcgen::RevokedCertParams {
                    serial_number: serial.into(),
                    revocation_time: now,
                    reason_code: None,
                    invalidity_date: None,
                }],
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            let issuer = rcgen::Issuer::from_ca_cert_der(made.der(), &key).unwrap();
            params.signed_by(&issuer).unwrap().pem().unwrap()
        };
        let pass = |pem: &str, leaf: &CertificateDer<'_>| {
            Checks::new(&PeerChecks::default(), Some(pem.as_bytes())).unwrap().pass(leaf)
        };
        assert_eq!(pass(&list(8), made.der()), Ok(()));
        assert_eq!(pass(&list(7), made.der()), Err(CertificateError::Revoked.into()));
        let mut other = rcgen::CertificateParams::new(vec![]).unwrap();
        other.distinguished_name.push(rcgen::DnType::CommonName, "another");
        let other = other.self_signed(&key).unwrap();
        assert_eq!(pass(&list(8), other.der()), Err(CertificateError::UnknownRevocationStatus.into()));
        assert!(Checks::new(&PeerChecks::default(), Some(b"nothing")).is_err());
    }
}
