//! String matchers, regular expressions, and the changes made with them (`envoy.type.matcher.v3`).

use super::place::{Decoded, Place, fields};
use envoy_types::pb::envoy::r#type::matcher::v3 as proto;
use model::matcher::{Pattern, StringMatch, StringMatchKind};
use model::route::Substitution;
use proto::string_matcher::MatchPattern;

pub(crate) fn decode_string_match(place: &Place<'_>, matcher: &proto::StringMatcher) -> Decoded<StringMatch> {
    fields!(place, matcher => proto::StringMatcher {
        honoured: match_pattern, ignore_case;
        ignored: ;
        refused: ;
    });
    let kind = match match_pattern {
        Some(MatchPattern::Exact(s)) => StringMatchKind::Exact(s.clone()),
        Some(MatchPattern::Prefix(s)) => StringMatchKind::Prefix(s.clone()),
        Some(MatchPattern::Suffix(s)) => StringMatchKind::Suffix(s.clone()),
        Some(MatchPattern::Contains(s)) => StringMatchKind::Contains(s.clone()),
        Some(MatchPattern::SafeRegex(r)) => {
            StringMatchKind::Regex(decode_pattern(&place.field("safe_regex"), r)?)
        }
        Some(MatchPattern::Custom(c)) => {
            return Err(place.field("custom").unsupported(format_args!("matcher `{}`", c.name)));
        }
        None => return Err(place.error("nothing is said about what the string must look like")),
    };
    Ok(StringMatch { kind, ignore_case: *ignore_case })
}

/// What always holds is written as a regex, because Envoy refuses empty prefixes, suffixes and infixes.
pub(crate) fn encode_string_match(matcher: &StringMatch) -> proto::StringMatcher {
    let pattern = match &matcher.kind {
        StringMatchKind::Exact(s) => MatchPattern::Exact(s.clone()),
        StringMatchKind::Prefix(s) | StringMatchKind::Suffix(s) | StringMatchKind::Contains(s)
            if s.is_empty() =>
        {
            MatchPattern::SafeRegex(encode_regex("(?s).*"))
        }
        StringMatchKind::Prefix(s) => MatchPattern::Prefix(s.clone()),
        StringMatchKind::Suffix(s) => MatchPattern::Suffix(s.clone()),
        StringMatchKind::Contains(s) => MatchPattern::Contains(s.clone()),
        StringMatchKind::Regex(p) => MatchPattern::SafeRegex(encode_regex(p.source())),
    };
    // It has no effect on a regex, and Envoy refuses to be told so.
    let ignore_case = matcher.ignore_case && !matches!(pattern, MatchPattern::SafeRegex(_));
    proto::StringMatcher { ignore_case, match_pattern: Some(pattern) }
}

pub(crate) fn decode_pattern(place: &Place<'_>, regex: &proto::RegexMatcher) -> Decoded<Pattern> {
    Pattern::new(&regex.regex).map_err(|e| place.field("regex").error(e))
}

pub(crate) fn encode_regex(source: &str) -> proto::RegexMatcher {
    // Envoy refuses an empty pattern; this one means the same.
    let regex = if source.is_empty() { "()" } else { source };
    proto::RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}

pub(crate) fn decode_substitution(
    place: &Place<'_>,
    rewrite: &proto::RegexMatchAndSubstitute,
) -> Decoded<Substitution> {
    let pattern = rewrite.pattern.as_ref().map(|p| p.regex.as_str()).unwrap_or_default();
    if pattern.is_empty() {
        return Err(place.field("pattern").error("a pattern is missing"));
    }
    Substitution::new(pattern, &rewrite.substitution).map_err(|e| place.field("pattern.regex").error(e))
}

pub(crate) fn encode_substitution(rewrite: &Substitution) -> proto::RegexMatchAndSubstitute {
    proto::RegexMatchAndSubstitute {
        pattern: Some(encode_regex(&rewrite.pattern)),
        substitution: rewrite.replacement.clone(),
    }
}

/// The pattern with which a whole path is replaced.
const WHOLE: &str = "^.*$";

/// A rewrite that replaces the whole path by `text`.
pub(crate) fn encode_replacement(text: &str) -> proto::RegexMatchAndSubstitute {
    proto::RegexMatchAndSubstitute {
        pattern: Some(encode_regex(WHOLE)),
        substitution: text.replace('\\', "\\\\"),
    }
}

/// The text by which a rewrite replaces the whole path, if this is all it does.
pub(crate) fn replacement(rewrite: &Substitution) -> Option<String> {
    if rewrite.pattern != WHOLE {
        return None;
    }
    let mut text = String::new();
    let mut chars = rewrite.replacement.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next() == Some('\\') => text.push('\\'),
            '\\' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// `text` as a pattern that matches nothing else.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
