//! From TLS as the configuration asks for it to what rustls runs: one [`ServerConfig`] per listener chain, one
//! [`ClientConfig`] per cluster, built again whenever a secret they name changes.
//!
//! Sessions are resumed by tickets encrypted with a key of the one configuration, so that a session made under one trust
//! bundle is never resumed under another and an idle session costs the server no memory.

use crate::certificate::{self, CertificateError, CertificateFacts};
use crate::checks::{AnyClient, Checks};
use crate::sni::CertificateChoice;
use crate::verifier::{ClientJudge, ServerJudge};
use model::tls::{
    CertificatePair, CipherSuites, DownstreamTls, PeerChecks, PeerValidation, Secret, SecretContent,
    SecretSource, TlsVersion, TlsVersions, UpstreamTls,
};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::ticketer::TicketRotator;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{ServerName, UnixTime};
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Finds a secret by its SDS name.
pub type SecretLookup<'a> = dyn Fn(&str) -> Option<&'a Secret> + 'a;

/// How long one ticket key encrypts, in seconds. A ticket lives at most twice as long, so this also bounds how long a
/// client whose certificate has expired can resume.
const TICKET_KEY_LIFETIME_S: u32 = 1800;
/// Sessions a client keeps per cluster.
const CLIENT_SESSIONS: usize = 8;
/// Stands in for the server name where none is sent; reserved by RFC 6761, so nobody has it.
const UNNAMED_SERVER: &str = "unnamed.invalid";

/// What a listener presents and accepts.
pub fn server_config(
    tls: &DownstreamTls,
    secrets: &SecretLookup<'_>,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let mut keys = Vec::with_capacity(tls.certificates.len());
    for source in &tls.certificates {
        keys.push(certified_key(source, secrets)?);
    }
    let mut keys = keys.into_iter();
    let first = keys.next().ok_or(TlsConfigError::NoServerCertificate)?;
    let choice = CertificateChoice::new(first, keys.collect())
        .map_err(|error| TlsConfigError::Certificate { object: "server certificate".to_owned(), error })?;
    let mut config = ServerConfig::builder_with_provider(provider_with(tls.versions.ciphers))
        .with_protocol_versions(&versions(tls.versions)?)
        .map_err(TlsConfigError::Rustls)?
        .with_client_cert_verifier(client_verifier(tls, secrets)?)
        .with_cert_resolver(Arc::new(choice));
    config.alpn_protocols = alpn(&tls.alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = usize::from(tls.tickets);
    if tls.tickets {
        let tickets =
            TicketRotator::new(TICKET_KEY_LIFETIME_S, ticket_key).map_err(TlsConfigError::Rustls)?;
        config.ticketer = Arc::new(tickets);
    }
    Ok(Arc::new(config))
}

/// What a cluster presents and accepts. Pass [`server_name`] of the same `sni` when connecting.
pub fn client_config(
    tls: &UpstreamTls,
    secrets: &SecretLookup<'_>,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    server_name(tls.sni.as_deref())?;
    let judged = tls.validation.as_ref();
    let judge = ServerJudge {
        roots: judged.filter(|v| !v.checks.any_signer).map(|v| trust(v, secrets)).transpose()?,
        checks: judged.map(|v| checks(v, secrets)).transpose()?.unwrap_or_default(),
        names: tls.validation.as_ref().map(|v| v.subject_alt_names.clone()).unwrap_or_default(),
        algorithms: provider().signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider_with(tls.versions.ciphers))
        .with_protocol_versions(&versions(tls.versions)?)
        .map_err(TlsConfigError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(source) => {
            let key = certified_key(source, secrets)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&key))))
        }
    };
    config.alpn_protocols = alpn(&tls.alpn);
    config.enable_sni = tls.sni.is_some();
    config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
    Ok(Arc::new(config))
}

/// The name rustls wants for a connection, also where none is sent.
pub fn server_name(sni: Option<&str>) -> Result<ServerName<'static>, TlsConfigError> {
    let name = sni.unwrap_or(UNNAMED_SERVER);
    match ServerName::try_from(name.to_owned()) {
        Ok(parsed) => Ok(parsed),
        Err(_) => Err(TlsConfigError::ServerName { name: name.to_owned() }),
    }
}

/// Checks that key, chain and roots belong together and are valid at `now`; returns the leaf's facts or a sentence.
pub(crate) fn check_identity(
    pair: &CertificatePair,
    roots_pem: &[u8],
    now: SystemTime,
) -> Result<CertificateFacts, String> {
    let sentence = |error: TlsConfigError| error.to_string();
    let key = certified_key(&SecretSource::Inline(pair.clone()), &|_| None).map_err(sentence)?;
    let validation = PeerValidation {
        trust: SecretSource::Inline(roots_pem.to_vec()),
        subject_alt_names: Vec::new(),
        checks: PeerChecks::default(),
    };
    let roots = trust(&validation, &|_| None).map_err(sentence)?;
    let (leaf, intermediates) = key.cert.split_first().ok_or_else(|| CertificateError::Empty.to_string())?;
    let facts = certificate::facts(leaf).map_err(|e| e.to_string())?;
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let algorithms = provider().signature_verification_algorithms.all;
    ParsedCertificate::try_from(leaf)
        .and_then(|leaf| {
            let now = UnixTime::since_unix_epoch(since_epoch);
            verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms)
        })
        .map_err(|error| format!("{facts}: {error}"))?;
    Ok(facts)
}

/// The one crypto provider, with P-256 as the first key exchange.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
        let kx_groups = vec![SECP256R1, X25519, SECP384R1, X25519MLKEM768];
        Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
    })
}

/// The provider with no more than these suites in TLS 1.2.
fn provider_with(ciphers: CipherSuites) -> Arc<CryptoProvider> {
    use rustls::CipherSuite as Known;
    if ciphers == CipherSuites::ALL {
        return provider().clone();
    }
    let name = |suite: Known| match suite {
        Known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        Known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        Known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        Known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        Known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        Known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    };
    let mut provider = CryptoProvider::clone(provider());
    let is_wanted = |suite| ciphers.names().any(|wanted| wanted == name(suite));
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || is_wanted(suite.suite()));
    Arc::new(provider)
}

fn versions(versions: TlsVersions) -> Result<Vec<&'static SupportedProtocolVersion>, TlsConfigError> {
    let known = [(TlsVersion::V1_3, &rustls::version::TLS13), (TlsVersion::V1_2, &rustls::version::TLS12)];
    let wanted = versions.min..=versions.max;
    let offered: Vec<_> =
        known.iter().filter(|(v, _)| wanted.contains(v)).map(|(_, version)| *version).collect();
    match offered.is_empty() {
        true => Err(TlsConfigError::NoVersion),
        false => Ok(offered),
    }
}

fn alpn(protocols: &[String]) -> Vec<Vec<u8>> {
    protocols.iter().map(|p| p.clone().into_bytes()).collect()
}

/// A ticket key on its own; [`TicketRotator`] replaces it.
fn ticket_key() -> Result<Box<dyn ProducesTickets>, rustls::crypto::GetRandomFailed> {
    #[derive(Debug)]
    struct TicketKey(Arc<dyn ProducesTickets>);
    impl ProducesTickets for TicketKey {
        fn enabled(&self) -> bool {
            self.0.enabled()
        }
        fn lifetime(&self) -> u32 {
            self.0.lifetime()
        }
        fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
            self.0.encrypt(plain)
        }
        fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
            self.0.decrypt(cipher)
        }
    }
    let key = aws_lc_rs::Ticketer::new().map_err(|_| rustls::crypto::GetRandomFailed)?;
    Ok(Box::new(TicketKey(key)))
}

fn client_verifier(
    tls: &DownstreamTls,
    secrets: &SecretLookup<'_>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsConfigError> {
    let Some(validation) = &tls.validation else {
        // Envoy would take any certificate here. Asking for one that nobody judges proves nothing, so it is an error.
        return match tls.require_client_certificate {
            true => Err(TlsConfigError::UnjudgedClients),
            false => Ok(WebPkiClientVerifier::no_client_auth()),
        };
    };
    let (names, checks) = (validation.subject_alt_names.clone(), checks(validation, secrets)?);
    if validation.checks.any_signer {
        let algorithms = provider().signature_verification_algorithms;
        let chain = Arc::new(AnyClient { mandatory: tls.require_client_certificate, algorithms });
        return Ok(Arc::new(ClientJudge { chain, names, checks }));
    }
    let roots = trust(validation, secrets)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider().clone());
    if !tls.require_client_certificate {
        builder = builder.allow_unauthenticated();
    }
    let chain = builder.build().map_err(|error| TlsConfigError::Trust {
        object: source_name(&validation.trust, "trust bundle"),
        reason: error.to_string(),
    })?;
    Ok(Arc::new(ClientJudge { chain, names, checks }))
}

/// The text of authorities, or of what they revoked.
fn text<'t, 's: 't>(
    source: &'t SecretSource<Vec<u8>>,
    secrets: &SecretLookup<'s>,
) -> Result<Cow<'t, [u8]>, TlsConfigError> {
    match source {
        SecretSource::Inline(pem) => Ok(pem.into()),
        SecretSource::Files(files) => read(&files.certificates).map(Cow::Owned),
        SecretSource::Sds(name) => match &lookup(name, secrets)?.content {
            SecretContent::TrustBundle(pem) => Ok(pem.into()),
            SecretContent::Certificate(_) => {
                Err(TlsConfigError::WrongKind { name: name.clone(), wanted: "trust bundle" })
            }
        },
    }
}

fn read(path: &str) -> Result<Vec<u8>, TlsConfigError> {
    std::fs::read(path)
        .map_err(|error| TlsConfigError::File { path: path.to_owned(), reason: error.to_string() })
}

fn checks(validation: &PeerValidation, secrets: &SecretLookup<'_>) -> Result<Checks, TlsConfigError> {
    let revoked = validation.checks.revoked.as_ref().map(|source| text(source, secrets)).transpose()?;
    Checks::new(&validation.checks, revoked.as_deref())
        .map_err(|reason| TlsConfigError::Trust { object: "revocation list".to_owned(), reason })
}

/// The authorities of a trust bundle. A certificate that cannot be an anchor is passed over as long as another can.
fn trust(
    validation: &PeerValidation,
    secrets: &SecretLookup<'_>,
) -> Result<Arc<RootCertStore>, TlsConfigError> {
    let pem = text(&validation.trust, secrets)?;
    let object = || source_name(&validation.trust, "trust bundle");
    let certificates = certificate::parse_chain(&pem)
        .map_err(|error| TlsConfigError::Certificate { object: object(), error })?;
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        let reason = format!("none of its {ignored} certificates can be a trust anchor");
        return Err(TlsConfigError::Trust { object: object(), reason });
    }
    Ok(Arc::new(roots))
}

fn certified_key(
    source: &SecretSource<CertificatePair>,
    secrets: &SecretLookup<'_>,
) -> Result<Arc<CertifiedKey>, TlsConfigError> {
    let from_files;
    let pair = match source {
        SecretSource::Inline(pair) => pair,
        SecretSource::Files(files) => {
            from_files =
                CertificatePair { chain_pem: read(&files.certificates)?, key_pem: read(&files.key)? };
            &from_files
        }
        SecretSource::Sds(name) => match &lookup(name, secrets)?.content {
            SecretContent::Certificate(pair) => pair,
            SecretContent::TrustBundle(_) => {
                return Err(TlsConfigError::WrongKind {
                    name: name.clone(),
                    wanted: "certificate and its key",
                });
            }
        },
    };
    let object = || source_name(source, "certificate");
    let unreadable = |error| TlsConfigError::Certificate { object: object(), error };
    let chain = certificate::parse_chain(&pair.chain_pem).map_err(unreadable)?;
    let key = certificate::parse_key(&pair.key_pem).map_err(unreadable)?;
    let leaf =
        chain.first().ok_or(CertificateError::Empty).and_then(certificate::facts).map_err(unreadable)?;
    CertifiedKey::from_der(chain, key, provider()).map(Arc::new).map_err(|error| TlsConfigError::Key {
        object: object(),
        certificate: leaf.to_string(),
        error,
    })
}

fn lookup<'a>(name: &str, secrets: &SecretLookup<'a>) -> Result<&'a Secret, TlsConfigError> {
    secrets(name).ok_or_else(|| TlsConfigError::MissingSecret { name: name.to_owned() })
}

fn source_name<T>(source: &SecretSource<T>, what: &str) -> String {
    match source {
        SecretSource::Inline(_) => format!("inline {what}"),
        SecretSource::Sds(name) => format!("{what} `{name}`"),
        SecretSource::Files(files) => format!("{what} `{}`", files.certificates),
    }
}

/// Why TLS cannot be done as asked. Nothing is served in its place.
#[derive(Debug)]
pub enum TlsConfigError {
    /// A secret is named that has not been delivered (yet).
    MissingSecret {
        /// Its SDS name.
        name: String,
    },
    /// A file cannot be read (yet).
    File {
        /// Its path.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A secret is of the other kind.
    WrongKind {
        /// Its SDS name.
        name: String,
        /// What was needed.
        wanted: &'static str,
    },
    /// A certificate or a key cannot be read.
    Certificate {
        /// Which secret.
        object: String,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A key cannot be used, or is not the certificate's.
    Key {
        /// Which secret.
        object: String,
        /// The certificate, its expiry and its issuer.
        certificate: String,
        /// What rustls says.
        error: rustls::Error,
    },
    /// A trust bundle cannot be used.
    Trust {
        /// Which secret.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A listener names no certificate.
    NoServerCertificate,
    /// A listener requires client certificates and names no authority to judge them.
    UnjudgedClients,
    /// The lowest TLS version is above the highest.
    NoVersion,
    /// The server name is not a host name.
    ServerName {
        /// As configured.
        name: String,
    },
    /// Anything else rustls refuses.
    Rustls(rustls::Error),
}

impl TlsConfigError {
    /// The secret or the file that is not there, when that is all that is wrong.
    pub fn missing_secret(&self) -> Option<&str> {
        match self {
            Self::MissingSecret { name } => Some(name),
            Self::File { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingSecret { name } => write!(f, "secret `{name}` has not been delivered"),
            Self::File { path, reason } => write!(f, "file `{path}` cannot be read: {reason}"),
            Self::WrongKind { name, wanted } => write!(f, "secret `{name}` is not a {wanted}"),
            Self::Certificate { object, error } => write!(f, "{object}: {error}"),
            Self::Key { object, certificate, error } => {
                write!(f, "{object}: the key cannot be used with {certificate}: {error}")
            }
            Self::Trust { object, reason } => write!(f, "{object}: {reason}"),
            Self::NoServerCertificate => write!(f, "TLS is asked for without a server certificate"),
            Self::UnjudgedClients => {
                write!(f, "client certificates are required but no trust bundle says which to accept")
            }
            Self::NoVersion => write!(f, "the lowest TLS version is above the highest"),
            Self::ServerName { name } => {
                write!(f, "server name `{}` is not a host name", name.escape_debug())
            }
            Self::Rustls(error) => write!(f, "TLS settings cannot be used: {error}"),
        }
    }
}

impl std::error::Error for TlsConfigError {}
