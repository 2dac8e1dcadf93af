//! LocalMesh: stand-ins, gateway proxies, mesh-wide settings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::names::{self, entry};
use super::{Report, http_actions};
use crate::local_mesh::{GatewayProxy, LocalMesh};
use crate::mesh_config::MeshConfig;

/// Below this a certificate cannot be renewed in time on a busy machine.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(5);

pub(super) fn check(spec: &LocalMesh, report: &mut Report<'_>) {
    for (index, image) in spec.images.iter().enumerate() {
        let field = format!("spec.images[{index}]");
        if image.image.is_empty() {
            report.error(
                &format!("{field}.image"),
                "the image is missing",
                "write it, with `*` for any text",
            );
        }
        command(&image.command, &field, report);
    }
    for (index, proxy) in spec.proxies.iter().enumerate() {
        let field = format!("spec.proxies[{index}]");
        if proxy.r#match.is_empty() {
            let help = "write the name of a workload, with `*` for any text";
            report.error(&format!("{field}.match"), "the workload's name is missing", help);
        }
        command(&proxy.command, &field, report);
    }
    let mut seen = BTreeSet::new();
    let mut local_ports = BTreeMap::new();
    for (index, proxy) in spec.gateways.iter().enumerate() {
        let field = format!("spec.gateways[{index}]");
        if !seen.insert((proxy.namespace.as_deref(), proxy.name.as_str())) {
            let message = format!("the gateway `{}` is defined twice", proxy.name);
            report.error(&format!("{field}.name"), message, "rename one of them");
        }
        gateway(proxy, &field, report);
        for (port, local) in &proxy.ports {
            let taken = local_ports.insert(*local, format!("{field}.ports.{port}")).filter(|_| *local != 0);
            if let Some(other) = taken {
                let message = format!("the local port {local} is already that of {other}");
                report.error(&format!("{field}.ports.{port}"), message, "choose another");
            }
        }
    }
    mesh_config(&spec.mesh_config, report);
    if spec.certificates.lifetime.is_some_and(|lifetime| lifetime < SHORTEST_LIFETIME) {
        let message = "the lifetime is too short to renew certificates in time";
        report.error("spec.certificates.lifetime", message, "write at least `5s`");
    }
}

fn command(command: &[String], field: &str, report: &mut Report<'_>) {
    if command.first().is_none_or(|program| program.is_empty()) {
        let help = "write `command: [program, argument, ...]`";
        report.error(&format!("{field}.command"), "the program is missing", help);
    }
}

fn gateway(proxy: &GatewayProxy, field: &str, report: &mut Report<'_>) {
    if !names::is_label(&proxy.name) {
        let message = format!("`{}` is not a gateway proxy's name", proxy.name);
        report.error(&format!("{field}.name"), message, names::LABEL_HELP);
    }
    for (name, text) in [("namespace", &proxy.namespace), ("serviceAccount", &proxy.service_account)] {
        if let Some(text) = text.as_ref().filter(|text| !names::is_label(text)) {
            report.error(&format!("{field}.{name}"), format!("`{text}` is not a name"), names::LABEL_HELP);
        }
    }
    if proxy.labels.is_empty() {
        let help = "write the labels that Gateways select, such as `labels: {istio: ingressgateway}`";
        report.warning(&format!("{field}.labels"), "no Gateway can select a proxy without labels", help);
    }
    for port in proxy.ports.keys().filter(|port| **port == 0) {
        let field = entry(&format!("{field}.ports"), &port.to_string());
        report.error(
            &field,
            "0 is not a port",
            "write `\"80\": 8080`: the Gateway's port, then the local one",
        );
    }
}

fn mesh_config(config: &MeshConfig, report: &mut Report<'_>) {
    let at = |name: &str| format!("spec.meshConfig.{name}");
    if let Some(retries) = &config.default_http_retry_policy {
        http_actions::check_retries(retries, &at("defaultHttpRetryPolicy"), report);
    }
    if !config.trust_domain.is_empty() && !names::is_host(&config.trust_domain) {
        let message = format!("`{}` is not a trust domain", config.trust_domain);
        report.error(&at("trustDomain"), message, "write a name such as `cluster.local`");
    }
    if !config.root_namespace.is_empty() && !names::is_label(&config.root_namespace) {
        let message = format!("`{}` is not a namespace", config.root_namespace);
        report.error(&at("rootNamespace"), message, names::LABEL_HELP);
    }
    if config.connect_timeout.is_some_and(|timeout| timeout.is_zero()) {
        report.error(&at("connectTimeout"), "nobody connects within 0s", "write at least `1ms`");
    }
    let proxy = config.default_config.as_ref();
    let sampling = proxy.and_then(|proxy| proxy.tracing.as_ref()).and_then(|tracing| tracing.sampling);
    if let Some(sampling) = sampling.filter(|sampling| !(0.0..=100.0).contains(sampling)) {
        let message = format!("{sampling} is not a percentage");
        report.error(&at("defaultConfig.tracing.sampling"), message, "write 0 to 100");
    }
}
