//! Names of clusters resolved to addresses, again and again: when an answer is no longer good, or as often as the cluster
//! says. The last answer stays when servers fail; it goes when they say that there is none.

mod lookup;

use crate::discovery::Hub;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lookup::{Found, Resolvers, look_up};
use model::cluster::{Cluster, Discovery};
use model::endpoint::{Assignment, Endpoint, EndpointAddress};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names asked for at the same time.
const CONCURRENCY: usize = 16;
/// Shortest time between two questions, whatever an answer says.
const SHORTEST: Duration = Duration::from_millis(100);

/// Answers by name.
pub type Answers = BTreeMap<String, Vec<IpAddr>>;

/// Resolves what has to be resolved. Never returns.
pub async fn follow(hub: Hub) {
    let mut book = Book::default();
    let mut resolvers = Resolvers::default();
    let mut asked = FuturesUnordered::new();
    loop {
        let stirred = hub.stirred();
        book.keep(hub.read(|discovery| discovery.dns_clusters()));
        while asked.len() < CONCURRENCY
            && let Some((cluster, name)) = book.take_due(Instant::now())
        {
            let resolver = resolvers.resolver(&cluster.dns);
            asked.push(async move {
                let found = look_up(resolver, &name, cluster.dns.family).await;
                (cluster, name, found)
            });
        }
        tokio::select! {
            () = stirred => {}
            Some((cluster, name, found)) = asked.next(), if !asked.is_empty() => {
                if let Some(assignment) = book.note(&cluster, &name, found, Instant::now()) {
                    hub.feed(|discovery, now| discovery.resolved(&cluster.name, assignment, now));
                }
            }
            () = until(book.next()), if asked.len() < CONCURRENCY => {}
        }
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// What was asked for and when it will be asked for again.
#[derive(Default)]
struct Book(BTreeMap<String, Page>);

/// One cluster's names.
struct Page {
    cluster: Arc<Cluster>,
    names: BTreeMap<String, Line>,
}

/// One name.
struct Line {
    answer: Option<Vec<IpAddr>>,
    /// `None` while it is asked for.
    next: Option<Instant>,
    failures: u32,
    was_asked: bool,
}

impl Book {
    /// Names of these clusters from now on. One that is new, or different, is asked for at once.
    fn keep(&mut self, clusters: Vec<Arc<Cluster>>) {
        let mut old = std::mem::take(&mut self.0);
        for cluster in clusters {
            let before = old.remove(&cluster.name);
            let page = match before {
                Some(page) if Arc::ptr_eq(&page.cluster, &cluster) => page,
                before => {
                    let mut known =
                        before.filter(|page| page.cluster.dns == cluster.dns).map(|page| page.names);
                    let line = |name: &str| {
                        let answer =
                            known.as_mut().and_then(|known| known.remove(name)).and_then(|l| l.answer);
                        (name.to_owned(), Line::new(answer))
                    };
                    let names = names_of(&cluster).into_iter().map(line).collect();
                    Page { cluster: cluster.clone(), names }
                }
            };
            self.0.insert(cluster.name.clone(), page);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().flat_map(|page| page.names.values()).filter_map(|line| line.next).min()
    }

    /// A name that has to be asked for now; it is taken as asked for.
    fn take_due(&mut self, now: Instant) -> Option<(Arc<Cluster>, String)> {
        for page in self.0.values_mut() {
            for (name, line) in &mut page.names {
                if line.next.is_some_and(|next| next <= now) {
                    line.next = None;
                    return Some((page.cluster.clone(), name.clone()));
                }
            }
        }
        None
    }

    /// Takes an answer; the outer `None` where nothing follows from it, the inner one where there was never an answer.
    fn note(
        &mut self,
        cluster: &Arc<Cluster>,
        name: &str,
        found: Found,
        now: Instant,
    ) -> Option<Option<Assignment>> {
        let page = self.0.get_mut(&cluster.name).filter(|page| Arc::ptr_eq(&page.cluster, cluster))?;
        let line = page.names.get_mut(name)?;
        line.was_asked = true;
        let wait = line.take(cluster, found);
        line.next = Some(now + wait.max(SHORTEST));
        if page.names.values().any(|line| !line.was_asked) {
            return None;
        }
        if page.names.values().all(|line| line.answer.is_none()) && !page.names.is_empty() {
            return Some(None);
        }
        let answer = |(name, line): (&String, &Line)| (name.clone(), line.answer.clone().unwrap_or_default());
        Some(assignment(cluster, &page.names.iter().map(answer).collect()))
    }
}

impl Line {
    fn new(answer: Option<Vec<IpAddr>>) -> Self {
        Self { answer, next: Some(Instant::now()), failures: 0, was_asked: false }
    }

    /// Takes what was found; how long to wait before the next time.
    fn take(&mut self, cluster: &Cluster, found: Found) -> Duration {
        let dns = &cluster.dns;
        // The standard library seeds its hashers from the operating system, each one differently.
        let random = RandomState::new().hash_one(0);
        let jitter = match dns.jitter.as_millis() as u64 {
            0 => Duration::ZERO,
            most => Duration::from_millis(random % (most + 1)),
        };
        let wait = match found {
            Found::Failed => {
                self.failures = self.failures.saturating_add(1);
                return match dns.failure {
                    None => dns.refresh + jitter,
                    Some((base, most)) => {
                        let grown =
                            base.saturating_mul(1 << self.failures.min(20).saturating_sub(1)).min(most);
                        // Somewhere up to it, so that not all ask at once.
                        grown.mul_f64(0.5 + (random >> 11) as f64 / (1_u64 << 54) as f64)
                    }
                };
            }
            // A logical host keeps the address it had.
            Found::Nothing if matches!(cluster.discovery, Discovery::LogicalDns(_)) => dns.refresh,
            Found::Nothing => {
                self.answer = Some(Vec::new());
                dns.refresh
            }
            Found::Addresses(addresses, ttl) => {
                self.answer = Some(addresses);
                ttl.filter(|ttl| dns.respects_ttl && !ttl.is_zero()).unwrap_or(dns.refresh)
            }
        };
        self.failures = 0;
        wait + jitter
    }
}

/// Names that a cluster's endpoints are given by.
pub fn names_of(cluster: &Cluster) -> Vec<&str> {
    let (Discovery::StrictDns(template) | Discovery::LogicalDns(template)) = &cluster.discovery else {
        return Vec::new();
    };
    let names = template.endpoints().filter_map(|endpoint| match &endpoint.address {
        EndpointAddress::Name(name, _) => Some(name.as_str()),
        EndpointAddress::Socket(_) => None,
    });
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The cluster's endpoints by address; `None` when a name has no answer, so that what is known stays.
pub fn assignment(cluster: &Cluster, answers: &Answers) -> Option<Assignment> {
    let (template, only_first) = match &cluster.discovery {
        Discovery::StrictDns(template) => (template, false),
        Discovery::LogicalDns(template) => (template, true),
        _ => return None,
    };
    let mut resolved = Assignment { cluster: cluster.name.clone(), localities: Vec::new() };
    for locality in &template.localities {
        let mut endpoints = Vec::new();
        for endpoint in &locality.endpoints {
            match &endpoint.address {
                EndpointAddress::Socket(_) => endpoints.push(endpoint.clone()),
                EndpointAddress::Name(name, port) => {
                    let found = answers.get(name)?;
                    let addresses = match only_first {
                        true => found.first().copied().into_iter().collect(),
                        false => sorted(found),
                    };
                    let here = |ip| at(endpoint, name, SocketAddr::new(ip, *port));
                    endpoints.extend(addresses.into_iter().map(here));
                }
            }
        }
        resolved.localities.push(model::endpoint::LocalityEndpoints { endpoints, ..locality.clone() });
    }
    Some(resolved)
}

/// Each once, in a fixed order, so that equal answers are equal.
fn sorted(found: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = found.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn at(endpoint: &Endpoint, name: &str, address: SocketAddr) -> Endpoint {
    let hostname = if endpoint.hostname.is_empty() { name.to_owned() } else { endpoint.hostname.clone() };
    Endpoint { address: EndpointAddress::Socket(address), hostname, ..endpoint.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cds::cluster::DiscoveryType::{LogicalDns, StrictDns};
    use envoy_types::pb::envoy::config::cluster::v3 as cds;

    /// A cluster with one endpoint, `a.test:80` with weight 3.
    fn cluster(kind: cds::cluster::DiscoveryType) -> Cluster {
        let text = format!(
            "static_resources: {{clusters: [{{name: c, type: {}, load_assignment: {{cluster_name: c, endpoints: [{{
             lb_endpoints: [{{load_balancing_weight: 3, endpoint: {{address: {{socket_address: {{
             address: a.test, port_value: 80}}}}}}}}]}}]}}}}]}}",
            kind.as_str_name()
        );
        let bootstrap = xds::bootstrap::parse(&text, "boot.yaml").unwrap();
        xds::codec::decode_cluster(&bootstrap.static_clusters[0]).unwrap()
    }

    fn addresses(cluster: &Cluster, answer: &[&str]) -> Vec<String> {
        let answer = answer.iter().map(|ip| ip.parse().unwrap()).collect();
        let assignment = assignment(cluster, &Answers::from([("a.test".to_owned(), answer)])).unwrap();
        assignment.endpoints().map(|e| format!("{} {} {}", e.address, e.hostname, e.weight)).collect()
    }

    #[test]
    fn every_address_becomes_an_endpoint() {
        let found = addresses(&cluster(StrictDns), &["10.0.0.2", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(found, ["10.0.0.1:80 a.test 3", "10.0.0.2:80 a.test 3"]);
        assert_eq!(addresses(&cluster(StrictDns), &["::1"]), ["[::1]:80 a.test 3"]);
    }

    #[test]
    fn a_logical_name_has_the_first_address() {
        let found = addresses(&cluster(LogicalDns), &["10.0.0.2", "10.0.0.1"]);
        assert_eq!(found, ["10.0.0.2:80 a.test 3"]);
    }

    #[test]
    fn a_name_is_asked_for_again_when_its_answer_is_no_longer_good_and_failures_change_nothing() {
        let ip = IpAddr::from([10, 0, 0, 1]);
        let mut strict = cluster(StrictDns);
        Arc::make_mut(&mut strict.dns).respects_ttl = true;
        Arc::make_mut(&mut strict.dns).failure = Some((Duration::from_secs(2), Duration::from_secs(3)));
        let mut line = Line::new(None);
        let good = Found::Addresses(vec![ip], Some(Duration::from_secs(30)));
        assert_eq!(line.take(&strict, good.clone()), Duration::from_secs(30));
        for _ in 0..9 {
            let wait = line.take(&strict, Found::Failed);
            assert!((1..=3).contains(&wait.as_secs()), "{wait:?}");
            assert_eq!(line.answer.as_deref(), Some(&[ip][..]));
        }
        Arc::make_mut(&mut strict.dns).respects_ttl = false;
        assert_eq!(line.take(&strict, good), Duration::from_secs(5));
        assert_eq!(line.take(&strict, Found::Nothing), Duration::from_secs(5));
        assert_eq!(line.answer.as_deref(), Some(&[][..]), "there is none");
        let mut line = Line::new(Some(vec![ip]));
        line.take(&cluster(LogicalDns), Found::Nothing);
        assert_eq!(line.answer.as_deref(), Some(&[ip][..]), "a logical host keeps its address");
    }

    #[test]
    fn a_name_without_an_answer_changes_nothing() {
        assert_eq!(assignment(&cluster(StrictDns), &Answers::new()), None);
    }
}
