//! Clusters as they run: endpoints flattened, transports made, and the state that outlives a change of configuration.

use super::{Config, Snapshot};
use identity::config::{client_config, server_name};
use model::balance::{self, Weights};
use model::cluster::{Cluster, Discovery, Transport, UpstreamHttp};
use model::endpoint::{Assignment, Endpoint, EndpointAddress, Health, LocalityEndpoints};
use model::tls::UpstreamTls;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A cluster and its endpoints.
pub struct ClusterState {
    /// What it was compiled from.
    pub config: Arc<Cluster>,
    /// Every endpoint, whether it may be picked or not.
    pub endpoints: Vec<Arc<EndpointState>>,
    assignment: Option<Arc<Assignment>>,
    /// Positions of those that may be picked: the healthy ones of the best priority that has any, else the degraded.
    usable: Vec<u32>,
    weights: Weights,
    turn: Arc<AtomicU64>,
}

/// One endpoint. Its identity and counters outlive changes of configuration.
pub struct EndpointState {
    /// Stays the same while address and transport do: a connection made for it may be used again.
    pub id: u64,
    /// Where it is.
    pub address: SocketAddr,
    /// What discovery says of it.
    pub endpoint: Arc<Endpoint>,
    /// How it is reached.
    pub transport: TransportState,
    /// Requests it is working on, over all threads.
    pub active: Arc<AtomicU32>,
    configured: Transport,
}

/// A transport that is ready to be used, or the reason why it is not.
#[derive(Clone)]
pub enum TransportState {
    /// Bytes as they are.
    Plain,
    /// TLS.
    Tls {
        /// The client's side of it, or why it cannot be made (a secret that has not been delivered).
        config: Result<Arc<rustls::ClientConfig>, Arc<str>>,
        /// The name handed to rustls; sent as SNI where the configuration says so.
        server_name: ServerName<'static>,
    },
}

impl ClusterState {
    pub(super) fn compile(config: &Config, cluster: &Arc<Cluster>, previous: &Snapshot) -> Arc<Self> {
        let old = previous.clusters.get(cluster.name.as_str());
        let assignment = assignment_of(config, cluster);
        if let Some(old) = old
            && Arc::ptr_eq(&old.config, cluster)
            && same(&old.assignment, &assignment)
            && previous.has_secrets_of(config)
        {
            return old.clone();
        }
        let mut transports = Transports { config, http: cluster.http, made: Vec::new() };
        let localities = assignment.iter().flat_map(|a| &a.localities);
        let mut endpoints = Vec::new();
        let mut places = Vec::new();
        for locality in localities {
            for endpoint in &locality.endpoints {
                let EndpointAddress::Socket(address) = endpoint.address else { continue };
                let transport = cluster.transport_for(endpoint);
                let before = old.and_then(|old| old.endpoint_at(address, transport));
                endpoints.push(EndpointState::new(address, endpoint, transport, &mut transports, before));
                places.push((locality, endpoint));
            }
        }
        let usable = usable(&places);
        let weights =
            Weights::new(usable.iter().filter_map(|at| places.get(*at as usize)).map(|p| p.1.weight));
        let turn = old.map(|old| old.turn.clone()).unwrap_or_default();
        Arc::new(Self { config: cluster.clone(), endpoints, assignment, usable, weights, turn })
    }

    fn endpoint_at(&self, address: SocketAddr, transport: &Transport) -> Option<&Arc<EndpointState>> {
        self.endpoints.iter().find(|e| e.address == address && e.configured == *transport)
    }

    /// The next endpoint by the cluster's load balancing; `None` when none may be used.
    pub fn pick(&self, random: u64) -> Option<&Arc<EndpointState>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let active = |at: usize| self.usable_at(at).map_or(0, |e| e.active.load(Ordering::Relaxed));
        let at = balance::pick(self.config.load_balancing, &self.weights, active, turn, random, 2)?;
        self.usable_at(at)
    }

    /// As [`pick`](Self::pick), with up to `picks` tries to find one whose id is not in `avoid`; then any other that may
    /// be used is taken, for a dead endpoint is the least busy one and would be picked again and again.
    pub fn pick_avoiding(&self, mut random: u64, avoid: &[u64], picks: u32) -> Option<&Arc<EndpointState>> {
        let mut last = None;
        for _ in 0..picks.max(1) {
            let picked = self.pick(random)?;
            if !avoid.contains(&picked.id) {
                return Some(picked);
            }
            last = Some(picked);
            random = random.rotate_left(21).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        let count = self.usable.len();
        let start = (random % count.max(1) as u64) as usize;
        let mut others = (start..start + count).filter_map(|at| self.usable_at(at % count));
        others.find(|endpoint| !avoid.contains(&endpoint.id)).or(last)
    }

    fn usable_at(&self, at: usize) -> Option<&Arc<EndpointState>> {
        self.endpoints.get(*self.usable.get(at)? as usize)
    }

    /// What it was told of its endpoints, by locality.
    pub fn assignment(&self) -> Option<&Arc<Assignment>> {
        self.assignment.as_ref()
    }

    /// Number of endpoints that may be picked.
    pub fn usable(&self) -> usize {
        self.usable.len()
    }
}

fn assignment_of(config: &Config, cluster: &Cluster) -> Option<Arc<Assignment>> {
    match &cluster.discovery {
        // Kept by the cluster itself; an equal one is found equal by content.
        Discovery::Static(assignment) => Some(Arc::new(assignment.clone())),
        Discovery::Eds(_) | Discovery::StrictDns(_) | Discovery::LogicalDns(_) => {
            config.assignments.get(&cluster.name).cloned()
        }
        Discovery::OriginalDestination => None,
    }
}

fn same(a: &Option<Arc<Assignment>>, b: &Option<Arc<Assignment>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}

/// Positions of the endpoints that may be picked: those that take requests in the first priority that has one, else
/// the degraded ones of the first priority that has one.
fn usable(places: &[(&LocalityEndpoints, &Endpoint)]) -> Vec<u32> {
    let of = |wanted: &dyn Fn(Health) -> bool| {
        let best = places.iter().filter(|(_, e)| wanted(e.health)).map(|(l, _)| l.priority).min();
        let suits = |(l, e): &(&LocalityEndpoints, &Endpoint)| Some(l.priority) == best && wanted(e.health);
        places.iter().enumerate().filter(|(_, p)| suits(p)).map(|(at, _)| at as u32).collect::<Vec<_>>()
    };
    match of(&Health::takes_requests) {
        healthy if !healthy.is_empty() => healthy,
        _ => of(&|health| health == Health::Degraded),
    }
}

impl EndpointState {
    fn new(
        address: SocketAddr,
        endpoint: &Endpoint,
        transport: &Transport,
        transports: &mut Transports<'_>,
        before: Option<&Arc<EndpointState>>,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (id, active) = match before {
            Some(before) => (before.id, before.active.clone()),
            None => (NEXT.fetch_add(1, Ordering::Relaxed), Arc::default()),
        };
        Arc::new(Self {
            id,
            address,
            endpoint: Arc::new(endpoint.clone()),
            transport: transports.state(transport),
            active,
            configured: transport.clone(),
        })
    }
}

/// Protocols offered by ALPN: as configured, else those without which a server would choose HTTP/1.1, as in Envoy.
fn offered(tls: &UpstreamTls, http: UpstreamHttp) -> Vec<String> {
    let needed: &[&str] = match http {
        UpstreamHttp::Http2 => &["h2"],
        UpstreamHttp::Alpn => &["h2", "http/1.1"],
        UpstreamHttp::Http1 | UpstreamHttp::AsDownstream => &[],
    };
    match tls.alpn.is_empty() {
        true => needed.iter().map(|protocol| (*protocol).to_owned()).collect(),
        false => tls.alpn.clone(),
    }
}

/// The transports of one cluster, each made once.
struct Transports<'c> {
    config: &'c Config,
    http: UpstreamHttp,
    made: Vec<(Transport, TransportState)>,
}

impl Transports<'_> {
    fn state(&mut self, transport: &Transport) -> TransportState {
        if let Some((_, state)) = self.made.iter().find(|(made, _)| made == transport) {
            return state.clone();
        }
        let state = match transport {
            Transport::Plain => TransportState::Plain,
            Transport::Tls(tls) => {
                let tls = UpstreamTls { alpn: offered(tls, self.http), ..(**tls).clone() };
                let made = client_config(&tls, &|name| self.config.secret(name));
                let named = server_name(tls.sni.as_deref()).or_else(|_| server_name(None));
                match named {
                    Ok(server_name) => {
                        TransportState::Tls { config: made.map_err(|e| e.to_string().into()), server_name }
                    }
                    // Never plaintext in its place.
                    Err(e) => TransportState::Tls {
                        config: Err(e.to_string().into()),
                        server_name: ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into()),
                    },
                }
            }
        };
        self.made.push((transport.clone(), state.clone()));
        state
    }
}
