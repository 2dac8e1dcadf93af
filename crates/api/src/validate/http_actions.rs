//! What an HTTP rule does with a request: headers, rewrites, redirects, faults, retries, mirrors, CORS.

use super::Report;
use super::destinations::destination;
use super::names::{check_regex, entry, is_token};
use crate::networking::{
    CorsPolicy, HeaderOperations, Headers, HttpFaultInjection, HttpRedirect, HttpRetry, HttpRewrite,
    HttpRoute, Percent, StringMatch,
};

const LARGEST_BODY: usize = 1 << 20;

/// Conditions for `retryOn` besides status codes: Envoy's for HTTP and for gRPC.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
];

const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) fn check(rule: &HttpRoute, field: &str, report: &mut Report<'_>) {
    let at = |name: &str| format!("{field}.{name}");
    headers(rule.headers.as_ref(), &at("headers"), report);
    if let Some(rewrite) = &rule.rewrite {
        check_rewrite(rewrite, &at("rewrite"), report);
    }
    if let Some(redirect) = &rule.redirect {
        check_redirect(redirect, rule, &at("redirect"), report);
    }
    if let Some(response) = &rule.direct_response {
        check_status(i64::from(response.status), &at("directResponse.status"), report);
        if response.body.as_ref().is_some_and(|body| body.content.len() > LARGEST_BODY) {
            report.error(&at("directResponse.body"), "the body is too big", "at most 1 MiB is allowed");
        }
    }
    if let Some(retries) = &rule.retries {
        check_retries(retries, &at("retries"), report);
    }
    if let Some(fault) = &rule.fault {
        check_fault(fault, &at("fault"), report);
    }
    if let Some(cors) = &rule.cors_policy {
        check_cors(cors, &at("corsPolicy"), report);
    }
    check_mirrors(rule, field, report);
}

/// Header changes of a rule or of a destination.
pub(super) fn headers(headers: Option<&Headers>, field: &str, report: &mut Report<'_>) {
    let Some(headers) = headers else { return };
    if let Some(operations) = &headers.request {
        header_operations(operations, true, &format!("{field}.request"), report);
    }
    if let Some(operations) = &headers.response {
        header_operations(operations, false, &format!("{field}.response"), report);
    }
}

fn header_operations(operations: &HeaderOperations, request: bool, field: &str, report: &mut Report<'_>) {
    for (operation, changes) in [("set", &operations.set), ("add", &operations.add)] {
        let field = format!("{field}.{operation}");
        for (name, value) in changes {
            let authority =
                request && (name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority"));
            if !authority {
                header_name(name, &entry(&field, name), report);
            }
            if value.chars().any(|c| c.is_control() && c != '\t') {
                let message = "a header's value cannot hold control characters or line breaks";
                report.error(&entry(&field, name), message, "write it on one line");
            }
        }
    }
    for (index, name) in operations.remove.iter().enumerate() {
        header_name(name, &format!("{field}.remove[{index}]"), report);
    }
}

fn header_name(name: &str, field: &str, report: &mut Report<'_>) {
    if name.eq_ignore_ascii_case("host") || name.starts_with(':') {
        let message = format!("the header `{name}` cannot be changed here");
        report.error(field, message, "use `rewrite.authority` or `rewrite.uri`");
    } else if !is_token(name) {
        report.error(field, format!("`{name}` is not a header's name"), "write a name such as `x-version`");
    }
}

fn check_rewrite(rewrite: &HttpRewrite, field: &str, report: &mut Report<'_>) {
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && rewrite.uri_regex_rewrite.is_none() {
        report.error(
            field,
            "the rewrite changes nothing",
            "write `uri:`, `authority:` or `uriRegexRewrite:`",
        );
    }
    let Some(by_regex) = &rewrite.uri_regex_rewrite else { return };
    if !rewrite.uri.is_empty() {
        report.error(field, "uri and uriRegexRewrite cannot both be set", "keep one of them");
    }
    if by_regex.rewrite.is_empty() {
        report.error(&format!("{field}.uriRegexRewrite"), "the replacement is missing", "write `rewrite:`");
    }
    check_regex(&by_regex.r#match, &format!("{field}.uriRegexRewrite.match"), report);
}

fn check_redirect(redirect: &HttpRedirect, rule: &HttpRoute, field: &str, report: &mut Report<'_>) {
    let at = |name: &str| format!("{field}.{name}");
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        report.error(field, "uri and prefixRewrite cannot both be set", "keep one of them");
    }
    let by_prefix = |uri: &Option<StringMatch>| matches!(uri, None | Some(StringMatch::Prefix(_)));
    if !redirect.prefix_rewrite.is_empty() && !rule.r#match.iter().all(|condition| by_prefix(&condition.uri))
    {
        let message = "prefixRewrite needs matches by prefix";
        report.error(
            &at("prefixRewrite"),
            message,
            "match with `uri: {prefix: ...}`, or redirect with `uri:`",
        );
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        report.error(&at("derivePort"), "port and derivePort cannot both be set", "keep one of them");
    }
    if redirect.port == Some(0) {
        report.error(&at("port"), "0 is not a port", "ports are 1 to 65535");
    }
    let texts = [&redirect.uri, &redirect.prefix_rewrite, &redirect.authority, &redirect.scheme];
    if texts.iter().all(|text| text.is_empty()) && redirect.port.is_none() && redirect.derive_port.is_none() {
        report.error(
            field,
            "the redirect leads nowhere else",
            "write `uri:`, `authority:`, `scheme:` or `port:`",
        );
    }
    if redirect.redirect_code != 0 && !(300..400).contains(&redirect.redirect_code) {
        let message = format!("{} is not a redirect's status", redirect.redirect_code);
        report.error(&at("redirectCode"), message, "write 301, 302, 303, 307 or 308");
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        report.error(
            &at("scheme"),
            format!("`{}` is not a scheme", redirect.scheme),
            "write `http` or `https`",
        );
    }
}

/// A retry policy, of a rule or of the mesh.
pub(super) fn check_retries(retries: &HttpRetry, field: &str, report: &mut Report<'_>) {
    let at = |name: &str| format!("{field}.{name}");
    if retries.attempts < 0 {
        let message = format!("{} attempts are not possible", retries.attempts);
        report.error(&at("attempts"), message, "write how often to try again; 0 turns retries off");
    }
    let configured = retries.per_try_timeout.is_some() || !retries.retry_on.is_empty();
    if retries.attempts == 0 && configured {
        let message = "retries are configured, but `attempts` is 0 or missing, which turns them off";
        report.error(field, message, "write `attempts:`");
    }
    if retries.per_try_timeout.is_some_and(|timeout| timeout.is_zero()) {
        report.error(&at("perTryTimeout"), "a try cannot end after 0s", "leave it away for no limit per try");
    }
    if retries.backoff.is_some_and(|backoff| backoff.is_zero()) {
        report.error(&at("backoff"), "an interval of 0s is not possible", "write at least `1ms`");
    }
    for token in retries.retry_on.split(',').map(str::trim).filter(|_| !retries.retry_on.is_empty()) {
        let status = token.parse::<u16>().is_ok_and(|status| (100..600).contains(&status));
        if !status && !RETRY_ON.contains(&token) {
            let message = format!("`{token}` is no condition for retries");
            let help = match crate::decode::closest(token, RETRY_ON) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    "write conditions such as `5xx,connect-failure,refused-stream` or status codes".to_owned()
                }
            };
            report.error(&at("retryOn"), message, help);
        }
    }
}

fn check_fault(fault: &HttpFaultInjection, field: &str, report: &mut Report<'_>) {
    const NO_PERCENTAGE: &str = "the fault never happens without a percentage";
    const HELP: &str = "write `percentage: {value: 100}`";
    if fault.delay.is_none() && fault.abort.is_none() {
        report.error(field, "the fault does nothing", "write `delay:` or `abort:`");
    }
    if let Some(delay) = &fault.delay {
        let field = format!("{field}.delay");
        percent(delay.percentage.as_ref(), &format!("{field}.percentage"), report);
        if delay.exponential_delay.is_some() {
            let message = "exponentialDelay is implemented by nobody";
            report.error(&format!("{field}.exponentialDelay"), message, "write `fixedDelay:`");
        } else if delay.fixed_delay.is_none_or(|delay| delay.is_zero()) {
            report.error(&field, "the delay's length is missing", "write `fixedDelay: 5s`");
        }
        if !(0..=100).contains(&delay.percent) {
            report.error(&format!("{field}.percent"), format!("{} percent", delay.percent), "write 0 to 100");
        }
        if delay.percentage.is_none() && delay.percent == 0 {
            report.warning(&field, NO_PERCENTAGE, HELP);
        }
    }
    if let Some(abort) = &fault.abort {
        let field = format!("{field}.abort");
        percent(abort.percentage.as_ref(), &format!("{field}.percentage"), report);
        match (abort.http_status, &abort.grpc_status, &abort.http2_error) {
            (Some(status), None, None) => {
                check_status(i64::from(status), &format!("{field}.httpStatus"), report)
            }
            (None, Some(status), None) => {
                if !GRPC_STATUS.contains(&status.as_str()) {
                    let message = format!("`{status}` is not a gRPC status");
                    report.error(
                        &format!("{field}.grpcStatus"),
                        message,
                        "write a name such as `UNAVAILABLE`",
                    );
                }
            }
            (None, None, Some(_)) => {
                let message = "http2Error is implemented by nobody";
                report.error(&format!("{field}.http2Error"), message, "write `httpStatus:` or `grpcStatus:`");
            }
            (None, None, None) => {
                report.error(&field, "the error to answer with is missing", "write `httpStatus: 503`");
            }
            _ => report.error(&field, "only one of httpStatus and grpcStatus can be set", "keep one of them"),
        }
        if abort.percentage.is_none() {
            report.warning(&field, NO_PERCENTAGE, HELP);
        }
    }
}

fn check_cors(cors: &CorsPolicy, field: &str, report: &mut Report<'_>) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let field = format!("{field}.allowOrigins[{index}]");
        match origin {
            StringMatch::Any => {
                report.error(&field, "no origin is written", "write `exact: \"*\"` for any origin");
            }
            StringMatch::Exact(text) | StringMatch::Prefix(text) if text.is_empty() => {
                report.error(&field, "the origin is empty", "write an origin such as `https://example.com`");
            }
            StringMatch::Regex(expression) => check_regex(expression, &format!("{field}.regex"), report),
            _ => {}
        }
    }
    let lists = [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)];
    for (name, list) in lists {
        for (index, header) in list.iter().enumerate().filter(|(_, header)| !is_token(header)) {
            let message = format!("`{header}` is not a header's name");
            report.error(
                &format!("{field}.{name}[{index}]"),
                message,
                "write a name such as `x-version`, or `*`",
            );
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate().filter(|(_, method)| !is_token(method)) {
        let message = format!("`{method}` is not a method");
        report.error(
            &format!("{field}.allowMethods[{index}]"),
            message,
            "write a method such as `GET`, or `*`",
        );
    }
    if cors.max_age.is_some_and(|age| age.subsec_nanos() > 0) {
        report.error(&format!("{field}.maxAge"), "browsers know whole seconds only", "write whole seconds");
    }
}

fn check_mirrors(rule: &HttpRoute, field: &str, report: &mut Report<'_>) {
    if let Some(mirror) = &rule.mirror {
        destination(mirror, &format!("{field}.mirror"), report);
        if !rule.mirrors.is_empty() {
            report.error(
                &format!("{field}.mirror"),
                "mirror and mirrors cannot both be set",
                "keep `mirrors`",
            );
        }
    }
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        let field = format!("{field}.mirrors[{index}]");
        destination(&mirror.destination, &format!("{field}.destination"), report);
        percent(mirror.percentage.as_ref(), &format!("{field}.percentage"), report);
    }
    percent(rule.mirror_percentage.as_ref(), &format!("{field}.mirrorPercentage"), report);
    if rule.mirror_percent.is_some_and(|percent| percent > 100) {
        report.error(&format!("{field}.mirrorPercent"), "more than 100 percent", "write 0 to 100");
    }
}

fn percent(percent: Option<&Percent>, field: &str, report: &mut Report<'_>) {
    if let Some(percent) = percent.filter(|percent| !(0.0..=100.0).contains(&percent.value)) {
        report.error(
            &format!("{field}.value"),
            format!("{} is not a percentage", percent.value),
            "write 0 to 100",
        );
    }
}

fn check_status(status: i64, field: &str, report: &mut Report<'_>) {
    if !(200..600).contains(&status) {
        report.error(field, format!("{status} is not a status to answer with"), "write 200 to 599");
    }
}
