//! What is wrong with resources together: a rule that names a host, port, subset or gateway that no resource declares.
//! Such a rule is used all the same (what it names may come later), so these are warnings.
//!
//! Where nothing declares any host, the files do not describe a mesh, and nothing is said.

use crate::hosts::{Hosts, full_name};
use api::networking::{Destination, VirtualService};
use api::{Diagnostic, Object, Spec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Reference to all sidecars instead of a gateway.
const MESH: &str = "mesh";

/// Every dangling reference among `objects`, sorted by file and line.
pub fn check(objects: &[Arc<Object>]) -> Vec<Diagnostic> {
    let hosts = Hosts::of(objects.iter());
    if hosts.is_empty() {
        return Vec::new();
    }
    let declared = Declared { hosts, subsets: subsets(objects), gateways: gateways(objects) };
    let mut found = Vec::new();
    for object in objects {
        match &object.spec {
            Spec::VirtualService(rule) => declared.virtual_service(object, rule, &mut found),
            Spec::DestinationRule(rule) => declared.host(object, "spec.host", &rule.host, &mut found),
            _ => {}
        }
    }
    found.sort();
    found
}

/// What rules may name.
struct Declared {
    hosts: Hosts,
    /// Full host name to the subsets that any DestinationRule gives it.
    subsets: BTreeMap<String, BTreeSet<String>>,
    /// `namespace/name`.
    gateways: BTreeSet<String>,
}

fn subsets(objects: &[Arc<Object>]) -> BTreeMap<String, BTreeSet<String>> {
    let mut subsets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in objects {
        if let Spec::DestinationRule(rule) = &object.spec {
            let host = full_name(&rule.host, object.namespace());
            subsets.entry(host).or_default().extend(rule.subsets.iter().map(|s| s.name.clone()));
        }
    }
    subsets
}

fn gateways(objects: &[Arc<Object>]) -> BTreeSet<String> {
    let is_gateway = |o: &&Arc<Object>| matches!(o.spec, Spec::Gateway(_));
    let name = |o: &Arc<Object>| format!("{}/{}", o.namespace(), o.meta.name);
    objects.iter().filter(is_gateway).map(name).collect()
}

impl Declared {
    fn virtual_service(&self, object: &Object, rule: &VirtualService, found: &mut Vec<Diagnostic>) {
        for (index, gateway) in rule.gateways.iter().enumerate() {
            let full = if gateway.contains('/') {
                gateway.clone()
            } else {
                format!("{}/{gateway}", object.namespace())
            };
            if gateway != MESH && !self.gateways.contains(&full) {
                let problem = object
                    .warning(&format!("spec.gateways[{index}]"), format!("no Gateway `{full}` is declared"))
                    .help("no gateway will serve these routes; name one as `namespace/name`, or `mesh` for sidecars");
                found.push(problem);
            }
        }
        for (path, destination) in destinations(rule) {
            self.destination(object, &path, destination, found);
        }
    }

    fn destination(
        &self,
        object: &Object,
        path: &str,
        destination: &Destination,
        found: &mut Vec<Diagnostic>,
    ) {
        let host = full_name(&destination.host, object.namespace());
        let Some(ports) = self.hosts.ports(&host) else {
            return self.host(object, &format!("{path}.host"), &destination.host, found);
        };
        let list = || ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        match &destination.port {
            Some(port) if !ports.contains(&port.number) => found.push(
                object
                    .warning(&format!("{path}.port.number"), format!("`{host}` has no port {}", port.number))
                    .help(format!("its ports are: {}", list())),
            ),
            None if ports.len() > 1 => found.push(
                object
                    .warning(path, format!("`{host}` has several ports ({}) and none is chosen", list()))
                    .help("set `port.number`"),
            ),
            _ => {}
        }
        let known = self.subsets.get(&host);
        if !destination.subset.is_empty() && !known.is_some_and(|k| k.contains(&destination.subset)) {
            let all = known.into_iter().flatten().cloned().collect::<Vec<_>>().join(", ");
            let help = match all.as_str() {
                "" => "declare it in a DestinationRule for this host".to_owned(),
                all => format!("the subsets of this host are: {all}"),
            };
            let message = format!(
                "`{host}` has no subset `{}`; such requests are answered with 503",
                destination.subset
            );
            found.push(object.warning(&format!("{path}.subset"), message).help(help));
        }
    }

    fn host(&self, object: &Object, path: &str, written: &str, found: &mut Vec<Diagnostic>) {
        let host = full_name(written, object.namespace());
        // A wildcard rule is for whatever hosts there are or will be.
        if host.starts_with('*') || self.hosts.ports(&host).is_some() {
            return;
        }
        let problem = object.warning(path, format!("no Service or ServiceEntry declares `{host}`"));
        found.push(match self.hosts.similar(&host) {
            Some(other) => problem.help(format!("did you mean `{other}`?")),
            None => problem.help(
                "declare the host, or correct its name; a short name is looked up in the rule's namespace",
            ),
        });
    }
}

/// Every destination of a rule, with its field path.
fn destinations(rule: &VirtualService) -> Vec<(String, &Destination)> {
    let mut all = Vec::new();
    for (i, http) in rule.http.iter().enumerate() {
        for (j, route) in http.route.iter().enumerate() {
            all.push((format!("spec.http[{i}].route[{j}].destination"), &route.destination));
        }
        if let Some(mirror) = &http.mirror {
            all.push((format!("spec.http[{i}].mirror"), mirror));
        }
        for (j, mirror) in http.mirrors.iter().enumerate() {
            all.push((format!("spec.http[{i}].mirrors[{j}].destination"), &mirror.destination));
        }
    }
    for (i, tls) in rule.tls.iter().enumerate() {
        for (j, route) in tls.route.iter().enumerate() {
            all.push((format!("spec.tls[{i}].route[{j}].destination"), &route.destination));
        }
    }
    for (i, tcp) in rule.tcp.iter().enumerate() {
        for (j, route) in tcp.route.iter().enumerate() {
            all.push((format!("spec.tcp[{i}].route[{j}].destination"), &route.destination));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceFile;
    use crate::store::Store;

    const MESH_YAML: &str = "apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1, port: {number: 9080}}
";

    fn problems(text: &str) -> Vec<String> {
        let mut store = Store::default();
        store.update(&[SourceFile { name: "m.yaml".into(), text: text.into() }]);
        let objects: Vec<_> = store.objects().cloned().collect();
        check(&objects).iter().map(Diagnostic::to_string).collect()
    }

    #[test]
    fn a_whole_mesh_has_no_dangling_references() {
        assert_eq!(problems(MESH_YAML), Vec::<String>::new());
    }

    #[test]
    fn a_subset_without_a_destination_rule_is_told_before_it_is_a_503() {
        let found = problems(&MESH_YAML.replace("subset: v1", "subset: v9"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("m.yaml:21:"), "{found:?}");
        assert!(found[0].contains("has no subset `v9`") && found[0].contains("are: v1"), "{found:?}");
    }

    #[test]
    fn an_unknown_host_port_or_gateway_is_named_with_what_would_be_right() {
        let host = problems(&MESH_YAML.replace("{host: reviews,", "{host: reviews.prod.svc.cluster.local,"));
        assert!(host[0].contains("did you mean `reviews.default.svc.cluster.local`?"), "{host:?}");
        let port = problems(&MESH_YAML.replace("number: 9080", "number: 80"));
        assert!(port[0].contains("its ports are: 9080"), "{port:?}");
        let gateway =
            problems(&MESH_YAML.replace("hosts: [reviews]", "hosts: [reviews]\n  gateways: [edge, mesh]"));
        assert!(gateway[0].contains("no Gateway `default/edge` is declared"), "{gateway:?}");
    }

    #[test]
    fn rules_checked_without_their_services_are_not_complained_about() {
        let rules_only = MESH_YAML.split_once("---").map_or("", |(_, rest)| rest);
        assert_eq!(problems(rules_only), Vec::<String>::new());
    }
}
