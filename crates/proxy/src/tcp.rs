//! The journey of a connection whose bytes are passed on as they are: cluster, endpoint, both ways until both sides are
//! done, record.

mod passage;
mod splice;
mod tunnel;

use crate::failure::Failure;
use crate::local::Local;
use crate::record::{Caller, ConnectionRecord, Exchange, UpstreamRecord};
use crate::snapshot::{ClusterState, EndpointState, Limited, Permit, TcpState, Wish};
use crate::stream::Bare;
use crate::upstream::{ConnectError, Connected, connect};
use http::HeaderMap;
use model::balance::{Criteria, xx_hash};
use model::cluster::Cluster;
use model::limits::Priority;
use model::outlier::Verdict;
use model::route::WeightedCluster;
use passage::{Ended, Passage};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// Endpoints tried for one connection where nothing else is configured.
const TRIES: usize = 3;
/// Picks made to find one that was not tried.
const PICKS: u32 = 16;
/// How often the bytes of a long connection are counted.
const REPORT: Duration = Duration::from_secs(10);

/// A connection to an endpoint for a client.
pub(crate) struct Call {
    cluster: Arc<Cluster>,
    attempts: u32,
    upstream: Option<UpstreamRecord>,
    connected: Connected,
    active: Active,
}

/// Why there is none.
struct Uncalled {
    cluster: Option<Arc<Cluster>>,
    attempts: u32,
    upstream: Option<UpstreamRecord>,
    failure: Failure,
    why: Option<String>,
}

impl Uncalled {
    fn new(failure: Failure) -> Self {
        Self { cluster: None, attempts: 0, upstream: None, failure, why: None }
    }
}

/// Calls an endpoint for a client that has said nothing yet. Ready when the endpoint speaks first; `None` when it cannot
/// be told, or not be called.
pub(crate) async fn call_ahead(local: &Rc<Local>, tcp: &Arc<TcpState>, caller: &Caller) -> Option<Call> {
    // Inside of a tunnel an endpoint says nothing before it is asked to make one.
    if tcp.proxy.tunnel.is_some() {
        return None;
    }
    let call = call(local, tcp, caller).await.ok()?;
    call.connected.stream.speaks().await?;
    Some(call)
}

/// Passes the bytes of `client` on, as `tcp` says; over `ahead` where that was called already.
pub(crate) async fn pass<IO>(
    local: &Rc<Local>,
    tcp: &Arc<TcpState>,
    connection: &Arc<ConnectionRecord>,
    client: IO,
    ahead: Option<Call>,
) where
    IO: AsyncRead + AsyncWrite + Bare + Unpin,
{
    let mut exchange = tcp.recorder.begin_tcp(connection);
    let called = match ahead {
        Some(call) => Ok(call),
        None => Box::pin(call(local, tcp, &connection.caller())).await,
    };
    let Call { cluster, attempts, upstream, connected, active: _active } = match called {
        Ok(call) => call,
        Err(uncalled) => {
            (exchange.cluster, exchange.attempts) = (uncalled.cluster, uncalled.attempts);
            exchange.upstream = uncalled.upstream;
            return end(exchange, uncalled.failure, uncalled.why);
        }
    };
    (exchange.cluster, exchange.attempts, exchange.upstream) = (Some(cluster), attempts, upstream);
    let stream = match &tcp.proxy.tunnel {
        None => return carry(exchange, tcp, client, connected.stream).await,
        Some(tunnel) => tunnel::open(tunnel, &exchange, connected).await,
    };
    match stream {
        Ok(stream) => carry(exchange, tcp, client, stream).await,
        Err(why) => end(exchange, Failure::UpstreamReset, Some(why)),
    }
}

/// Passes bytes between a client and its endpoint until both are done.
async fn carry<A, B>(mut exchange: Box<Exchange>, tcp: &TcpState, client: A, endpoint: B)
where
    A: AsyncRead + AsyncWrite + Bare + Unpin,
    B: AsyncRead + AsyncWrite + Bare + Unpin,
{
    exchange.details = "via_upstream";
    exchange.established();
    if tcp.proxy.logs_start {
        exchange.log_now();
    }

    let mut passage = Passage::new(client, endpoint);
    let mut logged = Instant::now();
    let end_at = tcp.proxy.max_duration.and_then(|limit| Instant::now().checked_add(limit));
    let ended = loop {
        let left = end_at.map(|end| end.saturating_duration_since(Instant::now()));
        let every = tcp.proxy.log_interval.map_or(REPORT, |interval| interval.min(REPORT));
        let report = left.map_or(every, |left| left.min(every));
        match passage.run(tcp.proxy.idle_timeout, report).await {
            Some(ended) => break ended,
            None if left.is_some_and(|left| left <= every) => break Ended::Done,
            None => {
                (exchange.bytes_received, exchange.bytes_sent) = passage.bytes();
                exchange.report();
                if tcp.proxy.log_interval.is_some_and(|interval| logged.elapsed() >= interval) {
                    logged = Instant::now();
                    exchange.log_now();
                }
            }
        }
    };
    (exchange.bytes_received, exchange.bytes_sent) = passage.bytes();
    match ended {
        Ended::Done => exchange.finish(),
        Ended::Idle => end(exchange, Failure::IdleTimeout, None),
        Ended::Client(error) => end(exchange, Failure::ClientGone, Some(error.to_string())),
        Ended::Endpoint(error) => end(exchange, Failure::UpstreamReset, Some(error.to_string())),
    }
}

fn end(mut exchange: Box<Exchange>, failure: Failure, why: Option<String>) {
    let outcome = failure.outcome();
    exchange.details = outcome.token;
    exchange.flags = outcome.flags;
    if why.is_some() {
        exchange.transport_failure = why;
    }
    exchange.finish();
}

fn find_cluster(local: &Local, tcp: &TcpState) -> Result<(Arc<ClusterState>, Criteria), Failure> {
    let chosen = pick_weighted(&tcp.proxy.clusters, local.random()).ok_or(Failure::ClusterMissing)?;
    let found = local.snapshot().cluster(&chosen.cluster, local.random()).cloned();
    Ok((found.ok_or(Failure::ClusterMissing)?, tcp.proxy.subset_for(chosen)))
}

fn pick_weighted(clusters: &[WeightedCluster], random: u64) -> Option<&WeightedCluster> {
    let total: u64 = clusters.iter().map(|c| u64::from(c.weight)).sum();
    let mut at = if total == 0 { 0 } else { random % total };
    let chosen = clusters.iter().find(|c| {
        let here = at < u64::from(c.weight);
        at = at.saturating_sub(u64::from(c.weight));
        here
    });
    chosen.or(clusters.first())
}

/// An endpoint with one more connection, counted where the cluster limits them.
struct Active {
    endpoint: Arc<EndpointState>,
    _permit: Option<Permit>,
}

impl Active {
    fn new(endpoint: &Arc<EndpointState>, permit: Option<Permit>) -> Self {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        Self { endpoint: endpoint.clone(), _permit: permit }
    }
}

/// What a connection that was made, or not, says of its endpoint.
fn verdict(outcome: &Result<Connected, ConnectError>) -> Verdict {
    match outcome {
        Ok(_) => Verdict::Answered(200),
        Err(ConnectError::Timeout(..)) => Verdict::TimedOut,
        Err(_) => Verdict::Broken,
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn call(local: &Local, tcp: &TcpState, caller: &Caller) -> Result<Call, Uncalled> {
    let (cluster, subset) = find_cluster(local, tcp).map_err(Uncalled::new)?;
    let destination = cluster.destination(&HeaderMap::new(), caller);
    // As in Envoy: the address without the port.
    let hash = tcp.proxy.hashes_source.then(|| xx_hash(caller.remote.ip().to_string().as_bytes(), 0));
    let tries = tcp.proxy.max_connect_attempts.map_or(TRIES, |n| n.max(1) as usize);
    let mut tried = Vec::new();
    // Those that failed count as busy until it is over: the least busy is another.
    let mut failed = Vec::new();
    let mut last = Uncalled::new(Failure::NoHealthyEndpoint);
    last.cluster = Some(cluster.config.clone());
    last.why = Some(cluster.describe_absence());
    while tried.len() < tries {
        let wish = Wish { random: local.random(), hash, subset: &subset, avoid: &tried, picks: PICKS };
        let picked = destination.as_ref().or_else(|| cluster.choose(&wish));
        let Some(endpoint) = picked.filter(|e| !tried.contains(&e.id)) else { break };
        tried.push(endpoint.id);
        last.attempts += 1;
        let Ok(permit) = cluster.take(Limited::Connections, Priority::Default) else {
            (last.failure, last.why) = (Failure::Overflow, None);
            break;
        };
        let active = Active::new(endpoint, permit);
        let endpoint = &cluster.endpoint_for(endpoint, caller);
        let outcome = connect(&cluster.config, endpoint).await;
        cluster.report(endpoint, verdict(&outcome));
        let (local, peer_uri) = match &outcome {
            Ok(connected) => (connected.facts.local, connected.facts.peer_uri.clone()),
            Err(_) => (None, None),
        };
        last.upstream = Some(UpstreamRecord {
            address: endpoint.address,
            endpoint: endpoint.endpoint.clone(),
            local,
            peer_uri,
        });
        match outcome {
            Ok(connected) => {
                let (attempts, upstream) = (last.attempts, last.upstream);
                // A cluster that is replaced or removed does not matter to connections that are made.
                return Ok(Call { cluster: cluster.config.clone(), attempts, upstream, connected, active });
            }
            Err(error) => (last.failure, last.why) = (error.failure(), Some(error.to_string())),
        }
        failed.push(active);
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_chosen_by_weight_and_a_lone_one_always() {
        let cluster = |name: &str, weight| WeightedCluster {
            cluster: name.into(),
            weight,
            ..WeightedCluster::default()
        };
        let two = [cluster("a", 1), cluster("b", 3)];
        let picks: Vec<_> =
            (0..8).filter_map(|random| pick_weighted(&two, random)).map(|c| c.cluster.as_str()).collect();
        assert_eq!(picks, ["a", "b", "b", "b", "a", "b", "b", "b"]);
        let none = [cluster("a", 0)];
        assert_eq!(pick_weighted(&none, 7), none.first());
        assert_eq!(pick_weighted(&[], 7), None);
    }
}
