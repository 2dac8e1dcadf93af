//! Edits in the order in which they are written, removals by pattern among them, and edits to the query (`envoy.config.
//! common.mutation_rules.v3`, `envoy.filters.http.header_mutation`). Routes' own edits are `header`'s.

use crate::format::Template;
use crate::header::{EditAction, HeaderEdit};
use crate::matcher::StringMatch;
use http::HeaderName;

/// One edit to a message's headers.
#[derive(Debug, Clone, PartialEq)]
pub enum Mutation {
    /// The header is dropped.
    Remove(HeaderName),
    /// Headers with such names are dropped.
    RemoveMatching(StringMatch),
    /// A value is put in.
    Set(HeaderEdit),
}

/// One edit to a request's query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryMutation {
    /// The parameter is dropped.
    Remove(String),
    /// A value is put in.
    Set {
        /// The parameter.
        name: String,
        /// Its value.
        value: Template,
        /// What happens to a value that is there already.
        action: EditAction,
    },
}

/// What the filter does with a request and its answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mutations {
    /// To the request's headers.
    pub request: Vec<Mutation>,
    /// To its query.
    pub query: Vec<QueryMutation>,
    /// To the answer's headers.
    pub response: Vec<Mutation>,
}

impl Mutations {
    /// Whether a request is left as it is.
    pub fn leaves_requests(&self) -> bool {
        self.request.is_empty() && self.query.is_empty()
    }
}

/// The filter `envoy.filters.http.header_mutation`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderMutations {
    /// What it does with every request, before what tables, hosts and routes say.
    pub own: Mutations,
    /// The most specific of those has the last word, instead of the least specific.
    pub most_specific_wins: bool,
}

/// Applies edits to the query of `target`, a path with or without one. `fill` makes text of a template; `None` leaves
/// the edit out. Values are percent-encoded where they have to be.
pub fn edit_query(
    target: &str,
    edits: &[QueryMutation],
    fill: impl Fn(&Template) -> Option<String>,
) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let query = query.unwrap_or_default();
    let mut pairs: Vec<(String, Option<String>)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (pair.to_owned(), None),
        })
        .collect();
    for edit in edits {
        match edit {
            QueryMutation::Remove(name) => pairs.retain(|(other, _)| other != name),
            QueryMutation::Set { name, value, action } => {
                let Some(value) = fill(value) else { continue };
                let is_there = pairs.iter().any(|(other, _)| other == name);
                let replaces = match action {
                    EditAction::AppendOrAdd => false,
                    EditAction::AddIfAbsent if is_there => continue,
                    EditAction::OverwriteIfExists if !is_there => continue,
                    EditAction::AddIfAbsent => false,
                    EditAction::OverwriteIfExists | EditAction::OverwriteOrAdd => true,
                };
                let value = Some(encoded(&value));
                match pairs.iter().position(|(other, _)| other == name).filter(|_| replaces) {
                    None => pairs.push((name.clone(), value)),
                    Some(at) => {
                        let mut seen = false;
                        pairs.retain(|(other, _)| other != name || !std::mem::replace(&mut seen, true));
                        if let Some(pair) = pairs.get_mut(at) {
                            pair.1 = value;
                        }
                    }
                }
            }
        }
    }
    let mut out = path.to_owned();
    for (at, (name, value)) in pairs.iter().enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(value);
        }
    }
    out
}

/// Percent-encodes what may not stand in a query's value (RFC 3986, 2.3).
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_are_dropped_replaced_and_added_in_order() {
        let set = |name: &str, value: &str, action| QueryMutation::Set {
            name: name.into(),
            value: Template::literal(value),
            action,
        };
        let edits = [
            QueryMutation::Remove("gone".into()),
            set("a", "1 2", EditAction::OverwriteOrAdd),
            set("b", "x", EditAction::AddIfAbsent),
            set("c", "x", EditAction::OverwriteIfExists),
            set("d", "2", EditAction::AppendOrAdd),
        ];
        let fill = |template: &Template| template.as_literal().map(str::to_owned);
        assert_eq!(edit_query("/p?a=0&gone&d=1&a=9&e", &edits, fill), "/p?a=1%202&d=1&e&b=x&d=2");
        assert_eq!(edit_query("/p?gone=1", &edits[..1], fill), "/p");
    }
}
