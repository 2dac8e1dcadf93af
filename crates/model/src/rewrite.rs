//! What a route makes of a request's path and authority, and where a redirect points.
//! Pure text work; applying it to a message is the proxy's.

use crate::header::RequestHead;
use crate::route::{PathMatch, PathRewrite, Redirect, RouteMatch, Substitution};
use std::borrow::Cow;

/// The path (without query) after `rewrite`, for a request that matched `condition`.
pub fn rewritten_path(rewrite: &PathRewrite, condition: &RouteMatch, path: &str) -> String {
    match rewrite {
        PathRewrite::Full(full) => full.clone(),
        PathRewrite::Prefix(new) => {
            let matched = match &condition.path {
                PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Template(_) => path.len(),
                PathMatch::Prefix(p) | PathMatch::SegmentPrefix(p) => p.len(),
                PathMatch::Connect => 0,
            };
            let rest = path.get(matched..).unwrap_or_default();
            format!("{new}{rest}")
        }
        PathRewrite::Template(rewrite) => match &condition.path {
            PathMatch::Template(template) => {
                template.rewrite(rewrite, path).unwrap_or_else(|| path.to_owned())
            }
            _ => path.to_owned(),
        },
        // Whoever knows the exchange fills it in.
        PathRewrite::Formatted(template) => template.as_literal().unwrap_or(path).to_owned(),
        PathRewrite::Regex(substitution) => substituted(substitution, path),
    }
}

/// `text` with each match replaced.
pub fn substituted(s: &Substitution, text: &str) -> String {
    let replaced = s.regex.replace_all(text, |captures: &regex::Captures<'_>| {
        let mut out = String::new();
        let mut chars = s.replacement.chars();
        while let Some(c) = chars.next() {
            match (c, chars.clone().next()) {
                ('\\', Some(digit)) if digit.is_ascii_digit() => {
                    chars.next();
                    let group = digit as usize - '0' as usize;
                    out.push_str(captures.get(group).map_or("", |m| m.as_str()));
                }
                ('\\', Some('\\')) => {
                    chars.next();
                    out.push('\\');
                }
                (c, _) => out.push(c),
            }
        }
        out
    });
    replaced.into_owned()
}

/// The `Location` of `redirect` for this request (RFC 9110, 10.2.2). A port that is the old scheme's default is
/// dropped when the scheme changes, as Envoy does.
pub fn location(redirect: &Redirect, condition: &RouteMatch, head: &RequestHead<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(head.scheme);
    let (old_host, old_port) = split_authority(head.authority);
    let host = redirect.host.as_deref().unwrap_or(old_host);
    let port = match (redirect.port, &redirect.host, old_port) {
        (Some(port), _, _) => Some(port),
        // A new host does not inherit the old one's port; a new scheme does not inherit the old default.
        (None, Some(_), _) => None,
        (None, None, Some(80)) if head.scheme == "http" && scheme == "https" => None,
        (None, None, Some(443)) if head.scheme == "https" && scheme == "http" => None,
        (None, None, port) => port,
    };
    let is_default = matches!((scheme, port), ("http", Some(80)) | ("https", Some(443)));
    let path = match &redirect.path {
        None => Cow::Borrowed(head.path),
        Some(rewrite) => rewritten_path(rewrite, condition, head.path).into(),
    };
    let mut out = format!("{scheme}://{host}");
    if let Some(port) = port.filter(|_| redirect.port.is_some() || !is_default) {
        out.push_str(&format!(":{port}"));
    }
    out.push_str(&path);
    if let (Some(query), false) = (head.query, redirect.strip_query || path.contains('?')) {
        out.push('?');
        out.push_str(query);
    }
    out
}

/// What is taken off the authority of each request before anything looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostStripping {
    /// Its port.
    pub port: PortStripping,
    /// A dot at the end of the host.
    pub trailing_dot: bool,
}

/// Which ports are taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortStripping {
    /// None.
    #[default]
    Keep,
    /// That of the listener (`strip_matching_host_port`).
    Matching,
    /// Any (`strip_any_host_port`).
    Any,
}

impl HostStripping {
    /// What is left of `authority`, at a listener of this port. The port of a CONNECT is its target's and stays, unless
    /// any is taken off.
    pub fn strip<'a>(self, authority: &'a str, own_port: u16, is_connect: bool) -> Cow<'a, str> {
        let (host, port) = split_authority(authority);
        let (mut host, mut port) = (Cow::Borrowed(host), port);
        if self.trailing_dot
            && let Some(stripped) = host.strip_suffix('.').map(str::to_owned)
        {
            host = stripped.into();
        }
        let strips = match self.port {
            PortStripping::Keep => false,
            PortStripping::Matching => !is_connect && port == Some(own_port),
            PortStripping::Any => true,
        };
        if strips {
            port = None;
        }
        match (port, host) {
            (Some(_), Cow::Borrowed(_)) => authority.into(),
            (Some(port), host) => format!("{host}:{port}").into(),
            (None, Cow::Borrowed(host)) => match authority.len() == host.len() {
                true => authority.into(),
                false => host.into(),
            },
            (None, host) => host,
        }
    }
}

/// Host and port of an authority; IPv6 literals keep their brackets.
pub fn split_authority(authority: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = authority.rsplit_once(':') else { return (authority, None) };
    if host.starts_with('[') != host.ends_with(']') || (host.contains(':') && !host.starts_with('[')) {
        return (authority, None);
    }
    match port.parse() {
        Ok(port) => (host, Some(port)),
        Err(_) => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::{HeaderMap, Method};

    #[test]
    fn a_prefix_rewrite_replaces_what_was_matched() {
        let rewrite = PathRewrite::Prefix("/v2".into());
        let prefix = RouteMatch::path(PathMatch::Prefix("/api".into()));
        assert_eq!(rewritten_path(&rewrite, &prefix, "/api/x"), "/v2/x");
        let exact = RouteMatch::path(PathMatch::Exact("/api/x".into()));
        assert_eq!(rewritten_path(&rewrite, &exact, "/api/x"), "/v2");
    }

    #[test]
    fn a_regex_rewrite_fills_in_its_groups() {
        let s = Substitution::new("^/(a+)/(.*)$", r"/\2/\1\\").unwrap();
        let any = RouteMatch::any();
        assert_eq!(rewritten_path(&PathRewrite::Regex(s), &any, "/aa/b/c"), r"/b/c/aa\");
    }

    #[test]
    fn a_redirect_to_https_drops_the_old_default_port_and_keeps_the_query() {
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a.example:80",
            path: "/x",
            query: Some("q=1"),
            headers: &headers,
        };
        let any = RouteMatch::any();
        let https = Redirect { scheme: Some("https".into()), status: 301, ..Default::default() };
        assert_eq!(location(&https, &any, &head), "https://a.example/x?q=1");
        let port = Redirect { port: Some(8443), strip_query: true, ..Default::default() };
        assert_eq!(location(&port, &any, &head), "http://a.example:8443/x");
    }

    #[test]
    fn ports_and_dots_are_taken_off_where_that_is_wanted() {
        let strip = |port, trailing_dot, authority: &'static str| {
            HostStripping { port, trailing_dot }.strip(authority, 80, false).into_owned()
        };
        assert_eq!(strip(PortStripping::Any, false, "a.test:1"), "a.test");
        assert_eq!(strip(PortStripping::Matching, false, "a.test:80"), "a.test");
        assert_eq!(strip(PortStripping::Matching, false, "a.test:81"), "a.test:81");
        assert_eq!(strip(PortStripping::Keep, true, "a.test.:81"), "a.test:81");
        assert_eq!(strip(PortStripping::Any, true, "a.test."), "a.test");
        assert_eq!(strip(PortStripping::Any, false, "[::1]:80"), "[::1]");
    }

    #[test]
    fn an_ipv6_literal_is_not_mistaken_for_a_port() {
        assert_eq!(split_authority("[::1]"), ("[::1]", None));
        assert_eq!(split_authority("[::1]:80"), ("[::1]", Some(80)));
        assert_eq!(split_authority("a:b"), ("a:b", None));
        assert_eq!(split_authority("a:8"), ("a", Some(8)));
    }
}
