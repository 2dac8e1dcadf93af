//! `IstioCertificateService`: finds out who asks, then has the authority sign exactly that identity.
//!
//! A caller is who its client certificate says (mutual TLS, verified by the listener), else whose join token it shows.
//! Names inside the request are ignored. Serving TLS and gRPC is `control`'s work.

use crate::authority::{Authority, AuthorityError};
use crate::request::CertificateRequest;
use crate::tokens::JoinTokens;
use identity::certificate;
use identity::istio_ca::{IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService};
use identity::spiffe::SpiffeId;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Extensions, Request, Response, Status};

/// Lifetime of a certificate when nothing else is configured.
pub const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Shortest lifetime issued.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// The TLS client's chain, leaf first, as a request extension; empty when it presented none.
///
/// Whoever puts it there promises that the chain was verified against [`Authority::roots_pem`] and that the client proved
/// to hold the key, as any finished handshake of `identity::config::server_config` with that trust bundle does. tonic's own
/// `TlsConnectInfo<TcpConnectInfo>` (incoming streams of `tokio_rustls::server::TlsStream<TcpStream>`) is read as well.
#[derive(Debug, Clone)]
pub struct PeerChain(pub Arc<[CertificateDer<'static>]>);

impl PeerChain {
    /// The chain of the connection a request came on.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        if let Some(chain) = extensions.get::<Self>() {
            return Some(chain.clone());
        }
        let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
        Some(Self(connection.peer_certs()?.as_slice().into()))
    }

    /// The workload it belongs to, when its leaf is an SVID of the form this mesh issues.
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        certificate::peer_identity(&self.0)?.spiffe?.parse().ok()
    }
}

/// The service, to be mounted as `identity::istio_ca::IstioCertificateServer::new(service)`.
#[derive(Debug)]
pub struct CertificateService {
    authority: Arc<Authority>,
    tokens: Arc<JoinTokens>,
    max_lifetime: Duration,
}

/// Who asks, and how it was proved.
enum Caller<'a> {
    Certified(SpiffeId),
    HoldsToken(&'a str),
}

impl CertificateService {
    /// Issues certificates of at most `max_lifetime`, which is also what a caller without a wish gets.
    pub fn new(authority: Arc<Authority>, tokens: Arc<JoinTokens>, max_lifetime: Duration) -> Self {
        Self { authority, tokens, max_lifetime: max_lifetime.max(MIN_LIFETIME) }
    }

    fn answer(
        &self,
        request: &Request<IstioCertificateRequest>,
        now: SystemTime,
    ) -> Result<IstioCertificateResponse, Status> {
        let caller = self.caller(request)?;
        let wish = request.get_ref();
        // The request is read before the token is touched: a broken request must not spend it.
        let key =
            CertificateRequest::parse(&wish.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let lifetime = self.lifetime(wish.validity_duration)?;
        let identity = match caller {
            Caller::Certified(identity) => identity,
            Caller::HoldsToken(token) => self
                .tokens
                .redeem(token, key.key_fingerprint(), now)
                .map_err(|error| Status::unauthenticated(error.to_string()))?,
        };
        let signed = self.authority.sign_request(&key, &identity, lifetime, now);
        let cert_chain = signed.map_err(|error| match error {
            AuthorityError::Request(_) => Status::invalid_argument(error.to_string()),
            AuthorityError::ForeignIdentity { .. } => Status::unauthenticated(error.to_string()),
            AuthorityError::Signing { .. } => Status::internal(error.to_string()),
        })?;
        Ok(IstioCertificateResponse { cert_chain })
    }

    fn caller<'a>(&self, request: &'a Request<IstioCertificateRequest>) -> Result<Caller<'a>, Status> {
        let chain = PeerChain::of(request.extensions()).filter(|chain| !chain.0.is_empty());
        if let Some(chain) = chain {
            return chain.spiffe_id().map(Caller::Certified).ok_or_else(|| {
                Status::unauthenticated(
                    "the client certificate names no workload: spiffe://<td>/ns/<ns>/sa/<sa> is needed",
                )
            });
        }
        let header = request.metadata().get("authorization").ok_or_else(|| {
            Status::unauthenticated("a client certificate or `authorization: Bearer <join token>` is needed")
        })?;
        let token = header.to_str().ok().and_then(|value| value.split_once(' '));
        match token {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Caller::HoldsToken(token.trim()))
            }
            _ => Err(Status::unauthenticated("`authorization` is not of the form `Bearer <join token>`")),
        }
    }

    /// What is wished for in seconds, 0 being no wish, within what is allowed.
    fn lifetime(&self, wished_s: i64) -> Result<Duration, Status> {
        match u64::try_from(wished_s) {
            Err(_) => Err(Status::invalid_argument(format!("validity_duration {wished_s} is negative"))),
            Ok(0) => Ok(self.max_lifetime),
            Ok(wished) => Ok(Duration::from_secs(wished).min(self.max_lifetime)),
        }
    }
}

impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.answer(&request, SystemTime::now()).map(Response::new)
    }
}
