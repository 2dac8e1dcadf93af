//! Making one connection to one endpoint: TCP, then TLS where the transport says so.

use crate::failure::Failure;
use crate::mark;
use crate::snapshot::{EndpointState, Limited, TransportState};
use crate::wire::WireError;
use identity::certificate;
use identity::handshake::{self, HandshakeError};
use model::cluster::{Cluster, Connections, Keepalive};
use socket2::{SockRef, TcpKeepalive};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection that is ready for bytes.
pub struct Connected {
    /// The bytes.
    pub stream: Stream,
    /// The protocol that ALPN chose.
    pub alpn: Option<Box<[u8]>>,
    /// What else is known of it.
    pub facts: Facts,
}

/// What is known of a connection as long as it lives.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Our own address.
    pub local: Option<SocketAddr>,
    /// URI name in the endpoint's verified certificate.
    pub peer_uri: Option<Arc<str>>,
    /// It gets no request from then on.
    pub until: Option<Instant>,
}

impl Facts {
    /// Whether it may get another request, for its age.
    pub(super) fn is_young(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// An endpoint's bytes, in TLS or not.
pub type Stream = crate::stream::Stream<TlsStream<TcpStream>>;

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// It took longer than the cluster's connect timeout.
    Timeout(SocketAddr, Duration),
    /// The endpoint, or the way to it, refused.
    Tcp(SocketAddr, io::Error),
    /// TLS failed.
    Tls(SocketAddr, HandshakeError),
    /// TLS is wanted and cannot be had: why.
    NotReady(Arc<str>),
    /// The cluster may have no more of these.
    Overflow(Limited),
    /// It was made, and its protocol could not be begun.
    Protocol(SocketAddr, WireError),
}

impl ConnectError {
    /// What it means for the request.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Timeout(..) | Self::Tcp(..) | Self::Protocol(..) => Failure::ConnectFailure,
            Self::Overflow(_) => Failure::Overflow,
            Self::Tls(..) => Failure::TlsFailure,
            Self::NotReady(_) => Failure::TlsNotReady,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(to, after) => write!(f, "{to}: no connection within {} ms", after.as_millis()),
            Self::Tcp(to, error) => write!(f, "{to}: {error}"),
            Self::Tls(to, error) => write!(f, "{to}: TLS handshake failed: {error}"),
            Self::NotReady(why) => write!(f, "TLS is not ready: {why}"),
            Self::Overflow(what) => write!(f, "the cluster's limit `{}` is reached", what.as_str()),
            Self::Protocol(to, error) => write!(f, "{to}: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tcp(_, error) => Some(error),
            Self::Tls(_, error) => Some(error),
            Self::Protocol(_, error) => Some(error),
            Self::Timeout(..) | Self::NotReady(_) | Self::Overflow(_) => None,
        }
    }
}

impl From<Limited> for ConnectError {
    fn from(what: Limited) -> Self {
        Self::Overflow(what)
    }
}

/// Connects to `endpoint`, one of `cluster`'s; TCP and TLS together take at most the cluster's time to connect.
pub async fn connect(cluster: &Cluster, endpoint: &EndpointState) -> Result<Connected, ConnectError> {
    let address = endpoint.address;
    let limit = cluster.connect_timeout;
    if cluster.proxy_header.is_some() && endpoint.preface.is_none() {
        // Who is behind it trusts what the header says: without one there is no connection.
        let reason = "no header of the PROXY protocol is there to begin with";
        return Err(ConnectError::Tcp(address, io::Error::new(io::ErrorKind::Unsupported, reason)));
    }
    match tokio::time::timeout(limit, establish(endpoint, &cluster.connections)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Timeout(address, limit)),
    }
}

async fn establish(endpoint: &EndpointState, connections: &Connections) -> Result<Connected, ConnectError> {
    let address = endpoint.address;
    let tls = match &endpoint.transport {
        TransportState::Plain => None,
        TransportState::Tls { config, server_name } => {
            let config = config.clone().map_err(ConnectError::NotReady)?;
            Some((config, server_name.clone()))
        }
    };
    let tcp = mark::connect(address, connections.source).await.map_err(|e| ConnectError::Tcp(address, e))?;
    // A request's head must not wait for an acknowledgement of the one before.
    tcp.set_nodelay(true).map_err(|e| ConnectError::Tcp(address, e))?;
    if let Some(keepalive) = connections.keepalive {
        // A connection without probes is as good as it would be without the setting.
        let _ = SockRef::from(&tcp).set_tcp_keepalive(&probes(keepalive));
    }
    let mut tcp = tcp;
    if let Some(preface) = &endpoint.preface {
        tcp.write_all(preface).await.map_err(|e| ConnectError::Tcp(address, e))?;
    }
    let local = tcp.local_addr().ok();
    let until = connections.max_duration.and_then(|limit| Instant::now().checked_add(limit));
    let Some((config, server_name)) = tls else {
        return Ok(Connected {
            stream: Stream::Plain(tcp),
            alpn: None,
            facts: Facts { local, peer_uri: None, until },
        });
    };
    let tls =
        handshake::connect(tcp, config, server_name).await.map_err(|e| ConnectError::Tls(address, e))?;
    let (_, session) = tls.get_ref();
    let alpn = session.alpn_protocol().map(Into::into);
    let identity = session.peer_certificates().and_then(certificate::peer_identity);
    let peer_uri = identity.and_then(|facts| facts.uri_sans.into_iter().next()).map(Into::into);
    Ok(Connected { stream: Stream::Tls(Box::new(tls)), alpn, facts: Facts { local, peer_uri, until } })
}

fn probes(keepalive: Keepalive) -> TcpKeepalive {
    let mut probes = TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        probes = probes.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        probes = probes.with_interval(interval);
    }
    if let Some(retries) = keepalive.probes {
        probes = probes.with_retries(retries);
    }
    probes
}
