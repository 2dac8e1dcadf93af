//! ServiceEntry and WorkloadEntry: hosts, addresses, ports and endpoints.

use std::collections::BTreeSet;

use super::Report;
use super::names::{self, check_export_to, check_host, entry};
use crate::networking::{Resolution, ServiceEntry, WorkloadEntry};

pub(super) fn check(spec: &ServiceEntry, report: &mut Report<'_>) {
    if spec.hosts.is_empty() {
        report.error("spec.hosts", "no host is written", "write `hosts: [api.example.com]`");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        check_host(host, &field, report);
        if host == "*" {
            report.error(&field, "`*` cannot be the host of a service", "name it, or write `*.example.com`");
        }
    }
    for (index, address) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        if !names::is_subnet(address) {
            let message = format!("`{address}` is not an address");
            report.error(&field, message, "write an address or a range, `10.1.2.0/24`");
        } else if address.contains('/') && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
            let message = format!("a range does not go with resolution {}", spec.resolution.as_str());
            report.error(&field, message, "write single addresses, or `resolution: NONE` or `STATIC`");
        }
    }
    ports(spec, report);
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        report.error(
            "spec.endpoints",
            "endpoints and workloadSelector cannot both be set",
            "keep one of them",
        );
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let field = format!("spec.endpoints[{index}]");
        workload(endpoint, &field, report);
        endpoint_ports(spec, endpoint, &field, report);
    }
    resolution(spec, report);
    check_export_to(&spec.export_to, report);
}

fn ports(spec: &ServiceEntry, report: &mut Report<'_>) {
    if spec.ports.is_empty() {
        let help = "write `ports: [{number: 443, name: https, protocol: HTTPS}]`";
        report.warning("spec", "the service has no ports", help);
    }
    let mut numbers = BTreeSet::new();
    let mut port_names = BTreeSet::new();
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        if port.number == 0 {
            report.error(&format!("{field}.number"), "the port's number is missing", "write `number: 443`");
        } else if !numbers.insert(port.number) {
            let message = format!("the port {} is written twice", port.number);
            report.error(&format!("{field}.number"), message, "keep one of them");
        }
        if !names::is_host_label(&port.name) {
            let message = format!("`{}` is not a port's name", port.name);
            report.error(&format!("{field}.name"), message, "write a name such as `https`");
        } else if !port_names.insert(port.name.as_str()) {
            let message = format!("the port name `{}` is written twice", port.name);
            report.error(&format!("{field}.name"), message, "rename one of them");
        }
        if !port.protocol.is_empty() && !names::is_protocol(&port.protocol) {
            let message = format!("`{}` is not a protocol", port.protocol);
            report.error(
                &format!("{field}.protocol"),
                message,
                "write HTTP, HTTPS, HTTP2, GRPC, TCP, TLS or MONGO",
            );
        }
        let one_host = names::is_plain_http(&port.protocol) || names::is_tls(&port.protocol);
        if spec.hosts.len() > 1 && spec.resolution != Resolution::None && !one_host {
            let message = "several hosts cannot be told apart on a port that is neither HTTP nor TLS";
            report.error(&field, message, "write one ServiceEntry for each host");
        }
    }
}

/// A workload, alone or as an endpoint, at `field`.
pub(super) fn workload(spec: &WorkloadEntry, field: &str, report: &mut Report<'_>) {
    let address = format!("{field}.address");
    let is_unix = spec.address.starts_with("unix://");
    if spec.address.is_empty() {
        if spec.network.is_empty() {
            report.error(
                &address,
                "the address is missing",
                "write `address:` with an IP address or a host name",
            );
        }
    } else if !is_unix && !names::is_address(&spec.address) && !names::is_host(&spec.address) {
        let message = format!("`{}` is neither an IP address nor a host name", spec.address);
        report.error(&address, message, "write the address without port; ports go into `ports:`");
    }
    if is_unix && !spec.ports.is_empty() {
        report.error(&format!("{field}.ports"), "a unix socket has no ports", "leave them away");
    }
    for (name, _) in spec.ports.iter().filter(|(_, port)| **port == 0) {
        report.error(&entry(&format!("{field}.ports"), name), "0 is not a port", "ports are 1 to 65535");
    }
}

fn endpoint_ports(spec: &ServiceEntry, endpoint: &WorkloadEntry, field: &str, report: &mut Report<'_>) {
    for name in endpoint.ports.keys().filter(|name| spec.ports.iter().all(|port| port.name != **name)) {
        let known: Vec<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
        let message = format!("the service has no port named `{name}`");
        report.error(
            &entry(&format!("{field}.ports"), name),
            message,
            format!("write one of {}", known.join(", ")),
        );
    }
}

/// What goes with each way to find endpoints.
fn resolution(spec: &ServiceEntry, report: &mut Report<'_>) {
    let wildcard = spec.hosts.iter().position(|host| host.starts_with('*'));
    match spec.resolution {
        Resolution::None => {
            if !spec.endpoints.is_empty() {
                let message = "resolution NONE has no endpoints";
                report.error("spec.endpoints", message, "write `resolution: STATIC` or `DNS`");
            }
        }
        Resolution::Static => {
            for (index, endpoint) in spec.endpoints.iter().enumerate() {
                let is_name = !endpoint.address.starts_with("unix://") && names::is_host(&endpoint.address);
                if is_name && !names::is_address(&endpoint.address) {
                    let message =
                        format!("`{}` is not an IP address, as resolution STATIC needs", endpoint.address);
                    report.error(
                        &format!("spec.endpoints[{index}].address"),
                        message,
                        "write `resolution: DNS`",
                    );
                }
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if let Some(index) = wildcard.filter(|_| spec.endpoints.is_empty()) {
                let message = "a wildcard cannot be looked up in DNS";
                let help = "name the host, add endpoints, or write `resolution: NONE`";
                report.error(&format!("spec.hosts[{index}]"), message, help);
            }
            if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
                report.error(
                    "spec.endpoints",
                    "DNS_ROUND_ROBIN takes one endpoint",
                    "write `resolution: DNS`",
                );
            }
        }
        Resolution::DynamicDns => {
            if spec.hosts.iter().any(|host| !host.starts_with('*')) {
                let message = "resolution DYNAMIC_DNS is for wildcard hosts";
                report.error("spec.hosts", message, "write `*.example.com`, or `resolution: DNS`");
            }
            if !spec.endpoints.is_empty() || !spec.addresses.is_empty() {
                let message = "resolution DYNAMIC_DNS has neither endpoints nor addresses";
                report.error("spec", message, "leave them away, or write `resolution: DNS`");
            }
        }
    }
}
