//! Conditions on headers, and edits to them.

use super::place::{Decoded, Place, fields};
use super::text;
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::Int64Range;
use http::HeaderName;
use model::field::FieldName;
use model::format::Template;
use model::header::{EditAction, HeaderEdit, HeaderEdits, HeaderMatch, HeaderTest};
use model::matcher::{StringMatch, StringMatchKind};
use proto::header_matcher::HeaderMatchSpecifier as Specifier;

/// The names of the two fields that hold edits to requests.
pub(crate) const REQUEST: [&str; 2] = ["request_headers_to_add", "request_headers_to_remove"];
/// The names of the two fields that hold edits to answers.
pub(crate) const RESPONSE: [&str; 2] = ["response_headers_to_add", "response_headers_to_remove"];

pub(crate) fn decode_name(place: &Place<'_>, name: &str) -> Decoded<FieldName> {
    FieldName::parse(name).ok_or_else(|| place.error(format_args!("`{name}` is no header name")))
}

/// A name that is not a pseudo header.
pub(crate) fn decode_plain_name(place: &Place<'_>, name: &str) -> Decoded<HeaderName> {
    match decode_name(place, name)? {
        FieldName::Field(name) => Ok(name),
        _ => Err(place.unsupported(format_args!("header `{name}`"))),
    }
}

pub(crate) fn decode_match(place: &Place<'_>, matcher: &proto::HeaderMatcher) -> Decoded<HeaderMatch> {
    fields!(place, matcher => proto::HeaderMatcher {
        honoured: name, invert_match, treat_missing_header_as_empty, header_match_specifier;
        ignored: ;
        refused: ;
    });
    let value = |kind| HeaderTest::Value(StringMatch { kind, ignore_case: false });
    let test = match header_match_specifier {
        None => HeaderTest::Present(true),
        Some(Specifier::PresentMatch(wanted)) => HeaderTest::Present(*wanted),
        Some(Specifier::ExactMatch(s)) => value(StringMatchKind::Exact(s.clone())),
        Some(Specifier::PrefixMatch(s)) => value(StringMatchKind::Prefix(s.clone())),
        Some(Specifier::SuffixMatch(s)) => value(StringMatchKind::Suffix(s.clone())),
        Some(Specifier::ContainsMatch(s)) => value(StringMatchKind::Contains(s.clone())),
        Some(Specifier::SafeRegexMatch(r)) => {
            value(StringMatchKind::Regex(text::decode_pattern(&place.field("safe_regex_match"), r)?))
        }
        Some(Specifier::RangeMatch(r)) => HeaderTest::Range { start: r.start, end: r.end },
        Some(Specifier::StringMatch(m)) => {
            HeaderTest::Value(text::decode_string_match(&place.field("string_match"), m)?)
        }
    };
    Ok(HeaderMatch {
        name: decode_name(&place.field("name"), name)?,
        test,
        invert: *invert_match,
        missing_as_empty: *treat_missing_header_as_empty,
    })
}

pub(crate) fn encode_match(matcher: &HeaderMatch) -> proto::HeaderMatcher {
    let specifier = match &matcher.test {
        HeaderTest::Present(wanted) => Specifier::PresentMatch(*wanted),
        HeaderTest::Value(m) => Specifier::StringMatch(text::encode_string_match(m)),
        HeaderTest::Range { start, end } => Specifier::RangeMatch(Int64Range { start: *start, end: *end }),
    };
    proto::HeaderMatcher {
        name: matcher.name.as_str().to_owned(),
        invert_match: matcher.invert,
        treat_missing_header_as_empty: matcher.missing_as_empty,
        header_match_specifier: Some(specifier),
    }
}

/// Edits from the two fields named `names`.
pub(crate) fn decode_edits(
    place: &Place<'_>,
    names: [&str; 2],
    add: &[core_proto::HeaderValueOption],
    remove: &[String],
) -> Decoded<HeaderEdits> {
    let [add_name, remove_name] = names;
    let add = add.iter().enumerate().map(|(i, option)| decode_edit(&place.item(add_name, i), option));
    let remove =
        remove.iter().enumerate().map(|(i, name)| decode_plain_name(&place.item(remove_name, i), name));
    Ok(HeaderEdits { remove: remove.collect::<Decoded<_>>()?, add: add.collect::<Decoded<_>>()? })
}

pub(crate) fn decode_edit(place: &Place<'_>, option: &core_proto::HeaderValueOption) -> Decoded<HeaderEdit> {
    use core_proto::header_value_option::HeaderAppendAction as Proto;
    fields!(place, option => core_proto::HeaderValueOption {
        honoured: header, append, append_action, keep_empty_value;
        ignored: ;
        refused: ;
    });
    let Some(core_proto::HeaderValue { key, value, raw_value }) = header else {
        return Err(place.error("a header is missing"));
    };
    let place = place.field("header");
    let value = match value.is_empty() {
        false => value.as_str(),
        true => std::str::from_utf8(raw_value)
            .map_err(|_| place.field("raw_value").unsupported("a value that is not UTF-8"))?,
    };
    let action = match (append, Proto::try_from(*append_action)) {
        (Some(append), _) if append.value => EditAction::AppendOrAdd,
        (Some(_), _) => EditAction::OverwriteOrAdd,
        (None, Ok(Proto::AppendIfExistsOrAdd)) => EditAction::AppendOrAdd,
        (None, Ok(Proto::AddIfAbsent)) => EditAction::AddIfAbsent,
        (None, Ok(Proto::OverwriteIfExistsOrAdd)) => EditAction::OverwriteOrAdd,
        (None, Ok(Proto::OverwriteIfExists)) => EditAction::OverwriteIfExists,
        (None, Err(_)) => return Err(place.unsupported(format_args!("append_action {append_action}"))),
    };
    Ok(HeaderEdit {
        name: decode_name(&place.field("key"), key)?,
        value: Template::parse(value).map_err(|e| place.field("value").error(e))?,
        action,
        keep_empty: *keep_empty_value,
    })
}

/// What goes into the two fields: additions, removals.
pub(crate) fn encode_edits(edits: &HeaderEdits) -> (Vec<core_proto::HeaderValueOption>, Vec<String>) {
    use core_proto::header_value_option::HeaderAppendAction as Proto;
    let add = edits.add.iter().map(|edit| core_proto::HeaderValueOption {
        header: Some(core_proto::HeaderValue {
            key: edit.name.as_str().to_owned(),
            value: edit.value.source().to_owned(),
            ..Default::default()
        }),
        append_action: match edit.action {
            EditAction::AppendOrAdd => Proto::AppendIfExistsOrAdd,
            EditAction::AddIfAbsent => Proto::AddIfAbsent,
            EditAction::OverwriteOrAdd => Proto::OverwriteIfExistsOrAdd,
            EditAction::OverwriteIfExists => Proto::OverwriteIfExists,
        } as i32,
        keep_empty_value: edit.keep_empty,
        ..Default::default()
    });
    (add.collect(), edits.remove.iter().map(|name| name.as_str().to_owned()).collect())
}
