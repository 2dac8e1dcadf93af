//! What names, hosts, headers and expressions may look like, and the checks that several kinds share.

use std::net::IpAddr;

use regex::RegexBuilder;

use super::Report;
use crate::networking::{PortSelector, StringMatch};
use crate::yaml::{key_segment, shortened};

pub(super) const LABEL_HELP: &str = "use lower-case letters, digits and `-`, at most 63";
pub(super) const HOST_LABEL_HELP: &str = "use letters, digits and `-`, at most 63";
pub(super) const SUBDOMAIN_HELP: &str = "use lower-case letters, digits, `-` and `.`, at most 253";
pub(super) const HOST_HELP: &str =
    "write a name such as `reviews`, `reviews.default.svc.cluster.local` or `*.example.com`";

/// Istio's limit for regular expressions, in characters.
const LONGEST_REGEX: usize = 1024;
/// Bytes a compiled expression may take.
const LARGEST_REGEX: usize = 1 << 20;

/// A DNS-1123 label: what namespaces and services are called.
pub(super) fn is_label(text: &str) -> bool {
    is_host_label(text) && !text.contains(|c: char| c.is_ascii_uppercase())
}

/// Labels with dots between them: what other resources are called.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A label of a host name, which may have upper case.
pub(super) fn is_host_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A host name without wildcard. A last label of digits only is none: such a text is a mistaken address.
pub(super) fn is_host(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 255 && text.split('.').all(is_host_label) && (!numeric(last) || !text.contains('.'))
}

/// A host name whose first label may be, or begin with, `*`.
pub(super) fn is_wildcard_host(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('*') else { return is_host(text) };
    match rest.strip_prefix('.') {
        Some(domain) => is_host(domain),
        None => rest.is_empty() || is_host(rest.strip_prefix('-').unwrap_or(rest)),
    }
}

/// An IPv4 or IPv6 address.
pub(super) fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An address, or a range of them (`10.0.0.0/8`).
pub(super) fn is_subnet(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return is_address(text) };
    match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

/// Whether the host `outer`, which may be a wildcard, covers all that `inner` does.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix('*') {
        Some(suffix) => {
            inner.strip_prefix('*').unwrap_or(inner).ends_with(suffix) && inner.len() > suffix.len()
        }
        None => outer.eq_ignore_ascii_case(inner),
    }
}

/// An HTTP token: what header names are made of.
pub(super) fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

/// The protocols a port can have, as Istio compares them: without regard to case.
pub(super) fn is_protocol(text: &str) -> bool {
    const KNOWN: [&str; 13] = [
        "HTTP",
        "HTTP2",
        "HTTPS",
        "GRPC",
        "GRPC-WEB",
        "GRPC-WEB-TLS",
        "HTTP_PROXY",
        "TCP",
        "TLS",
        "UDP",
        "MONGO",
        "REDIS",
        "MYSQL",
    ];
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(text))
}

/// Whether the protocol is one that carries HTTP in plain text.
pub(super) fn is_plain_http(protocol: &str) -> bool {
    ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(protocol))
}

/// Whether the protocol is TLS, or HTTP in TLS.
pub(super) fn is_tls(protocol: &str) -> bool {
    ["HTTPS", "TLS", "GRPC-WEB-TLS"].iter().any(|known| known.eq_ignore_ascii_case(protocol))
}

/// Reports an expression that cannot be compiled, or not within bounds.
pub(super) fn check_regex(expression: &str, field: &str, report: &mut Report<'_>) {
    const HELP: &str = "write an RE2 expression; it must describe the whole text, as in `/api/v[0-9]+/.*`";
    if expression.is_empty() {
        return report.error(field, "the regular expression is empty", HELP);
    }
    if expression.chars().count() > LONGEST_REGEX {
        let help = format!("at most {LONGEST_REGEX} characters are allowed");
        return report.error(field, "the regular expression is too long", help);
    }
    if let Err(error) = RegexBuilder::new(expression).size_limit(LARGEST_REGEX).build() {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        report.error(
            field,
            format!("`{}` is not a regular expression: {reason}", shortened(expression)),
            HELP,
        );
    }
}

/// Reports a match that can never be or means nothing.
pub(super) fn check_match(condition: &StringMatch, field: &str, report: &mut Report<'_>) {
    match condition {
        StringMatch::Regex(expression) => check_regex(expression, &format!("{field}.regex"), report),
        StringMatch::Prefix(prefix) if prefix.is_empty() => {
            let field = format!("{field}.prefix");
            report.error(&field, "the prefix is empty", "leave the match away, or write `{}` for any value");
        }
        _ => {}
    }
}

/// Reports a port that is missing its number.
pub(super) fn check_port(port: Option<&PortSelector>, field: &str, report: &mut Report<'_>) {
    if port.is_some_and(|port| port.number == 0) {
        report.error(
            &format!("{field}.number"),
            "0 is not a port",
            "write `port: {number: N}`, N from 1 to 65535",
        );
    }
}

/// Reports a host that is no host name, wildcard or address.
pub(super) fn check_host(host: &str, field: &str, report: &mut Report<'_>) {
    if host.is_empty() {
        report.error(field, "the host is missing", HOST_HELP);
    } else if !is_wildcard_host(host) && !is_address(host) {
        report.error(field, format!("`{}` is not a host name", shortened(host)), HOST_HELP);
    }
}

/// Reports namespaces in `exportTo` that cannot be.
pub(super) fn check_export_to(namespaces: &[String], report: &mut Report<'_>) {
    for (index, namespace) in namespaces.iter().enumerate() {
        if !matches!(namespace.as_str(), "." | "*" | "~") && !is_label(namespace) {
            let message = format!("`{namespace}` is not a namespace");
            report.error(&format!("spec.exportTo[{index}]"), message, "write `.`, `*` or a namespace");
        }
    }
}

/// The path of the entry `key` in the map at `field`.
pub(super) fn entry(field: &str, key: &str) -> String {
    format!("{field}{}", key_segment(key))
}
