//! One replica as it is told to others: its environment, the commands of its processes, and the WorkloadEntry by which
//! the control plane knows it. Pure; addresses and ports are given.

use super::bootstrap::{APPLICATION_PORTS, OUTBOUND_PORT, PROCESS, application_ports};
use super::expand::Variables;
use super::network::{ADMIN_PORT, Place};
use super::plan::{Program, Proxy, Setting, Template};
use super::process::Seat;
use serde_json::{Map, Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// One replica, with the place it has on this machine.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) template: Arc<Template>,
    pub(super) address: Ipv4Addr,
    /// Each port with the port on which the application really listens: a private one of 127.0.0.1 behind a sidecar, the
    /// same one of [`Pod::address`] without.
    pub(super) ports: Vec<(u16, u16)>,
    /// Port of 127.0.0.1 by which people reach the sidecar's admin pages.
    pub(super) admin_port: u16,
    /// Its own network, where it has one.
    pub(super) place: Option<Arc<Place>>,
}

impl PartialEq for Pod {
    fn eq(&self, other: &Self) -> bool {
        let facts = |pod: &Pod| (pod.name.clone(), pod.address, pod.ports.clone(), pod.admin_port);
        facts(self) == facts(other) && self.template == other.template
    }
}

impl Pod {
    /// Whether it has a sidecar.
    pub(super) fn is_meshed(&self) -> bool {
        self.template.sidecar != Proxy::Absent
    }

    /// Where we reach the sidecar's admin pages.
    pub(super) fn admin(&self) -> SocketAddr {
        match self.place {
            Some(_) => SocketAddr::from((self.address, ADMIN_PORT)),
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port)),
        }
    }

    /// Whether rules send what its applications send to its sidecar.
    pub(super) fn is_captured(&self) -> bool {
        self.is_meshed() && self.place.is_some()
    }

    /// Where its processes run.
    pub(super) fn seat(&self, is_sidecar: bool) -> Option<Seat> {
        self.place.clone().map(|place| Seat { place, is_sidecar })
    }

    /// Where its applications listen, and whether they say so themselves.
    pub(super) fn application_addresses(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        self.ports.iter().map(|(served, private)| {
            let mut ports = self.template.programs.iter().flat_map(|program| &program.ports);
            let is_declared = ports.any(|port| port.number == *served && port.is_declared);
            // In a network of its own, only one with a sidecar is looked at from inside.
            let host = if self.is_captured() { self.host() } else { self.reached_at() };
            (SocketAddr::from((host, *private)), is_declared)
        })
    }

    /// Where the mesh reaches it.
    pub(super) fn served_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.iter().map(|(port, _)| SocketAddr::from((self.address, *port)))
    }

    /// Where we reach its applications past the sidecar, if it has one.
    fn reached_at(&self) -> Ipv4Addr {
        if self.is_meshed() { Ipv4Addr::LOCALHOST } else { self.address }
    }

    /// Where its applications are told to listen.
    fn host(&self) -> Ipv4Addr {
        match self.place {
            Some(_) => Ipv4Addr::UNSPECIFIED,
            None => self.reached_at(),
        }
    }

    fn listens_on(&self, port: u16) -> u16 {
        self.ports.iter().find(|(served, _)| *served == port).map_or(port, |(_, private)| *private)
    }

    /// The environment of one of its programs. What the container says wins over ours, but not over where to listen.
    pub(super) fn variables(&self, program: &Program) -> Variables {
        let mut variables = Variables::default();
        let Template { namespace, service_account, workload, .. } = &*self.template;
        let address = self.address.to_string();
        if self.is_meshed() && !self.is_captured() {
            for (name, value) in way_out(&address) {
                variables.set(name, value);
            }
        }
        for (name, value) in [
            ("HOSTNAME", &self.name),
            ("POD_NAME", &self.name),
            ("POD_NAMESPACE", namespace),
            ("POD_IP", &address),
            ("INSTANCE_IP", &address),
            ("SERVICE_ACCOUNT", service_account),
            ("WORKLOAD_NAME", workload),
        ] {
            variables.set(name, value);
        }
        // Set before, for the container's own variables to refer to, and after, because one of them may say `PORT: 8080`.
        self.set_ports(program, &mut variables);
        for (name, setting) in &program.environment {
            match setting {
                Setting::Text(text) => variables.set_expanded(name, text),
                Setting::Field(path) => variables.set(name, self.field(path).unwrap_or_default()),
            }
        }
        self.set_ports(program, &mut variables);
        variables
    }

    /// A field of the pod, as `fieldRef` names it.
    fn field(&self, path: &str) -> Option<String> {
        let Template { namespace, service_account, labels, .. } = &*self.template;
        let label = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
        match path {
            "metadata.name" => Some(self.name.clone()),
            "metadata.namespace" => Some(namespace.clone()),
            "spec.serviceAccountName" => Some(service_account.clone()),
            "status.podIP" | "status.podIPs" => Some(self.address.to_string()),
            "status.hostIP" | "status.hostIPs" => Some("127.0.0.1".to_owned()),
            "spec.nodeName" => Some("localhost".to_owned()),
            _ => labels.get(label?).cloned(),
        }
    }

    /// `HOST`, `PORT` for the first port, and each by number and name: `PORT_9080`, `PORT_HTTP_WEB`.
    fn set_ports(&self, program: &Program, variables: &mut Variables) {
        variables.set("HOST", self.host().to_string());
        if let Some(first) = program.ports.first() {
            variables.set("PORT", self.listens_on(first.number).to_string());
        }
        for port in &program.ports {
            let listens_on = self.listens_on(port.number).to_string();
            if !port.name.is_empty() {
                let name = port.name.to_ascii_uppercase().replace('-', "_");
                variables.set(&format!("PORT_{name}"), listens_on.clone());
            }
            variables.set(&format!("PORT_{}", port.number), listens_on);
        }
    }

    /// The WorkloadEntry that says it is ready.
    pub(super) fn entry(&self, pids: &[u32]) -> Value {
        let Template { namespace, workload, labels, service_account, .. } = &*self.template;
        let named = self.template.programs.iter().flat_map(|p| &p.ports).filter(|p| !p.name.is_empty());
        let ports: Map<String, Value> = named.map(|p| (p.name.clone(), json!(p.number))).collect();
        let mut annotations = Map::new();
        annotations.insert("ieum.dev/workload".to_owned(), json!(workload));
        if self.is_meshed() {
            annotations.insert(APPLICATION_PORTS.to_owned(), json!(application_ports(&self.ports)));
        } else {
            annotations.insert("sidecar.istio.io/inject".to_owned(), json!("false"));
        }
        if let (Some(_), Some(pid)) = (&self.place, pids.first()) {
            annotations.insert(PROCESS.to_owned(), json!(pid.to_string()));
        }
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {
                "name": self.name,
                "namespace": namespace,
                "labels": labels,
                "annotations": annotations,
            },
            "spec": {
                "address": self.address.to_string(),
                "ports": ports,
                "labels": labels,
                "serviceAccount": service_account,
            },
        })
    }
}

/// The variables by which programs at `address` find their way into the mesh.
pub(super) fn way_out(address: &str) -> [(&'static str, String); 4] {
    let proxy = format!("http://{address}:{OUTBOUND_PORT}");
    let spared = "localhost,127.0.0.1,::1".to_owned();
    [("http_proxy", proxy.clone()), ("HTTP_PROXY", proxy), ("no_proxy", spared.clone()), ("NO_PROXY", spared)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan::Port;
    use super::*;
    use std::collections::BTreeMap;

    fn pod(sidecar: Proxy, environment: &[(&str, &str)]) -> Pod {
        let port = |number, name: &str| Port { number, name: name.to_owned(), is_declared: true };
        let program = Program {
            name: "main".to_owned(),
            command: vec!["server".to_owned(), "--port=$(PORT)".to_owned()],
            environment: environment
                .iter()
                .map(|(name, value)| match value.strip_prefix("field ") {
                    Some(path) => ((*name).to_owned(), Setting::Field(path.to_owned())),
                    None => ((*name).to_owned(), Setting::Text((*value).to_owned())),
                })
                .collect(),
            ports: vec![port(9080, "http-web"), port(7070, "")],
        };
        let ports = match sidecar {
            Proxy::Absent => vec![(9080, 9080), (7070, 7070)],
            _ => vec![(9080, 20001), (7070, 20002)],
        };
        let template = Template {
            namespace: "shop".to_owned(),
            workload: "web-v1".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            annotations: BTreeMap::new(),
            service_account: "web".to_owned(),
            sidecar,
            settings: Default::default(),
            programs: vec![program],
        };
        let address = Ipv4Addr::new(127, 20, 0, 5);
        Pod {
            name: "web-v1-0".to_owned(),
            template: Arc::new(template),
            address,
            ports,
            admin_port: 20003,
            place: None,
        }
    }

    fn value<'a>(variables: &'a Variables, name: &str) -> &'a str {
        variables.value(name).unwrap_or("(not set)")
    }

    #[test]
    fn an_application_is_told_where_to_listen_and_how_to_reach_the_mesh() {
        let pod = pod(
            Proxy::Own,
            &[
                ("URL", "http://$(HOST):$(PORT_7070)/"),
                ("PORT", "8080"),
                ("no_proxy", "x"),
                ("APP", "field metadata.labels['app']"),
                ("WHERE", "$(IP)"),
                ("IP", "field status.podIP"),
                ("ME", "$(APP)@$(IP)"),
                ("LOST", "field metadata.uid"),
            ],
        );
        let variables = pod.variables(&pod.template.programs[0]);
        for (name, expected) in [
            ("PORT", "20001"),
            ("PORT_HTTP_WEB", "20001"),
            ("PORT_7070", "20002"),
            ("HOST", "127.0.0.1"),
            ("URL", "http://127.0.0.1:20002/"),
            ("http_proxy", "http://127.20.0.5:15001"),
            ("no_proxy", "x"),
            ("ME", "web@127.20.0.5"),
            ("WHERE", "$(IP)"),
            ("LOST", ""),
            ("NO_PROXY", "localhost,127.0.0.1,::1"),
            ("HOSTNAME", "web-v1-0"),
            ("POD_IP", "127.20.0.5"),
        ] {
            assert_eq!(value(&variables, name), expected, "{name}");
        }
    }

    #[test]
    fn without_a_sidecar_it_listens_where_others_reach_it() {
        let pod = pod(Proxy::Absent, &[]);
        let variables = pod.variables(&pod.template.programs[0]);
        assert_eq!((value(&variables, "HOST"), value(&variables, "PORT")), ("127.20.0.5", "9080"));
        assert_eq!(value(&variables, "http_proxy"), "(not set)");
        let listens = pod.application_addresses().map(|(address, _)| address);
        assert!(listens.eq(pod.served_addresses()));
        assert_eq!(pod.entry(&[])["metadata"]["annotations"]["sidecar.istio.io/inject"], "false");
    }

    #[test]
    fn its_entry_is_a_workload_entry_that_our_own_reader_accepts() {
        let entry = pod(Proxy::Own, &[]).entry(&[]);
        let parsed = api::parse("entry.yaml", &format!("{entry:#}\n"));
        assert_eq!(parsed.diagnostics, []);
        let object = &parsed.objects[0];
        assert_eq!(object.id().to_string(), "WorkloadEntry shop/web-v1-0");
        assert_eq!(object.meta.annotations[APPLICATION_PORTS], "9080=20001,7070=20002");
        assert_eq!(object.meta.annotations["ieum.dev/workload"], "web-v1");
        let api::Spec::WorkloadEntry(spec) = &object.spec else { unreachable!("a WorkloadEntry") };
        assert_eq!(spec.address, "127.20.0.5");
        assert_eq!(spec.ports, BTreeMap::from([("http-web".to_owned(), 9080)]));
    }
}
