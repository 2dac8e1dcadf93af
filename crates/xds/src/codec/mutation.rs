//! Edits in the order in which they are written (`HeaderMutation`, `KeyValueMutation`), and the filter that has them.

use super::place::{Decoded, Place, fields};
use super::{headers, text, value};
use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as proto;
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation as Early;
use envoy_types::pb::google::protobuf::{Value, value::Kind};
use model::format::Template;
use model::header::{EditAction, HeaderEdit, HeaderEdits};
use model::mutation::{HeaderMutations, Mutation, Mutations, QueryMutation};
use rules::header_mutation::{Action, RemoveOnMatch};

pub(crate) const NAME: &str = "envoy.filters.http.header_mutation";
pub(crate) const TYPE: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
pub(crate) const ROUTE_TYPE: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
const EARLY: &str = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";

/// The field `name` of `place`.
pub(crate) fn decode_list(
    place: &Place<'_>,
    name: &str,
    mutations: &[rules::HeaderMutation],
) -> Decoded<Vec<Mutation>> {
    mutations.iter().enumerate().map(|(i, m)| decode_one(&place.item(name, i), m)).collect()
}

fn decode_one(place: &Place<'_>, mutation: &rules::HeaderMutation) -> Decoded<Mutation> {
    Ok(match &mutation.action {
        Some(Action::Remove(name)) => {
            Mutation::Remove(headers::decode_plain_name(&place.field("remove"), name)?)
        }
        Some(Action::RemoveOnMatch(matcher)) => {
            let place = place.field("remove_on_match.key_matcher");
            let matcher = matcher.key_matcher.as_ref();
            let matcher = matcher.ok_or_else(|| place.error("this field is required"))?;
            Mutation::RemoveMatching(text::decode_string_match(&place, matcher)?)
        }
        Some(Action::Append(option)) => Mutation::Set(headers::decode_edit(&place.field("append"), option)?),
        None => return Err(place.error("nothing is said about what is done")),
    })
}

pub(crate) fn encode_list(mutations: &[Mutation]) -> Vec<rules::HeaderMutation> {
    mutations.iter().map(|m| rules::HeaderMutation { action: encode_one(m) }).collect()
}

fn encode_one(mutation: &Mutation) -> Option<Action> {
    Some(match mutation {
        Mutation::Remove(name) => Action::Remove(name.as_str().to_owned()),
        Mutation::RemoveMatching(matcher) => {
            Action::RemoveOnMatch(RemoveOnMatch { key_matcher: Some(text::encode_string_match(matcher)) })
        }
        Mutation::Set(edit) => Action::Append(encode_edit(edit)?),
    })
}

fn encode_edit(edit: &HeaderEdit) -> Option<core_proto::HeaderValueOption> {
    let edits = HeaderEdits { remove: Vec::new(), add: vec![edit.clone()] };
    headers::encode_edits(&edits).0.pop()
}

fn decode_query(place: &Place<'_>, mutation: &core_proto::KeyValueMutation) -> Decoded<QueryMutation> {
    fields!(place, mutation => core_proto::KeyValueMutation { honoured: append, remove; ignored: ; refused: ; });
    let Some(append) = append else {
        return match remove.is_empty() {
            true => Err(place.error("nothing is said about what is done")),
            false => Ok(QueryMutation::Remove(remove.clone())),
        };
    };
    let place = place.field("append");
    use core_proto::key_value_append::KeyValueAppendAction as Proto;
    let action = match Proto::try_from(append.action) {
        Ok(Proto::AppendIfExistsOrAdd) => EditAction::AppendOrAdd,
        Ok(Proto::AddIfAbsent) => EditAction::AddIfAbsent,
        Ok(Proto::OverwriteIfExistsOrAdd) => EditAction::OverwriteOrAdd,
        Ok(Proto::OverwriteIfExists) => EditAction::OverwriteIfExists,
        Err(_) => return Err(place.unsupported(format_args!("action {}", append.action))),
    };
    let (name, written) = match (&append.record, &append.entry) {
        (Some(record), _) => match record.value.as_ref().and_then(|v| v.kind.as_ref()) {
            Some(Kind::StringValue(text)) => (record.key.clone(), text.clone()),
            _ => return Err(place.field("record.value").unsupported("a value that is not a string")),
        },
        (None, Some(entry)) => {
            let text = String::from_utf8(entry.value.clone());
            let text =
                text.map_err(|_| place.field("entry.value").unsupported("a value that is not UTF-8"))?;
            (entry.key.clone(), text)
        }
        (None, None) => return Err(place.error("a parameter is missing")),
    };
    let value = Template::parse(&written).map_err(|e| place.error(e))?;
    Ok(QueryMutation::Set { name, value, action })
}

fn encode_query(mutation: &QueryMutation) -> core_proto::KeyValueMutation {
    use core_proto::key_value_append::KeyValueAppendAction as Proto;
    match mutation {
        QueryMutation::Remove(name) => core_proto::KeyValueMutation { append: None, remove: name.clone() },
        QueryMutation::Set { name, value, action } => {
            let action = match action {
                EditAction::AppendOrAdd => Proto::AppendIfExistsOrAdd,
                EditAction::AddIfAbsent => Proto::AddIfAbsent,
                EditAction::OverwriteOrAdd => Proto::OverwriteIfExistsOrAdd,
                EditAction::OverwriteIfExists => Proto::OverwriteIfExists,
            } as i32;
            let kind = Some(Kind::StringValue(value.source().to_owned()));
            let record = core_proto::KeyValuePair { key: name.clone(), value: Some(Value { kind }) };
            let append = core_proto::KeyValueAppend { record: Some(record), action, ..Default::default() };
            core_proto::KeyValueMutation { append: Some(append), remove: String::new() }
        }
    }
}

pub(crate) fn decode_mutations(
    place: &Place<'_>,
    mutations: &Option<proto::Mutations>,
) -> Decoded<Mutations> {
    let place = place.field("mutations");
    let Some(mutations) = mutations else { return Ok(Mutations::default()) };
    fields!(place, mutations => proto::Mutations {
        honoured: request_mutations, query_parameter_mutations, response_mutations;
        ignored: ;
        refused: response_trailers_mutations, request_trailers_mutations;
    });
    let query = query_parameter_mutations.iter().enumerate();
    let query = query.map(|(i, m)| decode_query(&place.item("query_parameter_mutations", i), m));
    Ok(Mutations {
        request: decode_list(&place, "request_mutations", request_mutations)?,
        query: query.collect::<Decoded<_>>()?,
        response: decode_list(&place, "response_mutations", response_mutations)?,
    })
}

fn encode_mutations(mutations: &Mutations) -> Option<proto::Mutations> {
    Some(proto::Mutations {
        request_mutations: encode_list(&mutations.request),
        query_parameter_mutations: mutations.query.iter().map(encode_query).collect(),
        response_mutations: encode_list(&mutations.response),
        ..Default::default()
    })
}

pub(crate) fn decode_filter(place: &Place<'_>, filter: &proto::HeaderMutation) -> Decoded<HeaderMutations> {
    fields!(place, filter => proto::HeaderMutation {
        honoured: mutations, most_specific_header_mutations_wins;
        ignored: ;
        refused: ;
    });
    Ok(HeaderMutations {
        own: decode_mutations(place, mutations)?,
        most_specific_wins: *most_specific_header_mutations_wins,
    })
}

pub(crate) fn encode_filter(filter: &HeaderMutations) -> proto::HeaderMutation {
    proto::HeaderMutation {
        mutations: encode_mutations(&filter.own),
        most_specific_header_mutations_wins: filter.most_specific_wins,
    }
}

pub(crate) fn encode_per_route(mutations: &Mutations) -> proto::HeaderMutationPerRoute {
    proto::HeaderMutationPerRoute { mutations: encode_mutations(mutations) }
}

/// The field `early_header_mutation_extensions` of `place`; one after the other.
pub(crate) fn decode_early(
    place: &Place<'_>,
    extensions: &[core_proto::TypedExtensionConfig],
) -> Decoded<Vec<Mutation>> {
    let mut all = Vec::new();
    for (i, extension) in extensions.iter().enumerate() {
        let place = place.item("early_header_mutation_extensions", i);
        let any = extension.typed_config.as_ref();
        match any.filter(|any| value::type_name(any) == EARLY) {
            Some(any) => {
                let place = place.field("typed_config");
                let early: Early = value::unpack(&place, any)?;
                all.extend(decode_list(&place, "mutations", &early.mutations)?);
            }
            None => return Err(place.unsupported(format_args!("extension `{}`", extension.name))),
        }
    }
    Ok(all)
}

pub(crate) fn encode_early(mutations: &[Mutation]) -> Vec<core_proto::TypedExtensionConfig> {
    if mutations.is_empty() {
        return Vec::new();
    }
    let early = Early { mutations: encode_list(mutations) };
    vec![value::extension("envoy.http.early_header_mutation.header_mutation", value::pack(&early))]
}
