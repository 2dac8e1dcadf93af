//! What is told when a mesh is ready: to people the address to open first, to programs one line of JSON. Pure.

use super::gateway;
use super::plan::{self, Key};
use super::ports::ControlPorts;
use super::replica;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// What runs.
pub(super) struct Summary<'a> {
    pub(super) folder: &'a Path,
    pub(super) ports: ControlPorts,
    pub(super) control_pid: Option<u32>,
    pub(super) gateways: Vec<(&'a plan::Gateway, gateway::Status)>,
    pub(super) workloads: BTreeMap<&'a Key, Vec<replica::Status>>,
}

/// Where `port` of a gateway is reached.
fn url(gateway: &plan::Gateway, port: u16, local: u16) -> String {
    format!("{}://127.0.0.1:{local}", gateway.schemes.get(&port).copied().unwrap_or("http"))
}

fn qualified((namespace, name): &Key) -> String {
    if namespace == "default" { name.clone() } else { format!("{namespace}/{name}") }
}

impl Summary<'_> {
    /// One line for programs.
    pub(super) fn json(&self) -> Value {
        let mut gateways = Map::new();
        let mut proxies = Map::new();
        for (gateway, status) in &self.gateways {
            let urls =
                gateway.ports.iter().map(|(port, local)| (port.to_string(), url(gateway, *port, *local)));
            gateways.insert(gateway.name.clone(), urls.collect());
            let admin = status.admin.map(|admin| format!("http://{admin}"));
            proxies.insert(gateway.name.clone(), json!({"pid": status.pid, "admin": admin}));
        }
        let workloads: Map<String, Value> = self
            .workloads
            .iter()
            .map(|(key, replicas)| (qualified(key), replicas.iter().map(replica_json).collect()))
            .collect();
        json!({
            "ready": true,
            "gateways": gateways,
            "admin": format!("http://{}", self.ports.admin),
            "xds": self.ports.xds.to_string(),
            "control": {"pid": self.control_pid, "xds_tls": self.ports.xds_tls.to_string()},
            "proxies": proxies,
            "workloads": workloads,
        })
    }

    /// A few lines for people.
    pub(super) fn text(&self) -> String {
        let mut text = "\n".to_owned();
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<9}  {value}");
        };
        for (gateway, _) in &self.gateways {
            for (port, local) in &gateway.ports {
                let unused =
                    if gateway.schemes.contains_key(port) { "" } else { ", which no Gateway uses yet" };
                let url = url(gateway, *port, *local);
                let has_path = unused.is_empty() && url.starts_with("http");
                let path = gateway.path.as_deref().filter(|_| has_path).unwrap_or_default();
                let told = format!("{url}{path}  ({}, port {port}{unused})", gateway.name);
                line("open", &told);
            }
        }
        let workloads = self.workloads.iter().map(|(key, replicas)| match replicas.len() {
            1 => qualified(key),
            count => format!("{} ×{count}", qualified(key)),
        });
        line("running", &workloads.collect::<Vec<_>>().join(", "));
        line("status", &format!("http://{}/status", self.ports.admin));
        line("edit", &format!("{}: changes apply as they are saved", self.folder.display()));
        line("stop", "Ctrl-C");
        text
    }
}

fn replica_json(status: &replica::Status) -> Value {
    let Some(pod) = &status.pod else { return Value::Null };
    let ports: Map<String, Value> =
        pod.ports.iter().map(|(port, private)| (port.to_string(), json!(private))).collect();
    let (sidecar, applications) = status.pids.split_at(usize::from(pod.is_meshed()).min(status.pids.len()));
    let admin = pod.is_meshed().then(|| format!("http://127.0.0.1:{}", pod.admin_port));
    json!({
        "name": pod.name,
        "address": pod.address.to_string(),
        "ports": ports,
        "admin": admin,
        "sidecar_pid": sidecar.first(),
        "pids": applications,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan::Proxy;
    use super::*;

    fn gateway() -> plan::Gateway {
        plan::Gateway {
            namespace: "istio-system".to_owned(),
            name: "ingress".to_owned(),
            labels: BTreeMap::new(),
            service_account: "ingress".to_owned(),
            proxy: Proxy::Own,
            threads: None,
            ports: BTreeMap::from([(80, 8080), (443, 8443)]),
            schemes: BTreeMap::from([(80, "http"), (443, "https")]),
            path: Some("/productpage".to_owned()),
        }
    }

    #[test]
    fn programs_and_people_are_told_where_the_gateways_are() {
        let (gateway, address) = (gateway(), |port: u16| ([127, 0, 0, 1], port).into());
        let key = ("default".to_owned(), "details-v1".to_owned());
        let summary = Summary {
            folder: Path::new("examples/bookinfo"),
            ports: ControlPorts { xds: address(15010), xds_tls: address(15012), admin: address(15014) },
            control_pid: Some(1),
            gateways: vec![(&gateway, gateway::Status::default())],
            workloads: BTreeMap::from([(&key, vec![replica::Status::default()])]),
        };
        let json = summary.json();
        assert_eq!(json["ready"], true);
        assert_eq!(json["gateways"]["ingress"]["80"], "http://127.0.0.1:8080");
        assert_eq!(json["gateways"]["ingress"]["443"], "https://127.0.0.1:8443");
        assert_eq!(json["admin"], "http://127.0.0.1:15014");
        assert_eq!(json["xds"], "127.0.0.1:15010");
        let text = summary.text();
        assert!(
            text.trim_start().starts_with("open       http://127.0.0.1:8080/productpage  (ingress, port 80)"),
            "{text}"
        );
        assert!(text.contains("details-v1"), "{text}");
    }
}
