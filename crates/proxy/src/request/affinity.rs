//! What a request asks of its endpoint: the hash that keeps it with one, and the subset that the route names.

use super::Stage;
use http::header::{COOKIE, HeaderValue};
use http::request::Parts;
use model::affinity::{Affinity, AffinityCookie, HashPolicy, HashSource, hash_values};
use model::balance::{Criteria, xx_hash};
use model::route::{Forward, WeightedCluster};
use std::borrow::Cow;

/// A request's hash, and the cookie that a client without one is given.
#[derive(Default)]
pub(super) struct Bound {
    pub(super) hash: Option<u64>,
    pub(super) cookie: Option<HeaderValue>,
}

impl Stage<'_> {
    /// Hashes a request as its route says.
    pub(super) fn bind(&self, policies: &[HashPolicy], parts: &Parts) -> Bound {
        let mut affinity = Affinity::default();
        let mut cookie = None;
        for policy in policies {
            let hash = match &policy.source {
                HashSource::Header(name) => {
                    hash_values(parts.headers.get_all(name).iter().map(HeaderValue::as_bytes))
                }
                HashSource::SourceIp => {
                    Some(xx_hash(self.head.client.ip().to_canonical().to_string().as_bytes(), 0))
                }
                HashSource::Query(name) => {
                    query_value(&self.head.target, name).map(|v| xx_hash(v.as_bytes(), 0))
                }
                HashSource::Cookie(wanted) => match cookie_value(parts, &wanted.name) {
                    Some(value) => Some(xx_hash(value.as_bytes(), 0)),
                    None => self.give_cookie(wanted, &mut cookie),
                },
            };
            if let Some(hash) = hash {
                affinity.add(hash);
                if policy.terminal {
                    break;
                }
            }
        }
        Bound { hash: affinity.hash(), cookie }
    }

    /// The number by which one of several clusters is picked: at random, or by what the request is hashed to.
    pub(super) fn split(&self, forward: &Forward, parts: &Parts) -> u64 {
        let hash = match forward.splits_by_hash {
            true => self.bind(&forward.hash_policies, parts).hash,
            false => None,
        };
        hash.unwrap_or_else(|| self.context.local.random())
    }

    /// A value for a client that has none, by which it is hashed from now on.
    fn give_cookie(&self, wanted: &AffinityCookie, cookie: &mut Option<HeaderValue>) -> Option<u64> {
        wanted.ttl?;
        let value = format!("{:016x}", self.context.local.random());
        *cookie = HeaderValue::try_from(wanted.set(&value)).ok();
        Some(xx_hash(value.as_bytes(), 0))
    }
}

/// What the endpoint has to be like: what the route says, and over it what its weighted cluster says.
pub(super) fn subset<'f>(forward: &'f Forward, weighted: Option<&'f WeightedCluster>) -> Cow<'f, Criteria> {
    match weighted.map(|weighted| &weighted.subset).filter(|subset| !subset.is_empty()) {
        None => Cow::Borrowed(&forward.subset),
        Some(subset) if forward.subset.is_empty() => Cow::Borrowed(subset),
        Some(subset) => {
            let mut all = forward.subset.clone();
            all.extend(subset.iter().map(|(key, value)| (key.clone(), value.clone())));
            Cow::Owned(all)
        }
    }
}

fn query_value<'t>(target: &'t str, name: &str) -> Option<&'t str> {
    let (_, query) = target.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

/// The value of the first cookie of this name, without quotes (RFC 6265, 4.2.1).
fn cookie_value<'p>(parts: &'p Parts, name: &str) -> Option<&'p str> {
    let lines = parts.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use model::metadata::Value;

    fn parts(cookies: &[&str]) -> Parts {
        let mut request = http::Request::builder();
        for line in cookies {
            request = request.header(COOKIE, *line);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_cookie_is_found_in_any_line_and_loses_its_quotes() {
        let parts = parts(&["a=1; user=\"x=y\"", "b=2;c=3"]);
        let found = ["a", "user", "b", "c", "d"].map(|name| cookie_value(&parts, name));
        assert_eq!(found, [Some("1"), Some("x=y"), Some("2"), Some("3"), None]);
    }

    #[test]
    fn the_first_value_of_a_parameter_counts() {
        assert_eq!(query_value("/p?a=1&b=2&a=3", "a"), Some("1"));
        assert_eq!(query_value("/p?ab=1&b", "b"), Some(""));
        assert_eq!(query_value("/p", "a"), None);
    }

    #[test]
    fn a_weighted_cluster_says_more_and_wins() {
        let criteria = |pairs: &[(&str, &str)]| -> Criteria {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
        };
        let forward = Forward { subset: criteria(&[("a", "1"), ("b", "1")]), ..Forward::to("c") };
        let weighted = WeightedCluster { subset: criteria(&[("b", "2")]), ..WeightedCluster::default() };
        assert_eq!(*subset(&forward, Some(&weighted)), criteria(&[("a", "1"), ("b", "2")]));
        assert_eq!(*subset(&forward, None), forward.subset);
    }
}
