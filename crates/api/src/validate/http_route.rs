//! HTTP rules of a VirtualService: which actions go together, and their conditions.

use std::collections::BTreeMap;

use super::destinations::{destination, gateways, weights};
use super::names::{self, check_match, check_regex, entry};
use super::{Report, http_actions};
use crate::networking::{HttpMatch, HttpRoute, StringMatch, VirtualService};

pub(super) fn check_all(spec: &VirtualService, report: &mut Report<'_>) {
    let is_delegate = spec.hosts.is_empty();
    for (index, rule) in spec.http.iter().enumerate() {
        let field = format!("spec.http[{index}]");
        if rule.delegate.is_some() {
            delegating(rule, is_delegate, &field, report);
        } else {
            action(rule, &field, report);
        }
        for (index, condition) in rule.r#match.iter().enumerate() {
            http_match(condition, &format!("{field}.match[{index}]"), report);
        }
        http_actions::check(rule, &field, report);
        for (index, to) in rule.route.iter().enumerate() {
            let field = format!("{field}.route[{index}]");
            destination(&to.destination, &format!("{field}.destination"), report);
            http_actions::headers(to.headers.as_ref(), &format!("{field}.headers"), report);
        }
        weights(rule.route.iter().map(|to| to.weight), &format!("{field}.route"), report);
    }
    unreachable(spec, report);
}

fn delegating(rule: &HttpRoute, is_delegate: bool, field: &str, report: &mut Report<'_>) {
    let delegate = format!("{field}.delegate");
    if is_delegate {
        let help = "only a VirtualService with hosts can delegate";
        report.error(&delegate, "a delegate cannot delegate further", help);
    }
    if rule.delegate.as_ref().is_some_and(|to| to.name.is_empty()) {
        report.error(&delegate, "the delegate's name is missing", "write `delegate: {name: ...}`");
    }
    if rule.redirect.is_some() || !rule.route.is_empty() || rule.direct_response.is_some() {
        let message = "a rule that delegates has no route, redirect or directResponse of its own";
        report.error(field, message, "keep `delegate` or the other action");
    }
}

/// Exactly one of route, redirect and directResponse; a fault or rewrite only with a route.
fn action(rule: &HttpRoute, field: &str, report: &mut Report<'_>) {
    let local = match (&rule.redirect, &rule.direct_response) {
        (Some(_), Some(_)) => {
            let message = "a rule has either redirect or directResponse";
            return report.error(field, message, "keep one of them");
        }
        (Some(_), None) => "redirect",
        (None, Some(_)) => "directResponse",
        (None, None) => {
            if rule.route.is_empty() {
                let help = "write `route: [{destination: {host: ...}}]`, `redirect:` or `directResponse:`";
                report.error(field, "the rule does nothing", help);
            }
            return;
        }
    };
    let others = [
        ("route", !rule.route.is_empty()),
        ("fault", rule.fault.is_some()),
        ("rewrite", rule.rewrite.is_some()),
    ];
    for (other, _) in others.iter().filter(|(_, written)| *written) {
        let message = format!("a rule with {local} cannot have {other} too");
        report.error(&format!("{field}.{other}"), message, format!("keep `{local}` or `{other}`"));
    }
}

fn http_match(condition: &HttpMatch, field: &str, report: &mut Report<'_>) {
    // An empty prefix is fine for the path only: every path begins with it.
    if let Some(StringMatch::Regex(expression)) = &condition.uri {
        check_regex(expression, &format!("{field}.uri.regex"), report);
    }
    let texts =
        [("scheme", &condition.scheme), ("method", &condition.method), ("authority", &condition.authority)];
    for (name, text) in texts {
        if let Some(text) = text {
            check_match(text, &format!("{field}.{name}"), report);
        }
    }
    header_matches(&condition.headers, &format!("{field}.headers"), report);
    header_matches(&condition.without_headers, &format!("{field}.withoutHeaders"), report);
    for (name, text) in &condition.query_params {
        check_match(text, &entry(&format!("{field}.queryParams"), name), report);
    }
    gateways(&condition.gateways, field, report);
    if !condition.source_namespace.is_empty() && !names::is_label(&condition.source_namespace) {
        let message = format!("`{}` is not a namespace", condition.source_namespace);
        report.error(&format!("{field}.sourceNamespace"), message, names::LABEL_HELP);
    }
}

fn header_matches(headers: &BTreeMap<String, StringMatch>, field: &str, report: &mut Report<'_>) {
    const PSEUDO: [&str; 4] = [":method", ":scheme", ":authority", ":path"];
    for (name, text) in headers {
        let field = entry(field, name);
        // Istio's way to match a claim of the caller's token.
        let claim = name.starts_with("@request.auth.claims");
        if !claim && !PSEUDO.contains(&name.as_str()) && !names::is_token(name) {
            let message = format!("`{name}` is not a header's name");
            report.error(&field, message, "write a name such as `end-user`");
        }
        // Istio takes the regex `*`, which is none, for presence.
        if *text != StringMatch::Regex("*".to_owned()) {
            check_match(text, &field, report);
        }
    }
}

/// Whether every request fulfils the condition.
fn is_catch_all(condition: &HttpMatch) -> bool {
    let any_path = match &condition.uri {
        None | Some(StringMatch::Any) => true,
        Some(StringMatch::Prefix(prefix)) => prefix.is_empty() || prefix == "/",
        Some(StringMatch::Regex(expression)) => expression == ".*",
        Some(StringMatch::Exact(_)) => false,
    };
    let rest = HttpMatch { uri: None, name: String::new(), stat_prefix: String::new(), ..condition.clone() };
    any_path && rest == (HttpMatch { ignore_uri_case: condition.ignore_uri_case, ..HttpMatch::default() })
}

/// Rules after one that takes everything. (One with the match `/` is moved to the end, so that only a rule without match,
/// or a second catch-all, hides others.)
fn unreachable(spec: &VirtualService, report: &mut Report<'_>) {
    let unconditional = spec.http.iter().position(|rule| rule.r#match.is_empty());
    let first_all = spec.http.iter().position(|rule| rule.r#match.iter().any(is_catch_all));
    for (index, rule) in spec.http.iter().enumerate() {
        let second_all = rule.r#match.is_empty() || rule.r#match.iter().all(is_catch_all);
        let hidden_by = unconditional
            .filter(|first| *first < index)
            .or_else(|| first_all.filter(|first| second_all && *first < index));
        if let Some(first) = hidden_by {
            let message = format!("the rule is never used: spec.http[{first}] takes every request");
            let help = "move it before that rule, or give that rule a `match:`";
            report.warning(&format!("spec.http[{index}]"), message, help);
        }
    }
}
