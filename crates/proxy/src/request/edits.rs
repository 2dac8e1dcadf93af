//! Edits to headers, as routes carry them, and what a request's pseudo headers become on the way out.

use super::Stage;
use super::head::Head;
use crate::record::{Exchange, RouteTaken};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use model::field::FieldName;
use model::format::Template;
use model::header::{EditAction, HeaderEdit, HeaderEdits, RequestHead};
use model::route::WeightedCluster;

/// The pseudo headers of a request that is sent on.
pub(super) struct Outbound {
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
}

impl Outbound {
    pub(super) fn new(head: &Head) -> Self {
        Self { authority: head.authority.to_string(), target: head.target.to_string() }
    }
}

/// What the edits of an answer depend on.
#[derive(Clone, Copy)]
pub(super) struct Edits<'e> {
    pub(super) taken: &'e RouteTaken,
    pub(super) weighted: Option<&'e WeightedCluster>,
    /// The request, for values that quote it.
    pub(super) parts: &'e Parts,
}

impl Stage<'_> {
    /// Applies every level's edits to a request: the most specific level first, so that the least specific has the last
    /// word, or the other way round where the table says so.
    pub(super) fn edit_request(
        &self,
        exchange: &Exchange,
        taken: &RouteTaken,
        cluster: Option<&WeightedCluster>,
        parts: &mut Parts,
        out: &mut Outbound,
    ) {
        let levels = levels(taken, cluster).map(|l| l.map(|l| l.0));
        for edits in levels.into_iter().flatten().filter(|e| !e.is_empty()) {
            for name in &edits.remove {
                parts.headers.remove(name);
            }
            for edit in &edits.add {
                let value = match edit.value.as_literal() {
                    Some(text) => HeaderValue::from_str(text).ok(),
                    None => {
                        let view = self.head.view(parts);
                        filled(&edit.value, exchange, &view, None)
                    }
                };
                apply(edit, value, &mut parts.headers, Some(out));
            }
        }
    }

    /// Applies every level's edits to an answer, an endpoint's or our own.
    pub(super) fn edit_answer(&self, exchange: &Exchange, on: &Edits<'_>, headers: &mut HeaderMap) {
        let levels = levels(on.taken, on.weighted).map(|l| l.map(|l| l.1));
        for edits in levels.into_iter().flatten().filter(|e| !e.is_empty()) {
            for name in &edits.remove {
                headers.remove(name);
            }
            for edit in &edits.add {
                let value = match edit.value.as_literal() {
                    Some(text) => HeaderValue::from_str(text).ok(),
                    None => filled(&edit.value, exchange, &self.head.view(on.parts), Some(headers)),
                };
                apply(edit, value, headers, None);
            }
        }
    }
}

/// Edits to the request and to the answer, level by level.
pub(super) fn levels<'t>(
    taken: &'t RouteTaken,
    cluster: Option<&'t WeightedCluster>,
) -> [Option<(&'t HeaderEdits, &'t HeaderEdits)>; 4] {
    let table = taken.table.config();
    let mut levels = [
        cluster.map(|c| (&c.request_headers, &c.response_headers)),
        taken.route().map(|r| (&r.request_headers, &r.response_headers)),
        taken.virtual_host().map(|v| (&v.request_headers, &v.response_headers)),
        Some((&table.request_headers, &table.response_headers)),
    ];
    if table.most_specific_first {
        levels.reverse();
    }
    levels
}

/// A template filled in; `None` where this is no value of a header.
pub(super) fn filled(
    template: &Template,
    exchange: &Exchange,
    request: &RequestHead<'_>,
    response: Option<&HeaderMap>,
) -> Option<HeaderValue> {
    let mut out = Vec::new();
    template.write(&exchange.facts(request, response), "", &mut out);
    HeaderValue::from_bytes(&out).ok()
}

/// Puts a value into fields alone.
pub(super) fn apply_fields(edit: &HeaderEdit, value: Option<&[u8]>, headers: &mut HeaderMap) {
    apply(edit, value.and_then(|value| HeaderValue::from_bytes(value).ok()), headers, None);
}

/// Puts a value in.
pub(super) fn apply(
    edit: &HeaderEdit,
    value: Option<HeaderValue>,
    headers: &mut HeaderMap,
    out: Option<&mut Outbound>,
) {
    let Some(value) = value.filter(|v| edit.keep_empty || !v.is_empty()) else { return };
    let name = match (&edit.name, out) {
        (FieldName::Field(name), _) => name,
        (FieldName::Authority, Some(out)) => return set(&mut out.authority, edit.action, &value),
        (FieldName::Path, Some(out)) => return set(&mut out.target, edit.action, &value),
        // Nothing else may be set that is not a field.
        _ => return,
    };
    match edit.action {
        EditAction::AppendOrAdd => {
            headers.append(name, value);
        }
        EditAction::AddIfAbsent if headers.contains_key(name) => {}
        EditAction::OverwriteIfExists if !headers.contains_key(name) => {}
        EditAction::AddIfAbsent | EditAction::OverwriteIfExists | EditAction::OverwriteOrAdd => {
            headers.insert(name, value);
        }
    }
}

/// Pseudo headers are always there and there once.
fn set(pseudo: &mut String, action: EditAction, value: &HeaderValue) {
    if let (Ok(value), true) = (value.to_str(), action != EditAction::AddIfAbsent) {
        value.clone_into(pseudo);
    }
}
