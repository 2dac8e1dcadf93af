//! One question to the CA: connect by TLS, judge the server by name, ask, disconnect.

use crate::config::{self, TlsConfigError};
use crate::handshake;
use crate::istio_ca;
use hyper_util::rt::TokioIo;
use model::matcher::StringMatch;
use model::tls::{
    CertificatePair, PeerValidation, SanKind, SanMatch, SecretSource, TlsVersions, UpstreamTls,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Endpoint, Uri};

/// Largest header list accepted from the CA, in bytes.
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;

/// Where the CA is and how it is recognised.
pub(crate) struct CertificateAuthority<'a> {
    pub(crate) address: &'a str,
    pub(crate) server_name: &'a str,
    pub(crate) roots_pem: Vec<u8>,
    /// For connecting and for the answer, each.
    pub(crate) timeout: Duration,
}

/// How the caller proves who it is.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// The current certificate, by mutual TLS.
    Certificate(&'a CertificatePair),
    /// A join token.
    Token(&'a str),
}

impl CertificateAuthority<'_> {
    /// The certificates the CA answers with: leaf first, roots last.
    pub(crate) async fn certify(
        &self,
        proof: Proof<'_>,
        csr_pem: &str,
        lifetime: Duration,
    ) -> Result<Vec<String>, CaError> {
        let (certificate, bearer) = match proof {
            Proof::Certificate(pair) => (Some(SecretSource::Inline(pair.clone())), None),
            Proof::Token(token) => (None, Some(token)),
        };
        let connector = self.connector(certificate).map_err(CaError::Config)?;
        let unreachable = |e: &(dyn std::error::Error + 'static)| {
            CaError::Unreachable(self.address.to_owned(), istio_ca::chain_of(e))
        };
        let channel = Endpoint::from_shared(format!("http://{}", self.server_name))
            .map_err(|e| unreachable(&e))?
            .connect_timeout(self.timeout)
            .timeout(self.timeout)
            .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
            .connect_with_connector(connector)
            .await
            .map_err(|e| unreachable(&e))?;
        istio_ca::create_certificate(channel, bearer, csr_pem, lifetime)
            .await
            .map_err(|status| CaError::Refused(self.address.to_owned(), status))
    }

    fn connector(
        &self,
        certificate: Option<SecretSource<CertificatePair>>,
    ) -> Result<TlsConnector, TlsConfigError> {
        let name = SanMatch { kind: Some(SanKind::Dns), matcher: StringMatch::exact(self.server_name) };
        let tls = UpstreamTls {
            certificate,
            validation: Some(Arc::new(PeerValidation {
                trust: SecretSource::Inline(self.roots_pem.clone()),
                subject_alt_names: vec![name],
                checks: Default::default(),
            })),
            sni: Some(self.server_name.to_owned()),
            alpn: vec!["h2".to_owned()],
            versions: TlsVersions::default(),
        };
        Ok(TlsConnector {
            address: self.address.to_owned(),
            name: config::server_name(Some(self.server_name))?,
            config: config::client_config(&tls, &|_| None)?,
        })
    }
}

/// Connects where it was told to, whatever URI tonic asks for.
struct TlsConnector {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, name, config) = (self.address.clone(), self.name.clone(), self.config.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let stream = handshake::connect(stream, config, name).await.map_err(io::Error::other)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Why there is no certificate.
#[derive(Debug)]
pub(crate) enum CaError {
    /// What we have cannot even be presented.
    Config(TlsConfigError),
    /// No connection, or not to whom it should be.
    Unreachable(String, String),
    /// Connected, and did not get a certificate.
    Refused(String, tonic::Status),
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "the CA cannot be asked: {error}"),
            Self::Unreachable(address, reason) => {
                write!(f, "the CA at {address} cannot be reached: {reason}")
            }
            Self::Refused(address, status) => match std::error::Error::source(status) {
                // A status without a gRPC answer behind it: the connection broke.
                Some(cause) => write!(f, "the CA at {address} gave no answer: {}", istio_ca::chain_of(cause)),
                None => write!(f, "the CA at {address} refused: {} ({:?})", status.message(), status.code()),
            },
        }
    }
}
