//! Edits in the order in which they are written, removals by pattern among them, and edits to the query (`envoy.config.
//! common.mutation_rules.v3`, `envoy.filters.http.header_mutation`). Routes' own edits are `header`'s.

use crate::format::Template;
use crate::header::{EditAction, HeaderEdit};
use crate::matcher::StringMatch;
use http::HeaderName;
use std::collections::BTreeMap;

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
/// the edit out. As in Envoy, parameters are then in the order of their names, and values that are put in are
/// percent-encoded.
pub fn edit_query(
    target: &str,
    edits: &[QueryMutation],
    fill: impl Fn(&Template) -> Option<String>,
) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        all.entry(name).or_default().push(value.to_owned());
    }
    for edit in edits {
        match edit {
            QueryMutation::Remove(name) => drop(all.remove(name.as_str())),
            QueryMutation::Set { name, value, action } => {
                let Some(value) = fill(value).map(|value| encoded(&value)) else { continue };
                let is_there = all.contains_key(name.as_str());
                match action {
                    EditAction::AddIfAbsent if is_there => {}
                    EditAction::OverwriteIfExists if !is_there => {}
                    EditAction::AppendOrAdd | EditAction::AddIfAbsent => {
                        all.entry(name).or_default().push(value);
                    }
                    EditAction::OverwriteIfExists | EditAction::OverwriteOrAdd => {
                        all.insert(name, vec![value]);
                    }
                }
            }
        }
    }
    let pairs =
        all.iter().flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={value}")));
    let pairs: Vec<String> = pairs.collect();
    match pairs.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", pairs.join("&")),
    }
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
        assert_eq!(edit_query("/p?a=0&gone&d=1&a=9&e", &edits, fill), "/p?a=1%202&b=x&d=1&d=2&e=");
        assert_eq!(edit_query("/p?gone=1", &edits[..1], fill), "/p");
    }
}
