//! TLS as a listener or a cluster asks for it, and the secrets it refers to by name.
//! Keys are carried here as PEM bytes; turning them into handshakes is `identity`'s work.

use crate::matcher::StringMatch;
use std::fmt;
use std::sync::Arc;

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
    /// Read from files of the proxy's own machine.
    Files(SecretFiles),
}

/// Files with a secret, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFiles {
    /// Path of the certificates.
    pub certificates: String,
    /// Path of the leaf's private key; empty where there is none to have.
    pub key: String,
}

/// The lowest and highest TLS version offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    /// Lowest accepted.
    pub min: TlsVersion,
    /// Highest accepted.
    pub max: TlsVersion,
    /// What may be chosen in TLS 1.2.
    pub ciphers: CipherSuites,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self { min: TlsVersion::V1_2, max: TlsVersion::V1_3, ciphers: CipherSuites::ALL }
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

/// Cipher suites of TLS 1.2. Those of TLS 1.3 are always offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CipherSuites(u8);

impl CipherSuites {
    /// Every suite that this program knows, by OpenSSL's names.
    pub const NAMES: [&'static str; 6] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ];
    /// All of them.
    pub const ALL: Self = Self(0b11_1111);

    /// Those of these names that there are; `None` when there is none of them.
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        let bit = |name: &str| Self::NAMES.iter().position(|known| *known == name).map(|at| 1 << at);
        let bits = names.into_iter().filter_map(bit).fold(0, |all, bit: u8| all | bit);
        (bits != 0).then_some(Self(bits))
    }

    /// The names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(at, _)| self.0 & (1 << at) != 0)
            .map(|(_, name)| name)
    }
}

impl Default for CipherSuites {
    fn default() -> Self {
        Self::ALL
    }
}

/// How the peer's certificate is judged (`CertificateValidationContext`).
#[derive(Debug, Clone, PartialEq)]
pub struct PeerValidation {
    /// The authorities that must have signed the peer's chain.
    pub trust: SecretSource<Vec<u8>>,
    /// When not empty, one of the peer's subject alternative names must match one of these.
    pub subject_alt_names: Vec<SanMatch>,
    /// What else is looked at.
    pub checks: PeerChecks,
}

/// What is looked at besides a certificate's issuer and names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerChecks {
    /// Whoever signed it, and if nobody did: the issuer is not looked at (`ACCEPT_UNTRUSTED`).
    pub any_signer: bool,
    /// When this or [`certificates`](Self::certificates) is not empty: one of these has to be the SHA-256 of its public key.
    pub keys: Vec<KeyDigest>,
    /// Or one of these that of the certificate.
    pub certificates: Vec<CertificateDigest>,
    /// Lists of what its issuers have revoked, in PEM; there has to be one of the leaf's issuer.
    pub revoked: Option<SecretSource<Vec<u8>>>,
}

/// The SHA-256 of a public key (`SubjectPublicKeyInfo`), in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDigest(String);

impl KeyDigest {
    /// Reads one; `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('=')?;
        let is_digit = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
        (digits.len() == 43 && digits.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The SHA-256 of a certificate (DER), in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateDigest(String);

impl CertificateDigest {
    /// Reads one, with colons or without; `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let hex: String = text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
        (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(Self(hex))
    }

    /// In hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
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
    pub validation: Option<Arc<PeerValidation>>,
    /// Server name sent; `None` sends none.
    pub sni: Option<String>,
    /// Protocols offered by ALPN, preferred first.
    pub alpn: Vec<String>,
    /// TLS versions offered.
    pub versions: TlsVersions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_in_the_forms_that_openssl_prints() {
        let hex = "DF:6F:".to_owned() + &"a0".repeat(30);
        assert_eq!(
            CertificateDigest::parse(&hex).as_ref().map(CertificateDigest::as_str).map(str::len),
            Some(64)
        );
        assert!(
            CertificateDigest::parse("df6f").is_none() && CertificateDigest::parse(&"g".repeat(64)).is_none()
        );
        let base64 = "A".repeat(43) + "=";
        assert!(KeyDigest::parse(&base64).is_some() && KeyDigest::parse(&hex).is_none());
    }

    #[test]
    fn cipher_suites_that_nobody_has_are_none() {
        let some = CipherSuites::named(["AES128-SHA", "ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(some.map(|s| s.names().collect()), Some(vec!["ECDHE-RSA-AES128-GCM-SHA256"]));
        assert_eq!(CipherSuites::named(["AES128-SHA"]), None);
        assert_eq!(CipherSuites::named(CipherSuites::NAMES), Some(CipherSuites::ALL));
    }
}
