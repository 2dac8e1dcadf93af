//! TLS as a listener or a cluster asks for it, and the secrets it refers to by name.
//! Keys are carried here as PEM bytes; turning them into handshakes is `identity`'s work.

use crate::matcher::StringMatch;
use std::fmt;

/// Name of the secret that holds a workload's own certificate, by Istio's convention.
pub const WORKLOAD_CERTIFICATE: &str = "default";
/// Name of the secret that holds the mesh's trust bundle, by Istio's convention.
pub const WORKLOAD_TRUST_BUNDLE: &str = "ROOTCA";

/// A secret, delivered inline or over SDS (`envoy.extensions.transport_sockets.tls.v3.Secret`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The name it is asked for by; empty when inline.
    pub name: String,
    /// What it holds.
    pub content: SecretContent,
}

/// The content of a [`Secret`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretContent {
    /// A certificate chain and its key.
    Certificate(CertificatePair),
    /// Authorities to trust, as concatenated PEM certificates.
    TrustBundle(Vec<u8>),
}

/// A certificate chain, leaf first, with the leaf's private key; both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificatePair {
    /// PEM certificates, leaf first.
    pub chain_pem: Vec<u8>,
    /// PEM private key (PKCS#8, SEC1 or PKCS#1).
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for CertificatePair {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificatePair({} bytes of chain, key hidden)", self.chain_pem.len())
    }
}

/// Where a certificate or a trust bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource<T> {
    /// Given in the configuration itself.
    Inline(T),
    /// Asked for by this name over SDS.
    Sds(String),
}

/// The lowest and highest TLS version offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    /// Lowest accepted.
    pub min: TlsVersion,
    /// Highest accepted.
    pub max: TlsVersion,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self { min: TlsVersion::V1_2, max: TlsVersion::V1_3 }
    }
}

/// A TLS version this program speaks. Older ones are refused as configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// How the peer's certificate is judged (`CertificateValidationContext`).
#[derive(Debug, Clone, PartialEq)]
pub struct PeerValidation {
    /// The authorities that must have signed the peer's chain.
    pub trust: SecretSource<Vec<u8>>,
    /// When not empty, one of the peer's subject alternative names must match one of these.
    pub subject_alt_names: Vec<SanMatch>,
}

/// A subject alternative name that a peer may present.
#[derive(Debug, Clone, PartialEq)]
pub struct SanMatch {
    /// The kind of name looked at; `None` looks at every kind.
    pub kind: Option<SanKind>,
    /// What it must look like.
    pub matcher: StringMatch,
}

/// Kinds of subject alternative names (RFC 5280, 4.2.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    /// `dNSName`.
    Dns,
    /// `uniformResourceIdentifier`, where SPIFFE ids are.
    Uri,
    /// `iPAddress`.
    Ip,
    /// `rfc822Name`.
    Email,
}

/// TLS towards whoever connects to a listener (`DownstreamTlsContext`).
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTls {
    /// Certificates to present; the first whose names cover the client's SNI is used.
    pub certificates: Vec<SecretSource<CertificatePair>>,
    /// How client certificates are judged; `None` does not look at them.
    pub validation: Option<PeerValidation>,
    /// A client without a certificate is refused.
    pub require_client_certificate: bool,
    /// Protocols offered by ALPN, preferred first.
    pub alpn: Vec<String>,
    /// TLS versions offered.
    pub versions: TlsVersions,
    /// A client may take up an earlier session with a ticket.
    pub tickets: bool,
}

/// TLS towards a cluster's endpoints (`UpstreamTlsContext`).
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// The certificate presented when the server asks for one.
    pub certificate: Option<SecretSource<CertificatePair>>,
    /// How the server is judged; `None` accepts any certificate, as Envoy does.
    pub validation: Option<PeerValidation>,
    /// Server name sent; `None` sends none.
    pub sni: Option<String>,
    /// Protocols offered by ALPN, preferred first.
    pub alpn: Vec<String>,
    /// TLS versions offered.
    pub versions: TlsVersions,
}
