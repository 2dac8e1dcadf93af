//! Filters, mapped answers and edits in order, at random, for the round trip.

use super::strategies::{
    Of, duration, edits, fraction, header_match, header_name, json, name, setting, string_match, template,
};
use model::affinity::AffinityCookie;
use model::csrf::Csrf;
use model::filter::{Note, Placed, Setting};
use model::header::EditAction;
use model::health_answer::HealthAnswer;
use model::listener::LogFormat;
use model::local_reply::{BodyFormat, LocalReplies, ReplyMapper};
use model::log_filter::{Comparison, LogFilter, Relation};
use model::mutation::{HeaderMutations, Mutation, Mutations, QueryMutation};
use model::on_demand::OnDemand;
use model::session::{Session, SessionCarrier};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) fn placed<T: std::fmt::Debug + Clone + 'static>(config: Of<T>) -> Of<Placed<T>> {
    (config, any::<bool>()).prop_map(|(config, disabled)| Placed { config, disabled }).boxed()
}

pub(super) fn mutation() -> Of<Mutation> {
    prop_oneof![
        header_name().prop_map(Mutation::Remove),
        string_match().prop_map(Mutation::RemoveMatching),
        edits().prop_filter_map("an edit", |edits| edits.add.first().cloned()).prop_map(Mutation::Set),
    ]
    .boxed()
}

pub(super) fn mutations() -> Of<Mutations> {
    let action = select(vec![
        EditAction::AppendOrAdd,
        EditAction::AddIfAbsent,
        EditAction::OverwriteOrAdd,
        EditAction::OverwriteIfExists,
    ]);
    let set = (name(), template(), action).prop_map(|(name, value, action)| QueryMutation::Set {
        name,
        value,
        action,
    });
    let query = prop_oneof![name().prop_map(QueryMutation::Remove), set];
    (vec(mutation(), 0..2), vec(query, 0..2), vec(mutation(), 0..2))
        .prop_map(|(request, query, response)| Mutations { request, query, response })
        .boxed()
}

pub(super) fn header_mutations() -> Of<HeaderMutations> {
    (mutations(), any::<bool>())
        .prop_map(|(own, most_specific_wins)| HeaderMutations { own, most_specific_wins })
        .boxed()
}

pub(super) fn on_demand() -> Of<OnDemand> {
    option::of(duration()).prop_map(|clusters| OnDemand { clusters }).boxed()
}

pub(super) fn csrf() -> Of<Csrf> {
    (fraction(), vec(string_match(), 0..2)).prop_map(|(share, origins)| Csrf { share, origins }).boxed()
}

pub(super) fn session() -> Of<Session> {
    let cookie = (name(), option::of(duration()), name(), vec((name(), name()), 0..2)).prop_map(
        |(name, ttl, path, attributes)| {
            SessionCarrier::Cookie(AffinityCookie { name, ttl, path, attributes })
        },
    );
    let carrier = prop_oneof![cookie, header_name().prop_map(SessionCarrier::Header)];
    (carrier, any::<bool>(), 200u16..600)
        .prop_map(|(carrier, strict, refusal_status)| Session { carrier, strict, refusal_status })
        .boxed()
}

pub(super) fn health() -> Of<HealthAnswer> {
    let clusters = proptest::collection::btree_map(name(), (0u8..=100).prop_map(f64::from), 0..3);
    (vec(header_match(), 0..2), clusters)
        .prop_map(|(headers, clusters)| HealthAnswer { headers, clusters: clusters.into_iter().collect() })
        .boxed()
}

pub(super) fn note() -> Of<Note> {
    let fields = proptest::collection::btree_map(name(), json(), 0..3);
    (name(), fields, any::<bool>())
        .prop_map(|(namespace, fields, joins)| Note {
            namespace,
            fields: fields.into_iter().collect(),
            joins,
        })
        .boxed()
}

pub(super) fn buffer_setting() -> Of<Setting<u32>> {
    setting((1u32..9).boxed())
}

pub(super) fn log_filter() -> Of<LogFilter> {
    let relation = select(vec![Relation::Equal, Relation::NotEqual, Relation::AtLeast, Relation::AtMost]);
    let comparison = (relation, any::<u32>()).prop_map(|(relation, value)| Comparison { relation, value });
    let flags = vec(select(vec!["UF".to_owned(), "NR".to_owned()]), 0..2);
    let leaf = prop_oneof![
        comparison.clone().prop_map(LogFilter::Status),
        comparison.prop_map(LogFilter::Duration),
        Just(LogFilter::NotHealthCheck),
        fraction().prop_map(LogFilter::Share),
        header_match().prop_map(LogFilter::Header),
        flags.prop_map(LogFilter::Flags),
        (vec(0u32..17, 0..3), any::<bool>())
            .prop_map(|(statuses, exclude)| LogFilter::Grpc { statuses, exclude }),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(LogFilter::All),
            vec(inner, 2..4).prop_map(LogFilter::Any)
        ]
    })
    .boxed()
}

pub(super) fn log_format() -> Of<LogFormat> {
    let json = proptest::collection::btree_map(name(), template(), 1..4)
        .prop_map(|fields| LogFormat::Json(fields.into_iter().collect()));
    prop_oneof![template().prop_map(LogFormat::Text), json].boxed()
}

pub(super) fn local_replies() -> Of<LocalReplies> {
    let format = || {
        (log_format(), name(), any::<bool>()).prop_map(|(format, content_type, omit_empty)| BodyFormat {
            format,
            content_type,
            omit_empty,
        })
    };
    let body = option::of(vec(any::<u8>(), 0..4));
    let mapper = (log_filter(), option::of(200u16..600), body, option::of(format()), edits()).prop_map(
        |(filter, status, body, format, edits)| ReplyMapper {
            filter,
            status,
            body,
            format,
            headers: edits.add,
        },
    );
    (vec(mapper, 0..3), option::of(format()))
        .prop_map(|(mappers, format)| LocalReplies { mappers, format })
        .boxed()
}
