//! Secrets for proxies that cannot ask the certificate authority themselves: their certificate `default`, for whom they
//! proved to be and nobody else, and the trust bundle `ROOTCA`, which is public.

use crate::generation::version_of;
use ca::authority::{Authority, AuthorityError};
use identity::certificate::{CertificateError, facts, parse_chain};
use identity::rotation::Rotation;
use identity::spiffe::SpiffeId;
use model::tls::{Secret, SecretContent, WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use xds::codec::type_url::SECRET;
use xds::resources::VersionedResource;

/// Issues certificates for SDS.
pub(crate) struct SecretIssuer {
    authority: Arc<Authority>,
    lifetime: Duration,
}

/// A certificate as it is sent, and when to replace it.
pub(crate) struct IssuedSecret {
    /// The secret.
    pub(crate) resource: VersionedResource,
    /// When to replace it.
    pub(crate) rotation: Rotation,
}

impl SecretIssuer {
    /// Issues certificates of `lifetime`.
    pub(crate) fn new(authority: Arc<Authority>, lifetime: Duration) -> Self {
        Self { authority, lifetime }
    }

    /// A new key and its certificate for `identity`.
    pub(crate) fn issue(
        &self,
        identity: &SpiffeId,
        now: SystemTime,
        entropy: u64,
    ) -> Result<IssuedSecret, IssueError> {
        let pair = self.authority.issue(identity, self.lifetime, now).map_err(IssueError::Authority)?;
        let chain = parse_chain(&pair.chain_pem).map_err(IssueError::Certificate)?;
        let leaf = chain.first().ok_or(IssueError::Certificate(CertificateError::Empty))?;
        let not_after = facts(leaf).map_err(IssueError::Certificate)?.not_after;
        let secret =
            Secret { name: WORKLOAD_CERTIFICATE.to_owned(), content: SecretContent::Certificate(pair) };
        Ok(IssuedSecret { resource: encode(&secret), rotation: Rotation::new(now, not_after, entropy) })
    }

    /// The trust bundle.
    pub(crate) fn trust_bundle(&self) -> VersionedResource {
        let roots = self.authority.roots_pem().as_bytes().to_vec();
        encode(&Secret { name: WORKLOAD_TRUST_BUNDLE.to_owned(), content: SecretContent::TrustBundle(roots) })
    }
}

fn encode(secret: &Secret) -> VersionedResource {
    let body = xds::codec::encode_secret(secret);
    VersionedResource::new(SECRET, &secret.name, &version_of(&body), &body)
}

/// Why no certificate was issued.
#[derive(Debug)]
pub(crate) enum IssueError {
    /// The authority does not sign it.
    Authority(AuthorityError),
    /// What it signed cannot be read.
    Certificate(CertificateError),
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(error) => error.fmt(f),
            Self::Certificate(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for IssueError {}
