//! The conditions of a VirtualService's rule: those on a request, which the proxy looks at, and those on who asks, which
//! decide whether a proxy is sent the rule at all.

use super::authentication::is_subset;
use api::networking::{HttpMatch, L4MatchAttributes, StringMatch, TlsMatchAttributes};
use model::field::FieldName;
use model::header::{HeaderMatch, HeaderTest};
use model::matcher::{self, Pattern, PatternError, StringMatchKind};
use model::route::{PathMatch, QueryMatch, RouteMatch};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All sidecars, where a rule names gateways.
pub(super) const MESH: &str = "mesh";

/// Who asks for routes, and for which port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// `mesh`, or the Gateway as `namespace/name`.
    pub(super) gateway: &'a str,
    pub(super) namespace: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    /// The port the request came in on.
    pub(super) port: u16,
    /// Its address, where that is known.
    pub(super) address: Option<IpAddr>,
    /// The addresses of what it wants to reach.
    pub(super) destinations: &'a [IpAddr],
}

/// Conditions on who asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scope {
    /// `mesh` or `namespace/name`; empty for all.
    gateways: Vec<String>,
    labels: BTreeMap<String, String>,
    namespace: String,
    port: u16,
}

impl Scope {
    /// Whether a rule with this scope is for `asker`.
    pub(super) fn includes(&self, asker: &Asker<'_>) -> bool {
        (self.gateways.is_empty() || self.gateways.iter().any(|g| g == asker.gateway))
            && (self.port == 0 || self.port == asker.port)
            && (self.namespace.is_empty() || self.namespace == asker.namespace)
            && is_subset(&self.labels, asker.labels)
    }

    /// The labels it asks for.
    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The scope of an HTTP match in a rule of `namespace`.
    pub(super) fn of_http(m: &HttpMatch, namespace: &str) -> Self {
        Self::new(&m.gateways, &m.source_labels, &m.source_namespace, m.port, namespace)
    }

    /// The scope of a TCP match.
    pub(super) fn of_tcp(m: &L4MatchAttributes, namespace: &str) -> Self {
        Self::new(&m.gateways, &m.source_labels, &m.source_namespace, m.port, namespace)
    }

    /// The scope of a TLS match.
    pub(super) fn of_tls(m: &TlsMatchAttributes, namespace: &str) -> Self {
        Self::new(&m.gateways, &m.source_labels, &m.source_namespace, m.port, namespace)
    }

    fn new(
        gateways: &[String],
        labels: &BTreeMap<String, String>,
        source: &str,
        port: u16,
        namespace: &str,
    ) -> Self {
        let gateways = gateways.iter().map(|g| gateway_name(g, namespace)).collect();
        Self { gateways, labels: labels.clone(), namespace: source.to_owned(), port }
    }
}

/// A gateway's full name, as a rule in `namespace` writes it.
pub(super) fn gateway_name(gateway: &str, namespace: &str) -> String {
    match gateway {
        MESH => MESH.to_owned(),
        full if full.contains('/') => full.to_owned(),
        name => match name.split_once('.') {
            // The old form, `name.namespace` with or without what follows.
            Some((name, rest)) => {
                format!("{}/{name}", rest.split('.').next().filter(|n| !n.is_empty()).unwrap_or(namespace))
            }
            None => format!("{namespace}/{name}"),
        },
    }
}

/// The condition on requests that `m` writes.
pub(super) fn request(m: &HttpMatch) -> Result<RouteMatch, PatternError> {
    let mut condition = RouteMatch::path(match &m.uri {
        None | Some(StringMatch::Any) => PathMatch::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathMatch::Exact(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathMatch::Prefix(prefix.clone()),
        Some(StringMatch::Regex(regex)) => PathMatch::Regex(Pattern::new(regex)?),
    });
    condition.case_sensitive = !m.ignore_uri_case;
    let pseudo = [
        (FieldName::Method, &m.method),
        (FieldName::Scheme, &m.scheme),
        (FieldName::Authority, &m.authority),
    ];
    for (name, wanted) in pseudo {
        if let Some(wanted) = wanted {
            condition.headers.push(header(name, wanted, false)?);
        }
    }
    let fields = m.headers.iter().map(|h| (h, false)).chain(m.without_headers.iter().map(|h| (h, true)));
    for ((name, wanted), without) in fields {
        let name = FieldName::parse(name)
            .ok_or_else(|| PatternError::new(name, "this is not the name of a header"))?;
        condition.headers.push(header(name, wanted, without)?);
    }
    for (name, wanted) in &m.query_params {
        condition.query.push(QueryMatch { name: name.clone(), value: string(wanted)? });
    }
    Ok(condition)
}

/// A condition on a header. One that must *not* look so is satisfied by a request without it.
fn header(name: FieldName, wanted: &StringMatch, without: bool) -> Result<HeaderMatch, PatternError> {
    let value = string(wanted)?;
    let missing_as_empty = without && value.is_some();
    let test = value.map_or(HeaderTest::Present(true), HeaderTest::Value);
    Ok(HeaderMatch { name, test, invert: without, missing_as_empty })
}

fn string(wanted: &StringMatch) -> Result<Option<matcher::StringMatch>, PatternError> {
    let kind = match wanted {
        StringMatch::Any => return Ok(None),
        StringMatch::Exact(text) => StringMatchKind::Exact(text.clone()),
        StringMatch::Prefix(text) => StringMatchKind::Prefix(text.clone()),
        StringMatch::Regex(regex) => StringMatchKind::Regex(Pattern::new(regex)?),
    };
    Ok(Some(matcher::StringMatch { kind, ignore_case: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_without_namespace_is_of_the_rules_own() {
        assert_eq!(gateway_name("mesh", "a"), "mesh");
        assert_eq!(gateway_name("g", "a"), "a/g");
        assert_eq!(gateway_name("b/g", "a"), "b/g");
        assert_eq!(gateway_name("g.b.svc.cluster.local", "a"), "b/g");
    }

    #[test]
    fn a_scope_holds_when_all_it_asks_of_the_asker_holds() {
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned()), ("v".to_owned(), "1".to_owned())]);
        let asker = Asker {
            gateway: MESH,
            namespace: "prod",
            labels: &labels,
            port: 80,
            address: None,
            destinations: &[],
        };
        assert!(Scope::default().includes(&asker));
        let scope =
            Scope { labels: BTreeMap::from([("app".to_owned(), "a".to_owned())]), ..Scope::default() };
        assert!(scope.includes(&asker));
        assert!(!Scope { port: 81, ..scope.clone() }.includes(&asker));
        assert!(!Scope { namespace: "test".into(), ..scope.clone() }.includes(&asker));
        assert!(!Scope { gateways: vec!["a/g".into()], ..scope }.includes(&asker));
    }

    #[test]
    fn a_header_that_must_not_be_so_may_be_absent() {
        let without =
            |wanted| header(FieldName::parse("x-a").expect("a name"), &wanted, true).expect("no regex");
        let exact = without(StringMatch::Exact("v".into()));
        assert!(
            exact.matches_value(None) && exact.matches_value(Some(b"w")) && !exact.matches_value(Some(b"v"))
        );
        let any = without(StringMatch::Any);
        assert!(any.matches_value(None) && !any.matches_value(Some(b"v")));
    }
}
