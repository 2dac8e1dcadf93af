//! String matching as Envoy's `type.matcher.v3.StringMatcher` defines it, compiled once.
//! It decides nothing about *which* string is looked at; headers and SANs do that themselves.

use std::fmt;

/// A byte regex that must match the whole input (RE2 semantics, `FullMatch`).
///
/// Equality is equality of the pattern, so that configuration can be compared.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    regex: regex::bytes::Regex,
}

/// A pattern that is not a regular expression, or one that would be too large to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    pattern: String,
    reason: String,
}

impl PatternError {
    /// `pattern` cannot be used because of `reason`; of a reason drawn over several lines the last is kept.
    pub fn new(pattern: &str, reason: &str) -> Self {
        Self { pattern: pattern.to_owned(), reason: last_line(reason) }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regular expression `{}`: {}", self.pattern, self.reason)
    }
}

impl std::error::Error for PatternError {}

/// Compiled size above which a pattern is refused, in bytes.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

impl Pattern {
    /// Compiles `source`; the result matches only whole inputs.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        // The bare source must be valid by itself: `a)|(b` would otherwise escape the anchors.
        let fail = |e: regex::Error| PatternError::new(source, &e.to_string());
        regex::bytes::Regex::new(source).map_err(fail)?;
        let regex = regex::bytes::RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(PATTERN_SIZE_LIMIT)
            .build()
            .map_err(fail)?;
        Ok(Self { source: source.to_owned(), regex })
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `input` matches.
    pub fn matches(&self, input: &[u8]) -> bool {
        self.regex.is_match(input)
    }
}

/// A regex error's message is a drawing over several lines; the last one says what is wrong.
fn last_line(message: &str) -> String {
    message.lines().last().unwrap_or(message).trim_start_matches("error: ").to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// What a string must look like (`envoy.type.matcher.v3.StringMatcher`).
#[derive(Debug, Clone, PartialEq)]
pub struct StringMatch {
    /// The kind of comparison and its operand.
    pub kind: StringMatchKind,
    /// ASCII case is ignored. Has no effect on [`StringMatchKind::Regex`], as in Envoy.
    pub ignore_case: bool,
}

/// The comparison a [`StringMatch`] makes.
#[derive(Debug, Clone, PartialEq)]
pub enum StringMatchKind {
    /// Equal to.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// Contains.
    Contains(String),
    /// Matches as a whole.
    Regex(Pattern),
}

impl StringMatch {
    /// A case-sensitive exact match.
    pub fn exact(value: impl Into<String>) -> Self {
        Self { kind: StringMatchKind::Exact(value.into()), ignore_case: false }
    }

    /// A case-sensitive prefix match.
    pub fn prefix(value: impl Into<String>) -> Self {
        Self { kind: StringMatchKind::Prefix(value.into()), ignore_case: false }
    }

    /// A full match of `pattern`.
    pub fn regex(pattern: &str) -> Result<Self, PatternError> {
        Ok(Self { kind: StringMatchKind::Regex(Pattern::new(pattern)?), ignore_case: false })
    }

    /// Whether `input` satisfies the match.
    pub fn matches(&self, input: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| match self.ignore_case {
            true => a.eq_ignore_ascii_case(b),
            false => a == b,
        };
        match &self.kind {
            StringMatchKind::Exact(s) => same(input, s.as_bytes()),
            StringMatchKind::Prefix(s) => input.get(..s.len()).is_some_and(|head| same(head, s.as_bytes())),
            StringMatchKind::Suffix(s) => input
                .len()
                .checked_sub(s.len())
                .and_then(|at| input.get(at..))
                .is_some_and(|tail| same(tail, s.as_bytes())),
            StringMatchKind::Contains(s) => {
                s.is_empty() || input.windows(s.len()).any(|w| same(w, s.as_bytes()))
            }
            StringMatchKind::Regex(p) => p.matches(input),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_regex_matches_the_whole_input_only() {
        let p = Pattern::new("a|ab").unwrap();
        assert!(p.matches(b"ab"));
        assert!(!p.matches(b"abc"));
        assert!(Pattern::new("a)|(b").is_err(), "the anchors cannot be escaped");
    }

    #[test]
    fn case_is_ignored_only_where_asked() {
        let mut m = StringMatch::prefix("/Foo");
        assert!(!m.matches(b"/foobar"));
        m.ignore_case = true;
        assert!(m.matches(b"/foobar"));
        assert!(!m.matches(b"/fo"));
    }

    #[test]
    fn suffix_and_contains_look_at_the_right_place() {
        let suffix = StringMatch { kind: StringMatchKind::Suffix("om".into()), ignore_case: false };
        assert!(suffix.matches(b"a.com") && !suffix.matches(b"m"));
        let inner = StringMatch { kind: StringMatchKind::Contains("b".into()), ignore_case: false };
        assert!(inner.matches(b"abc") && !inner.matches(b""));
    }
}
