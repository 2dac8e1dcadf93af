//! Connections kept for further requests. Everything here belongs to one thread.

use super::body::Outgoing;
use super::connect::{ConnectError, Connected, Stream, connect};
use crate::snapshot::{ClusterState, EndpointState};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::cluster::UpstreamHttp;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Idle HTTP/1.1 connections kept to one endpoint by one thread.
const IDLE_LIMIT: usize = 256;
/// Requests on one HTTP/2 connection before another is made.
const STREAMS_PER_CONNECTION: u32 = 100;
/// Largest header list taken from an endpoint, in bytes (RFC 9113, 6.5.2).
const HEADER_LIST_LIMIT: u32 = 64 * 1024;
/// Most headers taken from an HTTP/1.1 endpoint.
const HEADERS_LIMIT: usize = 200;
/// Largest HTTP/1.1 head taken from an endpoint.
const HEAD_BUFFER: usize = 64 * 1024;

/// One thread's connections to every endpoint.
#[derive(Default)]
pub struct Pools {
    endpoints: RefCell<FxHashMap<u64, Rc<EndpointPool>>>,
}

#[derive(Default)]
struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    /// Someone is making an HTTP/2 connection: others wait for it instead of making one each.
    making: RefCell<Option<Rc<Notify>>>,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

struct Http1 {
    sender: http1::SendRequest<Outgoing>,
    facts: Facts,
}

struct Http2 {
    sender: http2::SendRequest<Outgoing>,
    facts: Facts,
    streams: Cell<u32>,
}

#[derive(Clone)]
struct Facts {
    local: Option<SocketAddr>,
    peer_uri: Option<Arc<str>>,
}

/// A connection in the hands of one request. Dropped without [`Lease::release`], an HTTP/1.1 connection is closed.
pub struct Lease {
    /// There until it is released.
    kind: Option<LeaseKind>,
    pool: Rc<EndpointPool>,
    endpoint: Arc<EndpointState>,
    /// It had served a request before.
    pub reused: bool,
}

enum LeaseKind {
    Http1(Http1),
    Http2(Rc<Http2>),
}

/// How sending a request ended.
pub enum Sent {
    /// The head of an answer.
    Answer(Response<Incoming>),
    /// The connection could not take it; no byte of it was sent. The request is handed back.
    NotSent(Box<Request<Outgoing>>),
    /// It failed after some of it may have been sent.
    Failed(hyper::Error),
}

impl Pools {
    /// A connection to `endpoint` for one request of a client that speaks `client`.
    pub async fn lease(
        &self,
        cluster: &ClusterState,
        endpoint: &Arc<EndpointState>,
        client: Version,
    ) -> Result<Lease, ConnectError> {
        let pool = self.endpoints.borrow_mut().entry(endpoint.id).or_default().clone();
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        let claim = Claim(endpoint);
        let config = &cluster.config;
        let wants_http2 = match config.http {
            UpstreamHttp::Http2 => true,
            UpstreamHttp::AsDownstream => client == Version::HTTP_2,
            UpstreamHttp::Http1 => false,
            UpstreamHttp::Alpn => !pool.shared.borrow().is_empty(),
        };
        let leased = if wants_http2 {
            pool.lease_http2(endpoint, config.connect_timeout).await
        } else if let Some(connection) = pool.take_idle(config.idle_timeout) {
            Ok((LeaseKind::Http1(connection), true))
        } else {
            let connected = connect(endpoint, config.connect_timeout).await?;
            let by_alpn = config.http == UpstreamHttp::Alpn && connected.alpn.as_deref() == Some(b"h2");
            match by_alpn {
                true => pool.begin_http2(endpoint, connected).await.map(|c| (LeaseKind::Http2(c), false)),
                false => begin_http1(endpoint, connected).await.map(|c| (LeaseKind::Http1(c), false)),
            }
        };
        let (kind, reused) = leased?;
        if let LeaseKind::Http2(connection) = &kind {
            connection.streams.set(connection.streams.get() + 1);
        }
        std::mem::forget(claim);
        Ok(Lease { kind: Some(kind), pool, endpoint: endpoint.clone(), reused })
    }

    /// Closes what has been idle for too long, and everything to endpoints that are gone. Call it now and then.
    pub fn sweep(&self, keeps: impl Fn(u64) -> Option<Option<Duration>>) {
        let now = Instant::now();
        self.endpoints.borrow_mut().retain(|id, pool| {
            let Some(idle_timeout) = keeps(*id) else { return false };
            if let Some(limit) = idle_timeout {
                pool.idle.borrow_mut().retain(|i| !i.connection.sender.is_closed() && now - i.since < limit);
            }
            pool.shared.borrow_mut().retain(|c| !c.sender.is_closed());
            true
        });
    }

    /// Idle HTTP/1.1 and open HTTP/2 connections, for people.
    pub fn connections(&self) -> usize {
        let pools = self.endpoints.borrow();
        pools.values().map(|p| p.idle.borrow().len() + p.shared.borrow().len()).sum()
    }
}

/// Gives the endpoint's active request back unless it is turned into a lease.
struct Claim<'e>(&'e EndpointState);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EndpointPool {
    /// The newest connection that is alive.
    fn take_idle(&self, idle_timeout: Option<Duration>) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        while let Some(newest) = idle.pop() {
            let too_old = idle_timeout.is_some_and(|limit| newest.since.elapsed() >= limit);
            if newest.connection.sender.is_ready() && !too_old {
                return Some(newest.connection);
            }
        }
        None
    }

    fn keep(&self, connection: Http1) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_LIMIT {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    async fn lease_http2(
        &self,
        endpoint: &Arc<EndpointState>,
        connect_timeout: Duration,
    ) -> Result<(LeaseKind, bool), ConnectError> {
        loop {
            if let Some(connection) = self.shared_with_room() {
                return Ok((LeaseKind::Http2(connection), true));
            }
            let waiting = self.making.borrow().clone();
            match waiting {
                Some(made) => made.notified().await,
                None => break,
            }
        }
        let _making = Making::begin(self);
        let connected = connect(endpoint, connect_timeout).await?;
        let connection = self.begin_http2(endpoint, connected).await?;
        Ok((LeaseKind::Http2(connection), false))
    }

    fn shared_with_room(&self) -> Option<Rc<Http2>> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|c| !c.sender.is_closed());
        shared.iter().find(|c| c.streams.get() < STREAMS_PER_CONNECTION).cloned()
    }

    async fn begin_http2(
        &self,
        endpoint: &EndpointState,
        connected: Connected,
    ) -> Result<Rc<Http2>, ConnectError> {
        let Connected { stream, local, peer_uri, .. } = connected;
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_header_list_size(HEADER_LIST_LIMIT)
            .max_concurrent_reset_streams(20)
            .max_pending_accept_reset_streams(20)
            .max_send_buf_size(256 * 1024)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| ConnectError::Protocol(endpoint.address, e))?;
        // It ends by itself when the last sender is gone or the endpoint leaves; why is told to the requests on it.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let shared = Rc::new(Http2 { sender, facts: Facts { local, peer_uri }, streams: Cell::new(0) });
        self.shared.borrow_mut().push(shared.clone());
        Ok(shared)
    }
}

/// The connection being made, until it is made or given up: then those who wait look again.
struct Making<'p>(&'p EndpointPool);

impl<'p> Making<'p> {
    fn begin(pool: &'p EndpointPool) -> Self {
        pool.making.replace(Some(Rc::new(Notify::new())));
        Self(pool)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(made) = self.0.making.take() {
            made.notify_waiters();
        }
    }
}

async fn begin_http1(endpoint: &EndpointState, connected: Connected) -> Result<Http1, ConnectError> {
    let Connected { stream, local, peer_uri, .. } = connected;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BUFFER)
        .max_headers(HEADERS_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| ConnectError::Protocol(endpoint.address, e))?;
    let connection: http1::Connection<TokioIo<Stream>, Outgoing> = connection;
    tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
    Ok(Http1 { sender, facts: Facts { local, peer_uri } })
}

impl Lease {
    /// Whether the endpoint is spoken to in HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.kind, Some(LeaseKind::Http2(_)))
    }

    /// Our own address towards the endpoint.
    pub fn local(&self) -> Option<SocketAddr> {
        self.facts().and_then(|facts| facts.local)
    }

    /// URI name in the endpoint's verified certificate.
    pub fn peer_uri(&self) -> Option<Arc<str>> {
        self.facts().and_then(|facts| facts.peer_uri.clone())
    }

    fn facts(&self) -> Option<&Facts> {
        Some(match self.kind.as_ref()? {
            LeaseKind::Http1(connection) => &connection.facts,
            LeaseKind::Http2(connection) => &connection.facts,
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Outgoing>) -> Sent {
        let outcome = match &mut self.kind {
            Some(LeaseKind::Http1(connection)) => connection.sender.try_send_request(request).await,
            Some(LeaseKind::Http2(connection)) => {
                let mut sender = connection.sender.clone();
                sender.try_send_request(request).await
            }
            None => return Sent::NotSent(Box::new(request)),
        };
        match outcome {
            Ok(answer) => Sent::Answer(answer),
            Err(mut error) => match error.take_message() {
                Some(request) => Sent::NotSent(Box::new(request)),
                None => Sent::Failed(error.into_error()),
            },
        }
    }

    /// The exchange is complete: the connection may serve another request.
    pub fn release(mut self) {
        let mut connection = match self.kind.take() {
            Some(LeaseKind::Http1(connection)) => connection,
            // A shared connection stays where it is; dropping the lease gives its stream back.
            shared => {
                self.kind = shared;
                return;
            }
        };
        if connection.sender.is_ready() {
            self.pool.keep(connection);
        } else if !connection.sender.is_closed() {
            // The connection has still something to finish, such as the request's last bytes.
            let pool = self.pool.clone();
            tokio::task::spawn_local(async move {
                if connection.sender.ready().await.is_ok() {
                    pool.keep(connection);
                }
            });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(LeaseKind::Http2(connection)) = &self.kind {
            connection.streams.set(connection.streams.get().saturating_sub(1));
        }
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs HTTP/2's own tasks on this thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
