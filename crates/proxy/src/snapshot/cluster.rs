//! Clusters as they run: endpoints flattened, tables for picking them, and the state that outlives a change of
//! configuration.

use super::announced::{self, Announced};
use super::destinations::Destinations;
use super::endpoint::EndpointState;
use super::recent::Recent;
use super::tables::Tables;
use super::transport::Transports;
use super::usage::{Limited, Permit, Usage};
use super::{Config, Snapshot};
use crate::record::Caller;
use arc_swap::ArcSwap;
use http::HeaderMap;
use model::balance::{Ask, Candidate, Criteria, SUBSET_NAMESPACE, Standing, SubsetTables};
use model::cluster::{Cluster, Discovery, Transport};
use model::endpoint::{Assignment, EndpointAddress, Health};
use model::limits::Priority;
use model::metadata::Value;
use model::outlier::Verdict;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;

/// A cluster and its endpoints.
pub struct ClusterState {
    /// What it was compiled from.
    pub config: Arc<Cluster>,
    /// Every endpoint, whether it may be picked or not.
    pub endpoints: Vec<Arc<EndpointState>>,
    /// What it is being asked for.
    pub usage: Arc<Usage>,
    assignment: Option<Arc<Assignment>>,
    /// Where each endpoint is.
    places: Vec<Place>,
    /// Made anew whenever an endpoint's health changes.
    tables: ArcSwap<Tables>,
    turn: Arc<AtomicU64>,
    alarm: Arc<Notify>,
    /// Health in percent, a little more than is there.
    availability: AtomicU32,
    /// Endpoints that clients named, where that is what they are picked by.
    destinations: Option<Destinations>,
    /// Endpoints as they are for one client, where they are told of it.
    announced: Option<Announced>,
    /// Requests that began lately, where retries are limited by those.
    recent: Option<Arc<Recent>>,
}

/// An endpoint's place in the assignment.
struct Place {
    locality: u32,
    locality_weight: Option<u32>,
    priority: u32,
}

/// What an endpoint is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'w> {
    /// Any 64 random bits.
    pub random: u64,
    /// What the request is hashed to, if it is.
    pub hash: Option<u64>,
    /// What the endpoint has to be like.
    pub subset: &'w Criteria,
    /// Ids of endpoints that were tried.
    pub avoid: &'w [u64],
    /// Picks made to find one that was not tried; then any such is taken.
    pub picks: u32,
}

/// Nothing is asked of an endpoint.
static ANY: Criteria = Criteria::new();

impl Wish<'static> {
    /// Any endpoint.
    pub fn any(random: u64) -> Self {
        Self { random, hash: None, subset: &ANY, avoid: &[], picks: 1 }
    }
}

/// The metadata key that is hashed instead of the address.
const HASH_KEY: &str = "hash_key";
/// Rolls of the dice for an endpoint that is old enough.
const ROLLS: u32 = 16;

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
        let mut transports = Transports {
            config,
            http: cluster.http,
            made: Vec::new(),
            preface: cluster.proxy_header.map(announced::own),
        };
        let keeps = !cluster.spread.renews_connections || old.is_none_or(|old| old.has_same(&assignment));
        let localities = assignment.iter().flat_map(|a| &a.localities).enumerate();
        let mut endpoints = Vec::new();
        let mut places = Vec::new();
        for (number, locality) in localities {
            for endpoint in &locality.endpoints {
                let EndpointAddress::Socket(address) = endpoint.address else { continue };
                let transport = cluster.transport_for(endpoint);
                let before = old.and_then(|old| old.endpoint_at(address, transport));
                endpoints.push(EndpointState::new(
                    address,
                    endpoint,
                    transport,
                    &mut transports,
                    before,
                    keeps,
                ));
                places.push(Place {
                    locality: number as u32,
                    locality_weight: locality.weight,
                    priority: locality.priority,
                });
            }
        }
        let state = Self {
            config: cluster.clone(),
            endpoints,
            usage: old.map(|old| old.usage.clone()).unwrap_or_default(),
            assignment,
            places,
            tables: ArcSwap::default(),
            turn: old.map(|old| old.turn.clone()).unwrap_or_default(),
            alarm: previous.alarm.clone(),
            availability: AtomicU32::new(0),
            destinations: Destinations::new(cluster, &mut transports),
            announced: cluster.proxy_header.map(Announced::new),
            recent: Recent::of(&cluster.limits, old.and_then(|old| old.recent.as_ref())),
        };
        state.refresh();
        Arc::new(state)
    }

    /// Whether its endpoints are at the addresses of `assignment`.
    fn has_same(&self, assignment: &Option<Arc<Assignment>>) -> bool {
        let sorted = |mut all: Vec<SocketAddr>| {
            all.sort_unstable();
            all
        };
        let localities = assignment.iter().flat_map(|assignment| &assignment.localities);
        let there = localities.flat_map(|locality| &locality.endpoints).filter_map(|e| match e.address {
            EndpointAddress::Socket(address) => Some(address),
            EndpointAddress::Name(..) => None,
        });
        sorted(there.collect()) == sorted(self.endpoints.iter().map(|e| e.address).collect())
    }

    fn endpoint_at(&self, address: SocketAddr, transport: &Transport) -> Option<&Arc<EndpointState>> {
        self.endpoints.iter().find(|e| e.is_at(address, transport))
    }

    /// Looks at the health of its endpoints again. One caller at a time: the thread that publishes.
    pub fn refresh(&self) {
        self.tables.store(Arc::new(Tables::new(self.tables_leaving(&[]))));
        let percent = (140 * self.usable()).checked_div(self.endpoints.len()).unwrap_or(0).min(100);
        self.availability.store(percent as u32, Ordering::Relaxed);
    }

    /// Who may be picked where other priorities than `left` are wanted.
    fn tables_leaving(&self, left: &[u32]) -> SubsetTables {
        let keys: Vec<String> = match self.config.load_balancing.is_consistent() {
            true => self.endpoints.iter().map(|endpoint| self.hash_key(endpoint)).collect(),
            false => Vec::new(),
        };
        let candidate = |(at, (endpoint, place)): (usize, (&Arc<EndpointState>, &Place))| Candidate {
            position: at as u32,
            priority: place.priority,
            locality: place.locality,
            locality_weight: place.locality_weight,
            weight: endpoint.endpoint.weight,
            standing: endpoint.standing(&self.config),
            key: keys.get(at).map_or("", String::as_str),
            is_left: left.contains(&place.priority),
        };
        let candidates: Vec<Candidate<'_>> =
            self.endpoints.iter().zip(&self.places).enumerate().map(candidate).collect();
        let labels = |at: u32| self.endpoints.get(at as usize)?.endpoint.metadata.0.get(SUBSET_NAMESPACE);
        SubsetTables::new(self.config.load_balancing, &self.config.spread, &candidates, &labels)
    }

    /// Who may be picked in other priorities than `left`, which are sorted; `None` where nothing else can be used.
    pub fn elsewhere(&self, left: &[u32]) -> Option<Arc<SubsetTables>> {
        let tables = self.tables.load();
        let found = tables.elsewhere(left, || self.tables_leaving(left));
        (found.all().usable() > 0).then_some(found)
    }

    /// The priority of one of its endpoints.
    pub fn priority_of(&self, id: u64) -> Option<u32> {
        let at = self.endpoints.iter().position(|endpoint| endpoint.id == id)?;
        self.places.get(at).map(|place| place.priority)
    }

    /// What an endpoint is hashed by, as in Envoy.
    fn hash_key(&self, endpoint: &EndpointState) -> String {
        let named = endpoint.endpoint.metadata.value(SUBSET_NAMESPACE, HASH_KEY).and_then(Value::as_str);
        match named {
            Some(key) if !key.is_empty() => key.to_owned(),
            _ if self.config.spread.hash_host_names && !endpoint.endpoint.hostname.is_empty() => {
                endpoint.endpoint.hostname.clone()
            }
            _ => endpoint.address.to_string(),
        }
    }

    /// The next endpoint by the cluster's load balancing; `None` when none may be used.
    pub fn pick(&self, random: u64) -> Option<&Arc<EndpointState>> {
        self.choose(&Wish::any(random))
    }

    /// As [`pick`](Self::pick), with up to `picks` tries to find one whose id is not in `avoid`; then any
    /// other that may be used.
    pub fn pick_avoiding(&self, random: u64, avoid: &[u64], picks: u32) -> Option<&Arc<EndpointState>> {
        self.choose(&Wish { random, hash: None, subset: &ANY, avoid, picks })
    }

    /// The endpoint for a request; `None` when none may be used.
    pub fn choose(&self, wish: &Wish<'_>) -> Option<&Arc<EndpointState>> {
        self.choose_from(&self.tables.load().all, wish)
    }

    /// The same, from `tables`.
    pub fn choose_from(&self, tables: &SubsetTables, wish: &Wish<'_>) -> Option<&Arc<EndpointState>> {
        let table = tables.table(wish.subset)?;
        let active =
            |at: u32| self.endpoints.get(at as usize).map_or(0, |e| e.active.load(Ordering::Relaxed));
        let mut random = wish.random;
        let mut last = None;
        for attempt in 0..wish.picks.max(1) {
            let mut roll = || {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let ask = Ask { hash: wish.hash, random, turn, attempt };
                random = random.rotate_left(21).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                self.endpoints.get(table.pick(&ask, active)? as usize)
            };
            let mut picked = roll()?;
            // An endpoint that is new gets a part of what would be its own.
            if let Some(slow) = &self.config.spread.slow_start {
                for number in 1..ROLLS {
                    let factor = slow.factor(picked.vitals.since.elapsed());
                    let dice = wish.random.wrapping_mul(u64::from(number) * 2 + 1) >> 40;
                    if factor >= 1.0 || dice as f64 / f64::from(1 << 24) < factor {
                        break;
                    }
                    picked = roll()?;
                }
            }
            if !wish.avoid.contains(&picked.id) {
                return Some(picked);
            }
            last = Some(picked);
        }
        // A dead endpoint is the least busy one, and would be picked again and again.
        let start = (random % table.usable().max(1) as u64) as usize;
        let all = || table.positions().filter_map(|at| self.endpoints.get(at as usize));
        let mut others = all().skip(start).chain(all().take(start));
        others.find(|endpoint| !wish.avoid.contains(&endpoint.id)).or(last)
    }

    /// Health in percent, a little more than is there.
    pub fn availability(&self) -> u32 {
        self.availability.load(Ordering::Relaxed)
    }

    /// The endpoint that a client named or wanted to reach, where that is what this cluster's endpoints are.
    pub fn destination(&self, headers: &HeaderMap, caller: &Caller) -> Option<Arc<EndpointState>> {
        let spread = &self.config.spread;
        let Some(destinations) = self.destinations.as_ref() else { return self.overridden(headers) };
        let header = spread.destination_header.as_ref().and_then(|name| headers.get(name));
        let named: Option<SocketAddr> = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let mut address = named.or(caller.is_restored.then_some(caller.local))?;
        if let Some(port) = spread.destination_port {
            address.set_port(port);
        }
        Some(destinations.at(address))
    }

    /// The endpoint of this cluster that a header names, if it can be used.
    fn overridden(&self, headers: &HeaderMap) -> Option<Arc<EndpointState>> {
        let values = self.config.spread.override_headers.iter().filter_map(|name| headers.get(name));
        let named = values.filter_map(|value| value.to_str().ok()?.split(',').next()?.trim().parse().ok());
        let find = |address: SocketAddr| self.endpoints.iter().find(|endpoint| endpoint.address == address);
        let usable = |endpoint: &&Arc<EndpointState>| endpoint.standing(&self.config) != Standing::Unhealthy;
        named.filter_map(find).find(usable).cloned()
    }

    /// `endpoint` as it is for connections made for `caller`.
    pub fn endpoint_for(&self, endpoint: &Arc<EndpointState>, caller: &Caller) -> Arc<EndpointState> {
        match &self.announced {
            None => endpoint.clone(),
            Some(announced) => announced.of(endpoint, caller),
        }
    }

    /// Whether endpoints are told who connections are made for.
    pub fn announces(&self) -> bool {
        self.announced.is_some()
    }

    /// Forgets endpoints that clients named once.
    pub fn sweep(&self) {
        if let Some(destinations) = &self.destinations {
            destinations.sweep(self.config.idle_timeout);
        }
        if let Some(announced) = &self.announced {
            announced.sweep(self.config.idle_timeout);
        }
    }

    /// Ids of all endpoints, those that clients named among them.
    pub fn each_endpoint(&self, mut act: impl FnMut(&EndpointState)) {
        self.endpoints.iter().for_each(|endpoint| act(endpoint));
        if let Some(destinations) = &self.destinations {
            destinations.each(&mut act);
        }
        if let Some(announced) = &self.announced {
            announced.each(act);
        }
    }

    /// Why none may be used: how many there are, and what is wrong with them.
    pub fn describe_absence(&self) -> String {
        let name = &self.config.name;
        if self.destinations.is_some() {
            return format!("cluster `{name}` leads to where the client wanted to go, which nobody tells");
        }
        if self.endpoints.is_empty() {
            return format!("cluster `{name}` has no endpoints");
        }
        let count =
            |suits: &dyn Fn(&EndpointState) -> bool| self.endpoints.iter().filter(|e| suits(e)).count();
        let said = |e: &EndpointState| matches!(e.endpoint.health, Health::Unhealthy | Health::Draining);
        let found = [
            (count(&|e| e.is_ejected(&self.config)), "ejected for failures"),
            (count(&|e| e.fails_checks(&self.config)), "failing health checks"),
            (count(&said), "unhealthy by discovery"),
        ];
        let parts: Vec<String> =
            found.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
        match parts.is_empty() {
            true => format!(
                "none of the {} endpoints of cluster `{name}` is what the route asks for",
                self.endpoints.len()
            ),
            false => format!(
                "none of the {} endpoints of cluster `{name}` is healthy: {}",
                self.endpoints.len(),
                parts.join(", ")
            ),
        }
    }

    /// Takes one of what is limited: `Ok(None)` where there is no limit, an error where it is reached.
    pub fn take(&self, what: Limited, priority: Priority) -> Result<Option<Permit>, Limited> {
        match what.of(self.config.limits.of(priority)) {
            None => Ok(None),
            Some(limit) => self.usage.take(what, priority, limit.into()).map(Some).ok_or(what),
        }
    }

    /// Notes that a request begins, where retries are limited by how many did lately.
    pub fn note_request(&self, priority: Priority) {
        if let Some(recent) = &self.recent {
            recent.note(priority);
        }
    }

    /// Leave for one retry more; as [`take`](Self::take). A budget is a share of the requests under way, or of those
    /// that began lately.
    pub fn take_retry(&self, priority: Priority) -> Result<Option<Permit>, Limited> {
        let limits = self.config.limits.of(priority);
        let active = || self.endpoints.iter().map(|e| u64::from(e.active.load(Ordering::Relaxed))).sum();
        let begun = self.recent.as_ref().and_then(|recent| recent.count(priority));
        let allowed = match limits.retry_budget {
            Some(budget) => budget.allowed(begun.unwrap_or_else(active)),
            None => match limits.retries {
                Some(limit) => limit.into(),
                None => return Ok(None),
            },
        };
        self.usage.take(Limited::Retries, priority, allowed).map(Some).ok_or(Limited::Retries)
    }

    /// Tells what a request came to, for outlier detection.
    pub fn report(&self, endpoint: &EndpointState, verdict: Verdict) {
        if let Some(rule) = &self.config.outlier_detection
            && endpoint.vitals.tally.record(verdict.by(&self.config.error_statuses), rule)
        {
            self.alarm.notify_one();
        }
    }

    /// What it was told of its endpoints, by locality.
    pub fn assignment(&self) -> Option<&Arc<Assignment>> {
        self.assignment.as_ref()
    }

    /// Endpoints that can be used, and all.
    pub fn head_count(&self) -> (usize, usize) {
        (self.usable(), self.endpoints.len())
    }

    /// The endpoint at this address, if it can be used.
    pub fn usable_at(&self, address: SocketAddr) -> Option<&Arc<EndpointState>> {
        let mut there = self.endpoints.iter().filter(|endpoint| endpoint.address == address);
        there.find(|endpoint| endpoint.standing(&self.config) != Standing::Unhealthy)
    }

    /// Number of endpoints that can be used.
    pub fn usable(&self) -> usize {
        self.endpoints.iter().filter(|e| e.standing(&self.config) != Standing::Unhealthy).count()
    }
}

fn assignment_of(config: &Config, cluster: &Cluster) -> Option<Arc<Assignment>> {
    match &cluster.discovery {
        // Kept by the cluster itself; an equal one is found equal by content.
        Discovery::Static(assignment) => Some(Arc::new(assignment.clone())),
        Discovery::Eds(_) | Discovery::StrictDns(_) | Discovery::LogicalDns(_) => {
            config.assignments.get(&cluster.name).cloned()
        }
        Discovery::OriginalDestination | Discovery::Aggregate(_) => None,
    }
}

fn same(a: &Option<Arc<Assignment>>, b: &Option<Arc<Assignment>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}
