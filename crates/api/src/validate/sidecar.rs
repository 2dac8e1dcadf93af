//! Sidecar and ProxyConfig: listeners, hosts and endpoints.

use super::Report;
use crate::networking::{IstioEgressListener, IstioIngressListener, ProxyConfig, ServerTlsMode, Sidecar};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

pub(super) fn check(spec: &Sidecar, report: &mut Report<'_>) {
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.ingress.iter().enumerate() {
        let field = format!("spec.ingress[{index}]");
        if listener.port.number == 0 {
            report.error(
                &format!("{field}.port.number"),
                "the port's number is missing",
                "write `number: 8080`",
            );
        } else if !ports.insert(listener.port.number) {
            let message = format!("the port {} is written twice", listener.port.number);
            report.error(&format!("{field}.port.number"), message, "keep one of them");
        }
        ingress(listener, &field, report);
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.egress.iter().enumerate() {
        let field = format!("spec.egress[{index}]");
        let port = listener.port.as_ref().map(|port| port.number);
        if !ports.insert((port, &listener.bind)) {
            let message = match port {
                Some(port) => format!("the port {port} is written twice"),
                None => "two listeners have no port".to_owned(),
            };
            report.error(&field, message, "keep one of them, with the hosts of both");
        }
        egress(listener, &field, report);
    }
}

fn ingress(listener: &IstioIngressListener, field: &str, report: &mut Report<'_>) {
    if !listener.bind.is_empty() && listener.bind.parse::<IpAddr>().is_err() {
        let message = format!("`{}` is not an address", listener.bind);
        report.error(&format!("{field}.bind"), message, "write an IP address, or leave it out");
    }
    let endpoint = listener.default_endpoint.as_str();
    if !endpoint.is_empty() && !is_endpoint(endpoint) {
        let message = format!("`{endpoint}` is not where an application of this workload can listen");
        let help = "write `127.0.0.1:8080`, `0.0.0.0:8080` for the workload's own address, or `unix:///path`";
        report.error(&format!("{field}.defaultEndpoint"), message, help);
    }
    let Some(tls) = &listener.tls else { return };
    if !matches!(tls.mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        let message = "a sidecar ends TLS as SIMPLE or MUTUAL only";
        report.error(&format!("{field}.tls.mode"), message, "write `mode: SIMPLE` or `MUTUAL`");
    }
}

/// Whether it is this machine, the workload's own address, or a Unix socket.
fn is_endpoint(written: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().is_ok_and(|port| port != 0);
    if let Some(path) = written.strip_prefix("unix://") {
        return !path.is_empty();
    }
    match written.strip_prefix(':') {
        Some(number) => port(number),
        None => written.parse::<SocketAddr>().is_ok_and(|address| {
            address.port() != 0 && (address.ip().is_loopback() || address.ip().is_unspecified())
        }),
    }
}

fn egress(listener: &IstioEgressListener, field: &str, report: &mut Report<'_>) {
    if !listener.bind.is_empty() && listener.port.as_ref().is_none_or(|port| port.number == 0) {
        let message = "a listener with `bind` needs a port";
        report.error(
            &format!("{field}.bind"),
            message,
            "add `port: {number: 9080, protocol: HTTP, name: http}`",
        );
    }
    let hosts = format!("{field}.hosts");
    if listener.hosts.is_empty() {
        report.error(&hosts, "no host is written", "write `hosts: [\"./*\"]` for the own namespace");
    }
    for (at, host) in listener.hosts.iter().enumerate() {
        let parts =
            host.split_once('/').filter(|(namespace, host)| !namespace.is_empty() && !host.is_empty());
        let at = format!("{hosts}[{at}]");
        let Some((_, name)) = parts else {
            let message = format!("`{host}` is not of the form `namespace/host`");
            report.error(&at, message, "write `./*`, `*/reviews.prod.svc.cluster.local`");
            continue;
        };
        if !name.contains('.') && name != "*" {
            let message = format!("`{name}` is no full name, so that it stands for no service");
            report.warning(
                &at,
                message,
                "write the full name, such as `reviews.prod.svc.cluster.local`, or `*`",
            );
        }
    }
}

pub(super) fn proxy_config(spec: &ProxyConfig, report: &mut Report<'_>) {
    if spec.concurrency.is_some_and(|threads| threads < 0) {
        let message = "there cannot be less than no threads";
        report.error("spec.concurrency", message, "write 0 for one per core, or how many");
    }
}
