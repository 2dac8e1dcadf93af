//! Names of clusters resolved to addresses, again and again. The last answer stays when the next fails.
//!
//! Both address families are asked for; IPv4 addresses are used where there are any.

use crate::discovery::Hub;
use crate::names;
use futures_util::StreamExt;
use model::cluster::{Cluster, Discovery};
use model::endpoint::{Assignment, Endpoint, EndpointAddress};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Time between two resolutions (Envoy's `dns_refresh_rate`).
const REFRESH: Duration = Duration::from_secs(5);
/// Names resolved at the same time.
const CONCURRENCY: usize = 16;

/// Answers by name.
pub type Answers = BTreeMap<String, Vec<IpAddr>>;

/// Resolves what has to be resolved. Never returns.
pub async fn follow(hub: Hub) {
    let mut known = Vec::new();
    loop {
        let clusters = hub.read(|discovery| discovery.dns_clusters());
        resolve(&hub, &clusters).await;
        known.clone_from(&clusters);
        let refresh = tokio::time::sleep(REFRESH);
        tokio::pin!(refresh);
        // A new cluster is resolved at once.
        loop {
            let stirred = hub.stirred();
            if is_other(&hub.read(|discovery| discovery.dns_clusters()), &known) {
                break;
            }
            tokio::select! {
                () = &mut refresh => break,
                () = stirred => {}
            }
        }
    }
}

fn is_other(now: &[Arc<Cluster>], known: &[Arc<Cluster>]) -> bool {
    now.len() != known.len() || now.iter().zip(known).any(|(a, b)| !Arc::ptr_eq(a, b))
}

async fn resolve(hub: &Hub, clusters: &[Arc<Cluster>]) {
    let lookups = clusters.iter().map(|cluster| async move {
        let mut answers = Answers::new();
        for name in names_of(cluster) {
            if let Ok(found) = names::lookup(name).await {
                answers.insert(name.to_owned(), found);
            }
        }
        (cluster, answers)
    });
    let mut lookups = futures_util::stream::iter(lookups).buffer_unordered(CONCURRENCY);
    while let Some((cluster, answers)) = lookups.next().await {
        let assignment = assignment(cluster, &answers);
        hub.feed(|discovery, now| discovery.resolved(&cluster.name, assignment, now));
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
                    let addresses = usable(answers.get(name)?);
                    let taken = if only_first { 1 } else { usize::MAX };
                    endpoints.extend(
                        addresses.take(taken).map(|ip| at(endpoint, name, SocketAddr::new(ip, *port))),
                    );
                }
            }
        }
        resolved.localities.push(model::endpoint::LocalityEndpoints { endpoints, ..locality.clone() });
    }
    Some(resolved)
}

/// IPv4 addresses if there are any, else the others; each once, in a fixed order, so that equal answers are equal.
fn usable(found: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let has_v4 = found.iter().any(IpAddr::is_ipv4);
    let mut addresses: Vec<IpAddr> = found.iter().copied().filter(|ip| ip.is_ipv4() == has_v4).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter()
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
    fn every_ipv4_address_becomes_an_endpoint() {
        let found = addresses(&cluster(StrictDns), &["::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(found, ["10.0.0.1:80 a.test 3", "10.0.0.2:80 a.test 3"]);
    }

    #[test]
    fn ipv6_is_used_where_there_is_nothing_else() {
        assert_eq!(addresses(&cluster(StrictDns), &["::1"]), ["[::1]:80 a.test 3"]);
    }

    #[test]
    fn a_logical_name_has_one_address() {
        let found = addresses(&cluster(LogicalDns), &["10.0.0.2", "10.0.0.1"]);
        assert_eq!(found, ["10.0.0.1:80 a.test 3"]);
    }

    #[test]
    fn a_name_without_an_answer_changes_nothing() {
        assert_eq!(assignment(&cluster(StrictDns), &Answers::new()), None);
    }
}
