//! Finding the route for a request: a [`RouteTable`] compiled from a route configuration, immutable, shared by every
//! thread. Host by hash, exact path by hash, prefixes by length and hash, and a small ordered rest for what only a
//! regex or an ignored case can decide; so the ten-thousandth route costs what the first does. The order in which
//! routes were written still decides: the earliest that matches wins.

pub use crate::host_index::RouteTableError;

use crate::header::RequestHead;
use crate::host_index::HostIndex;
use crate::route::{PathMatch, QueryMatch, Route, RouteConfiguration, RouteMatch, VirtualHost};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;

/// A compiled route configuration.
#[derive(Debug)]
pub struct RouteTable {
    config: RouteConfiguration,
    hosts: Vec<HostRoutes>,
    index: HostIndex,
}

/// The routes of one virtual host, indexed by path.
#[derive(Debug, Default)]
struct HostRoutes {
    exact: Positions,
    prefix_lengths: Vec<usize>,
    prefix: Positions,
    rest: Vec<u32>,
}

/// Positions of routes by path. What a path is, its route knows: there may be thousands.
#[derive(Debug, Default)]
struct Positions {
    /// The first of each path.
    first: HashTable<u32>,
    /// The next of the same path, by the one before.
    next: FxHashMap<u32, u32>,
}

/// Why no route was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// No virtual host has this authority.
    UnknownHost,
    /// The virtual host has no route that matches.
    NoMatch,
}

/// The virtual host and route that were found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'t> {
    /// The virtual host.
    pub virtual_host: &'t VirtualHost,
    /// The route in it.
    pub route: &'t Route,
    /// Position of the virtual host in the configuration.
    pub host_index: usize,
    /// Position of the route in the virtual host.
    pub route_index: usize,
}

impl RouteTable {
    /// Compiles `config`.
    pub fn compile(config: RouteConfiguration) -> Result<Self, RouteTableError> {
        let index = HostIndex::of(&config)?;
        Ok(Self { hosts: config.virtual_hosts.iter().map(HostRoutes::compile).collect(), index, config })
    }

    /// The configuration it was compiled from.
    pub fn config(&self) -> &RouteConfiguration {
        &self.config
    }

    /// The first route that matches. `random` is any 64 random bits, for routes that take a share of requests.
    pub fn find(&self, head: &RequestHead<'_>, random: u64) -> Result<Found<'_>, NoRoute> {
        let host_index = self.index.find(head.authority).ok_or(NoRoute::UnknownHost)?;
        let (virtual_host, routes) =
            match (self.config.virtual_hosts.get(host_index), self.hosts.get(host_index)) {
                (Some(host), Some(routes)) => (host, routes),
                _ => return Err(NoRoute::UnknownHost),
            };
        let (route_index, route) = routes.find(virtual_host, head, random).ok_or(NoRoute::NoMatch)?;
        Ok(Found { virtual_host, route, host_index, route_index })
    }
}

impl Positions {
    fn of(host: &VirtualHost, positions: &[u32]) -> Self {
        let path = |at: &u32| path_of(host, *at).unwrap_or_default();
        let mut found = Self { first: HashTable::with_capacity(positions.len()), next: FxHashMap::default() };
        let mut last = FxHashMap::default();
        for at in positions {
            let same = |known: &u32| path(known) == path(at);
            match found.first.entry(hash_of(path(at)), same, |known| hash_of(path(known))) {
                Entry::Occupied(first) => {
                    let before = last.insert(*first.get(), *at).unwrap_or(*first.get());
                    found.next.insert(before, *at);
                }
                Entry::Vacant(place) => drop(place.insert(*at)),
            }
        }
        found
    }

    /// Positions of the routes with this path, in order.
    fn find(&self, host: &VirtualHost, path: &str) -> impl Iterator<Item = u32> {
        let first = self.first.find(hash_of(path), |at| path_of(host, *at) == Some(path)).copied();
        std::iter::successors(first, |at| self.next.get(at).copied())
    }
}

fn hash_of(path: &str) -> u64 {
    FxBuildHasher.hash_one(path)
}

/// The path by which the route at a position is found.
fn path_of(host: &VirtualHost, at: u32) -> Option<&str> {
    match &host.routes.get(at as usize)?.condition.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::SegmentPrefix(path) => Some(path),
        _ => None,
    }
}

impl HostRoutes {
    fn compile(host: &VirtualHost) -> Self {
        let mut routes = Self::default();
        let (mut exact, mut prefix) = (Vec::new(), Vec::new());
        for (index, route) in host.routes.iter().enumerate() {
            let index = index as u32;
            match (&route.condition.path, route.condition.case_sensitive) {
                (PathMatch::Exact(_), true) => exact.push(index),
                (PathMatch::Prefix(path) | PathMatch::SegmentPrefix(path), true) => {
                    routes.prefix_lengths.push(path.len());
                    prefix.push(index);
                }
                _ => routes.rest.push(index),
            }
        }
        routes.exact = Positions::of(host, &exact);
        routes.prefix = Positions::of(host, &prefix);
        routes.prefix_lengths.sort_unstable();
        routes.prefix_lengths.dedup();
        routes
    }

    /// Looks through the candidates of each kind; a kind's candidates are in order, so the first of a kind that
    /// matches is that kind's best, and the smallest position over all kinds wins.
    fn find<'h>(
        &self,
        host: &'h VirtualHost,
        head: &RequestHead<'_>,
        random: u64,
    ) -> Option<(usize, &'h Route)> {
        let mut best: Option<(u32, &'h Route)> = None;
        let mut consider = |candidates: &mut dyn Iterator<Item = u32>, check_path: bool| {
            for index in candidates {
                if best.is_some_and(|(found, _)| found < index) {
                    return;
                }
                let Some(route) = host.routes.get(index as usize) else { return };
                if (!check_path || path_matches(&route.condition, head))
                    && rest_matches(&route.condition, head, random)
                {
                    best = Some((index, route));
                    return;
                }
            }
        };
        // A CONNECT has no path: only its own matcher takes it (and, as in Envoy, `prefix: /` never does).
        if head.method != http::Method::CONNECT || !head.path.is_empty() {
            consider(&mut self.exact.find(host, head.path), false);
            for &length in &self.prefix_lengths {
                let Some(prefix) = head.path.get(..length) else { break };
                consider(&mut self.prefix.find(host, prefix), true);
            }
        }
        consider(&mut self.rest.iter().copied(), true);
        best.map(|(index, route)| (index as usize, route))
    }
}

/// Whether the path satisfies `condition`.
pub fn path_matches(condition: &RouteMatch, head: &RequestHead<'_>) -> bool {
    let path = head.path.as_bytes();
    let same = |a: &[u8], b: &[u8]| match condition.case_sensitive {
        true => a == b,
        false => a.eq_ignore_ascii_case(b),
    };
    let begins = |with: &str| path.get(..with.len()).is_some_and(|start| same(start, with.as_bytes()));
    match &condition.path {
        PathMatch::Exact(wanted) => same(path, wanted.as_bytes()),
        PathMatch::Prefix(prefix) => begins(prefix),
        PathMatch::SegmentPrefix(prefix) => {
            begins(prefix) && (prefix.ends_with('/') || matches!(path.get(prefix.len()), None | Some(b'/')))
        }
        PathMatch::Regex(pattern) => pattern.matches(path),
        PathMatch::Template(template) => template.matches(head.path),
        PathMatch::Connect => head.method == http::Method::CONNECT,
    }
}

/// Whether everything but the path satisfies `condition`.
fn rest_matches(condition: &RouteMatch, head: &RequestHead<'_>, random: u64) -> bool {
    condition.headers.iter().all(|h| h.matches(head))
        && condition.query.iter().all(|q| query_matches(q, head.query))
        && (!condition.grpc_only || is_grpc(head.headers))
        && condition.fraction.is_none_or(|f| f.takes(random))
}

/// Whether these are the headers of a gRPC request.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether the first parameter of that name in `query` satisfies the condition.
pub fn query_matches(condition: &QueryMatch, query: Option<&str>) -> bool {
    let first = query.unwrap_or_default().split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == condition.name).then_some(value)
    });
    match (first, &condition.value) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(value), Some(wanted)) => wanted.matches(value.as_bytes()),
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
