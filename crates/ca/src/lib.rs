//! The mesh's certificate authority: the only code that holds a signing key.
//!
//! It decides who gets which certificate and nothing else: files of the mesh, listeners and the gRPC server it is mounted
//! on are `control`'s; keys of workloads are made by the workloads ([`authority::Authority::issue`] is for peers that cannot).
//!
//! ```text
//! authority::Authority::open(dir: &Path, trust_domain: &str, now) -> Result<Authority, RootError>  // makes the root at first start
//! Authority::sign(&self, csr_pem: &str, &SpiffeId, lifetime: Duration, now: SystemTime) -> Result<Vec<String>, AuthorityError>
//! Authority::issue(&self, &SpiffeId, lifetime, now) -> Result<model::tls::CertificatePair, AuthorityError>     // SDS for stock Envoy
//! Authority::control_plane_certificate(&self, &SpiffeId, names: &[&str], lifetime, now) -> Result<CertificatePair, _>
//! Authority::roots_pem(&self) -> &str                                             // one or, during a root change, several
//! Authority::trust_domain(&self) -> &str;  Authority::warnings(&self) -> &[String]
//! tokens::JoinTokens::new(capacity); .mint(SpiffeId, ttl, now) / .mint_reusable(..) -> Result<String, TokenError>
//! JoinTokens::redeem(&self, token, key_fingerprint: &[u8; 32], now) -> Result<SpiffeId, TokenError>  // once
//! JoinTokens::verify(&self, token, now) -> Result<SpiffeId, TokenError>           // never spends; reusable tokens only
//! tokens::random_token() -> Option<String>; TokenLine { token, identity, reusable }.to_json()   // for the supervisor's file
//! JoinTokens::merge / replace_listed(&self, Vec<TokenLine>, now) -> Result<usize, TokenError>; tokens::parse_lines(text) -> (Vec<TokenLine>, Vec<TokenFileError>)
//! service::CertificateService::new(Arc<Authority>, Arc<JoinTokens>, max_lifetime) : identity::istio_ca::IstioCertificateService
//!     mount: identity::istio_ca::IstioCertificateServer::new(service)
//! service::PeerChain(pub Arc<[CertificateDer<'static>]>)   // request extension: the TLS client's *verified* chain, leaf first.
//!     Or serve tonic with incoming `tokio_rustls::server::TlsStream<TcpStream>` (from identity::handshake::accept): its
//!     TlsConnectInfo is read as well.
//! service::PeerChain::of(request.extensions()) -> Option<PeerChain>; .spiffe_id() -> Option<SpiffeId>
//! ```
//!
//! Modules are listed so that a module names only modules listed after it.

pub mod service;

pub mod tokens;

pub mod authority;
pub mod request;

mod root;
mod stamp;
