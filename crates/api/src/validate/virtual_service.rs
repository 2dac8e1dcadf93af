//! VirtualService: hosts, gateways, and the rules for connections. HTTP rules are next door.

use super::destinations::{destination, gateway_name, gateways, weights};
use super::names::{self, check_export_to, check_host};
use super::{Report, http_route};
use crate::networking::{L4MatchAttributes, RouteDestination, TlsMatchAttributes, VirtualService};

const SUBNET_HELP: &str = "write an address or a range, `10.1.2.0/24`";

/// Hosts that each host is compared with, so that a generated file cannot make this take minutes.
const MOST_COMPARED: usize = 1000;

pub(super) fn check(spec: &VirtualService, report: &mut Report<'_>) {
    hosts(spec, report);
    for (index, gateway) in spec.gateways.iter().enumerate() {
        gateway_name(gateway, &format!("spec.gateways[{index}]"), report);
    }
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        report.error("spec", "no rule is written", "write at least one rule below `http:`, `tls:` or `tcp:`");
    }
    http_route::check_all(spec, report);
    for (index, rule) in spec.tls.iter().enumerate() {
        let field = format!("spec.tls[{index}]");
        if rule.r#match.is_empty() {
            let help = "write `match: [{sniHosts: [...]}]`";
            report.error(&field, "a TLS rule needs a match", help);
        }
        for (index, condition) in rule.r#match.iter().enumerate() {
            tls_match(condition, &format!("{field}.match[{index}]"), spec, report);
        }
        routes(&rule.route, &field, report);
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        let field = format!("spec.tcp[{index}]");
        for (index, condition) in rule.r#match.iter().enumerate() {
            l4_match(condition, &format!("{field}.match[{index}]"), report);
        }
        routes(&rule.route, &field, report);
    }
    check_export_to(&spec.export_to, report);
}

fn hosts(spec: &VirtualService, report: &mut Report<'_>) {
    if spec.hosts.is_empty() {
        let outside = [
            ("spec.gateways", !spec.gateways.is_empty()),
            ("spec.tls", !spec.tls.is_empty()),
            ("spec.tcp", !spec.tcp.is_empty()),
        ];
        for (field, _) in outside.iter().filter(|(_, written)| *written) {
            let message = "a VirtualService without hosts is a delegate, which has only `http`";
            report.error(field, message, "write `hosts:` when it is no delegate");
        }
        return;
    }
    let in_mesh = spec.gateways.is_empty() || spec.gateways.iter().all(|gateway| gateway == "mesh");
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        check_host(host, &field, report);
        if host == "*" && in_mesh {
            report.error(
                &field,
                "`*` cannot be a host inside the mesh",
                "name the hosts, or bind it to a gateway",
            );
        }
        let same = |earlier: &&String| names::covers(earlier, host) || names::covers(host, earlier);
        let earlier = spec.hosts.iter().take(index.min(MOST_COMPARED)).find(same);
        if let Some(earlier) = earlier {
            let message = format!("`{host}` and `{earlier}` name the same hosts");
            report.error(&field, message, "keep the wider one");
        }
    }
}

fn routes(to: &[RouteDestination], rule: &str, report: &mut Report<'_>) {
    let field = format!("{rule}.route");
    if to.is_empty() {
        report.error(&field, "the rule sends nowhere", "write `route: [{destination: {host: ...}}]`");
    }
    for (index, route) in to.iter().enumerate() {
        destination(&route.destination, &format!("{field}[{index}].destination"), report);
    }
    weights(to.iter().map(|route| route.weight), &field, report);
}

fn tls_match(condition: &TlsMatchAttributes, field: &str, spec: &VirtualService, report: &mut Report<'_>) {
    if condition.sni_hosts.is_empty() {
        report.error(&format!("{field}.sniHosts"), "no server name is written", "write `sniHosts: [name]`");
    }
    for (index, host) in condition.sni_hosts.iter().enumerate() {
        let field = format!("{field}.sniHosts[{index}]");
        check_host(host, &field, report);
        if !spec.hosts.iter().any(|outer| names::covers(outer, host)) {
            let message = format!("`{host}` is not among the hosts of this VirtualService");
            report.error(
                &field,
                message,
                format!("write one of {}, or a host below it", spec.hosts.join(", ")),
            );
        }
    }
    subnets(&condition.destination_subnets, &format!("{field}.destinationSubnets"), report);
    gateways(&condition.gateways, field, report);
}

fn l4_match(condition: &L4MatchAttributes, field: &str, report: &mut Report<'_>) {
    subnets(&condition.destination_subnets, &format!("{field}.destinationSubnets"), report);
    if !condition.source_subnet.is_empty() && !names::is_subnet(&condition.source_subnet) {
        let message = format!("`{}` is not a range of addresses", condition.source_subnet);
        report.error(&format!("{field}.sourceSubnet"), message, SUBNET_HELP);
    }
    gateways(&condition.gateways, field, report);
}

fn subnets(subnets: &[String], field: &str, report: &mut Report<'_>) {
    for (index, subnet) in subnets.iter().enumerate().filter(|(_, subnet)| !names::is_subnet(subnet)) {
        let message = format!("`{subnet}` is not a range of addresses");
        report.error(&format!("{field}[{index}]"), message, SUBNET_HELP);
    }
}
