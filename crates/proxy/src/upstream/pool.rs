//! Connections kept for further requests. Everything here belongs to one thread.

use super::body::Outgoing;
use super::connect::{ConnectError, Connected, Stream, connect};
use super::lease::{Lease, LeaseKind};
use super::rest::{Learner, Rest};
use crate::snapshot::{ClusterState, EndpointState, Limited, Permit, Vitals};
use http::Version;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::cluster::UpstreamHttp;
use model::limits::Priority;
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
/// A connection that rested so long is looked at before it is used again.
const LOOK: Duration = Duration::from_millis(50);
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
pub(super) struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    /// Someone is making an HTTP/2 connection: others wait for it instead of making one each.
    making: RefCell<Option<Rc<Notify>>>,
    /// HTTP/1.1 connections that are open or being made.
    open: Cell<u32>,
    /// One of them is free, or gone.
    freed: Notify,
    learner: Learner,
}

struct Idle {
    connection: Http1,
    rest: Rest,
}

pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Outgoing>,
    pub(super) facts: Facts,
    /// Requests it has served.
    pub(super) served: u32,
    /// Since when it rests, for whoever sees it end.
    resting: Rc<Cell<Option<Instant>>>,
}

pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Outgoing>,
    pub(super) facts: Facts,
    pub(super) streams: Cell<u32>,
    /// Requests it has been given.
    served: Cell<u32>,
    _permit: Option<Permit>,
}

/// An HTTP/1.1 connection that is counted.
struct Open {
    pool: Rc<EndpointPool>,
    _permit: Option<Permit>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pool.open.set(self.pool.open.get().saturating_sub(1));
        self.pool.freed.notify_one();
    }
}

#[derive(Clone)]
pub(super) struct Facts {
    pub(super) local: Option<SocketAddr>,
    pub(super) peer_uri: Option<Arc<str>>,
}

impl Pools {
    /// A connection to `endpoint` for one request of a client that speaks `client`.
    pub async fn lease(
        &self,
        cluster: &ClusterState,
        endpoint: &Arc<EndpointState>,
        client: Version,
    ) -> Result<Lease, ConnectError> {
        self.lease_as(cluster, endpoint, client, Priority::Default).await
    }

    /// The same, under the limits for `priority`.
    pub async fn lease_as(
        &self,
        cluster: &ClusterState,
        endpoint: &Arc<EndpointState>,
        client: Version,
        priority: Priority,
    ) -> Result<Lease, ConnectError> {
        let permit = cluster.take(Limited::Requests, priority)?;
        if !cluster.config.health_checks.is_empty() {
            cluster.usage.note_traffic();
        }
        let pool = self.endpoints.borrow_mut().entry(endpoint.id).or_default().clone();
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        let claim = Claim(endpoint);
        let need = Need { cluster, endpoint, priority };
        let config = &cluster.config;
        let wants_http2 = match config.http {
            UpstreamHttp::Http2 => true,
            UpstreamHttp::AsDownstream => client == Version::HTTP_2,
            UpstreamHttp::Http1 => false,
            UpstreamHttp::Alpn => !pool.shared.borrow().is_empty(),
        };
        let (kind, reused) = match wants_http2 {
            true => pool.lease_http2(&need).await?,
            false => match pool.take_idle(&need).await {
                Some(connection) => (LeaseKind::Http1(connection), true),
                None => pool.lease_new(&need).await?,
            },
        };
        let max_requests = config.connections.max_requests;
        if let LeaseKind::Http2(connection) = &kind {
            connection.streams.set(connection.streams.get() + 1);
            pool.count_request(connection, max_requests);
        }
        std::mem::forget(claim);
        Ok(Lease {
            kind: Some(kind),
            pool,
            endpoint: endpoint.clone(),
            max_requests,
            _permit: permit,
            reused,
        })
    }

    /// Closes what has been idle for too long, and everything to endpoints that are gone. Call it now and then.
    pub fn sweep(&self, keeps: impl Fn(u64) -> Option<(Option<Duration>, Arc<Vitals>)>) {
        let now = Instant::now();
        self.endpoints.borrow_mut().retain(|id, pool| {
            let Some((idle_timeout, vitals)) = keeps(*id) else { return false };
            let limit = match (idle_timeout, vitals.idle_limit()) {
                (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
                (ours, theirs) => ours.or(theirs),
            };
            if let Some(limit) = limit {
                let lives = |i: &mut Idle| !i.connection.sender.is_closed() && now - i.rest.since() < limit;
                pool.idle.borrow_mut().retain_mut(lives);
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

/// Who needs a connection, and to whom.
struct Need<'n> {
    cluster: &'n ClusterState,
    endpoint: &'n Arc<EndpointState>,
    priority: Priority,
}

impl EndpointPool {
    /// The newest connection that is alive.
    async fn take_idle(&self, need: &Need<'_>) -> Option<Http1> {
        let learned = need.endpoint.vitals.idle_limit();
        let limit = match (need.cluster.config.idle_timeout, learned) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        loop {
            let Idle { mut connection, rest } = self.idle.borrow_mut().pop()?;
            let rested = rest.end();
            if limit.is_some_and(|limit| rested >= limit) {
                continue;
            }
            if rested >= LOOK && connection.sender.is_ready() {
                // What the endpoint sent meanwhile, such as its farewell, is read before anything else is done.
                tokio::task::yield_now().await;
            }
            if connection.sender.is_ready() {
                connection.served += 1;
                return Some(connection);
            }
        }
    }

    pub(super) fn keep(&self, connection: Http1) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_LIMIT {
            let rest = Rest::begin(&connection.resting);
            idle.push(Idle { connection, rest });
        }
        drop(idle);
        self.freed.notify_one();
    }

    /// A connection of its own, or one that becomes free where no more may be made.
    async fn lease_new(self: &Rc<Self>, need: &Need<'_>) -> Result<(LeaseKind, bool), ConnectError> {
        let _pending = need.cluster.take(Limited::Pending, need.priority)?;
        let permit = loop {
            match need.cluster.take(Limited::Connections, need.priority) {
                Ok(permit) => break permit,
                // A thread that has none would wait for nothing.
                Err(what) if self.open.get() == 0 => {
                    break need.cluster.usage.take(what, need.priority, u64::MAX);
                }
                Err(_) => {
                    self.freed.notified().await;
                    if let Some(connection) = self.take_idle(need).await {
                        return Ok((LeaseKind::Http1(connection), true));
                    }
                }
            }
        };
        self.open.set(self.open.get() + 1);
        let open = Open { pool: self.clone(), _permit: permit };
        let config = &need.cluster.config;
        let connected = connect(config, need.endpoint).await?;
        if config.http == UpstreamHttp::Alpn && connected.alpn.as_deref() == Some(b"h2") {
            drop(open);
            let permit = need.cluster.take(Limited::Connections, need.priority).ok().flatten();
            let made = self.begin_http2(need.endpoint, connected, permit).await?;
            return Ok((LeaseKind::Http2(made), false));
        }
        begin_http1(need.endpoint, connected, open).await.map(|made| (LeaseKind::Http1(made), false))
    }

    async fn lease_http2(&self, need: &Need<'_>) -> Result<(LeaseKind, bool), ConnectError> {
        if let Some(connection) = self.shared_with_room() {
            return Ok((LeaseKind::Http2(connection), true));
        }
        let _pending = need.cluster.take(Limited::Pending, need.priority)?;
        loop {
            let waiting = self.making.borrow().clone();
            match waiting {
                Some(made) => made.notified().await,
                None => break,
            }
            if let Some(connection) = self.shared_with_room() {
                return Ok((LeaseKind::Http2(connection), true));
            }
        }
        let permit = match need.cluster.take(Limited::Connections, need.priority) {
            Ok(permit) => permit,
            Err(what) => match self.least_busy() {
                Some(connection) => return Ok((LeaseKind::Http2(connection), true)),
                None => need.cluster.usage.take(what, need.priority, u64::MAX),
            },
        };
        let _making = Making::begin(self);
        let connected = connect(&need.cluster.config, need.endpoint).await?;
        let connection = self.begin_http2(need.endpoint, connected, permit).await?;
        Ok((LeaseKind::Http2(connection), false))
    }

    fn least_busy(&self) -> Option<Rc<Http2>> {
        self.shared.borrow().iter().min_by_key(|connection| connection.streams.get()).cloned()
    }

    /// Counts a request on a shared connection; the last that it may serve takes it out of the pool.
    fn count_request(&self, connection: &Rc<Http2>, max_requests: Option<u32>) {
        connection.served.set(connection.served.get().saturating_add(1));
        if max_requests.is_some_and(|max| connection.served.get() >= max) {
            self.shared.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
        }
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
        permit: Option<Permit>,
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
        let shared = Rc::new(Http2 {
            sender,
            facts: Facts { local, peer_uri },
            streams: Cell::new(0),
            served: Cell::new(0),
            _permit: permit,
        });
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

async fn begin_http1(
    endpoint: &Arc<EndpointState>,
    connected: Connected,
    open: Open,
) -> Result<Http1, ConnectError> {
    let Connected { stream, local, peer_uri, .. } = connected;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BUFFER)
        .max_headers(HEADERS_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| ConnectError::Protocol(endpoint.address, e))?;
    let connection: http1::Connection<TokioIo<Stream>, Outgoing> = connection;
    let resting: Rc<Cell<Option<Instant>>> = Rc::default();
    let (seen, vitals) = (resting.clone(), endpoint.vitals.clone());
    tokio::task::spawn_local(async move {
        drop(connection.with_upgrades().await);
        // We end none that rests without saying so.
        if let Some(since) = seen.get() {
            open.pool.learner.closed_at_rest(since.elapsed(), &vitals);
        }
    });
    Ok(Http1 { sender, facts: Facts { local, peer_uri }, served: 1, resting })
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
