//! Cross-origin requests: which origins may ask, and what they are told (`envoy.filters.http.cors`; the Fetch standard,
//! "CORS protocol"). Putting it into headers is the proxy's.

use crate::fraction::Fraction;
use crate::matcher::StringMatch;

/// What pages of other origins may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// Share of requests it is applied to.
    pub share: Fraction,
    /// Origins that may ask.
    pub origins: Vec<StringMatch>,
    /// `access-control-allow-methods`; empty leaves it out, here and below.
    pub methods: String,
    /// `access-control-allow-headers`.
    pub headers: String,
    /// `access-control-expose-headers`.
    pub expose: String,
    /// `access-control-max-age`.
    pub max_age: String,
    /// Cookies and the like may be sent along.
    pub credentials: bool,
    /// Pages from public networks may ask ours.
    pub private_network: bool,
    /// A preflight from an origin that may not ask goes on to the endpoint, instead of being answered here with nothing.
    pub forward_unmatched: bool,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            share: Fraction::ALL,
            origins: Vec::new(),
            methods: String::new(),
            headers: String::new(),
            expose: String::new(),
            max_age: String::new(),
            credentials: false,
            private_network: false,
            forward_unmatched: true,
        }
    }
}

impl Cors {
    /// Whether pages of `origin` may ask. A pattern that takes a lone `*` takes all, as in Envoy.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| allowed.matches(b"*") || allowed.matches(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_by_any_pattern_and_a_star_allows_all() {
        let exact = Cors { origins: vec![StringMatch::exact("https://a.test")], ..Cors::default() };
        assert!(exact.allows(b"https://a.test") && !exact.allows(b"https://b.test"));
        let star = Cors { origins: vec![StringMatch::exact("*")], ..Cors::default() };
        assert!(star.allows(b"null"));
        assert!(!Cors::default().allows(b"https://a.test"));
    }
}
