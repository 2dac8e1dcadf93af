//! Gateways that pass on the mesh's own TLS, to whatever destination its server name names: `outbound_.80_.v1_.host`, as
//! proxies of the mesh write it (`AUTO_PASSTHROUGH`).

use super::connection::{ConnectionSettings, only};
use super::gateways::EdgeServer;
use super::visibility::covers;
use model::cluster::{Cluster, Transport};
use model::listener::{ChainMatch, FilterChain, Network};
use std::sync::Arc;

/// What the bytes are that such gateways pass on: TLS that a proxy of the mesh began.
const PROTOCOLS: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// The clusters to which bytes are passed on as they are, one for each of those of services.
pub(super) fn clusters(all: &[Arc<Cluster>]) -> Vec<Arc<Cluster>> {
    let passing = |cluster: &Arc<Cluster>| {
        let (name, _) = named(&cluster.name)?;
        let (transport_matches, transport) = (Vec::new(), Transport::Plain);
        Some(Arc::new(Cluster { name, transport_matches, transport, ..cluster.as_ref().clone() }))
    };
    all.iter().filter_map(passing).collect()
}

/// A chain for each of those clusters of which `server` has the host.
pub(super) fn chains(
    server: &EdgeServer,
    all: &[Arc<Cluster>],
    settings: &ConnectionSettings,
) -> Vec<FilterChain> {
    let chain = |cluster: &Arc<Cluster>| {
        let (name, host) = named(&cluster.name)?;
        server.hosts.iter().find(|(_, pattern)| covers(pattern, host))?;
        let condition = ChainMatch {
            server_names: vec![name.clone()],
            transport_protocol: Some("tls".to_owned()),
            application_protocols: PROTOCOLS.map(str::to_owned).to_vec(),
            ..ChainMatch::default()
        };
        let network = Network::Tcp(Box::new(settings.tcp(&name, vec![only(name.clone())])));
        Some(FilterChain { name, condition, tls: None, network })
    };
    all.iter().filter_map(chain).collect()
}

/// The server name for a cluster of a service, and its host.
fn named(cluster: &str) -> Option<(String, &str)> {
    let mut parts = cluster.splitn(4, '|');
    let (Some("outbound"), Some(port), Some(subset), Some(host)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    (!host.starts_with('*')).then(|| (format!("outbound_.{port}_.{subset}_.{host}"), host))
}
