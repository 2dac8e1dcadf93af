//! Listeners as they run: per filter chain its TLS and what is done with the bytes inside.

use super::{Config, Snapshot};
use crate::record::{Recorder, Telemetry};
use http::HeaderValue;
use identity::certificate;
use identity::config::server_config;
use model::listener::{
    ConnectionFacts, FilterChain, HttpConnectionManager, Listener, Network, RouteSource, TcpProxy,
};
use model::routing::RouteTable;
use model::tls::{DownstreamTls, SecretContent, SecretSource};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// A listener.
pub struct ListenerState {
    /// What it was compiled from.
    pub config: Arc<Listener>,
    /// Its chains in the order of the configuration, the default one last.
    pub chains: Vec<Arc<ChainState>>,
}

/// A filter chain.
pub struct ChainState {
    /// Its name; chains without one are named by their position.
    pub name: Box<str>,
    /// The listener it belongs to.
    pub listener: Arc<Listener>,
    /// TLS with the client, or why it is not ready; `None` for plaintext.
    pub tls: Option<Result<Arc<rustls::ServerConfig>, Arc<str>>>,
    /// URI name in the certificate that is presented first.
    pub own_uri: Option<Box<str>>,
    /// What is done with the bytes inside.
    pub network: NetworkState,
}

/// What is done with a connection's bytes.
pub enum NetworkState {
    /// They are HTTP.
    Http(Arc<HttpState>),
    /// They are passed on.
    Tcp(Arc<TcpState>),
}

/// HTTP as it runs.
pub struct HttpState {
    /// What it was compiled from.
    pub manager: HttpConnectionManager,
    /// Its routes; `None` while RDS has not delivered them.
    pub routes: Option<Arc<RouteTable>>,
    /// What requests leave behind.
    pub recorder: Arc<Recorder>,
    /// What answers say of their server; `None` leaves it to the endpoint.
    pub server: Option<HeaderValue>,
    /// Faults under way, for their limit.
    pub active_faults: AtomicU32,
}

/// TCP as it runs.
pub struct TcpState {
    /// What it was compiled from.
    pub proxy: TcpProxy,
    /// What connections leave behind.
    pub recorder: Arc<Recorder>,
}

impl ListenerState {
    pub(super) fn compile(
        config: &Config,
        listener: &Arc<Listener>,
        previous: &Snapshot,
        telemetry: &Arc<Telemetry>,
    ) -> Arc<Self> {
        let old = previous.listeners.get(&listener.name);
        let old = old.filter(|old| Arc::ptr_eq(&old.config, listener));
        if let Some(old) = old
            && previous.has_secrets_of(config)
            && old.chains.iter().all(|chain| chain.has_routes_of(config))
        {
            return old.clone();
        }
        let all = listener.chains.iter().chain(&listener.default_chain).enumerate();
        let chains = all.map(|(at, chain)| {
            let old = old.and_then(|old| old.chains.get(at));
            let keeps_tls = previous.has_secrets_of(config);
            Arc::new(ChainState::compile(config, listener, at, chain, old, keeps_tls, telemetry))
        });
        Arc::new(Self { config: listener.clone(), chains: chains.collect() })
    }

    /// The chain that takes a connection; `None` when it must be closed.
    pub fn chain_for(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<ChainState>> {
        let chosen = self.config.chain_for(facts)?;
        let all = self.config.chains.iter().chain(&self.config.default_chain);
        let at = all.into_iter().position(|chain| std::ptr::eq(chain, chosen))?;
        self.chains.get(at)
    }

    /// The chain of this name.
    pub fn chain_named(&self, name: &str) -> Option<&Arc<ChainState>> {
        self.chains.iter().find(|chain| &*chain.name == name)
    }
}

impl ChainState {
    #[allow(clippy::too_many_arguments)]
    fn compile(
        config: &Config,
        listener: &Arc<Listener>,
        at: usize,
        chain: &FilterChain,
        old: Option<&Arc<ChainState>>,
        keeps_tls: bool,
        telemetry: &Arc<Telemetry>,
    ) -> Self {
        let name = if chain.name.is_empty() { format!("chain-{at}") } else { chain.name.clone() };
        let tls = match (&chain.tls, old) {
            (None, _) => None,
            // Session tickets live in it: made again only when what it is made of changed.
            (Some(_), Some(old)) if keeps_tls => old.tls.clone(),
            (Some(tls), _) => {
                let made = server_config(tls, &|name| config.secret(name));
                Some(made.map_err(|e| e.to_string().into()))
            }
        };
        let own_uri = match old {
            Some(old) if keeps_tls => old.own_uri.clone(),
            _ => chain.tls.as_ref().and_then(|tls| own_uri(config, tls)),
        };
        let network = NetworkState::compile(config, listener, &chain.network, old, telemetry);
        Self { name: name.into(), listener: listener.clone(), tls, own_uri, network }
    }

    fn has_routes_of(&self, config: &Config) -> bool {
        let NetworkState::Http(http) = &self.network else { return true };
        let RouteSource::Rds(name) = &http.manager.routes else { return true };
        match (&http.routes, config.routes.get(name)) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (None, None) => true,
            _ => false,
        }
    }
}

fn own_uri(config: &Config, tls: &DownstreamTls) -> Option<Box<str>> {
    let pair = match tls.certificates.first()? {
        SecretSource::Inline(pair) => pair,
        SecretSource::Files(files) => {
            let pem = std::fs::read(&files.certificates).ok()?;
            return own_uri_in(&pem);
        }
        SecretSource::Sds(name) => match &config.secret(name)?.content {
            SecretContent::Certificate(pair) => pair,
            SecretContent::TrustBundle(_) => return None,
        },
    };
    own_uri_in(&pair.chain_pem)
}

fn own_uri_in(chain_pem: &[u8]) -> Option<Box<str>> {
    let chain = certificate::parse_chain(chain_pem).ok()?;
    let facts = certificate::facts(chain.first()?).ok()?;
    facts.uri_sans.into_iter().next().map(Into::into)
}

impl NetworkState {
    fn compile(
        config: &Config,
        listener: &Listener,
        network: &Network,
        old: Option<&Arc<ChainState>>,
        telemetry: &Arc<Telemetry>,
    ) -> Self {
        match (network, old.map(|old| &old.network)) {
            (Network::Tcp(_), Some(Self::Tcp(old))) => Self::Tcp(old.clone()),
            (Network::Tcp(proxy), _) => {
                let recorder = Recorder::tcp(telemetry, proxy, listener);
                Self::Tcp(Arc::new(TcpState { proxy: TcpProxy::clone(proxy), recorder }))
            }
            (Network::Http(manager), old) => {
                let old = old.and_then(|old| match old {
                    Self::Http(old) => Some(old),
                    Self::Tcp(_) => None,
                });
                let routes = match &manager.routes {
                    RouteSource::Rds(name) => config.routes.get(name).cloned(),
                    RouteSource::Inline(routes) => match old.and_then(|old| old.routes.as_ref()) {
                        Some(same) => Some(same.clone()),
                        None => RouteTable::compile(routes.clone()).ok().map(Arc::new),
                    },
                };
                let recorder = match old {
                    Some(old) => old.recorder.clone(),
                    None => Recorder::http(telemetry, manager, listener),
                };
                let server = manager.server_name.as_deref().and_then(|n| HeaderValue::from_str(n).ok());
                Self::Http(Arc::new(HttpState {
                    server,
                    manager: (**manager).clone(),
                    routes,
                    recorder,
                    active_faults: AtomicU32::new(0),
                }))
            }
        }
    }
}
