//! Service and Deployment: what a cluster's API server would refuse, as far as it concerns us.

use std::collections::BTreeSet;

use super::Report;
use super::names;
use crate::decode::IntOrString;
use crate::kubernetes::{Container, Deployment, Service, ServiceType};

const PORT_HELP: &str = "ports are 1 to 65535";

pub(super) fn service(spec: &Service, report: &mut Report<'_>) {
    let external = spec.r#type == ServiceType::ExternalName;
    if external && !names::is_host(&spec.external_name) {
        let message = format!("`{}` is not a host name", spec.external_name);
        report.error("spec.externalName", message, "write the name this service stands for");
    }
    if spec.ports.is_empty() && !external && spec.cluster_ip != "None" {
        report.error("spec.ports", "no port is written", "write `ports: [{port: 80, name: http}]`");
    }
    let mut port_names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        if port.port == 0 {
            report.error(&format!("{field}.port"), "the port's number is missing", "write `port: 80`");
        } else if !numbers.insert((port.port, port.protocol)) {
            let message = format!("the port {} is written twice", port.port);
            report.error(&format!("{field}.port"), message, "keep one of them");
        }
        if port.name.is_empty() && spec.ports.len() > 1 {
            let message = "of several ports each needs a name";
            report.error(&format!("{field}.name"), message, "write a name such as `http-web`");
        } else if !port.name.is_empty() && !names::is_label(&port.name) {
            let message = format!("`{}` is not a port's name", port.name);
            report.error(&format!("{field}.name"), message, names::LABEL_HELP);
        } else if !port_names.insert(port.name.as_str()) {
            let message = format!("the port name `{}` is written twice", port.name);
            report.error(&format!("{field}.name"), message, "rename one of them");
        }
        let target = format!("{field}.targetPort");
        match &port.target_port {
            Some(IntOrString::Int(0)) => report.error(&target, "0 is not a port", PORT_HELP),
            Some(IntOrString::String(name)) if !is_port_name(name) => {
                let message = format!("`{name}` is not a port's name");
                let help = match name.parse::<u16>() {
                    Ok(number) => format!("leave the quotes away: `targetPort: {number}`"),
                    Err(_) => "write a container's port, by number or by name".to_owned(),
                };
                report.error(&target, message, help);
            }
            _ => {}
        }
    }
}

/// Kubernetes' names of container ports: at most 15 letters, digits and `-`, with a letter.
fn is_port_name(text: &str) -> bool {
    text.len() <= 15 && names::is_label(text) && text.contains(|c: char| c.is_ascii_lowercase())
}

/// Annotation of pods with settings of their proxy.
const PROXY_CONFIG: &str = "proxy.istio.io/config";

pub(super) fn deployment(spec: &Deployment, report: &mut Report<'_>) {
    if let Some(replicas) = spec.replicas.filter(|replicas| *replicas < 0) {
        report.error("spec.replicas", format!("{replicas} replicas are not possible"), "write 0 or more");
    }
    let annotation = spec.template.metadata.annotations.get(PROXY_CONFIG);
    if let Some(Err(error)) = annotation.map(|text| crate::mesh_config::ProxyConfig::read(text)) {
        let field = names::entry("spec.template.metadata.annotations", PROXY_CONFIG);
        report.warning(&field, error, "write fields of ProxyConfig, such as `concurrency: 2`");
    }
    let labels = &spec.template.metadata.labels;
    if spec.selector.match_labels.is_empty() && spec.selector.match_expressions.is_empty() {
        let help = "write `selector: {matchLabels: ...}` with labels of the template";
        report.error("spec.selector", "the selector is missing", help);
    }
    for (name, value) in &spec.selector.match_labels {
        if labels.get(name) != Some(value) {
            let message = format!("the template does not have the label `{name}: {value}`");
            let field = names::entry("spec.selector.matchLabels", name);
            report.error(&field, message, "write the same labels at `spec.template.metadata.labels`");
        }
    }
    let containers = &spec.template.spec.containers;
    if containers.is_empty() {
        let help = "write `containers: [{name: ..., image: ...}]`";
        report.error("spec.template.spec.containers", "no container is written", help);
    }
    let mut seen = BTreeSet::new();
    for (index, one) in containers.iter().enumerate() {
        let field = format!("spec.template.spec.containers[{index}]");
        container(one, &field, report);
        if !seen.insert(one.name.as_str()) {
            let message = format!("the container name `{}` is written twice", one.name);
            report.error(&format!("{field}.name"), message, "rename one of them");
        }
    }
    let identity = spec.template.spec.identity();
    if !names::is_subdomain(identity) {
        let message = format!("`{identity}` is not a service account's name");
        report.error("spec.template.spec.serviceAccountName", message, names::SUBDOMAIN_HELP);
    }
}

fn container(spec: &Container, field: &str, report: &mut Report<'_>) {
    if !names::is_label(&spec.name) {
        let message = format!("`{}` is not a container's name", spec.name);
        report.error(&format!("{field}.name"), message, names::LABEL_HELP);
    }
    if spec.image.is_empty() {
        report.error(&format!("{field}.image"), "the image is missing", "write `image:`");
    }
    for (index, port) in spec.ports.iter().enumerate().filter(|(_, port)| port.container_port == 0) {
        let message =
            format!("the port {} has no number", if port.name.is_empty() { "here" } else { &port.name });
        report.error(&format!("{field}.ports[{index}].containerPort"), message, PORT_HELP);
    }
    for (index, variable) in spec.env.iter().enumerate() {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            let message = format!("`{}` is not a variable's name", variable.name);
            report.error(&format!("{field}.env[{index}].name"), message, "write letters, digits and `_`");
        }
    }
}
