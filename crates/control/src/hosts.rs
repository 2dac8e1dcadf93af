//! The hosts of the mesh: what a host name in a rule stands for, and which ports it has.
//! Services and ServiceEntries meet here; what traffic to them looks like is decided elsewhere.

use api::{Object, Spec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// DNS suffix of Kubernetes services.
const SERVICE_SUFFIX: &str = "svc.cluster.local";

/// Every host that a resource in force declares.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Full host name, or `*.suffix`, to its ports.
    ports: BTreeMap<String, Vec<u16>>,
}

impl Hosts {
    /// The hosts that `objects` declare.
    pub fn of<'o>(objects: impl Iterator<Item = &'o Arc<Object>>) -> Self {
        let mut hosts = Self::default();
        for object in objects {
            match &object.spec {
                Spec::Service(service) => {
                    let name = full_name(&object.meta.name, object.namespace());
                    hosts.add(&name, service.ports.iter().map(|p| p.port));
                }
                Spec::ServiceEntry(entry) => {
                    for host in &entry.hosts {
                        hosts.add(host, entry.ports.iter().map(|p| p.number));
                    }
                }
                _ => {}
            }
        }
        hosts
    }

    fn add(&mut self, host: &str, ports: impl Iterator<Item = u16>) {
        self.ports.entry(host.to_ascii_lowercase()).or_default().extend(ports);
    }

    /// Whether nothing at all is declared.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// The ports of `host`, a full name; a host below a declared wildcard has the wildcard's. `None` when nothing
    /// declares it.
    pub fn ports(&self, host: &str) -> Option<&[u16]> {
        if let Some(ports) = self.ports.get(host) {
            return Some(ports);
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(ports) = self.ports.get(&format!("*.{parent}")) {
                return Some(ports);
            }
            rest = parent;
        }
        None
    }

    /// The declared host most like `host`, to suggest instead of it: one with the same first label.
    pub fn similar(&self, host: &str) -> Option<&str> {
        let label = |name: &str| name.split('.').next().map(str::to_owned);
        self.ports.keys().find(|known| label(known) == label(host)).map(String::as_str)
    }
}

/// The full name of a host as a rule in `namespace` writes it: a name without dots is a service of that namespace,
/// `name.namespace.svc` is a service, and everything else stands for itself, as in Istio.
pub fn full_name(host: &str, namespace: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.split('.').collect::<Vec<_>>().as_slice() {
        _ if host.starts_with('*') => host,
        [_] => format!("{host}.{namespace}.{SERVICE_SUFFIX}"),
        [_, _, "svc"] => format!("{host}.cluster.local"),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_a_service_of_the_rules_namespace() {
        assert_eq!(full_name("Reviews", "prod"), "reviews.prod.svc.cluster.local");
        assert_eq!(full_name("reviews.other.svc", "prod"), "reviews.other.svc.cluster.local");
        assert_eq!(full_name("api.example.com", "prod"), "api.example.com");
        assert_eq!(full_name("*.example.com", "prod"), "*.example.com");
    }

    #[test]
    fn a_host_below_a_wildcard_has_its_ports() {
        let mut hosts = Hosts::default();
        hosts.add("*.example.com", [443].into_iter());
        assert_eq!(hosts.ports("a.b.example.com"), Some(&[443][..]));
        assert_eq!(hosts.ports("example.com"), None);
    }
}
