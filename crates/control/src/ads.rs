//! ADS v3 over gRPC, delta and state-of-the-world: who connects, what it may have, and one session per stream.
//! What is served comes from [`generation`](crate::generation); sockets are `serve`'s.

use crate::event::Report;
use crate::generation::Generation;
use crate::join_tokens::JoinTokenFile;
use crate::secrets::SecretIssuer;
use crate::status::Proxies;
use dialect::Dialect;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proof::Proof;
use session::Session;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xds::server::DeltaStream;
use xds::sotw::SotwStream;

mod session;
mod dialect;
mod proof;

/// Largest request read, in bytes.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Responses that wait for a client to read them; a client that reads none costs no more.
const QUEUE: usize = 4;

/// Responses on their way to a client.
type Responses<R> = ReceiverStream<Result<R, Status>>;

/// What all streams share.
pub(crate) struct Hub {
    /// The generation being served.
    pub(crate) generations: watch::Receiver<Arc<Generation>>,
    /// Who is connected.
    pub(crate) proxies: Arc<Proxies>,
    /// Certificates over SDS.
    pub(crate) issuer: SecretIssuer,
    /// Proofs of identity.
    pub(crate) tokens: Arc<JoinTokenFile>,
    /// Where events go.
    pub(crate) report: Report,
    /// True once all streams are to end.
    pub(crate) stop: watch::Receiver<bool>,
}

/// The ADS service.
#[derive(Clone)]
pub(crate) struct DiscoveryService(Arc<Hub>);

impl DiscoveryService {
    /// As a service for tonic's router.
    pub(crate) fn server(hub: Arc<Hub>) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(Self(hub)).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn open<D: Dialect>(
        &self,
        request: Request<Streaming<D::Request>>,
    ) -> Result<Response<Responses<D::Response>>, Status> {
        let hub = self.0.clone();
        let proof = Proof::of(request.extensions(), request.metadata(), &hub.tokens, SystemTime::now());
        let peer = request.remote_addr();
        // What a mesh looks like is nobody's business who cannot say who they are; processes of this machine are trusted.
        let is_local = peer.is_some_and(|peer| peer.ip().is_loopback());
        if let (false, Proof::Nothing(reason)) = (is_local, &proof) {
            return Err(Status::unauthenticated(format!("identity is needed from afar: {reason}")));
        }
        let (responses, outgoing) = mpsc::channel(QUEUE);
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        tokio::spawn(Session::<D>::serve(hub, proof, peer, is_local, request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<SotwStream>(request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<DeltaStream>(request)
    }
}
