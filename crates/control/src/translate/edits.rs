//! Changes of headers, as rules and their destinations write them.

use super::place::Place;
use api::networking::{HeaderOperations, Headers};
use model::field::FieldName;
use model::format::Template;
use model::header::{EditAction, HeaderEdit, HeaderEdits};

/// Edits to requests, and the authority where they set it.
pub(super) fn request_edits(
    headers: Option<&Headers>,
    field: &str,
    place: &mut Place<'_>,
) -> (HeaderEdits, Option<String>) {
    let Some(operations) = headers.and_then(|h| h.request.as_ref()) else { return Default::default() };
    let is_host = |name: &&String| FieldName::parse(name) == Some(FieldName::Authority);
    let host = operations.set.iter().find(|(name, _)| is_host(name)).map(|(_, value)| value.clone());
    let mut rest = operations.clone();
    rest.set.retain(|name, _| !is_host(&name));
    (edits(&rest, &format!("{field}.request"), place), host)
}

/// Edits to answers.
pub(super) fn response_edits(headers: Option<&Headers>, field: &str, place: &mut Place<'_>) -> HeaderEdits {
    let operations = headers.and_then(|h| h.response.as_ref());
    operations.map(|o| edits(o, &format!("{field}.response"), place)).unwrap_or_default()
}

fn edits(operations: &HeaderOperations, field: &str, place: &mut Place<'_>) -> HeaderEdits {
    let set = operations.set.iter().map(|pair| (pair, "set", EditAction::OverwriteOrAdd));
    let add = operations.add.iter().map(|pair| (pair, "add", EditAction::AppendOrAdd));
    let mut all = HeaderEdits::default();
    for ((name, value), operation, action) in add.chain(set) {
        let Some(header) = FieldName::parse(name) else {
            let message = format!("`{name}` is not the name of a header; it is left out");
            place.tell(&format!("{field}.{operation}"), message, "write a header's name");
            continue;
        };
        if !matches!(header, FieldName::Field(_)) {
            untouchable(name, &format!("{field}.{operation}"), place);
            continue;
        }
        let value = Template::parse(value).unwrap_or_else(|error| {
            let message = format!("{error}; the value is used as it is written");
            place.tell(&format!("{field}.{operation}"), message, "write `%%` for a percent sign");
            Template::literal(value)
        });
        all.add.push(HeaderEdit { name: header, value, action, keep_empty: false });
    }
    for (index, name) in operations.remove.iter().enumerate() {
        match FieldName::parse(name) {
            Some(FieldName::Field(name)) => all.remove.push(name),
            _ => untouchable(name, &format!("{field}.remove[{index}]"), place),
        }
    }
    all
}

/// What a request is routed by, no edit may change.
fn untouchable(name: &str, field: &str, place: &mut Place<'_>) {
    let message = format!("`{name}` cannot be changed here; it is left as it is");
    let help = "`rewrite` changes path and authority, `request.set` of `host` the authority";
    place.tell(field, message, help);
}
