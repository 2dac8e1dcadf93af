//! SPIFFE ids: the names of workloads (SPIFFE-ID specification, sections 2.1 to 2.3).
//!
//! [`SpiffeId`] is the only shape this mesh issues: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//! [`SpiffeUri`] is any valid id, for peers of other meshes. Where an id is found in a certificate is `certificate`'s work.

use std::fmt;
use std::str::FromStr;

/// Longest id accepted, in bytes (SPIFFE-ID 2.3).
const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain accepted, in bytes (SPIFFE-ID 2.3).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// Any valid SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeUri {
    trust_domain: String,
    path: String,
}

impl SpiffeUri {
    /// The trust domain, such as `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The path with its leading `/`; empty when the id names the trust domain itself.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for SpiffeUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

impl FromStr for SpiffeUri {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let fail = |reason| Err(SpiffeError::new(text, reason));
        if text.len() > MAX_ID_BYTES {
            return fail("is longer than 2048 bytes");
        }
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return fail("does not begin with `spiffe://`");
        };
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if let Some(reason) = trust_domain_flaw(trust_domain) {
            return fail(reason);
        }
        if let Some(segments) = path.strip_prefix('/')
            && let Some(reason) = segments.split('/').find_map(segment_flaw)
        {
            return fail(reason);
        }
        Ok(Self { trust_domain: trust_domain.to_owned(), path: path.to_owned() })
    }
}

/// The identity of a workload of this mesh: a service account in a namespace of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

impl SpiffeId {
    /// An id of the three parts, each checked.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, SpiffeError> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The trust domain, such as `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let uri: SpiffeUri = text.parse()?;
        let mut parts = uri.path.split('/');
        match [(); 6].map(|()| parts.next()) {
            [Some(""), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None] => Ok(Self {
                namespace: namespace.to_owned(),
                service_account: service_account.to_owned(),
                trust_domain: uri.trust_domain,
            }),
            _ => Err(SpiffeError::new(
                text,
                "is not of the form `spiffe://<trust domain>/ns/<namespace>/sa/<account>`",
            )),
        }
    }
}

/// What is wrong with a trust domain, if anything.
fn trust_domain_flaw(name: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if name.is_empty() {
        Some("has no trust domain")
    } else if name.len() > MAX_TRUST_DOMAIN_BYTES {
        Some("has a trust domain longer than 255 bytes")
    } else if !name.bytes().all(allowed) {
        Some("has a trust domain with characters other than a-z, 0-9, `.`, `-` and `_`")
    } else {
        None
    }
}

/// What is wrong with one segment of a path, if anything.
fn segment_flaw(segment: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    match segment {
        "" => Some("has an empty path segment"),
        "." | ".." => Some("has a relative path segment"),
        _ if !segment.bytes().all(allowed) => {
            Some("has a path with characters other than letters, digits, `.`, `-` and `_`")
        }
        _ => None,
    }
}

/// A text that is not the SPIFFE id it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeError {
    text: String,
    reason: &'static str,
}

impl SpiffeError {
    fn new(text: &str, reason: &'static str) -> Self {
        // An id comes from a peer: what is repeated in a log line is bounded.
        Self { text: text.chars().take(200).collect(), reason }
    }
}

impl fmt::Display for SpiffeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SPIFFE id `{}` {}", self.text.escape_debug(), self.reason)
    }
}

impl std::error::Error for SpiffeError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_workload_id_survives_printing_and_parsing() {
        let id = SpiffeId::new("cluster.local", "shop", "Reviews_v1").unwrap();
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/Reviews_v1");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn parts_cannot_smuggle_separators() {
        for (td, ns, sa) in
            [("a/b", "n", "s"), ("a", "n/sa/x", "s"), ("a", "", "s"), ("a", "n", "s?x"), ("A", "n", "s")]
        {
            assert!(SpiffeId::new(td, ns, sa).is_err(), "{td} {ns} {sa}");
        }
    }

    #[test]
    fn only_the_strict_form_names_a_workload() {
        for text in [
            "spiffe://td",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/sa/a/ns/b",
            "spiffe://td//ns/a/sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a%2f/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "spiffe://td:80/ns/a/sa/b",
            "https://td/ns/a/sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_foreign_id_may_have_any_valid_path() {
        let id: SpiffeUri = "spiffe://other.org/billing/api".parse().unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("other.org", "/billing/api"));
        assert!("spiffe://other.org/billing/".parse::<SpiffeUri>().is_err(), "no trailing slash");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_printing_gives_back_what_was_parsed(text in "(spiffe://)?[ -~é]{0,60}") {
            if let Ok(id) = text.parse::<SpiffeUri>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
