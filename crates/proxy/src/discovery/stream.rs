//! The ADS stream: connects to the bootstrap's cluster like any other upstream, sends what [`Discovery`] asks for, feeds
//! it what comes, and connects again when that ends, after a pause that grows.
//!
//! [`Discovery`]: super::Discovery

use super::{Hub, Request, Response};
use crate::notice::tell;
use crate::upstream;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint, Uri};
use xds::bootstrap::Ads;

/// Pause before the second attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A failure that is the same as the last one is told again after this.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Largest response read.
const MAX_RESPONSE_BYTES: usize = 256 << 20;
/// Largest header list read.
const MAX_HEADER_LIST_BYTES: u32 = 32 << 10;
/// A control plane that answers no ping for so long is gone.
const PING: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// How the stream is doing, for people.
#[derive(Debug, Default)]
pub struct Status {
    /// Since when it is connected.
    pub connected: Option<Instant>,
    /// Why the last attempt ended.
    pub failure: Option<String>,
    /// Streams begun.
    pub streams: u64,
    /// Responses taken.
    pub responses: u64,
}

impl Status {
    fn ended(&mut self, reason: String) {
        self.connected = None;
        self.failure = Some(reason);
    }
}

/// Where to connect, and as whom.
pub struct Stream {
    /// What the bootstrap says of ADS.
    pub ads: Ads,
    /// Who the proxy is.
    pub node: Node,
    /// Kept up to date.
    pub status: Rc<RefCell<Status>>,
}

/// Follows the control plane. Never returns.
pub async fn follow(hub: Hub, stream: Stream) {
    let mut failures = 0u32;
    let mut told: Option<(String, Instant)> = None;
    loop {
        let before = stream.status.borrow().responses;
        let reason = converse(&hub, &stream).await;
        hub.close_stream();
        let answered = stream.status.borrow().responses > before;
        failures = if answered { 0 } else { failures.saturating_add(1) };
        let is_news = told.as_ref().is_none_or(|(last, at)| *last != reason || at.elapsed() > TELL_AGAIN);
        if is_news || answered {
            tell(format_args!("control plane `{}`: {reason}; connecting again", stream.ads.cluster));
            told = Some((reason.clone(), Instant::now()));
        }
        stream.status.borrow_mut().ended(reason);
        tokio::time::sleep(pause(failures, RandomState::new().hash_one(failures))).await;
    }
}

/// Half to the whole of a bound that doubles with every failure.
fn pause(failures: u32, random: u64) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    let share = (random >> 40) as f64 / (1u64 << 24) as f64;
    bound.mul_f64(0.5 + share / 2.0)
}

/// One connection from beginning to end; returns why it ended.
async fn converse(hub: &Hub, stream: &Stream) -> String {
    let channel = match connect(hub, &stream.ads).await {
        Ok(channel) => channel,
        Err(reason) => return reason,
    };
    let mut client = AggregatedDiscoveryServiceClient::new(channel)
        .max_decoding_message_size(MAX_RESPONSE_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES);
    let metadata = match metadata(&stream.ads) {
        Ok(metadata) => metadata,
        Err(reason) => return reason,
    };
    let mut node = Some(stream.node.clone());
    stream.status.borrow_mut().streams += 1;
    let requests = UnboundedReceiverStream::new(hub.open_stream());
    let outcome = if stream.ads.delta {
        let requests = requests.filter_map(move |request| {
            std::future::ready(match request {
                Request::Delta(mut request) => {
                    request.node = node.take();
                    Some(request)
                }
                Request::Whole(_) => None,
            })
        });
        let request = tonic::Request::from_parts(metadata, Default::default(), requests);
        match client.delta_aggregated_resources(request).await {
            Ok(responses) => read(hub, stream, responses.into_inner(), Response::Delta).await,
            Err(status) => Err(status),
        }
    } else {
        let requests = requests.filter_map(move |request| {
            std::future::ready(match request {
                Request::Whole(mut request) => {
                    request.node = node.take();
                    Some(request)
                }
                Request::Delta(_) => None,
            })
        });
        let request = tonic::Request::from_parts(metadata, Default::default(), requests);
        match client.stream_aggregated_resources(request).await {
            Ok(responses) => read(hub, stream, responses.into_inner(), Response::Whole).await,
            Err(status) => Err(status),
        }
    };
    match outcome {
        Ok(()) => "the stream ended".to_owned(),
        Err(status) => describe(&status),
    }
}

async fn read<R>(
    hub: &Hub,
    stream: &Stream,
    mut responses: tonic::Streaming<R>,
    wrap: fn(R) -> Response,
) -> Result<(), tonic::Status> {
    while let Some(response) = responses.message().await? {
        let mut status = stream.status.borrow_mut();
        status.responses += 1;
        if status.connected.is_none() {
            status.connected = Some(Instant::now());
            status.failure = None;
            tell(format_args!("control plane `{}`: connected", stream.ads.cluster));
        }
        drop(status);
        hub.feed(|discovery, now| discovery.receive(wrap(response), now));
    }
    Ok(())
}

fn metadata(ads: &Ads) -> Result<MetadataMap, String> {
    let mut metadata = MetadataMap::new();
    for (key, value) in &ads.initial_metadata {
        let wrong = |what: &str| format!("`initial_metadata` has a {what} that cannot be sent (key `{key}`)");
        let name: MetadataKey<tonic::metadata::Ascii> = key.parse().map_err(|_| wrong("key"))?;
        metadata.append(name, value.parse().map_err(|_| wrong("value"))?);
    }
    Ok(metadata)
}

async fn connect(hub: &Hub, ads: &Ads) -> Result<Channel, String> {
    let snapshot = hub.live().current();
    let cluster = snapshot.clusters.get(ads.cluster.as_str()).ok_or("its cluster has no endpoints yet")?;
    let endpoint =
        cluster.pick(RandomState::new().hash_one(0)).ok_or("its cluster has no endpoint to use")?;
    let uri = Uri::builder().scheme("http").authority(ads.authority.as_str()).path_and_query("/").build();
    // Names of clusters need not be host names.
    let uri = uri.unwrap_or_else(|_| Uri::from_static("http://control-plane"));
    let (every, patience) = PING;
    Endpoint::from(uri)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .http2_keep_alive_interval(every)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .connect_with_connector(Connector { endpoint: endpoint.clone(), cluster: cluster.config.clone() })
        .await
        .map_err(|error| root_cause(&error))
}

/// Why a stream ended, for people.
fn describe(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        // A status without an answer behind it: the connection broke.
        Some(cause) => format!("the connection broke: {}", root_cause(cause)),
        None => format!("it ended the stream: {} ({:?})", status.message(), status.code()),
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// Connects where it was told to, whatever URI tonic asks for.
struct Connector {
    endpoint: Arc<crate::snapshot::EndpointState>,
    cluster: Arc<model::cluster::Cluster>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<upstream::Stream>;
    type Error = upstream::ConnectError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (endpoint, cluster) = (self.endpoint.clone(), self.cluster.clone());
        let connecting =
            async move { Ok(TokioIo::new(upstream::connect(&cluster, &endpoint).await?.stream)) };
        Box::pin(connecting) as Pin<Box<_>>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_short_at_first_and_has_a_bound() {
        assert!(pause(0, u64::MAX) <= Duration::from_millis(100));
        assert!(pause(0, 0) >= Duration::from_millis(50));
        assert!(pause(u32::MAX, u64::MAX) <= LONGEST_PAUSE);
        assert!(pause(u32::MAX, 0) >= LONGEST_PAUSE / 2);
    }
}
