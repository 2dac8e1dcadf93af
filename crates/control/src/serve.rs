//! Listening: sockets, TLS with a certificate that is replaced before it ends, and the limits of gRPC servers.
//! What is served is decided by whoever gives the routes.

use crate::event::{Event, Report};
use arc_swap::ArcSwap;
use ca::authority::Authority;
use identity::certificate::{facts, parse_chain};
use identity::rotation::{Rotation, Step};
use identity::spiffe::SpiffeId;
use identity::{config, handshake};
use model::tls::{DownstreamTls, PeerValidation, SecretSource, TlsVersions};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, Server};

/// Connections per port; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 20_000;
/// Connections that wait in the kernel: after a restart all proxies come at once.
const BACKLOG: u32 = 16_384;
/// TLS handshakes under way at once.
const MAX_HANDSHAKES: usize = 256;
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after accepting failed, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Names in our own certificate, by which proxies know us.
const OUR_NAMES: [&str; 6] = [
    "istiod.istio-system.svc",
    "istiod.istio-system.svc.cluster.local",
    "istiod.istio-system",
    "localhost",
    "127.0.0.1",
    "::1",
];

/// An HTTP/2 server with the limits every one of ours has.
pub(crate) fn limited_server() -> Server {
    Server::builder()
        .max_concurrent_streams(100)
        .http2_max_header_list_size(64 << 10)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(100))
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

/// A connection that counts against the limit of its port.
pub(crate) struct Counted<S> {
    io: S,
    _permit: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<S: Connected> Connected for Counted<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

/// Connections ready to be served.
pub(crate) type Incoming<S> = mpsc::Receiver<std::io::Result<Counted<S>>>;

/// Accepts plaintext connections until the receiver is dropped.
pub(crate) fn accept_plain(listener: TcpListener) -> Incoming<TcpStream> {
    let (ready, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some((io, permit)) = next(&listener, &limit, &ready).await {
            if ready.send(Ok(Counted { io, _permit: permit })).await.is_err() {
                return;
            }
        }
    });
    incoming
}

/// Accepts TLS connections until the receiver is dropped. A handshake that fails is reported.
pub(crate) fn accept_tls(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    report: Report,
) -> Incoming<TlsStream<TcpStream>> {
    let (ready, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        while let Some((io, permit)) = next(&listener, &limit, &ready).await {
            let Ok(shaking) = handshakes.clone().acquire_owned().await else { return };
            let (ready, tls, report) = (ready.clone(), tls.load_full(), report.clone());
            tokio::spawn(async move {
                let peer = io.peer_addr().map(|a| a.to_string()).unwrap_or_default();
                let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake::accept(io, tls)).await;
                drop(shaking);
                let reason = match shaken {
                    Ok(Ok(io)) => {
                        let _ = ready.send(Ok(Counted { io, _permit: permit })).await;
                        return;
                    }
                    Ok(Err(error)) => {
                        let text = format!("TLS handshake failed: {error}");
                        // A probe that connects and leaves is no event.
                        if error.into_io().kind() == std::io::ErrorKind::UnexpectedEof {
                            return;
                        }
                        text
                    }
                    Err(_) => format!("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()),
                };
                report(Event::Closed { proxy: peer, reason });
            });
        }
    });
    incoming
}

/// The next connection; `None` once nobody wants any.
async fn next<T>(
    listener: &TcpListener,
    limit: &Arc<Semaphore>,
    ready: &mpsc::Sender<T>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = limit.clone().acquire_owned().await.ok()?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return None,
        };
        match accepted {
            Ok((io, _)) => {
                // Without it responses wait for acknowledgements; failing to set it is no reason to refuse.
                let _ = io.set_nodelay(true);
                return Some((io, permit));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Our own certificate.
pub(crate) struct OwnCertificate {
    authority: Arc<Authority>,
    identity: SpiffeId,
    lifetime: Duration,
}

impl OwnCertificate {
    /// A certificate of `lifetime`, again and again.
    pub(crate) fn new(authority: Arc<Authority>, lifetime: Duration) -> Result<Self, String> {
        let identity = SpiffeId::new(authority.trust_domain(), "istio-system", "istiod");
        Ok(Self { identity: identity.map_err(|e| e.to_string())?, authority, lifetime })
    }

    /// A TLS configuration with a new certificate, and when to replace it. Client certificates are welcome, not required.
    pub(crate) fn issue(
        &self,
        now: SystemTime,
        entropy: u64,
    ) -> Result<(Arc<ServerConfig>, Rotation), String> {
        let pair = self
            .authority
            .control_plane_certificate(&self.identity, &OUR_NAMES, self.lifetime, now)
            .map_err(|e| e.to_string())?;
        let chain = parse_chain(&pair.chain_pem).map_err(|e| e.to_string())?;
        let leaf = chain.first().ok_or("our own certificate is empty")?;
        let not_after = facts(leaf).map_err(|e| e.to_string())?.not_after;
        let trust = SecretSource::Inline(self.authority.roots_pem().as_bytes().to_vec());
        let tls = DownstreamTls {
            tickets: true,
            certificates: vec![SecretSource::Inline(pair)],
            validation: Some(PeerValidation {
                trust,
                subject_alt_names: Vec::new(),
                checks: Default::default(),
            }),
            require_client_certificate: false,
            alpn: vec!["h2".to_owned()],
            versions: TlsVersions::default(),
        };
        let config = config::server_config(&tls, &|_| None).map_err(|e| e.to_string())?;
        Ok((config, Rotation::new(now, not_after, entropy)))
    }

    /// Replaces the configuration in `tls` whenever its certificate has lived half of its life. Never ends.
    pub(crate) async fn keep_fresh(
        self,
        tls: Arc<ArcSwap<ServerConfig>>,
        mut rotation: Rotation,
        report: Report,
    ) {
        loop {
            let now = SystemTime::now();
            match rotation.advance(now) {
                Step::Wait(pause) => tokio::time::sleep(pause).await,
                Step::Alarm(_) => {
                    let text = "our own certificate is about to expire and could not be replaced";
                    report(Event::Authority(text.to_owned()));
                }
                Step::Renew => match self.issue(now, entropy()) {
                    Ok((config, next)) => {
                        tls.store(config);
                        rotation = next;
                    }
                    Err(error) => {
                        rotation.failed(now, entropy());
                        report(Event::Authority(format!("our own certificate is not replaced: {error}")));
                    }
                },
            }
        }
    }
}

/// Waits until told to stop, or until nobody is left who could tell.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// 64 random bits; zero, which is as good as any, where the system has none.
pub(crate) fn entropy() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Listens on `address`; `what` and `flag` name it in the error.
pub(crate) async fn bind(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, String> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "{what} cannot listen on {address}: port {} is taken by another process; choose another with {flag}",
            address.port()
        ),
        _ => format!("{what} cannot listen on {address} ({flag}): {error}"),
    })
}

/// [`bind`], but only where nobody beyond this machine can connect: what is served there asks nobody who they are.
pub(crate) async fn bind_loopback(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, String> {
    if !address.ip().is_loopback() {
        return Err(format!(
            "{what} must listen on a loopback address, because it is plaintext and asks nobody who they are; \
             {flag} is {address}"
        ));
    }
    bind(what, flag, address).await
}
