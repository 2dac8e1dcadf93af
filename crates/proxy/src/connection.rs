//! The journey of a connection, in order: limits, first bytes, filter chain, TLS, then HTTP/1, HTTP/2 or TCP.
//!
//! A configuration change never closes it: it looks up what is in force for each request, and is told when its listener
//! leaves. Where connections come from is `worker`'s; what a request goes through is `request`'s.

mod http1;
mod http2;
mod inspect;
mod redirect;
mod hello;
mod proxied;
mod refused;
mod stage;

pub(crate) use stage::{Stage, StageView};

use crate::local::Local;
use crate::record::{
    Caller, ConnectionRecord, ListenerCounters, OpenConnection, Recorder, RequestRecord, Telemetry,
};
use crate::request::Context;
use crate::snapshot::{ChainState, HttpState, ListenerState, NetworkState, Snapshot};
use crate::stream::Prefixed;
use crate::tcp;
use http::{HeaderMap, Method, StatusCode, Version};
use identity::{certificate, handshake};
use model::listener::{Codec, HttpConnectionManager};
use refused::Refused;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

/// A client's bytes, in TLS or not.
type Stream = crate::stream::Stream<TlsStream<Prefixed<TcpStream>>>;

/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(15);

/// How long a client may take to speak before its server is called, where that may speak first.
const HEAD_START: Duration = Duration::from_millis(20);
/// Destinations that are known for it, at most.
const SERVER_FIRST_LIMIT: usize = 4096;

/// What the connections of one thread share.
pub(crate) struct Desk {
    /// The thread's belongings.
    pub(crate) local: Rc<Local>,
    /// Most connections open at once.
    pub(crate) limit: usize,
    open: Cell<usize>,
    next_id: Cell<u64>,
    told: refused::Sparingly,
    /// Destinations at which the server spoke first.
    server_first: RefCell<HashSet<SocketAddr>>,
}

impl Desk {
    /// The desk of thread number `worker`.
    pub(crate) fn new(local: Rc<Local>, worker: usize, limit: usize) -> Rc<Self> {
        // Ids are unique in the process without a counter that threads share, and small enough for JSON.
        let next_id = Cell::new(((worker as u64) << 40) + 1);
        Rc::new(Self {
            local,
            limit,
            open: Cell::new(0),
            next_id,
            told: Default::default(),
            server_first: Default::default(),
        })
    }

    fn telemetry(&self) -> &Arc<Telemetry> {
        self.local.live().telemetry()
    }
}

/// A connection that counts as open while this lives.
struct Seat(Rc<Desk>, #[allow(dead_code)] OpenConnection);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A connection as it was accepted.
pub(crate) struct Arrival {
    /// The client's end.
    pub(crate) socket: TcpStream,
    /// The client.
    pub(crate) remote: SocketAddr,
    /// Name of the listener.
    pub(crate) listener: Rc<str>,
    /// The listener's counters.
    pub(crate) counters: ListenerCounters,
    /// How far the listener is on its way out.
    pub(crate) stage: StageView,
}

/// Serves the HTTP/1 requests that come in on `io`, for embedders that accept connections themselves.
pub async fn serve_http1<IO>(context: Rc<Context>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let http = context.http();
    let stages = tokio::sync::watch::Sender::new(Stage::Serving);
    let stage = StageView::of(&stages);
    let server =
        http1::Server::new(context, &http.manager, Lifetime::of(&http.manager), stage, Prefixed::new(io));
    server.serve().await;
}

/// Serves a connection to its end.
pub(crate) async fn serve(desk: Rc<Desk>, arrival: Arrival) {
    let (listener, remote) = (arrival.listener.clone(), arrival.remote);
    // What is only needed to get here is given back before the connection waits for its first request.
    match Box::pin(receive(&desk, arrival)).await {
        Ok(guest) => guest.serve().await,
        Err(refused) => {
            refused.count(desk.telemetry(), &listener);
            if refused.is_worth_telling() {
                desk.told.tell(|| format!("{listener}: connection from {remote} closed: {refused}"));
            }
        }
    }
}

/// From the socket to a stream of bytes with a filter chain.
async fn receive(desk: &Rc<Desk>, arrival: Arrival) -> Result<Guest, Refused> {
    let Arrival { socket, remote, listener, counters, stage } = arrival;
    let seat = take_seat(desk, &counters)?;
    // An answer's end must not wait for an acknowledgement of its beginning.
    socket.set_nodelay(true).map_err(|_| Refused::Gone)?;
    let mut caller = redirect::caller(&socket, remote).ok_or(Refused::Gone)?;

    let snapshot = desk.local.snapshot();
    let (listener, state) =
        redirect::place(&snapshot, listener, &socket, &mut caller).ok_or(Refused::NoListener)?;
    let mut socket = Prefixed::new(socket);
    if let Some(wanted) = state.config.inspect.proxy_protocol
        && let Some(told) = Box::pin(proxied::ends(&mut socket, wanted)).await?
    {
        told.tell(&mut caller);
    }
    let (findings, ahead) = look(desk, state, &mut socket, &caller).await?;
    let chain = findings.with_facts(&caller, |facts| {
        state.chain_for(facts).cloned().ok_or_else(|| Refused::no_chain(facts))
    })?;

    let secured = match &chain.tls {
        None => Secured::plain(socket),
        Some(Err(why)) => return Err(Refused::TlsNotReady(why.clone())),
        Some(Ok(config)) => secure(socket, config.clone()).await?,
    };
    let Secured { stream, first, session } = secured;
    let connection = Arc::new(ConnectionRecord {
        id: desk.next_id.replace(desk.next_id.get() + 1),
        remote: caller.remote,
        local: caller.local,
        direct: caller.direct,
        is_restored: caller.is_restored,
        notes: caller.notes,
        server_name: session.server_name.or(findings.hello.and_then(|h| h.server_name)).map(Into::into),
        tls_version: session.version,
        peer_uri: session.peer_uri,
        own_uri: chain.own_uri.clone(),
        chain: chain.name.clone(),
    });
    let visit = Visit { desk: desk.clone(), listener, connection, stage, snapshot: Some(snapshot) };
    Ok(Guest { visit, chain, stream, first, protocol: session.protocol, ahead, _seat: seat })
}

/// Looks at the first bytes. Where a client that says nothing is one of TCP, its server is called after a short while, at
/// once if it is known to speak first: who speaks first then decides.
async fn look(
    desk: &Rc<Desk>,
    state: &ListenerState,
    socket: &mut Prefixed<TcpStream>,
    caller: &Caller,
) -> Result<(inspect::Findings, Option<tcp::Call>), Refused> {
    let silent = inspect::Findings::default().with_facts(caller, |facts| state.chain_for(facts).cloned());
    let silent = silent.filter(|chain| chain.tls.is_none());
    let inspecting = inspect::inspect(socket, &state.config, caller);
    let Some(NetworkState::Tcp(tcp)) = silent.as_ref().map(|chain| &chain.network) else {
        return Ok((inspecting.await?, None));
    };
    let is_known = desk.server_first.borrow().contains(&caller.local);
    let calling = async {
        if !is_known {
            tokio::time::sleep(HEAD_START).await;
        }
        tcp::call_ahead(&desk.local, tcp, caller).await
    };
    let mut inspecting = std::pin::pin!(inspecting);
    let called = tokio::select! {
        biased;
        found = inspecting.as_mut() => return Ok((found?, None)),
        called = calling => called,
    };
    if called.is_none() {
        return Ok((inspecting.await?, None));
    }
    let mut known = desk.server_first.borrow_mut();
    if known.len() < SERVER_FIRST_LIMIT {
        known.insert(caller.local);
    }
    Ok((inspect::Findings::default(), called))
}

/// A connection that is let in.
struct Guest {
    visit: Visit,
    chain: Arc<ChainState>,
    stream: Stream,
    /// What was read of the stream already.
    first: Vec<u8>,
    /// What ALPN says.
    protocol: Option<Protocol>,
    /// Its server, which spoke first.
    ahead: Option<tcp::Call>,
    _seat: Seat,
}

impl Guest {
    async fn serve(self) {
        let Self { mut visit, chain, stream, first, protocol, ahead, _seat } = self;
        let mut stream = Prefixed::with(first, stream);
        match &chain.network {
            NetworkState::Http(http) => {
                let lifetime = Lifetime::of(&http.manager);
                let protocol = match (http.manager.codec, protocol) {
                    (Codec::Http1, _) => Some(Protocol::Http1),
                    (Codec::Http2, _) => Some(Protocol::Http2),
                    (Codec::Auto, Some(protocol)) => Some(protocol),
                    (Codec::Auto, None) => {
                        let limit = lifetime.idle_limit(&http.manager);
                        Box::pin(sniff(&mut visit, limit, &mut stream)).await
                    }
                };
                match protocol {
                    Some(Protocol::Http1) => http1::serve(&mut visit, http, lifetime, stream).await,
                    Some(Protocol::Http2) => Box::pin(http2::serve(&mut visit, http, lifetime, stream)).await,
                    None => {}
                }
            }
            NetworkState::Tcp(tcp) => {
                visit.snapshot = None;
                Box::pin(tcp::pass(&visit.desk.local, tcp, &visit.connection, stream, ahead)).await;
            }
        }
    }
}

/// HTTP's version by its first bytes; `None` when they do not come.
async fn sniff(
    visit: &mut Visit,
    limit: Option<Duration>,
    stream: &mut Prefixed<Stream>,
) -> Option<Protocol> {
    let is_http2 = tokio::select! {
        sniffed = inspect::is_http2(stream) => sniffed.ok()?,
        () = visit.stage.reached(Stage::Closing) => return None,
        () = sleep_or_never(limit) => return None,
    };
    Some(if is_http2 { Protocol::Http2 } else { Protocol::Http1 })
}

fn take_seat(desk: &Rc<Desk>, counters: &ListenerCounters) -> Result<Seat, Refused> {
    if desk.open.get() >= desk.limit {
        return Err(Refused::TooMany(desk.limit));
    }
    desk.open.set(desk.open.get() + 1);
    Ok(Seat(desk.clone(), counters.opened()))
}

async fn sleep_or_never(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// How long a connection is used before its client is sent elsewhere.
#[derive(Debug, Clone, Copy)]
struct Lifetime {
    end: Option<Instant>,
    requests: u64,
}

impl Lifetime {
    /// Begins now.
    fn of(manager: &HttpConnectionManager) -> Self {
        Self {
            end: manager.max_connection_duration.and_then(|limit| Instant::now().checked_add(limit)),
            requests: manager.max_requests_per_connection.map_or(u64::MAX, u64::from),
        }
    }

    /// Whether it is over after so many requests.
    fn is_over(&self, requests: u64) -> bool {
        requests >= self.requests || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// How long the next request is waited for.
    fn idle_limit(&self, manager: &HttpConnectionManager) -> Option<Duration> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        [manager.idle_timeout, left].into_iter().flatten().min()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// A stream, the bytes of it that were read, and what TLS agreed on.
struct Secured {
    stream: Stream,
    first: Vec<u8>,
    session: Session,
}

/// What a TLS session agreed on.
#[derive(Default)]
struct Session {
    server_name: Option<String>,
    version: Option<&'static str>,
    protocol: Option<Protocol>,
    peer_uri: Option<Box<str>>,
}

impl Secured {
    fn plain(socket: Prefixed<TcpStream>) -> Self {
        let (first, socket) = socket.into_parts();
        Self { stream: Stream::Plain(socket), first, session: Session::default() }
    }
}

async fn secure(socket: Prefixed<TcpStream>, config: Arc<rustls::ServerConfig>) -> Result<Secured, Refused> {
    let accepted = tokio::time::timeout(HANDSHAKE_TIME, handshake::accept(socket, config)).await;
    let tls = accepted.map_err(|_| Refused::HandshakeTime)?.map_err(Refused::Handshake)?;
    let (_, agreed) = tls.get_ref();
    let peer = agreed.peer_certificates().and_then(certificate::peer_identity);
    let session = Session {
        server_name: agreed.server_name().map(str::to_owned),
        version: agreed.protocol_version().and_then(version_name),
        protocol: agreed.alpn_protocol().and_then(protocol_named),
        peer_uri: peer.and_then(|p| p.uri_sans.into_iter().next()).map(Into::into),
    };
    Ok(Secured { stream: Stream::Tls(Box::new(tls)), first: Vec::new(), session })
}

/// As Envoy writes it.
fn version_name(version: rustls::ProtocolVersion) -> Option<&'static str> {
    match version {
        rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        _ => None,
    }
}

/// HTTP's version by ALPN; Istio's own names count too. Others leave it to the first bytes.
fn protocol_named(alpn: &[u8]) -> Option<Protocol> {
    match alpn {
        b"h2" | b"istio-h2" => Some(Protocol::Http2),
        b"http/1.1" | b"http/1.0" | b"istio-http/1.1" | b"istio-http/1.0" => Some(Protocol::Http1),
        _ => None,
    }
}

/// A connection on its way.
struct Visit {
    desk: Rc<Desk>,
    listener: Rc<str>,
    connection: Arc<ConnectionRecord>,
    stage: StageView,
    /// The snapshot its chain is from, until a request context has it.
    snapshot: Option<Arc<Snapshot>>,
}

impl Visit {
    /// What its requests share.
    fn context(&mut self, http: &Arc<HttpState>) -> Rc<Context> {
        let local = self.desk.local.clone();
        let snapshot = self.snapshot.take().unwrap_or_else(|| local.snapshot());
        Context::new(local, &self.listener, self.connection.clone(), snapshot, http.clone())
    }

    fn refusals(&self, http: &HttpState) -> Refusals {
        Refusals { connection: self.connection.clone(), recorder: http.recorder.clone() }
    }
}

/// Records requests that were refused before they became requests.
#[derive(Clone)]
struct Refusals {
    connection: Arc<ConnectionRecord>,
    recorder: Arc<Recorder>,
}

impl Refusals {
    fn record(&self, status: StatusCode, token: &'static str) {
        let headers = HeaderMap::new();
        let Ok(method) = Method::from_bytes(b"-") else { return };
        let request = RequestRecord {
            method: &method,
            target: "-",
            authority: "-",
            scheme: if self.connection.tls_version.is_some() { "https" } else { "http" },
            version: Version::HTTP_11,
            headers: &headers,
            id: "-",
            client: self.connection.remote,
        };
        let mut exchange = self.recorder.begin(&self.connection, &request);
        exchange.details = token;
        exchange.flags = "DPE";
        exchange.answered(status.as_u16(), &headers);
        exchange.finish();
    }
}
