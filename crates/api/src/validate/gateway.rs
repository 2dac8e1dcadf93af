//! Gateway: ports, hosts and TLS settings of its servers.

use std::collections::BTreeMap;

use super::Report;
use super::names::{self, HOST_HELP};
use crate::networking::{Gateway, Server, ServerTlsMode, ServerTlsSettings};

pub(super) fn check(spec: &Gateway, report: &mut Report<'_>) {
    if !names::is_label(&report.object.meta.name) && names::is_subdomain(&report.object.meta.name) {
        let message = format!("`{}` is not a Gateway's name", report.object.meta.name);
        report.error("metadata.name", message, names::LABEL_HELP);
    }
    if spec.servers.is_empty() {
        report.error("spec.servers", "no server is written", "write `servers: [{port: ..., hosts: [...]}]`");
    }
    let mut port_names: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, server) in spec.servers.iter().enumerate() {
        let field = format!("spec.servers[{index}]");
        port(server, &format!("{field}.port"), report);
        let name = server.port.name.as_str();
        if let Some(first) = port_names.insert(name, index).filter(|_| !name.is_empty()) {
            let message = format!("the port name `{name}` is already that of spec.servers[{first}]");
            report.error(
                &format!("{field}.port.name"),
                message,
                "each server needs its own, such as `https-shop`",
            );
        }
        if server.hosts.is_empty() {
            report.error(&format!("{field}.hosts"), "no host is written", "write `hosts: [\"*\"]` for all");
        }
        for (index, host) in server.hosts.iter().enumerate() {
            server_host(host, &format!("{field}.hosts[{index}]"), report);
        }
        if !server.bind.is_empty() && !server.bind.starts_with("unix://") && !names::is_address(&server.bind)
        {
            report.error(
                &format!("{field}.bind"),
                format!("`{}` is not an address", server.bind),
                "write an IP address",
            );
        }
        tls(server, &field, report);
    }
}

fn port(server: &Server, field: &str, report: &mut Report<'_>) {
    let port = &server.port;
    if port.number == 0 && !server.bind.starts_with("unix://") {
        report.error(&format!("{field}.number"), "the port's number is missing", "write `number: 80`");
    }
    if port.name.is_empty() {
        report.error(&format!("{field}.name"), "the port's name is missing", "write `name: http`");
    }
    if port.protocol.is_empty() {
        report.error(
            &format!("{field}.protocol"),
            "the port's protocol is missing",
            "write `protocol: HTTP`",
        );
    } else if !names::is_protocol(&port.protocol) {
        let message = format!("`{}` is not a protocol", port.protocol);
        let help = "write HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS or MONGO";
        report.error(&format!("{field}.protocol"), message, help);
    }
}

/// `host`, `*`, `*.domain`, or `namespace/` and one of these.
fn server_host(text: &str, field: &str, report: &mut Report<'_>) {
    let (namespace, host) = text.split_once('/').unwrap_or(("*", text));
    if !matches!(namespace, "*" | ".") && !names::is_label(namespace) {
        let message = format!("`{namespace}` is not a namespace");
        report.error(field, message, "write `namespace/host`, `./host` or `*/host`");
    }
    if host == "*" || names::is_address(host) {
        return;
    }
    let partial = host.starts_with('*') && !host.starts_with("*.");
    if !names::is_wildcard_host(host) || partial {
        report.error(field, format!("`{host}` is not a host name"), HOST_HELP);
    } else if !host.contains('.') {
        let message = format!("the short name `{host}` is not allowed here");
        report.error(field, message, "write the full name, such as `shop.example.com`, or `*`");
    }
}

fn tls(server: &Server, field: &str, report: &mut Report<'_>) {
    let protocol = &server.port.protocol;
    let Some(settings) = &server.tls else {
        if names::is_tls(protocol) {
            let help = "write `tls: {mode: SIMPLE, credentialName: ...}`, or `mode: PASSTHROUGH`";
            report.error(field, format!("{protocol} needs TLS settings"), help);
        }
        return;
    };
    let field = format!("{field}.tls");
    if names::is_plain_http(protocol) {
        let redirect_only =
            ServerTlsSettings { https_redirect: settings.https_redirect, ..Default::default() };
        if *settings != redirect_only {
            let message = format!("{protocol} is plain text and has no TLS settings but httpsRedirect");
            return report.error(&field, message, "write `protocol: HTTPS`, or leave `tls` away");
        }
        return;
    }
    if names::is_protocol(protocol) && !names::is_tls(protocol) {
        return report.error(&field, format!("{protocol} has no TLS settings"), "write `protocol: TLS`");
    }
    if settings.https_redirect {
        let message = "only HTTP can be redirected to HTTPS";
        report.warning(
            &format!("{field}.httpsRedirect"),
            message,
            "set it on the server with `protocol: HTTP`",
        );
    }
    certificates(settings, &field, report);
    let (oldest, newest) = (settings.min_protocol_version, settings.max_protocol_version);
    if oldest > newest && newest != Default::default() {
        let message = format!("{} is newer than {}", oldest.as_str(), newest.as_str());
        report.error(&format!("{field}.minProtocolVersion"), message, "exchange them");
    }
}

/// Where the server's certificate comes from: exactly one place where it needs one.
fn certificates(settings: &ServerTlsSettings, field: &str, report: &mut Report<'_>) {
    let sources = [
        !settings.server_certificate.is_empty() || !settings.private_key.is_empty(),
        !settings.credential_name.is_empty(),
        !settings.credential_names.is_empty(),
        !settings.tls_certificates.is_empty(),
    ];
    let sources = sources.iter().filter(|set| **set).count();
    let mode = settings.mode.as_str();
    match settings.mode {
        ServerTlsMode::IstioMutual if sources > 0 => {
            let message = "ISTIO_MUTUAL uses the mesh's certificates";
            report.error(field, message, "leave the certificates away, or write `mode: MUTUAL`");
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough if sources > 0 => {
            let message = format!("{mode} does not use certificates; they are ignored");
            report.warning(field, message, "leave them away, or write `mode: SIMPLE`");
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            let help = "write `credentialName:`, or `serverCertificate:` and `privateKey:`";
            if sources > 1 {
                report.error(field, "the certificate comes from more than one place", "keep one of them");
            } else if sources == 0 {
                report.error(field, format!("{mode} needs a certificate"), help);
            }
            if settings.server_certificate.is_empty() != settings.private_key.is_empty() {
                report.error(field, "serverCertificate and privateKey go together", help);
            }
            let by_secret = !settings.credential_name.is_empty() || !settings.credential_names.is_empty();
            let checks_clients = settings.mode != ServerTlsMode::Simple;
            let no_authorities =
                settings.ca_certificates.is_empty() && settings.ca_cert_credential_name.is_empty();
            if checks_clients && !by_secret && no_authorities {
                let message = format!("{mode} needs the authorities that sign clients' certificates");
                report.error(field, message, "write `caCertificates:`");
            }
        }
        _ => {}
    }
}
