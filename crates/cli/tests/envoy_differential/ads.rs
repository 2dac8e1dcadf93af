//! A control plane in this process that answers delta ADS with what it is told to, and remembers what it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use xds::codec::type_url::VIRTUAL_HOST;

/// What is served.
#[derive(Default)]
struct State {
    /// By type and name asked for.
    resources: BTreeMap<(String, String), Resource>,
    /// Names about which nothing is said.
    silent: BTreeSet<String>,
    /// Names asked for, in order.
    asked: Vec<String>,
    streams: Vec<mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>>,
    nonce: u64,
}

/// The control plane; ends when dropped.
pub(crate) struct Plane {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Plane {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let service = Service(state.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(AggregatedDiscoveryServiceServer::new(service))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    outcome = server => outcome.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { port, state, stop: Some(stop), thread: Some(thread) }
    }

    /// From now on `name`, and each of `aliases`, is answered with this.
    pub(crate) fn serve(&self, type_url: &str, name: &str, aliases: &[&str], value: Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        let resource = Resource {
            name: name.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            version: "1".to_owned(),
            resource: Some(Any { type_url: type_url.to_owned(), value }),
            ..Resource::default()
        };
        for known in aliases.iter().chain([&name]) {
            state.resources.insert((type_url.to_owned(), (*known).to_owned()), resource.clone());
        }
    }

    /// Says nothing about a name.
    pub(crate) fn keep_silent(&self, name: &str) {
        self.state.lock().unwrap().silent.insert(name.to_owned());
    }

    /// Sends what `name` stands for by now to everybody, or that it is gone.
    pub(crate) fn push(&self, type_url: &str, name: &str, is_there: bool) {
        let mut state = self.state.lock().unwrap();
        let key = (type_url.to_owned(), name.to_owned());
        let mut response = DeltaDiscoveryResponse { type_url: type_url.to_owned(), ..Default::default() };
        match is_there {
            true => response.resources.push(state.resources[&key].clone()),
            false => {
                state.resources.remove(&key);
                response.removed_resources.push(name.to_owned());
            }
        }
        state.nonce += 1;
        response.nonce = state.nonce.to_string();
        for stream in &state.streams {
            let _ = stream.send(Ok(response.clone()));
        }
    }

    /// How often a name was asked for.
    pub(crate) fn times_asked(&self, name: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|asked| *asked == name).count()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Service(Arc<Mutex<State>>);

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Outgoing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (mut requests, state) = (request.into_inner(), self.0.clone());
        let (sender, receiver) = mpsc::unbounded_channel();
        state.lock().unwrap().streams.push(sender.clone());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if let Some(response) = state.lock().unwrap().answer(&request) {
                    let _ = sender.send(Ok(response));
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }
}

impl State {
    fn answer(&mut self, request: &DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        self.asked.extend(request.resource_names_subscribe.iter().cloned());
        let type_url = &request.type_url;
        let mut response = DeltaDiscoveryResponse { type_url: type_url.clone(), ..Default::default() };
        let missing = |name: &str| Resource {
            name: name.to_owned(),
            aliases: vec![name.to_owned()],
            ..Resource::default()
        };
        let is_first = request.response_nonce.is_empty() && request.resource_names_subscribe.is_empty();
        if type_url == VIRTUAL_HOST && is_first {
            // Envoy begins with all hosts; there is no other way to say that there are none.
            response.resources.push(missing("table/"));
        }
        for name in &request.resource_names_subscribe {
            match self.resources.get(&(type_url.clone(), name.clone())) {
                _ if self.silent.contains(name) => {}
                Some(resource) => response.resources.push(resource.clone()),
                None if type_url == VIRTUAL_HOST => response.resources.push(missing(name)),
                None => response.removed_resources.push(name.clone()),
            }
        }
        if response.resources.is_empty() && response.removed_resources.is_empty() {
            return None;
        }
        self.nonce += 1;
        response.nonce = self.nonce.to_string();
        Some(response)
    }
}
