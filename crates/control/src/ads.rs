//! ADS v3 over gRPC, delta and state-of-the-world: who connects, what it may have, and one session per stream.
//! What is served comes from [`generation`](crate::generation); sockets are `serve`'s.

use crate::event::Report;
use crate::generation::Generation;
use crate::join_tokens::JoinTokenFile;
use crate::secrets::SecretIssuer;
use crate::status::Proxies;
use dialect::Dialect;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::SERVICE_NAME;
use incoming::Requests;
use outgoing::Responses;
use proof::Proof;
use session::Session;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Request, Status};
use xds::server::DeltaStream;
use xds::sotw::SotwStream;

mod session;
mod asked;
mod dialect;
mod incoming;
mod outgoing;
mod proof;

/// Responses that wait for a client to read them; a client that reads none costs no more.
const QUEUE: usize = 4;
/// Names and types one stream may ask for together.
const MAX_NAMES: usize = 20_000;
/// The two methods.
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

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

/// The ADS service. It is written without tonic's generated server, whose encoder copies each response for each stream.
#[derive(Clone)]
pub(crate) struct DiscoveryService(Arc<Hub>);

impl NamedService for DiscoveryService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for DiscoveryService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let opened = match request.uri().path() {
            DELTA => self.open::<DeltaStream>(request),
            SOTW => self.open::<SotwStream>(request),
            other => Err(Status::unimplemented(format!("`{}` is no method of ADS", other.escape_debug()))),
        };
        ready(Ok(opened.unwrap_or_else(Status::into_http)))
    }
}

impl DiscoveryService {
    /// As a service for tonic's router.
    pub(crate) fn server(hub: Arc<Hub>) -> Self {
        Self(hub)
    }

    // The only error there is becomes an answer.
    #[allow(clippy::result_large_err)]
    fn open<D: Dialect>(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let hub = self.0.clone();
        let request = Request::from_http(request.map(Requests::<D::Request>::new));
        let proof = Proof::of(request.extensions(), request.metadata(), &hub.tokens, SystemTime::now());
        let peer = request.remote_addr();
        // What a mesh looks like is nobody's business who cannot say who they are; processes of this machine are trusted.
        let is_local = peer.is_some_and(|peer| peer.ip().is_loopback());
        if let (false, Proof::Nothing(reason)) = (is_local, &proof) {
            return Err(Status::unauthenticated(format!("identity is needed from afar: {reason}")));
        }
        let (responses, outgoing) = mpsc::channel(QUEUE);
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        let session = Session::<D>::serve(hub, proof, peer, is_local, request.into_inner(), responses);
        let mut response = http::Response::new(Body::new(Responses::new(session, outgoing)));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        Ok(response)
    }
}
