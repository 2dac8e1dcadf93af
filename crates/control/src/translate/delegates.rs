//! Delegates: a rule that leaves it to another VirtualService what is done with its requests. Such a rule stands for those
//! of the other, each for the requests that both take.
//!
//! One level, as in Istio: a delegate's own rules cannot delegate. What a delegate's rule does not say, the rule that
//! delegates says for it.

use super::matches::gateway_name;
use super::place::Place;
use super::visibility::Visibility;
use crate::hosts::full_name;
use crate::world::World;
use api::Object;
use api::networking::{HttpMatch, HttpRoute, StringMatch, VirtualService};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The VirtualServices without hosts, by `namespace/name`.
pub(super) struct Delegates<'w> {
    all: HashMap<String, (&'w Arc<Object>, &'w VirtualService)>,
    /// Who sees those that do not say so.
    export_to: &'w [String],
}

/// A rule of a delegate, put together with the one that delegates to it.
pub(super) struct Merged<'w> {
    /// The delegate.
    pub(super) object: &'w Arc<Object>,
    /// Position in the delegate.
    pub(super) index: usize,
    pub(super) rule: HttpRoute,
}

impl<'w> Delegates<'w> {
    pub(super) fn of(world: &'w World) -> Self {
        let delegates = world.virtual_services().filter(|(_, spec)| spec.hosts.is_empty());
        let name = |object: &Object| format!("{}/{}", object.namespace(), object.meta.name);
        let all = delegates.map(|(object, spec)| (name(object), (object, spec))).collect();
        Self { all, export_to: &world.settings().default_virtual_service_export_to }
    }

    /// The rules that `rule`, which delegates, stands for.
    pub(super) fn expand(&self, rule: &HttpRoute, place: &mut Place<'_>) -> Vec<Merged<'w>> {
        let Some(to) = &rule.delegate else { return Vec::new() };
        let own = place.object.namespace();
        let namespace = if to.namespace.is_empty() { own } else { &to.namespace };
        let name = format!("{namespace}/{}", to.name);
        let seen = self.all.get(&name).filter(|(object, spec)| {
            Visibility::of(&spec.export_to, self.export_to, object.namespace()).includes(own)
        });
        let Some((object, spec)) = seen else {
            let message = format!(
                "there is no VirtualService `{name}` without hosts that this one may use; the rule is left out"
            );
            place.tell("delegate", message, "declare it, or add this namespace to its `exportTo`");
            return Vec::new();
        };
        let root = with_full_names(rule, own);
        let mut all = Vec::new();
        for (index, own) in spec.http.iter().enumerate() {
            if own.delegate.is_some() {
                let message = format!(
                    "`{name}` delegates in turn, which only a VirtualService with hosts can; rule {index} of it is left out"
                );
                place.tell("delegate", message, "write its rules there");
                continue;
            }
            match merge(&root, own) {
                Ok(rule) => all.push(Merged { object, index, rule }),
                Err(at) => {
                    let message = format!(
                        "`{name}` has a rule that is for requests which this one does not take (spec.http[{index}].match[{at}]); it is left out"
                    );
                    place.tell(
                        "delegate",
                        message,
                        "a delegate's match must be within that of the rule that delegates",
                    );
                }
            }
        }
        all
    }
}

/// The rule with what means the same in every namespace.
fn with_full_names(rule: &HttpRoute, namespace: &str) -> HttpRoute {
    let mut rule = rule.clone();
    for m in &mut rule.r#match {
        m.gateways = m.gateways.iter().map(|gateway| gateway_name(gateway, namespace)).collect();
    }
    let mirrors = rule.mirrors.iter_mut().map(|mirror| &mut mirror.destination);
    for to in rule.mirror.iter_mut().chain(mirrors) {
        to.host = full_name(&to.host, namespace);
    }
    rule
}

/// `own`, a delegate's rule, for the requests of `root`; else the position of a match of it that is for others.
fn merge(root: &HttpRoute, own: &HttpRoute) -> Result<HttpRoute, usize> {
    let or = |a: &String, b: &String| match (a.as_str(), b.as_str()) {
        ("", b) => b.to_owned(),
        (a, "") => a.to_owned(),
        (a, b) => format!("{a}-{b}"),
    };
    let no_mirror = own.mirror.is_none() && own.mirrors.is_empty();
    let mirrors = if no_mirror { root } else { own };
    Ok(HttpRoute {
        name: or(&root.name, &own.name),
        r#match: merge_matches(&root.r#match, &own.r#match)?,
        rewrite: own.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: own.timeout.or(root.timeout),
        retries: own.retries.clone().or_else(|| root.retries.clone()),
        fault: own.fault.clone().or_else(|| root.fault.clone()),
        mirror: mirrors.mirror.clone(),
        mirrors: mirrors.mirrors.clone(),
        mirror_percent: own.mirror_percent.or(root.mirror_percent),
        mirror_percentage: own.mirror_percentage.clone().or_else(|| root.mirror_percentage.clone()),
        cors_policy: own.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: own.headers.clone().or_else(|| root.headers.clone()),
        delegate: None,
        ..own.clone()
    })
}

fn merge_matches(root: &[HttpMatch], own: &[HttpMatch]) -> Result<Vec<HttpMatch>, usize> {
    if root.is_empty() || own.is_empty() {
        return Ok([root, own].concat());
    }
    let mut all = Vec::new();
    for (at, inner) in own.iter().enumerate() {
        let before = all.len();
        all.extend(root.iter().filter(|outer| contains(outer, inner)).map(|outer| both(outer, inner)));
        if all.len() == before {
            return Err(at);
        }
    }
    Ok(all)
}

/// Whether all requests that `inner` is for may be such that `outer` is for.
fn contains(outer: &HttpMatch, inner: &HttpMatch) -> bool {
    type Texts = BTreeMap<String, StringMatch>;
    let texts = |outer: &Texts, inner: &Texts| {
        outer.iter().all(|(name, one)| inner.get(name).is_none_or(|other| is_within(Some(one), Some(other))))
    };
    let labels = |(name, value): (&String, &String)| inner.source_labels.get(name).is_none_or(|v| v == value);
    let gateways = || inner.gateways.iter().all(|gateway| outer.gateways.contains(gateway));
    outer.ignore_uri_case == inner.ignore_uri_case
        && is_within(outer.uri.as_ref(), inner.uri.as_ref())
        && is_within(outer.scheme.as_ref(), inner.scheme.as_ref())
        && is_within(outer.method.as_ref(), inner.method.as_ref())
        && is_within(outer.authority.as_ref(), inner.authority.as_ref())
        && texts(&outer.headers, &inner.headers)
        && texts(&outer.without_headers, &inner.without_headers)
        && texts(&outer.query_params, &inner.query_params)
        && (outer.port == 0 || inner.port == 0 || outer.port == inner.port)
        && outer.source_labels.iter().all(labels)
        && (outer.gateways.is_empty() || inner.gateways.is_empty() || gateways())
        && (outer.source_namespace.is_empty()
            || inner.source_namespace.is_empty()
            || outer.source_namespace == inner.source_namespace)
}

/// Whether what `inner` takes, `outer` takes. Of regular expressions nobody can tell.
fn is_within(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> bool {
    use StringMatch::{Any, Exact, Prefix, Regex};
    match (outer, inner) {
        (None | Some(Any), _) | (_, None | Some(Any)) => true,
        (Some(Regex(_)), _) | (_, Some(Regex(_))) => false,
        (Some(Exact(outer)), Some(inner)) => *inner == Exact(outer.clone()),
        (Some(Prefix(outer)), Some(Exact(inner) | Prefix(inner))) => inner.starts_with(outer.as_str()),
    }
}

/// A match for the requests that both are for.
fn both(outer: &HttpMatch, inner: &HttpMatch) -> HttpMatch {
    let text =
        |outer: &Option<StringMatch>, inner: &Option<StringMatch>| inner.clone().or_else(|| outer.clone());
    fn joined<V: Clone>(outer: &BTreeMap<String, V>, inner: &BTreeMap<String, V>) -> BTreeMap<String, V> {
        let mut all = outer.clone();
        all.extend(inner.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }
    let filled =
        |outer: &String, inner: &String| if inner.is_empty() { outer.clone() } else { inner.clone() };
    HttpMatch {
        name: match (outer.name.as_str(), inner.name.as_str()) {
            ("", name) | (name, "") => name.to_owned(),
            (outer, inner) => format!("{outer}-{inner}"),
        },
        uri: text(&outer.uri, &inner.uri),
        scheme: text(&outer.scheme, &inner.scheme),
        method: text(&outer.method, &inner.method),
        authority: text(&outer.authority, &inner.authority),
        headers: joined(&outer.headers, &inner.headers),
        port: if inner.port == 0 { outer.port } else { inner.port },
        source_labels: joined(&outer.source_labels, &inner.source_labels),
        gateways: if inner.gateways.is_empty() { &outer.gateways } else { &inner.gateways }.clone(),
        query_params: joined(&outer.query_params, &inner.query_params),
        ignore_uri_case: inner.ignore_uri_case,
        without_headers: joined(&outer.without_headers, &inner.without_headers),
        source_namespace: filled(&outer.source_namespace, &inner.source_namespace),
        stat_prefix: filled(&outer.stat_prefix, &inner.stat_prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(uri: StringMatch) -> HttpMatch {
        HttpMatch { uri: Some(uri), ..HttpMatch::default() }
    }

    #[test]
    fn a_delegates_match_must_be_within_the_one_that_delegates() {
        let outer = uri(StringMatch::Prefix("/shop".into()));
        assert!(contains(&outer, &uri(StringMatch::Prefix("/shop/cart".into()))));
        assert!(contains(&outer, &uri(StringMatch::Exact("/shop".into()))));
        assert!(contains(&outer, &HttpMatch::default()));
        assert!(!contains(&outer, &uri(StringMatch::Prefix("/".into()))));
        assert!(!contains(&outer, &uri(StringMatch::Regex("/shop/.*".into()))));
        let exact = uri(StringMatch::Exact("/a".into()));
        assert!(!contains(&exact, &uri(StringMatch::Prefix("/a".into()))));
    }

    #[test]
    fn what_both_are_for_has_the_conditions_of_both() {
        let outer = HttpMatch { port: 80, name: "a".into(), ..uri(StringMatch::Prefix("/shop".into())) };
        let mut inner = HttpMatch { name: "b".into(), ..HttpMatch::default() };
        inner.headers.insert("x-user".into(), StringMatch::Exact("me".into()));
        let merged = both(&outer, &inner);
        assert_eq!((merged.uri.clone(), merged.port, merged.name.as_str()), (outer.uri, 80, "a-b"));
        assert_eq!(merged.headers, inner.headers);
    }
}
