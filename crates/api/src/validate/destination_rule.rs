//! DestinationRule: host, subsets, and the policies for traffic.

use std::collections::BTreeSet;

use super::Report;
use super::names::{self, check_export_to, check_host, check_port};
use crate::networking::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, DestinationRule,
    H2UpgradePolicy, LoadBalancerSettings, OutlierDetection, TrafficPolicy,
};

/// Maglev tables are below this size.
const LARGEST_MAGLEV: u64 = 5_000_011;

pub(super) fn check(spec: &DestinationRule, report: &mut Report<'_>) {
    check_host(&spec.host, "spec.host", report);
    policy(spec.traffic_policy.as_ref(), "spec.trafficPolicy", report);
    let mut seen = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        let name = format!("{field}.name");
        if subset.name.is_empty() {
            report.error(&name, "the subset's name is missing", "write `name: v1`");
        } else if !names::is_host_label(&subset.name) {
            report.error(&name, format!("`{}` is not a subset's name", subset.name), names::HOST_LABEL_HELP);
        }
        if !seen.insert(subset.name.as_str()) {
            report.error(
                &name,
                format!("the subset `{}` is defined twice", subset.name),
                "rename one of them",
            );
        }
        if subset.labels.is_empty() && subset.traffic_policy.is_none() {
            let message = format!("the subset `{}` is the whole service: it has no labels", subset.name);
            report.warning(&field, message, "write `labels: {version: v1}`");
        }
        policy(subset.traffic_policy.as_ref(), &format!("{field}.trafficPolicy"), report);
    }
    check_export_to(&spec.export_to, report);
}

fn policy(policy: Option<&TrafficPolicy>, field: &str, report: &mut Report<'_>) {
    let Some(policy) = policy else { return };
    let at = |name: &str| format!("{field}.{name}");
    if *policy == TrafficPolicy::default() {
        let help =
            "write `loadBalancer:`, `connectionPool:`, `outlierDetection:` or `tls:`, or leave it away";
        report.error(field, "the policy says nothing", help);
    }
    balancer(policy.load_balancer.as_ref(), &at("loadBalancer"), report);
    pool(policy.connection_pool.as_ref(), &at("connectionPool"), report);
    outlier(policy.outlier_detection.as_ref(), &at("outlierDetection"), report);
    tls(policy.tls.as_ref(), &at("tls"), report);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let field = at(&format!("portLevelSettings[{index}]"));
        if port.port.is_none() {
            report.error(&field, "settings for a port need the port", "write `port: {number: 80}`");
        }
        check_port(port.port.as_ref(), &format!("{field}.port"), report);
        balancer(port.load_balancer.as_ref(), &format!("{field}.loadBalancer"), report);
        pool(port.connection_pool.as_ref(), &format!("{field}.connectionPool"), report);
        outlier(port.outlier_detection.as_ref(), &format!("{field}.outlierDetection"), report);
        tls(port.tls.as_ref(), &format!("{field}.tls"), report);
    }
    if let Some(tunnel) = &policy.tunnel {
        let field = at("tunnel");
        if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
            let message = format!("`{}` is not a protocol for tunnels", tunnel.protocol);
            report.error(&format!("{field}.protocol"), message, "write `CONNECT` or `POST`");
        }
        check_host(&tunnel.target_host, &format!("{field}.targetHost"), report);
        if tunnel.target_port == 0 {
            report.error(&format!("{field}.targetPort"), "0 is not a port", "ports are 1 to 65535");
        }
        if policy.proxy_protocol.is_some() {
            report.error(&field, "tunnel and proxyProtocol cannot both be set", "keep one of them");
        }
    }
}

fn balancer(settings: Option<&LoadBalancerSettings>, field: &str, report: &mut Report<'_>) {
    let Some(settings) = settings else { return };
    if settings.simple.is_some() && settings.consistent_hash.is_some() {
        report.error(field, "simple and consistentHash cannot both be set", "keep one of them");
    }
    if let Some(hash) = &settings.consistent_hash {
        consistent_hash(hash, &format!("{field}.consistentHash"), report);
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        report.error(
            field,
            "localityLbSetting and zoneAwareLbSetting cannot both be set",
            "keep one of them",
        );
    }
    if let Some(locality) = &settings.locality_lb_setting {
        let field = format!("{field}.localityLbSetting");
        for (index, share) in locality.distribute.iter().enumerate() {
            let sum: u64 = share.to.values().map(|percent| u64::from(*percent)).sum();
            if sum != 100 {
                let message = format!("the shares sum up to {sum}, not to 100");
                report.error(&format!("{field}.distribute[{index}].to"), message, "write percentages");
            }
        }
        if !locality.distribute.is_empty() && !locality.failover.is_empty() {
            report.error(&field, "distribute and failover cannot both be set", "keep one of them");
        }
    }
    if settings.warmup.as_ref().is_some_and(|warmup| warmup.duration.is_none()) {
        report.error(&format!("{field}.warmup"), "the duration is missing", "write `duration: 30s`");
    }
}

fn consistent_hash(hash: &ConsistentHashLb, field: &str, report: &mut Report<'_>) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    let keys = keys.iter().filter(|set| **set).count();
    if keys != 1 {
        let message = if keys == 0 { "no key is set" } else { "more than one key is set" };
        let help = "write one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName";
        report.error(field, message, help);
    }
    if hash.http_cookie.as_ref().is_some_and(|cookie| cookie.name.is_empty()) {
        report.error(&format!("{field}.httpCookie"), "the cookie's name is missing", "write `name:`");
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        report.error(field, "ringHash and maglev cannot both be set", "keep one of them");
    }
    let Some(maglev) = &hash.maglev else { return };
    if maglev.table_size >= LARGEST_MAGLEV || !is_prime(maglev.table_size) {
        let message = format!("{} is not a prime below {LARGEST_MAGLEV}", maglev.table_size);
        report.error(&format!("{field}.maglev.tableSize"), message, "write a prime, such as 65537");
    }
}

fn is_prime(number: u64) -> bool {
    // The largest candidate is near five million, so at most 2,237 divisions.
    number >= 2
        && (2..)
            .take_while(|factor| factor * factor <= number.min(LARGEST_MAGLEV))
            .all(|factor| !number.is_multiple_of(factor))
}

fn pool(settings: Option<&ConnectionPoolSettings>, field: &str, report: &mut Report<'_>) {
    let Some(settings) = settings else { return };
    if settings.tcp.is_none() && settings.http.is_none() {
        report.error(field, "the connection pool says nothing", "write `tcp:` or `http:`");
    }
    let mut limits = Vec::new();
    if let Some(tcp) = &settings.tcp {
        limits.push(("tcp.maxConnections", tcp.max_connections));
        if tcp.connect_timeout.is_some_and(|timeout| timeout.is_zero()) {
            report.error(
                &format!("{field}.tcp.connectTimeout"),
                "nobody connects within 0s",
                "write at least `1ms`",
            );
        }
    }
    if let Some(http) = &settings.http {
        limits.extend([
            ("http.http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http.http2MaxRequests", http.http2_max_requests),
            ("http.maxRequestsPerConnection", http.max_requests_per_connection),
            ("http.maxRetries", http.max_retries),
            ("http.maxConcurrentStreams", http.max_concurrent_streams),
        ]);
        if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
            let message = "useClientProtocol contradicts h2UpgradePolicy UPGRADE";
            report.error(&format!("{field}.http.useClientProtocol"), message, "keep one of them");
        }
        if http
            .http2_keep_alive
            .as_ref()
            .is_some_and(|ping| ping.interval.is_none() || ping.timeout.is_none())
        {
            let message = "interval and timeout are both needed";
            report.error(
                &format!("{field}.http.http2KeepAlive"),
                message,
                "write `interval: 30s` and `timeout: 5s`",
            );
        }
    }
    for (name, limit) in limits.into_iter().filter(|(_, limit)| *limit < 0) {
        report.error(
            &format!("{field}.{name}"),
            format!("the limit {limit} is negative"),
            "write 0 for no limit",
        );
    }
}

fn outlier(settings: Option<&OutlierDetection>, field: &str, report: &mut Report<'_>) {
    let Some(settings) = settings else { return };
    for (name, percent) in [
        ("maxEjectionPercent", settings.max_ejection_percent),
        ("minHealthPercent", settings.min_health_percent),
    ] {
        if !(0..=100).contains(&percent) {
            report.error(
                &format!("{field}.{name}"),
                format!("{percent} is not a percentage"),
                "write 0 to 100",
            );
        }
    }
    for (name, time) in [("interval", settings.interval), ("baseEjectionTime", settings.base_ejection_time)] {
        if time.is_some_and(|time| time.is_zero()) {
            report.error(&format!("{field}.{name}"), "0s is not possible", "write at least `1ms`");
        }
    }
    let local = settings.consecutive_local_origin_failures.is_some_and(|count| count > 0);
    if local && !settings.split_external_local_origin_errors {
        let message = "it does not count without splitExternalLocalOriginErrors";
        let help = "write `splitExternalLocalOriginErrors: true`";
        report.error(&format!("{field}.consecutiveLocalOriginFailures"), message, help);
    }
    if settings.consecutive_errors != 0 {
        let message = "consecutiveErrors is deprecated";
        let help = "write `consecutiveGatewayErrors:` or `consecutive5xxErrors:`";
        report.warning(&format!("{field}.consecutiveErrors"), message, help);
    }
}

fn tls(settings: Option<&ClientTlsSettings>, field: &str, report: &mut Report<'_>) {
    let Some(settings) = settings else { return };
    let files = [
        ("clientCertificate", &settings.client_certificate),
        ("privateKey", &settings.private_key),
        ("caCertificates", &settings.ca_certificates),
        ("caCrl", &settings.ca_crl),
    ];
    let own = matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    if own && !settings.credential_name.is_empty() {
        for (name, _) in files.iter().filter(|(_, file)| !file.is_empty()) {
            let message = format!("{name} and credentialName cannot both be set");
            report.error(&format!("{field}.{name}"), message, "keep one of them");
        }
        return;
    }
    if settings.mode == ClientTlsMode::Mutual {
        for (name, _) in files.iter().take(2).filter(|(_, file)| file.is_empty()) {
            let help =
                format!("write `{name}:` or `credentialName:`, or `mode: ISTIO_MUTUAL` for the mesh's own");
            report.error(field, format!("MUTUAL needs {name}"), help);
        }
    }
    let checks = !settings.ca_certificates.is_empty() || !settings.subject_alt_names.is_empty();
    if own && settings.insecure_skip_verify == Some(true) && checks {
        let message = "insecureSkipVerify contradicts caCertificates and subjectAltNames";
        report.error(&format!("{field}.insecureSkipVerify"), message, "keep one of them");
    }
}
