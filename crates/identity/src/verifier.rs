//! Judging a peer's certificate: chain against a trust bundle (rustls' webpki), then names against SAN matchers.
//!
//! Host names are never compared with the server name: in a mesh the endpoint's identity is given by the configuration
//! (Envoy's `match_typed_subject_alt_names`), and SPIFFE certificates have no host names. Every refusal is recorded with the
//! certificate's name, expiry and issuer.

use crate::certificate::{self, CertificateFacts, Rfc3339};
use crate::checks::Checks;
use crate::refusal;
use model::matcher::{StringMatch, StringMatchKind};
use model::tls::{SanKind, SanMatch};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, X509Name};

/// Judges servers. Without roots every certificate is accepted, as in Envoy; the handshake's signature is checked always.
#[derive(Debug)]
pub(crate) struct ServerJudge {
    pub(crate) roots: Option<Arc<RootCertStore>>,
    pub(crate) names: Vec<SanMatch>,
    pub(crate) checks: Checks,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerJudge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else {
            check_names(end_entity, &self.names)
                .and_then(|()| self.checks.pass(end_entity))
                .inspect_err(|error| explain(error, end_entity, &[], now))?;
            return Ok(ServerCertVerified::assertion());
        };
        ParsedCertificate::try_from(end_entity)
            .and_then(|leaf| {
                let algorithms = self.algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms)
            })
            .and_then(|()| check_names(end_entity, &self.names))
            .and_then(|()| self.checks.pass(end_entity))
            .inspect_err(|error| explain(error, end_entity, &roots.subjects(), now))?;
        Ok(ServerCertVerified::assertion())
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

/// Judges clients: the chain by `chain`, rustls' own verifier, then the names.
#[derive(Debug)]
pub(crate) struct ClientJudge {
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    pub(crate) names: Vec<SanMatch>,
    pub(crate) checks: Checks,
}

impl ClientCertVerifier for ClientJudge {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.chain
            .verify_client_cert(end_entity, intermediates, now)
            .and_then(|verified| check_names(end_entity, &self.names).map(|()| verified))
            .and_then(|verified| self.checks.pass(end_entity).map(|()| verified))
            .inspect_err(|error| explain(error, end_entity, self.root_hint_subjects(), now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Fails unless `expected` is empty or one of the certificate's names matches one of them.
fn check_names(certificate: &CertificateDer<'_>, expected: &[SanMatch]) -> Result<(), Error> {
    if expected.is_empty() {
        return Ok(());
    }
    // What cannot be read matches nothing.
    let facts = certificate::facts(certificate).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    match expected.iter().any(|want| matches_any_name(want, &facts)) {
        true => Ok(()),
        false => {
            let mismatch =
                NameMismatch { expected: expected.iter().map(describe).collect(), presented: names(&facts) };
            Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
        }
    }
}

fn matches_any_name(want: &SanMatch, facts: &CertificateFacts) -> bool {
    let wants = |kind| want.kind.is_none_or(|k| k == kind);
    let any = |names: &[String]| names.iter().any(|name| want.matcher.matches(name.as_bytes()));
    (wants(SanKind::Uri) && any(&facts.uri_sans))
        || (wants(SanKind::Dns) && facts.dns_sans.iter().any(|dns| matches_dns(&want.matcher, dns)))
        || (wants(SanKind::Ip)
            && facts.ip_sans.iter().any(|ip| want.matcher.matches(ip.to_string().as_bytes())))
        || (wants(SanKind::Email) && any(&facts.email_sans))
}

/// A host name asked for exactly may also be covered by a wildcard name in the certificate (RFC 6125, 6.4.3).
fn matches_dns(matcher: &StringMatch, presented: &str) -> bool {
    match &matcher.kind {
        StringMatchKind::Exact(host) => dns_name_covers(presented, host),
        _ => matcher.matches(presented.as_bytes()),
    }
}

/// Whether the `dNSName` `presented` is `host`, or a wildcard for `host`'s first label. Case does not matter.
pub(crate) fn dns_name_covers(presented: &str, host: &str) -> bool {
    match presented.strip_prefix("*.") {
        None => presented.eq_ignore_ascii_case(host),
        Some(suffix) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix)),
    }
}

/// The peer is none of those it may be.
#[derive(Debug)]
struct NameMismatch {
    expected: Vec<String>,
    presented: Vec<String>,
}

impl fmt::Display for NameMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = shorten(&self.expected, " or ");
        match self.presented.as_slice() {
            [] => write!(f, "has no names, expected {expected}"),
            names => write!(f, "names {}, expected {expected}", shorten(names, ", ")),
        }
    }
}

impl std::error::Error for NameMismatch {}

/// At most five of `items`: lists in a configuration can be long, log lines should not be.
fn shorten(items: &[String], separator: &str) -> String {
    let shown: Vec<&str> = items.iter().take(5).map(String::as_str).collect();
    let more = items.len().saturating_sub(shown.len());
    match more {
        0 => shown.join(separator),
        _ => format!("{}{separator}{more} more", shown.join(separator)),
    }
}

fn names(facts: &CertificateFacts) -> Vec<String> {
    let texts = facts.uri_sans.iter().chain(&facts.dns_sans).chain(&facts.email_sans);
    let texts = texts.map(|name| format!("`{}`", name.escape_debug()));
    texts.chain(facts.ip_sans.iter().map(|ip| format!("`{ip}`"))).collect()
}

fn describe(want: &SanMatch) -> String {
    let kind = match want.kind {
        None => "",
        Some(SanKind::Dns) => "DNS ",
        Some(SanKind::Uri) => "URI ",
        Some(SanKind::Ip) => "IP ",
        Some(SanKind::Email) => "email ",
    };
    match &want.matcher.kind {
        StringMatchKind::Exact(s) => format!("{kind}`{s}`"),
        StringMatchKind::Prefix(s) => format!("{kind}`{s}…`"),
        StringMatchKind::Suffix(s) => format!("{kind}`…{s}`"),
        StringMatchKind::Contains(s) => format!("{kind}`…{s}…`"),
        StringMatchKind::Regex(p) => format!("{kind}/{}/", p.source()),
    }
}

/// Records in one sentence which certificate was refused and why.
fn explain(error: &Error, certificate: &CertificateDer<'_>, roots: &[DistinguishedName], now: UnixTime) {
    let Ok(facts) = certificate::facts(certificate) else {
        return refusal::record(error, "the peer's certificate is not readable".to_owned());
    };
    let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let reason = match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            match now.duration_since(facts.not_after) {
                Ok(ago) => format!("expired {} s ago", ago.as_secs()),
                // The leaf itself is current, so a certificate between it and the root is not.
                Err(_) => "has an expired certificate in its chain".to_owned(),
            }
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            format!("is not valid before {} (now {})", Rfc3339(facts.not_before), Rfc3339(now))
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("was issued by an authority that is not trusted here (trusted: {})", root_names(roots))
        }
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => other.to_string(),
        other => other.to_string(),
    };
    refusal::record(error, format!("the peer's {facts} {reason}"));
}

fn root_names(roots: &[DistinguishedName]) -> String {
    let name = |dn: &DistinguishedName| {
        X509Name::from_der(dn.as_ref()).map_or("unreadable".to_owned(), |(_, n)| format!("`{n}`"))
    };
    shorten(&roots.iter().map(name).collect::<Vec<_>>(), ", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(dns_name_covers("*.Example.com", "a.example.com"));
        assert!(!dns_name_covers("*.example.com", "example.com"));
        assert!(!dns_name_covers("*.example.com", "a.b.example.com"));
        assert!(!dns_name_covers("*.example.com", ".example.com"));
        assert!(dns_name_covers("a.example.com", "A.example.com"));
    }

    #[test]
    fn a_name_of_another_kind_does_not_match() {
        let facts = CertificateFacts {
            spiffe: None,
            uri_sans: vec!["reviews".to_owned()],
            dns_sans: vec![],
            ip_sans: vec![],
            email_sans: vec![],
            subject: String::new(),
            issuer: String::new(),
            serial: String::new(),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH,
        };
        let want = |kind| SanMatch { kind, matcher: StringMatch::exact("reviews") };
        assert!(!matches_any_name(&want(Some(SanKind::Dns)), &facts));
        assert!(matches_any_name(&want(Some(SanKind::Uri)), &facts));
        assert!(matches_any_name(&want(None), &facts));
    }
}
