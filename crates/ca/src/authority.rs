//! The signing key: made at the first start, kept on disk, used to sign leaves that name exactly one identity.
//!
//! It signs for whoever its caller names; proving who asks is `service`'s work. Time is an argument.

use crate::request::{CertificateRequest, RequestError};
use crate::root::{self, Root};
use crate::stamp::{Round, date, random_serial};
use identity::spiffe::SpiffeId;
use model::tls::CertificatePair;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use crate::root::RootError;

/// How far `not_before` lies in the past, for peers whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// A certificate authority of one trust domain.
pub struct Authority {
    root: Root,
    trust_domain: String,
}

impl fmt::Debug for Authority {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, key hidden)", self.trust_domain)
    }
}

impl Authority {
    /// Opens the authority kept in `dir`, making its root (ECDSA P-256, ten years) if there is none. What is there and
    /// cannot be used is an error and stays untouched. Blocking.
    ///
    /// PEM certificates in `dir/also-trusted.pem` are handed out as roots too: the next one or the previous one, during a
    /// root change.
    pub fn open(dir: &Path, trust_domain: &str, now: SystemTime) -> Result<Self, RootError> {
        let root = root::open(dir, trust_domain, now)?;
        Ok(Self { root, trust_domain: trust_domain.to_owned() })
    }

    /// The trust domain whose identities are signed.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What peers are to trust, as concatenated PEM: our root first.
    pub fn roots_pem(&self) -> &str {
        &self.root.trusted_pem
    }

    /// What was odd when the authority was opened, for the log.
    pub fn warnings(&self) -> &[String] {
        &self.root.warnings
    }

    /// Certifies the key of a PEM request for `identity`. Returns the leaf, then the roots, as `CreateCertificate` answers.
    ///
    /// `lifetime` is counted from `now`; the root's own end comes first.
    pub fn sign(
        &self,
        csr_pem: &str,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, AuthorityError> {
        let request = CertificateRequest::parse(csr_pem).map_err(AuthorityError::Request)?;
        self.sign_request(&request, identity, lifetime, now)
    }

    /// [`Authority::sign`] for a request already read.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, AuthorityError> {
        let params = self.leaf(identity, lifetime, now)?;
        let leaf = self.certify(&params, request.public_key(), identity)?;
        Ok(vec![leaf, self.root.trusted_pem.clone()])
    }

    /// Makes a key and its certificate, for proxies that cannot make their own (stock Envoy over SDS).
    pub fn issue(
        &self,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificatePair, AuthorityError> {
        self.control_plane_certificate(identity, &[], lifetime, now)
    }

    /// Makes a key and a certificate that also carries host names or IP addresses: what the control plane serves with.
    pub fn control_plane_certificate(
        &self,
        identity: &SpiffeId,
        names: &[&str],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificatePair, AuthorityError> {
        let mut params = self.leaf(identity, lifetime, now)?;
        for name in names {
            let san = match name.parse::<IpAddr>() {
                Ok(ip) => Ok(SanType::IpAddress(ip)),
                Err(_) => (*name).try_into().map(SanType::DnsName),
            };
            params.subject_alt_names.push(san.map_err(|e| AuthorityError::signing(identity, &e))?);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|e| AuthorityError::signing(identity, &e))?;
        let chain_pem = self.certify(&params, &key, identity)?.into_bytes();
        Ok(CertificatePair { chain_pem, key_pem: key.serialize_pem().into_bytes() })
    }

    fn certify(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
        identity: &SpiffeId,
    ) -> Result<String, AuthorityError> {
        let leaf =
            params.signed_by(key, &self.root.issuer).map_err(|e| AuthorityError::signing(identity, &e))?;
        Ok(leaf.pem())
    }

    /// An X509-SVID: no subject, hence a critical SAN, which names the identity and nothing else.
    fn leaf(
        &self,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificateParams, AuthorityError> {
        if identity.trust_domain() != self.trust_domain {
            let trust_domain = self.trust_domain.clone();
            return Err(AuthorityError::ForeignIdentity { identity: identity.clone(), trust_domain });
        }
        if now >= self.root.not_after {
            return Err(AuthorityError::signing(identity, &"our root has expired"));
        }
        let end = now.checked_add(lifetime).unwrap_or(self.root.not_after).min(self.root.not_after);
        let start = now.checked_sub(BACKDATED).unwrap_or(UNIX_EPOCH);
        let dates = date(start, Round::Down).zip(date(end, Round::Up));
        let (not_before, not_after) =
            dates.ok_or_else(|| AuthorityError::signing(identity, &"the clock is off"))?;
        let uri = identity.to_string().try_into().map_err(|e| AuthorityError::signing(identity, &e))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri)];
        (params.not_before, params.not_after) = (not_before, not_after);
        params.serial_number =
            Some(random_serial().ok_or_else(|| AuthorityError::signing(identity, &"no randomness"))?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorityError {
    /// The request is not acceptable.
    Request(RequestError),
    /// The identity belongs to someone else's trust domain.
    ForeignIdentity {
        /// As asked.
        identity: SpiffeId,
        /// Ours.
        trust_domain: String,
    },
    /// Signing itself failed.
    Signing {
        /// For whom.
        identity: SpiffeId,
        /// Why.
        reason: String,
    },
}

impl AuthorityError {
    fn signing(identity: &SpiffeId, reason: &dyn fmt::Display) -> Self {
        Self::Signing { identity: identity.clone(), reason: reason.to_string() }
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => write!(f, "{error}"),
            Self::ForeignIdentity { identity, trust_domain } => {
                write!(f, "identity `{identity}` is not of our trust domain `{trust_domain}`")
            }
            Self::Signing { identity, reason } => {
                write!(f, "certificate for `{identity}` cannot be made: {reason}")
            }
        }
    }
}

impl std::error::Error for AuthorityError {}
