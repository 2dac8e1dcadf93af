//! Header matches and header edits, as routes carry them.
//! Which request they are asked about is a [`RequestHead`]; what `%…%` in a value means is `format`'s.

use crate::field::FieldName;
use crate::format::Template;
use crate::matcher::StringMatch;
use http::{HeaderMap, HeaderName, Method};
use std::borrow::Cow;

/// What can be asked of a request's head. Pseudo headers are kept apart from fields, in canonical form.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
    /// Host and optional port as received.
    pub authority: &'a str,
    /// The canonical path without the query.
    pub path: &'a str,
    /// The query without its `?`.
    pub query: Option<&'a str>,
    /// The fields.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// The value of a pseudo header (`:path` with its query) or the joined values of a field; `None` when absent.
    ///
    /// Several fields of one name are shown as one, joined by `,` (RFC 9110, 5.3).
    pub fn value(&self, name: &FieldName) -> Option<Cow<'a, [u8]>> {
        match name {
            FieldName::Method => Some(self.method.as_str().as_bytes().into()),
            FieldName::Scheme => Some(self.scheme.as_bytes().into()),
            FieldName::Authority => Some(self.authority.as_bytes().into()),
            FieldName::Path => Some(match self.query {
                None => self.path.as_bytes().into(),
                Some(q) => [self.path.as_bytes(), b"?", q.as_bytes()].concat().into(),
            }),
            FieldName::Field(name) => joined(self.headers, name),
        }
    }
}

/// The values of `name` in `headers`, joined by `,`; borrowed when there is only one.
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return Some(first.into());
    }
    let mut all = first.to_vec();
    for value in rest {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(all.into())
}

/// A condition on one header (`envoy.config.route.v3.HeaderMatcher`).
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// The header looked at.
    pub name: FieldName,
    /// What is asked of it.
    pub test: HeaderTest,
    /// The answer is turned round. An absent header satisfies no value test, inverted or not, unless
    /// `missing_as_empty` is set: this is Envoy's behaviour.
    pub invert: bool,
    /// An absent header is looked at as if it were empty.
    pub missing_as_empty: bool,
}

/// The test a [`HeaderMatch`] makes.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderTest {
    /// It is there (`true`) or absent (`false`).
    Present(bool),
    /// Its value looks like this.
    Value(StringMatch),
    /// Its value is a whole number in `start..end`.
    Range {
        /// First number that matches.
        start: i64,
        /// First number past it that does not.
        end: i64,
    },
}

impl HeaderMatch {
    /// Whether `head` satisfies the condition. Fields of one name are looked at one by one, and one that passes is
    /// enough, or, inverted, one too many: Envoy's behaviour since 1.39. So nobody hides a value behind another.
    pub fn matches(&self, head: &RequestHead<'_>) -> bool {
        let FieldName::Field(name) = &self.name else {
            return self.matches_value(head.value(&self.name).as_deref());
        };
        let mut values = head.headers.get_all(name).iter().peekable();
        if values.peek().is_none() {
            return self.matches_value(None);
        }
        values.any(|value| self.passes(value.as_bytes())) != self.invert
    }

    /// Whether a header with this one value, or an absent one, satisfies the condition.
    pub fn matches_value(&self, value: Option<&[u8]>) -> bool {
        match (&self.test, value) {
            (_, Some(value)) => self.passes(value) != self.invert,
            (_, None) if self.missing_as_empty => self.passes(b"") != self.invert,
            (HeaderTest::Present(wanted), None) => *wanted == self.invert,
            (_, None) => false,
        }
    }

    fn passes(&self, value: &[u8]) -> bool {
        match &self.test {
            HeaderTest::Present(wanted) => *wanted,
            HeaderTest::Value(wanted) => wanted.matches(value),
            HeaderTest::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| number >= *start && number < *end),
        }
    }
}

/// Edits to a message's headers, applied in order: removals first, then additions, as Envoy does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderEdits {
    /// Names to drop.
    pub remove: Vec<HeaderName>,
    /// Values to set or add.
    pub add: Vec<HeaderEdit>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

/// One value to put into a header (`HeaderValueOption`).
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderEdit {
    /// The header; `:authority` and `:path` may be set on requests.
    pub name: FieldName,
    /// Its value, with `%…%` filled in per request.
    pub value: Template,
    /// What happens to a value that is there already.
    pub action: EditAction,
    /// An empty value is put in, too, instead of being left out.
    pub keep_empty: bool,
}

/// How names of headers are written over HTTP/1 (`header_key_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderCase {
    /// In lower case.
    #[default]
    Lower,
    /// Each word with a capital (`proper_case_words`).
    Proper,
    /// As they came (`preserve_case`); what is added here in lower case.
    Preserve,
}

/// `HeaderValueOption.HeaderAppendAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditAction {
    /// Add beside what is there, or set when absent.
    AppendOrAdd,
    /// Only when absent.
    AddIfAbsent,
    /// Replace what is there, or set when absent.
    OverwriteOrAdd,
    /// Replace, only when there.
    OverwriteIfExists,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matcher(test: HeaderTest, invert: bool) -> HeaderMatch {
        HeaderMatch { name: FieldName::parse("x-a").unwrap(), test, invert, missing_as_empty: false }
    }

    #[test]
    fn an_absent_header_satisfies_no_value_test_not_even_an_inverted_one() {
        let exact = HeaderTest::Value(StringMatch::exact("v"));
        assert!(!matcher(exact.clone(), false).matches_value(None));
        assert!(!matcher(exact.clone(), true).matches_value(None));
        assert!(matcher(exact.clone(), false).matches_value(Some(b"v")));
        let as_empty = HeaderMatch { missing_as_empty: true, ..matcher(exact, true) };
        assert!(as_empty.matches_value(None));
        assert!(matcher(HeaderTest::Present(true), true).matches_value(None));
    }

    #[test]
    fn a_range_takes_whole_numbers_only() {
        let range = matcher(HeaderTest::Range { start: -1, end: 10 }, false);
        assert!(range.matches_value(Some(b"9")) && range.matches_value(Some(b"-1")));
        assert!(!range.matches_value(Some(b"10")) && !range.matches_value(Some(b"1.5")));
    }

    #[test]
    fn fields_of_one_name_are_tested_one_by_one() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "one".parse().unwrap());
        headers.append("x-a", "two".parse().unwrap());
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            query: None,
            headers: &headers,
        };
        let exact = |text: &str, invert| matcher(HeaderTest::Value(StringMatch::exact(text)), invert);
        assert!(exact("one", false).matches(&head) && exact("two", false).matches(&head));
        assert!(!exact("one,two", false).matches(&head) && exact("one,two", true).matches(&head));
        assert!(!exact("one", true).matches(&head), "it must not be there at all");
    }

    #[test]
    fn several_fields_of_one_name_are_shown_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-a", "2".parse().unwrap());
        assert_eq!(joined(&headers, &HeaderName::from_static("x-a")).unwrap().as_ref(), b"1,2");
    }
}
