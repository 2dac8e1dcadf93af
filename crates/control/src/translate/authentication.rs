//! PeerAuthentication: how strict a port of a workload is about mutual TLS. The workload's policy counts before its
//! namespace's, and that before the mesh's; of several for one scope the first in file order counts.

use crate::world::World;
use api::security::{MutualTls, MutualTlsMode};
use std::collections::BTreeMap;

/// Every policy.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    policies: Vec<Policy>,
    root_namespace: String,
}

#[derive(Debug)]
struct Policy {
    namespace: String,
    /// Labels of the workloads; `None` for all of the namespace.
    labels: Option<BTreeMap<String, String>>,
    mode: MutualTlsMode,
    ports: BTreeMap<u16, MutualTlsMode>,
}

impl Authentication {
    pub(super) fn of(world: &World) -> Self {
        let policy = |(object, spec): (&std::sync::Arc<api::Object>, &api::security::PeerAuthentication)| {
            let labels = spec.selector.as_ref().map(|s| s.match_labels.clone()).filter(|l| !l.is_empty());
            let mode = |mtls: &MutualTls| mtls.mode;
            Policy {
                namespace: object.namespace().to_owned(),
                labels,
                mode: spec.mtls.as_ref().map_or(MutualTlsMode::Unset, mode),
                ports: spec.port_level_mtls.iter().map(|(port, mtls)| (*port, mode(mtls))).collect(),
            }
        };
        Self {
            policies: world.peer_authentications().map(policy).collect(),
            root_namespace: world.root_namespace().to_owned(),
        }
    }

    /// The mode for `port` of a workload with `labels`; never `Unset`.
    pub(super) fn mode(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        port: u16,
    ) -> MutualTlsMode {
        let here = |p: &&Policy| p.namespace == namespace;
        let selects = |p: &&Policy| p.labels.as_ref().is_some_and(|l| is_subset(l, labels));
        let workload = self.policies.iter().find(|p| here(p) && selects(p));
        let whole = |namespace: &str| {
            let wide = |p: &&Policy| p.namespace == namespace && p.labels.is_none();
            self.policies.iter().find(wide).map(|p| p.mode)
        };
        let in_order = [
            workload.and_then(|p| p.ports.get(&port).copied()),
            workload.map(|p| p.mode),
            whole(namespace),
            whole(&self.root_namespace),
        ];
        let set = |mode: &MutualTlsMode| *mode != MutualTlsMode::Unset;
        in_order.into_iter().flatten().find(set).unwrap_or(MutualTlsMode::Permissive)
    }
}

/// Whether every label of `wanted` is among `labels`.
pub(super) fn is_subset(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(
        namespace: &str,
        app: Option<&str>,
        mode: MutualTlsMode,
        port: Option<MutualTlsMode>,
    ) -> Policy {
        Policy {
            namespace: namespace.into(),
            labels: app.map(|a| BTreeMap::from([("app".to_owned(), a.to_owned())])),
            mode,
            ports: port.map(|m| (9080, m)).into_iter().collect(),
        }
    }

    #[test]
    fn the_narrowest_policy_that_says_something_counts() {
        use MutualTlsMode::*;
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let mut all = Authentication { policies: Vec::new(), root_namespace: "root".into() };
        assert_eq!(all.mode("default", &labels, 9080), Permissive);
        all.policies.push(policy("root", None, Strict, None));
        assert_eq!(all.mode("default", &labels, 9080), Strict);
        all.policies.push(policy("default", None, Permissive, None));
        assert_eq!(all.mode("default", &labels, 9080), Permissive);
        all.policies.push(policy("default", Some("a"), Unset, Some(Disable)));
        assert_eq!(all.mode("default", &labels, 9080), Disable);
        assert_eq!(all.mode("default", &labels, 70), Permissive, "an unset mode asks the next wider policy");
        assert_eq!(all.mode("other", &labels, 9080), Strict);
    }
}
