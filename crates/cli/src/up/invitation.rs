//! What `ieum run` and the mesh that it joins say to each other over the socket `run` in the state folder: one JSON value
//! a line. Who closes the connection leaves.

use super::plan::{Port, Program, Service, ServicePort, Template};
use api::IntOrString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The socket in the state folder.
pub(super) const SOCKET: &str = "run";

/// What a process wants to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    /// `NAME` or `NAMESPACE/NAME` of a Service.
    pub(super) service: String,
    /// Where it listens.
    pub(super) ports: Vec<LocalPort>,
    /// On top of what the Service selects.
    pub(super) labels: BTreeMap<String, String>,
    /// In place of the one of those who serve it already.
    pub(super) service_account: Option<String>,
    /// Answers with 2xx when the process can take requests.
    pub(super) probe: Option<Probe>,
    /// The process runs already, at 127.0.0.1 of the machine.
    pub(super) runs_already: bool,
}

/// Where the process listens for one port of its Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LocalPort {
    /// Name or number of the Service's port; `None` for the only one.
    pub(super) of: Option<String>,
    pub(super) local: u16,
}

/// What is asked of a process until it is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Probe {
    pub(super) port: u16,
    pub(super) path: String,
}

/// What the process says after its [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// It runs.
    Started,
    /// It wants to leave; it ends once it has heard [`Reply::Withdrawn`].
    Leave,
}

/// What the mesh says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It cannot join.
    Refused(String),
    /// Its sidecar is ready: it may run.
    Seated(Seated),
    /// Not ready yet, and why.
    Waiting(String),
    /// It takes requests.
    Ready,
    /// Nobody sends it requests any more.
    Withdrawn,
    /// The mesh ends.
    Closing,
}

/// A place in the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seated {
    pub(super) name: String,
    pub(super) address: String,
    /// A process in whose network it is to run, if not in that of the machine.
    pub(super) beside: Option<u32>,
    pub(super) variables: Vec<(String, String)>,
}

impl Request {
    /// Who it will be, with each port of the workload and where it listens for it.
    pub(super) fn template(&self, service: &Service) -> Result<(Template, Vec<(u16, u16)>), String> {
        let mut template = service.template.clone();
        template.labels.extend(self.labels.clone());
        if let Some(account) = &self.service_account {
            template.service_account.clone_from(account);
        }
        let (mut ports, mut pairs) = (Vec::new(), Vec::new());
        for LocalPort { of, local } in &self.ports {
            let port = self.port(&service.ports, of.as_deref(), *local)?;
            let (number, name) = match &port.target {
                None => (port.number, String::new()),
                Some(IntOrString::Int(number)) => (*number, String::new()),
                Some(IntOrString::String(name)) => (*local, name.clone()),
            };
            ports.push(Port { number, name, is_declared: true });
            pairs.push((number, *local));
        }
        template.programs = vec![Program {
            name: template.workload.clone(),
            command: Vec::new(),
            environment: Vec::new(),
            ports,
        }];
        Ok((template, pairs))
    }

    /// The port of the Service that is meant.
    fn port<'s>(
        &self,
        ports: &'s [ServicePort],
        of: Option<&str>,
        local: u16,
    ) -> Result<&'s ServicePort, String> {
        let found = match (of, ports) {
            (Some(of), _) => ports.iter().find(|port| port.name == of || port.number.to_string() == of),
            (None, [only]) => Some(only),
            (None, _) => ports.iter().find(|port| {
                port.number == local
                    || matches!(port.target, Some(IntOrString::Int(target)) if target == local)
            }),
        };
        found.ok_or_else(|| {
            let told = ports.iter().map(|port| match port.name.as_str() {
                "" => port.number.to_string(),
                name => format!("{name} ({})", port.number),
            });
            format!(
                "which port of the Service {} is meant is not known; it has {}: say `--port NAME={local}`",
                self.service,
                told.collect::<Vec<_>>().join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(ports: &[(&str, u16, Option<IntOrString>)]) -> Service {
        let ports = ports.iter().map(|(name, number, target)| ServicePort {
            name: (*name).to_owned(),
            number: *number,
            target: target.clone(),
        });
        let template = Template {
            namespace: "shop".to_owned(),
            workload: "cart-run".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
            annotations: BTreeMap::new(),
            service_account: "cart".to_owned(),
            sidecar: super::super::plan::Proxy::Own,
            settings: Default::default(),
            programs: Vec::new(),
        };
        Service { ports: ports.collect(), template }
    }

    fn pairs(service: &Service, ports: &[(Option<&str>, u16)]) -> Result<Vec<(u16, u16)>, String> {
        let ports =
            ports.iter().map(|(of, local)| LocalPort { of: of.map(str::to_owned), local: *local }).collect();
        let request = Request { service: "cart".to_owned(), ports, ..Request::default() };
        request.template(service).map(|(_, pairs)| pairs)
    }

    #[test]
    fn a_process_listens_where_it_likes_for_the_port_that_is_meant() {
        let one = service(&[("http", 80, Some(IntOrString::Int(8080)))]);
        assert_eq!(pairs(&one, &[(None, 3000)]).unwrap(), [(8080, 3000)]);
        let named = service(&[("http", 80, Some(IntOrString::String("web".to_owned())))]);
        assert_eq!(pairs(&named, &[(None, 3000)]).unwrap(), [(3000, 3000)]);
        let two = service(&[("http", 80, None), ("grpc", 7070, None)]);
        assert_eq!(
            pairs(&two, &[(Some("http"), 3000), (Some("7070"), 3001)]).unwrap(),
            [(80, 3000), (7070, 3001)]
        );
        assert_eq!(pairs(&two, &[(None, 7070)]).unwrap(), [(7070, 7070)]);
        let error = pairs(&two, &[(None, 3000)]).unwrap_err();
        assert!(error.contains("http (80), grpc (7070)") && error.contains("--port NAME=3000"), "{error}");
    }

    #[test]
    fn who_joins_has_the_labels_of_the_service_and_its_own() {
        let request = Request {
            labels: BTreeMap::from([("version".to_owned(), "v2".to_owned())]),
            service_account: Some("me".to_owned()),
            ..Request::default()
        };
        let (template, _) = request.template(&service(&[])).unwrap();
        assert_eq!(template.labels.len(), 2);
        assert_eq!(template.service_account, "me");
    }
}
