//! Who a workload is and how it proves it: SPIFFE ids, certificates, TLS configuration for both directions, and the
//! loop that obtains and renews a workload's certificate.
//!
//! This crate holds no signing key (that is `ca`), opens no listener, and decides nothing about traffic. Where TLS is
//! wanted and something is missing it returns an error: never plaintext, never a built-in key.
//!
//! ```text
//! spiffe::SpiffeId::new(trust_domain, namespace, service_account) -> Result<SpiffeId, SpiffeError>; FromStr, Display
//! certificate::{parse_chain, parse_key}(&[u8]); certificate::facts(&CertificateDer) -> Result<CertificateFacts, _>
//! certificate::peer_identity(&[CertificateDer]) -> Option<CertificateFacts>   // after a handshake
//! certificate::fingerprint(&CertificateDer) -> String                         // SHA-256 in hex, as in XFCC `Hash`
//! config::server_config(&DownstreamTls, &SecretLookup) -> Result<Arc<rustls::ServerConfig>, TlsConfigError>
//! config::client_config(&UpstreamTls, &SecretLookup) -> Result<Arc<rustls::ClientConfig>, TlsConfigError>
//! config::server_name(sni: Option<&str>) -> Result<ServerName<'static>, TlsConfigError>
//! config::SecretLookup<'a> = dyn Fn(&str) -> Option<&'a Secret> + 'a;  TlsConfigError::missing_secret() -> Option<&str>
//! handshake::accept(io, Arc<ServerConfig>) -> Result<tokio_rustls::server::TlsStream<_>, HandshakeError>
//! handshake::connect(io, Arc<ClientConfig>, ServerName) -> Result<tokio_rustls::client::TlsStream<_>, HandshakeError>
//! handshake::describe_handshake_error(&io::Error) -> String
//! csr::generate(Option<&SpiffeId>) -> Result<KeyAndRequest { key_pem, csr_pem }, CsrError>
//! rotation::Rotation::new(obtained, not_after, entropy); .advance(now) -> Step { Renew, Alarm(_), Wait(_) }
//! istio_ca::{IstioCertificateService (trait), IstioCertificateServer<T> (tonic service), create_certificate (client)}
//! workload::run(WorkloadOptions, watch::Sender<Option<Arc<WorkloadSecrets>>>, report: impl Fn(Event))   // spawn it
//! workload::WorkloadSecrets { certificate: Secret `default`, trust_bundle: Secret `ROOTCA`, facts }
//! private_file::{write, create, read}: atomic, 0600
//! ```
//!
//! Modules are listed so that a module names only modules listed after it.

pub mod workload;

mod ca_connection;
mod saved_identity;

pub mod istio_ca;
pub mod rotation;

pub mod config;
pub mod handshake;

mod sni;
mod verifier;

mod checks;
mod refusal;

pub mod certificate;
pub mod csr;
pub mod spiffe;

pub mod private_file;
