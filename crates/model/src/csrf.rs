//! Requests that another site's page makes a browser send (`envoy.filters.http.csrf`). Refusing them is the proxy's.

use crate::fraction::Fraction;
use crate::matcher::StringMatch;
use http::{HeaderMap, Method};

/// Which requests that change something may come from where.
#[derive(Debug, Clone, PartialEq)]
pub struct Csrf {
    /// Share of requests that are looked at.
    pub share: Fraction,
    /// Hosts beside the one that is asked.
    pub origins: Vec<StringMatch>,
}

impl Csrf {
    /// Whether a request to `authority` comes from the site it goes to, or one that may ask.
    pub fn allows(&self, method: &Method, authority: &str, headers: &HeaderMap) -> bool {
        if !matches!(*method, Method::POST | Method::PUT | Method::DELETE | Method::PATCH) {
            return true;
        }
        let told = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(host_and_port);
        let source = told("origin").filter(|s| !s.is_empty()).or_else(|| told("referer"));
        let Some(source) = source.filter(|source| !source.is_empty()) else { return false };
        source == authority || self.origins.iter().any(|allowed| allowed.matches(source.as_bytes()))
    }
}

/// Host and port of a URL; what is none is left as it is, but for the `null` of a page without an origin.
fn host_and_port(url: &str) -> &str {
    match url.split_once("://") {
        None if url == "null" => "",
        None => url,
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_pages_of_the_site_itself_may_change_something() {
        let csrf = Csrf { share: Fraction::ALL, origins: vec![StringMatch::exact("b.test")] };
        let allows = |method, name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            csrf.allows(&method, "a.test", &headers)
        };
        assert!(allows(Method::POST, "origin", "https://a.test"));
        assert!(allows(Method::POST, "referer", "https://a.test/page?x"));
        assert!(allows(Method::PUT, "origin", "https://b.test"));
        assert!(!allows(Method::POST, "origin", "https://c.test"));
        assert!(!allows(Method::POST, "origin", "null"));
        assert!(!allows(Method::DELETE, "x-other", "a.test"), "no origin is no leave");
        assert!(allows(Method::GET, "origin", "https://c.test"));
    }
}
