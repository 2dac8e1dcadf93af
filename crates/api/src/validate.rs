//! Checks that need one object only: those of Istio's own validation that concern what we act on, and ours. Each says
//! where, what is wrong and what would be right.
//!
//! Whether other objects fit (does the host exist, is the subset defined) is checked by `control`.

mod destination_rule;
mod gateway;
mod kubernetes;
mod local_mesh;
mod service_entry;
mod sidecar;

mod virtual_service;

mod http_route;

mod http_actions;

mod destinations;

mod names;

use crate::diagnostic::Diagnostic;
use crate::object::{Object, Spec};
use crate::security::PeerAuthentication;

/// Everything wrong with `object` that can be seen without looking at another.
pub fn validate(object: &Object) -> Vec<Diagnostic> {
    let mut report = Report { object, found: Vec::new() };
    metadata(&mut report);
    match &object.spec {
        Spec::Namespace | Spec::ServiceAccount | Spec::Secret(_) => {}
        Spec::Service(spec) => kubernetes::service(spec, &mut report),
        Spec::Deployment(spec) => kubernetes::deployment(spec, &mut report),
        Spec::VirtualService(spec) => virtual_service::check(spec, &mut report),
        Spec::DestinationRule(spec) => destination_rule::check(spec, &mut report),
        Spec::Gateway(spec) => gateway::check(spec, &mut report),
        Spec::ServiceEntry(spec) => service_entry::check(spec, &mut report),
        Spec::WorkloadEntry(spec) => service_entry::workload(spec, "spec", &mut report),
        Spec::WorkloadGroup(_) => {}
        Spec::ProxyConfig(spec) => sidecar::proxy_config(spec, &mut report),
        Spec::Sidecar(spec) => sidecar::check(spec, &mut report),
        Spec::PeerAuthentication(spec) => peer_authentication(spec, &mut report),
        Spec::LocalMesh(spec) => local_mesh::check(spec, &mut report),
    }
    report.found
}

/// The diagnostics of one object, as they are found.
struct Report<'a> {
    object: &'a Object,
    found: Vec<Diagnostic>,
}

impl Report<'_> {
    /// The object cannot be used because of `field`.
    fn error(&mut self, field: &str, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(self.object.error(field, message).help(help));
    }

    /// The object can be used, but probably does not do what its author thinks.
    fn warning(&mut self, field: &str, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(self.object.warning(field, message).help(help));
    }
}

fn metadata(report: &mut Report<'_>) {
    let meta = &report.object.meta;
    let (name, namespace) = (meta.name.clone(), meta.namespace.clone());
    if name.is_empty() {
        report.error("metadata.name", "the name is missing", "write `metadata: {name: ...}`");
    } else if let Spec::Service(_) | Spec::Namespace = &report.object.spec {
        if !names::is_label(&name) {
            report.error("metadata.name", format!("`{name}` is not a name"), names::LABEL_HELP);
        }
    } else if !names::is_subdomain(&name) {
        report.error("metadata.name", format!("`{name}` is not a name"), names::SUBDOMAIN_HELP);
    }
    if let Some(namespace) = namespace.filter(|namespace| !names::is_label(namespace)) {
        let message = format!("`{namespace}` is not a namespace");
        report.error("metadata.namespace", message, names::LABEL_HELP);
    }
}

fn peer_authentication(spec: &PeerAuthentication, report: &mut Report<'_>) {
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if !spec.port_level_mtls.is_empty() && !selects {
        report.error(
            "spec.portLevelMtls",
            "settings per port need a selector",
            "add `selector.matchLabels` of the workloads whose ports these are",
        );
    }
    for port in spec.port_level_mtls.keys().filter(|port| **port == 0) {
        report.error(&format!("spec.portLevelMtls.{port}"), "0 is not a port", "ports are 1 to 65535");
    }
}

#[cfg(test)]
mod tests;
