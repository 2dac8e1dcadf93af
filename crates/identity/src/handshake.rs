//! Performing a TLS handshake over any byte stream, with failures that say which certificate and why.
//!
//! It sets no time limit (callers wrap it in one) and does not build configurations (that is `config`).

use crate::refusal;
use rustls::server::ClientHello;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server};

/// Accepts a TLS client on `io`.
///
/// As in Envoy, a client that offers only protocols the server does not is served without ALPN instead of refused.
pub async fn accept<IO>(io: IO, config: Arc<ServerConfig>) -> Result<server::TlsStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io)
        .await
        .map_err(HandshakeError::new)?;
    let mut config = config;
    if !shares_a_protocol(&start.client_hello(), &config) {
        Arc::make_mut(&mut config).alpn_protocols.clear();
    }
    start.into_stream(config).await.map_err(HandshakeError::new)
}

fn shares_a_protocol(hello: &ClientHello<'_>, config: &ServerConfig) -> bool {
    hello.alpn().is_none_or(|mut offered| offered.any(|p| config.alpn_protocols.iter().any(|ours| ours == p)))
}

/// Connects to a TLS server on `io`. A server that refuses *our* certificate under TLS 1.3 does so after this returned:
/// the first read then fails with an error for [`describe_handshake_error`].
pub async fn connect<IO>(
    io: IO,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<client::TlsStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    TlsConnector::from(config).connect(name, io).await.map_err(HandshakeError::new)
}

/// Says what went wrong, for a log line after "TLS handshake failed: ". Names the peer's certificate, its expiry and its
/// issuer when those are the reason; for that it must be called on the thread that got the error, before the next `await`.
pub fn describe_handshake_error(error: &io::Error) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return describe_tls(tls);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the peer closed the connection during the handshake".to_owned(),
        _ => error.to_string(),
    }
}

fn describe_tls(error: &rustls::Error) -> String {
    if let Some(sentence) = refusal::take(error) {
        return sentence;
    }
    match error {
        rustls::Error::NoCertificatesPresented => {
            "the client presented no certificate and one is required".to_owned()
        }
        rustls::Error::InvalidMessage(_) => format!("the peer does not speak TLS ({error})"),
        rustls::Error::AlertReceived(alert) => match alert_reason(*alert) {
            Some(reason) => format!("the peer {reason} (alert {alert:?})"),
            None => format!("the peer sent alert {alert:?}"),
        },
        other => other.to_string(),
    }
}

/// What a peer means by an alert about our side (RFC 8446, 6.2).
fn alert_reason(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => "does not trust the authority that issued our certificate",
        AlertDescription::CertificateExpired => "says that our certificate has expired",
        AlertDescription::CertificateRequired => "requires a certificate and we presented none",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => "refused our certificate",
        AlertDescription::ProtocolVersion => "supports none of the TLS versions we offer",
        AlertDescription::NoApplicationProtocol => "supports none of the application protocols we offer",
        AlertDescription::UnrecognisedName => "does not know the server name we asked for",
        AlertDescription::HandshakeFailure => "found no cipher, key or parameter in common with us",
        _ => return None,
    })
}

/// A handshake that did not succeed; its text is [`describe_handshake_error`]'s.
#[derive(Debug)]
pub struct HandshakeError {
    text: String,
    source: io::Error,
}

impl HandshakeError {
    fn new(source: io::Error) -> Self {
        Self { text: describe_handshake_error(&source), source }
    }

    /// The stream's error as it came.
    pub fn into_io(self) -> io::Error {
        self.source
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
