//! One thread's connections to one endpoint: those at rest, those that are shared, and who waits for one.

use super::connect::{ConnectError, Connected, connect};
use super::http1::Http1;
use super::http2::Http2;
use super::rest::{Learner, SHORTEST};
use crate::snapshot::{ClusterState, EndpointState, Limited, Permit, Vitals};
use http::Version;
use model::cluster::UpstreamHttp;
use model::limits::Priority;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Idle HTTP/1.1 connections kept to one endpoint by one thread.
const IDLE_LIMIT: usize = 256;
/// Requests on one HTTP/2 connection before another is made, where nothing is said.
const STREAMS_PER_CONNECTION: u32 = 100;
/// A connection that rested so long is looked at before it is used again.
const LOOK: Duration = Duration::from_millis(50);

/// One thread's connections to one endpoint.
pub(super) struct EndpointPool {
    vitals: Arc<Vitals>,
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
    open: Open,
    since: Instant,
    /// When it was last seen to be open.
    seen: Instant,
}

impl Idle {
    /// The connection for one more request.
    async fn lease(self) -> LeaseKind {
        let Self { mut connection, open, since, .. } = self;
        if since.elapsed() >= LOOK {
            // What the endpoint sent meanwhile, such as its farewell, is read before anything else is done.
            tokio::task::yield_now().await;
        }
        connection.served += 1;
        LeaseKind::Http1(connection, open)
    }
}

/// An HTTP/1.1 connection that is counted.
pub(super) struct Open {
    pool: Weak<EndpointPool>,
    _permit: Option<Permit>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A pool that is gone counts nothing any more.
        if let Some(pool) = self.pool.upgrade() {
            pool.open.set(pool.open.get().saturating_sub(1));
            pool.freed.notify_one();
        }
    }
}

/// A connection for one request.
pub(super) enum LeaseKind {
    Http1(Http1, Open),
    Http2(Rc<Http2>),
}

/// Who needs a connection, and to whom.
pub(super) struct Need<'n> {
    pub(super) cluster: &'n ClusterState,
    pub(super) endpoint: &'n Arc<EndpointState>,
    pub(super) priority: Priority,
}

impl EndpointPool {
    pub(super) fn new(vitals: Arc<Vitals>) -> Self {
        Self {
            vitals,
            idle: RefCell::default(),
            shared: RefCell::default(),
            making: RefCell::default(),
            open: Cell::new(0),
            freed: Notify::new(),
            learner: Learner::default(),
        }
    }

    /// A connection for one request of a client that speaks `client`, and whether it was there already.
    pub(super) async fn lease(
        self: &Rc<Self>,
        need: &Need<'_>,
        client: Version,
    ) -> Result<(LeaseKind, bool), ConnectError> {
        let config = &need.cluster.config;
        let wants_http2 = match config.http {
            UpstreamHttp::Http2 => true,
            UpstreamHttp::AsDownstream => client == Version::HTTP_2,
            UpstreamHttp::Http1 => false,
            UpstreamHttp::Alpn => !self.shared.borrow().is_empty(),
        };
        let leased = match wants_http2 {
            true => match self.shared_with_room(config.connections.max_streams) {
                Some(connection) => (LeaseKind::Http2(connection), true),
                None => Box::pin(self.lease_http2(need)).await?,
            },
            false => match self.take_idle(need) {
                Some(idle) => (idle.lease().await, true),
                None => Box::pin(self.lease_new(need)).await?,
            },
        };
        if let LeaseKind::Http2(connection) = &leased.0 {
            connection.streams.set(connection.streams.get() + 1);
            self.count_request(connection, config.connections.max_requests);
        }
        Ok(leased)
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self, idle_timeout: Option<Duration>, vitals: &Vitals, now: Instant) {
        let limit = shorter(idle_timeout, vitals.idle_limit());
        self.idle.borrow_mut().retain(|idle| {
            limit.is_none_or(|limit| now - idle.since < limit) && idle.connection.facts.is_young()
        });
        self.shared.borrow_mut().retain(|connection| connection.has_room().is_some());
    }

    /// Looks for connections that the endpoint closed while they rested, and learns from them when that was.
    pub(super) fn look(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| {
            if now - idle.since < SHORTEST || idle.connection.is_alive() {
                idle.seen = now;
                return true;
            }
            // It closed after it was seen last, and before now: the shorter time is on the safe side.
            self.learner.closed_at_rest(idle.seen - idle.since, &self.vitals);
            false
        });
    }

    /// Idle HTTP/1.1 and open HTTP/2 connections.
    pub(super) fn connections(&self) -> usize {
        self.idle.borrow().len() + self.shared.borrow().len()
    }

    /// The newest connection that is alive.
    fn take_idle(&self, need: &Need<'_>) -> Option<Idle> {
        let limit = shorter(need.cluster.config.idle_timeout, need.endpoint.vitals.idle_limit());
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if limit.is_none_or(|limit| idle.since.elapsed() < limit) && idle.connection.facts.is_young() {
                return Some(idle);
            }
        }
    }

    pub(super) fn keep(&self, connection: Http1, open: Open) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_LIMIT {
            let now = Instant::now();
            idle.push(Idle { connection, open, since: now, seen: now });
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
                    if let Some(idle) = self.take_idle(need) {
                        return Ok((idle.lease().await, true));
                    }
                }
            }
        };
        self.open.set(self.open.get() + 1);
        let open = Open { pool: Rc::downgrade(self), _permit: permit };
        let config = &need.cluster.config;
        let connected = connect(config, need.endpoint).await?;
        if config.http == UpstreamHttp::Alpn && connected.alpn.as_deref() == Some(b"h2") {
            drop(open);
            let permit = need.cluster.take(Limited::Connections, need.priority).ok().flatten();
            let made = self.begin_http2(need, connected, permit).await?;
            return Ok((LeaseKind::Http2(made), false));
        }
        let Connected { stream, facts, .. } = connected;
        Ok((LeaseKind::Http1(Http1::new(stream, facts, config.connections.header_case), open), false))
    }

    async fn lease_http2(&self, need: &Need<'_>) -> Result<(LeaseKind, bool), ConnectError> {
        let _pending = need.cluster.take(Limited::Pending, need.priority)?;
        loop {
            let waiting = self.making.borrow().clone();
            match waiting {
                Some(made) => made.notified().await,
                None => break,
            }
            if let Some(connection) = self.shared_with_room(need.cluster.config.connections.max_streams) {
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
        let connection = self.begin_http2(need, connected, permit).await?;
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

    /// A connection that takes another request while it has fewer than `most`.
    fn shared_with_room(&self, most: Option<u32>) -> Option<Rc<Http2>> {
        let most = most.unwrap_or(STREAMS_PER_CONNECTION);
        let mut shared = self.shared.borrow_mut();
        let mut found = None;
        shared.retain(|connection| match connection.has_room() {
            Some(has_room) => {
                if has_room && found.is_none() && connection.streams.get() < most {
                    found = Some(connection.clone());
                }
                true
            }
            None => false,
        });
        found
    }

    async fn begin_http2(
        &self,
        need: &Need<'_>,
        connected: Connected,
        permit: Option<Permit>,
    ) -> Result<Rc<Http2>, ConnectError> {
        let pings = need.cluster.config.connections.pings;
        let made = Http2::begin(need.endpoint.address, connected, pings, permit).await?;
        self.shared.borrow_mut().push(made.clone());
        Ok(made)
    }
}

/// How long a connection may rest: what is configured, or what was learned of its endpoint.
fn shorter(ours: Option<Duration>, theirs: Option<Duration>) -> Option<Duration> {
    [ours, theirs].into_iter().flatten().min()
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
