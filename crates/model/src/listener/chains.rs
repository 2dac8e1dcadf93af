//! Which filter chain takes a connection. [`Listener::chain_for`] follows the order in `FilterChainMatch`: port, address,
//! server name, transport protocol, application protocol, the peer's address, what kind of client, its address, its port.
//! At each step the most specific criterion that matches narrows the choice, and a chain lost at one step does not come
//! back at a later one.

use super::{ChainMatch, FilterChain, Listener, SourceType};
use crate::address::AddressRange;
use rustc_hash::FxHashMap;
use std::net::{IpAddr, SocketAddr};

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Where the client wanted to connect to.
    pub destination: SocketAddr,
    /// The client.
    pub source: SocketAddr,
    /// The socket's peer: the client, or who stands in front of it.
    pub direct_source: IpAddr,
    /// SNI of its ClientHello, lower case.
    pub server_name: Option<&'a str>,
    /// It began with a ClientHello.
    pub is_tls: bool,
    /// Protocols by ALPN, or as the HTTP inspector found them.
    pub application_protocols: &'a [&'a str],
}

type Specificity = fn(&ChainMatch, &ConnectionFacts<'_>) -> Option<usize>;

/// The criteria, in the order in which they narrow the choice.
const STEPS: [Specificity; 9] = [
    of_port,
    of_address,
    of_server_name,
    of_transport,
    of_application,
    of_direct_source,
    of_source_type,
    of_source,
    of_source_port,
];

/// Chains with their positions.
type Positions<'l> = Vec<(usize, &'l ChainMatch)>;

impl Listener {
    /// The chain that takes a connection; `None` when it must be closed.
    pub fn chain_for(&self, facts: &ConnectionFacts<'_>) -> Option<&FilterChain> {
        let mut left: Vec<&FilterChain> = self.chains.iter().collect();
        for specificity in STEPS {
            let best = left.iter().filter_map(|c| specificity(&c.condition, facts)).max();
            left.retain(|c| best.is_some() && specificity(&c.condition, facts) == best);
        }
        left.first().copied().or(self.default_chain.as_ref())
    }

    /// Two chains that could not be told apart, by their positions.
    pub fn ambiguous_chains(&self) -> Option<(usize, usize)> {
        let mut alike: FxHashMap<(Option<u16>, Option<&str>), Positions<'_>> = FxHashMap::default();
        for (at, chain) in self.chains.iter().enumerate() {
            let m = &chain.condition;
            // Where these are the same, the rest is compared one by one; of a listener's many chains few are.
            let names = m.server_names.iter().map(|name| Some(name.as_str()));
            for name in names.chain(m.server_names.is_empty().then_some(None)) {
                let others = alike.entry((m.destination_port, name)).or_default();
                if let Some((other, _)) = others.iter().find(|(_, other)| overlap(other, m)) {
                    return Some((*other, at));
                }
                others.push((at, m));
            }
        }
        None
    }
}

/// Whether two chains take the same connection, each by a criterion that is as specific.
fn overlap(a: &ChainMatch, b: &ChainMatch) -> bool {
    fn share<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        (a.is_empty() && b.is_empty()) || a.iter().any(|one| b.contains(one))
    }
    a.destination_port == b.destination_port
        && share(&a.destinations, &b.destinations)
        && share(&a.server_names, &b.server_names)
        && a.transport_protocol == b.transport_protocol
        && share(&a.application_protocols, &b.application_protocols)
        && share(&a.direct_sources, &b.direct_sources)
        && a.source_type == b.source_type
        && share(&a.sources, &b.sources)
        && share(&a.source_ports, &b.source_ports)
}

fn of_port(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    match m.destination_port {
        None => Some(0),
        Some(port) => (port == facts.destination.port()).then_some(1),
    }
}

fn of_address(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    narrowest(&m.destinations, facts.destination.ip())
}

fn of_direct_source(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    narrowest(&m.direct_sources, facts.direct_source)
}

fn of_source(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    narrowest(&m.sources, facts.source.ip())
}

fn narrowest(ranges: &[AddressRange], address: IpAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    let inside = ranges.iter().filter(|r| r.contains(address));
    inside.map(|r| usize::from(r.prefix_length) + 1).max()
}

fn of_server_name(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    if m.server_names.is_empty() {
        return Some(0);
    }
    let sni = facts.server_name?;
    let score = |pattern: &String| match pattern.strip_prefix('*') {
        None => (pattern == sni).then_some(usize::MAX),
        Some(suffix) => (sni.len() > suffix.len() && sni.ends_with(suffix)).then_some(suffix.len() + 1),
    };
    m.server_names.iter().filter_map(score).max()
}

fn of_transport(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    let found = if facts.is_tls { "tls" } else { "raw_buffer" };
    match m.transport_protocol.as_deref() {
        None | Some("") => Some(0),
        Some(wanted) => (wanted == found).then_some(1),
    }
}

fn of_application(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    if m.application_protocols.is_empty() {
        return Some(0);
    }
    // The client's own order of preference decides between chains.
    let all = facts.application_protocols;
    let at = all.iter().position(|p| m.application_protocols.iter().any(|wanted| wanted == p))?;
    Some(all.len() - at)
}

fn of_source_type(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    let source = facts.source.ip();
    let is_local = source.is_loopback() || source == facts.destination.ip();
    match m.source_type {
        SourceType::Any => Some(0),
        SourceType::Local => is_local.then_some(1),
        SourceType::External => (!is_local).then_some(1),
    }
}

fn of_source_port(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<usize> {
    if m.source_ports.is_empty() {
        return Some(0);
    }
    m.source_ports.contains(&facts.source.port()).then_some(1)
}

#[cfg(test)]
#[path = "chains_tests.rs"]
mod tests;
