//! What a request is hashed by, so that requests of one kind go to one endpoint (`RouteAction.HashPolicy`).
//! Reading the request is the proxy's work; which endpoint a hash leads to, `balance`'s.

use crate::balance::xx_hash;
use http::HeaderName;
use std::time::Duration;

/// One thing that a request is hashed by.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Where this gives a hash, the policies after it are not asked.
    pub terminal: bool,
}

/// Where a hash comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum HashSource {
    /// A header's value; of several values, all in order of their bytes.
    Header(HeaderName),
    /// A cookie.
    Cookie(AffinityCookie),
    /// The client's address, without the port.
    SourceIp,
    /// The first value of a query parameter.
    Query(String),
}

/// A cookie that keeps a client with its endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct AffinityCookie {
    /// Its name.
    pub name: String,
    /// A client without it is given one that lives so long, 0 as long as its session; `None` gives none.
    pub ttl: Option<Duration>,
    /// `Path` of a cookie that is given.
    pub path: String,
    /// More attributes of a cookie that is given, in order; a value may be empty.
    pub attributes: Vec<(String, String)>,
}

impl AffinityCookie {
    /// The `Set-Cookie` value that gives it `value`.
    pub fn set(&self, value: &str) -> String {
        let mut text = format!("{}=\"{value}\"", self.name);
        if let Some(ttl) = self.ttl.filter(|ttl| !ttl.is_zero()) {
            text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
        }
        if !self.path.is_empty() {
            text.push_str(&format!("; Path={}", self.path));
        }
        for (name, value) in &self.attributes {
            match value.is_empty() {
                true => text.push_str(&format!("; {name}")),
                false => text.push_str(&format!("; {name}={value}")),
            }
        }
        text.push_str("; HttpOnly");
        text
    }
}

/// Hashes of one request, put together in the order of its policies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Affinity(Option<u64>);

impl Affinity {
    /// Adds the hash of one policy.
    pub fn add(&mut self, hash: u64) {
        // Turned by a bit, so that the same value in two places does not cancel itself out.
        self.0 = Some(self.0.map_or(0, |before| before.rotate_left(1)) ^ hash);
    }

    /// The hash; `None` when no policy gave one.
    pub fn hash(self) -> Option<u64> {
        self.0
    }
}

/// The hash of a header's values.
pub fn hash_values<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> Option<u64> {
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(xx_hash(first, 0)) };
    let mut sorted: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
    sorted.sort_unstable();
    Some(sorted.into_iter().fold(0, |seed, value| xx_hash(value, seed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_cookie_carries_its_lifetime_path_and_attributes() {
        let cookie = AffinityCookie {
            name: "user".into(),
            ttl: Some(Duration::from_secs(60)),
            path: "/shop".into(),
            attributes: vec![("SameSite".into(), "Strict".into()), ("Secure".into(), String::new())],
        };
        assert_eq!(
            cookie.set("a1"),
            "user=\"a1\"; Max-Age=60; Path=/shop; SameSite=Strict; Secure; HttpOnly"
        );
        let session =
            AffinityCookie { ttl: Some(Duration::ZERO), path: String::new(), attributes: vec![], ..cookie };
        assert_eq!(session.set("a1"), "user=\"a1\"; HttpOnly");
    }

    #[test]
    fn the_same_value_by_two_policies_still_tells_values_apart() {
        let twice = |value: u64| {
            let mut affinity = Affinity::default();
            affinity.add(value);
            affinity.add(value);
            affinity.hash()
        };
        assert_ne!(twice(1), twice(2));
        assert_eq!(Affinity::default().hash(), None);
    }

    #[test]
    fn the_order_of_a_headers_lines_does_not_matter() {
        let of = |values: &[&'static str]| {
            hash_values(values.iter().map(|v| v.as_bytes()).collect::<Vec<_>>().into_iter())
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "c"]));
        assert_eq!(of(&[]), None);
    }
}
