//! The bootstrap's static resources, taken like those of a control plane, except that the proxy does not start without
//! them: each fault is told with file, line and field, all of them at once.

use super::Discovery;
use super::catalog::{CLUSTER, LISTENER, Origin, SECRET};
use super::intake::claim;
use super::judge::{self, Judged};
use super::raw::Raw;
use super::references::{
    asks_on_demand, clusters_of_routes, eds_name, inline_routes, secrets_of_cluster, secrets_of_listener,
    tables,
};
use model::tls::{WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use xds::bootstrap::{Bootstrap, Problem};
use xds::codec::{DecodeError, Decoder, Resource};

/// Takes the static resources of `bootstrap`, or tells everything that is wrong with them.
pub fn add_static(
    discovery: &mut Discovery,
    bootstrap: &Bootstrap,
    now: Instant,
) -> Result<(), Vec<Problem>> {
    let files = |path: &str| std::fs::read(path);
    let mut start =
        Start { discovery, bootstrap, decoder: Decoder::reading(&files), now, problems: Vec::new() };
    for (at, secret) in bootstrap.static_secrets.iter().enumerate() {
        let field = format!("static_resources.secrets[{at}]");
        let decoded = start.decoder.secret(secret).map(Resource::Secret);
        start.add(&field, decoded, SECRET, secret);
    }
    for (at, cluster) in bootstrap.static_clusters.iter().enumerate() {
        let field = format!("static_resources.clusters[{at}]");
        let decoded = start.decoder.cluster(cluster).map(Resource::Cluster);
        start.add(&field, decoded, CLUSTER, cluster);
    }
    let mut taken = BTreeMap::new();
    for (at, listener) in bootstrap.static_listeners.iter().enumerate() {
        let field = format!("static_resources.listeners[{at}]");
        let decoded = start.decoder.listener(listener).map(|mut decoded| {
            if decoded.name.is_empty() {
                decoded.name = format!("listener-{at}");
            }
            Resource::Listener(decoded)
        });
        if let Some(judged) = start.add(&field, decoded, LISTENER, listener) {
            start.check_address(&field, &judged, &mut taken);
        }
    }
    start.check_references();
    let problems = start.problems;
    if !problems.is_empty() {
        return Err(problems);
    }
    discovery.advance(now);
    Ok(())
}

struct Start<'a> {
    discovery: &'a mut Discovery,
    bootstrap: &'a Bootstrap,
    decoder: Decoder<'a>,
    now: Instant,
    problems: Vec<Problem>,
}

impl Start<'_> {
    fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.problems.push(self.bootstrap.source.problem(field, message));
    }

    fn add(
        &mut self,
        field: &str,
        decoded: Result<Resource, DecodeError>,
        type_url: &'static str,
        proto: &impl Message,
    ) -> Option<Judged> {
        let judged = match decoded {
            Ok(resource) => judge::check(resource).map_err(|reason| (field.to_owned(), reason)),
            Err(DecodeError { path, problem, .. }) => {
                let separator = if path.is_empty() { "" } else { "." };
                Err((format!("{field}{separator}{path}"), problem))
            }
        };
        match judged {
            Ok(judged) => {
                let raw = Raw::new(type_url, &proto.encode_to_vec());
                let name = judged.name().to_owned();
                self.discovery.accept(
                    &name,
                    Origin::Static,
                    judged.clone(),
                    &Rc::from(""),
                    Some(raw),
                    self.now,
                );
                Some(judged)
            }
            Err((field, reason)) => {
                self.problem(&field, reason);
                None
            }
        }
    }

    fn check_address(&mut self, field: &str, judged: &Judged, taken: &mut BTreeMap<SocketAddr, String>) {
        let Judged::Listener(listener) = judged else { return };
        if let Some(reason) = claim(taken, &listener.name, listener) {
            self.problem(field, reason);
        }
    }

    /// Names that nothing will ever deliver.
    fn check_references(&mut self) {
        let mut found: Vec<(String, String)> = Vec::new();
        let ads = self.discovery.scope.ads;
        let catalog = &self.discovery.catalog;
        let place = |kind: &str, names: &[String], name: &str| {
            let at = names.iter().position(|other| other == name).unwrap_or(0);
            format!("static_resources.{kind}[{at}]")
        };
        let clusters: Vec<String> = self.bootstrap.static_clusters.iter().map(|c| c.name.clone()).collect();
        for version in catalog.clusters.entries.values().filter_map(|entry| entry.latest.as_ref()) {
            let field = place("clusters", &clusters, &version.value.name);
            if let (Some(name), false) = (eds_name(&version.value), ads) {
                let reason = format!("asks EDS for `{name}`, and there is no `dynamic_resources.ads_config`");
                found.push((field.clone(), reason));
            }
            let missing = self.missing_secrets(&secrets_of_cluster(&version.value));
            found.extend(missing.map(|reason| (field.clone(), reason)));
        }
        let listeners = self.bootstrap.static_listeners.iter().enumerate();
        let listeners: Vec<String> = listeners
            .map(|(at, l)| if l.name.is_empty() { format!("listener-{at}") } else { l.name.clone() })
            .collect();
        for version in catalog.listeners.entries.values().filter_map(|entry| entry.latest.as_ref()) {
            let listener = &version.value;
            let field = place("listeners", &listeners, &listener.name);
            if let (Some(name), false) = (tables(listener).next(), ads) {
                let reason = format!("asks RDS for `{name}`, and there is no `dynamic_resources.ads_config`");
                found.push((field.clone(), reason));
            }
            if asks_on_demand(listener) && !ads {
                let reason = "asks for clusters on demand, and there is no `dynamic_resources.ads_config`";
                found.push((field.clone(), reason.to_owned()));
            }
            let missing = self.missing_secrets(&secrets_of_listener(listener));
            found.extend(missing.map(|reason| (field.clone(), reason)));
            for routes in inline_routes(listener).filter(|routes| routes.validate_clusters) {
                // One that is declared and refused is told as such.
                let is_unknown = |name: &&str| !clusters.iter().any(|declared| declared == name);
                let unknown: BTreeSet<&str> = clusters_of_routes(routes).filter(is_unknown).collect();
                let reason =
                    |name: &&str| format!("its routes send to the cluster `{name}`, which is not declared");
                found.extend(unknown.iter().map(|name| (field.clone(), reason(name))));
            }
        }
        for (field, reason) in found {
            self.problem(&field, reason);
        }
    }

    /// What to say of secrets that come from nowhere.
    fn missing_secrets<'n>(&'n self, names: &BTreeSet<&'n str>) -> impl Iterator<Item = String> + use<'n> {
        let scope = self.discovery.scope;
        let own = [WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE];
        let secrets = &self.discovery.catalog.secrets;
        let is_missing = |name: &&str| {
            secrets.latest(name).is_none() && !scope.ads && !(scope.identity && own.contains(name))
        };
        let missing: Vec<&str> = names.iter().copied().filter(is_missing).collect();
        missing.into_iter().map(|name| {
            format!(
                "asks SDS for `{name}`, which is not among `static_resources.secrets`, and there is no \
                 `dynamic_resources.ads_config`"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::discovery::{Scope, Stage};

    const BACKEND: &str = "
  clusters:
  - name: backend
    connect_timeout: 1s
    load_assignment:
      cluster_name: backend
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]
";

    fn listener(name: &str, port: u16, cluster: &str) -> String {
        format!(
            r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#
        )
    }

    fn start(resources: &str) -> (Discovery, String) {
        let bootstrap = xds::bootstrap::parse(&format!("static_resources:{resources}"), "boot.yaml").unwrap();
        let mut discovery = Discovery::new(Scope::default());
        let outcome = add_static(&mut discovery, &bootstrap, Instant::now());
        let problems = outcome.err().unwrap_or_default();
        (discovery, problems.iter().map(|problem| format!("{problem}\n")).collect())
    }

    #[test]
    fn static_resources_are_in_force_at_once() {
        let (discovery, problems) = start(&format!("{BACKEND}  listeners:{}", listener("l", 80, "backend")));
        assert_eq!(problems, "");
        let config = discovery.config();
        assert_eq!((config.clusters.len(), config.listeners.len()), (1, 1));
        assert_eq!((discovery.stage(), discovery.next()), (Stage::Complete, None));
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let listeners = [listener("l", 80, "nowhere"), listener("m", 80, "backend")].concat();
        let (_, problems) = start(&format!("{BACKEND}  listeners:{listeners}"));
        let expected = "\
            boot.yaml:21: `static_resources.listeners[1]`: address: 127.0.0.1:80 is taken by the listener `l`\n\
            boot.yaml:9: `static_resources.listeners[0]`: its routes send to the cluster `nowhere`, which is not declared\n";
        assert_eq!(problems, expected);
    }

    #[test]
    fn what_nothing_will_ever_deliver_is_a_fault() {
        let cluster = "
  clusters:
  - {name: c, type: EDS, connect_timeout: 1s, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}}
";
        let on_demand = "
          - name: envoy.filters.http.on_demand
            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand, odcds: {source: {ads: {}}}}
          - name: router";
        let listener = listener("l", 80, "backend").replace("\n          - name: router", on_demand);
        let (_, problems) = start(&format!("{BACKEND}  listeners:{listener}"));
        assert!(problems.contains("asks for clusters on demand"), "{problems}");
        let (_, problems) = start(cluster);
        assert!(
            problems.contains("asks EDS for `c`, and there is no `dynamic_resources.ads_config`"),
            "{problems}"
        );
    }
}
