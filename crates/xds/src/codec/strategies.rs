//! Models for property tests: anything that says one thing in one way.
#![allow(clippy::unwrap_used)]

use http::HeaderName;
use model::cors::Cors;
use model::fault::{Abort, AbortAnswer, Delay, DelayTime, Fault};
use model::field::FieldName;
use model::format::Template;
use model::header::{EditAction, HeaderEdit, HeaderEdits, HeaderMatch, HeaderTest};
use model::matcher::{StringMatch, StringMatchKind};
use model::metadata::{Metadata, Value};
use model::provenance::Provenance;
use model::route::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::time::Duration;

pub(super) type Of<T> = BoxedStrategy<T>;

pub(super) fn name() -> Of<String> {
    "[a-z][a-z0-9.|_-]{0,12}".boxed()
}

pub(super) fn text() -> Of<String> {
    "[ -~äß→]{0,12}".boxed()
}

pub(super) fn filled() -> Of<String> {
    "[!-~ä]{1,8}".boxed()
}

pub(super) fn path() -> Of<String> {
    "/[a-z0-9]{1,8}".boxed()
}

pub(super) fn duration() -> Of<Duration> {
    (0u64..100_000, 1u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n)).boxed()
}

pub(super) fn header_name() -> Of<HeaderName> {
    select(vec!["x-a", "x-request-id", "user-agent", "content-type", "end-user"])
        .prop_map(HeaderName::from_static)
        .boxed()
}

pub(super) fn field_name() -> Of<FieldName> {
    prop_oneof![
        Just(FieldName::Method),
        Just(FieldName::Scheme),
        Just(FieldName::Authority),
        Just(FieldName::Path),
        header_name().prop_map(FieldName::Field),
    ]
    .boxed()
}

pub(super) fn template() -> Of<Template> {
    select(vec!["", "v", "50%%", "%REQ(x-a?:path):3% then", "[%START_TIME(%Y)%]", "%METADATA(ROUTE:a:b)%"])
        .prop_map(|source| Template::parse(source).unwrap())
        .boxed()
}

pub(super) fn string_match() -> Of<StringMatch> {
    let kind = prop_oneof![
        text().prop_map(StringMatchKind::Exact),
        filled().prop_map(StringMatchKind::Prefix),
        filled().prop_map(StringMatchKind::Suffix),
        filled().prop_map(StringMatchKind::Contains),
        select(vec!["a+", "v[0-9]", "(x|y).*"]).prop_map(|r| StringMatch::regex(r).unwrap().kind),
    ];
    (kind, any::<bool>())
        .prop_map(|(kind, ignore_case)| StringMatch {
            // It has no effect on a regex, so it is not said of one.
            ignore_case: ignore_case && !matches!(kind, StringMatchKind::Regex(_)),
            kind,
        })
        .boxed()
}

pub(super) fn header_match() -> Of<HeaderMatch> {
    let test = prop_oneof![
        any::<bool>().prop_map(HeaderTest::Present),
        string_match().prop_map(HeaderTest::Value),
        any::<(i64, i64)>().prop_map(|(start, end)| HeaderTest::Range { start, end }),
    ];
    (field_name(), test, any::<(bool, bool)>())
        .prop_map(|(name, test, (invert, missing_as_empty))| HeaderMatch {
            name,
            test,
            invert,
            missing_as_empty,
        })
        .boxed()
}

pub(super) fn edits() -> Of<HeaderEdits> {
    let action = select(vec![
        EditAction::AppendOrAdd,
        EditAction::AddIfAbsent,
        EditAction::OverwriteOrAdd,
        EditAction::OverwriteIfExists,
    ]);
    // Envoy takes no pseudo headers here.
    let add = (header_name().prop_map(FieldName::Field), template(), action, any::<bool>())
        .prop_map(|(name, value, action, keep_empty)| HeaderEdit { name, value, action, keep_empty });
    (vec(header_name(), 0..2), vec(add, 0..2)).prop_map(|(remove, add)| HeaderEdits { remove, add }).boxed()
}

pub(super) fn json() -> Of<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|n| Value::Number(n.into())),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            btree_map(name(), inner, 0..3).prop_map(|all| Value::Struct(all.into_iter().collect())),
        ]
    })
    .boxed()
}

pub(super) fn metadata() -> Of<Metadata> {
    let fields = btree_map(name(), json(), 0..4).prop_map(|all| all.into_iter().collect());
    btree_map(name(), fields, 0..4)
        .prop_map(|all| Metadata(std::sync::Arc::new(all.into_iter().collect())))
        .boxed()
}

pub(super) fn provenance() -> Of<Option<Provenance>> {
    option::of((text(), text(), any::<u32>()).prop_map(|(resource, file, line)| Provenance {
        resource: resource.into(),
        file: file.into(),
        line,
    }))
    .boxed()
}

pub(super) fn upgrade() -> Of<Upgrade> {
    (select(vec!["websocket", "CONNECT", "h2c"]), any::<(bool, bool)>())
        .prop_map(|(protocol, (enabled, terminate_connect))| Upgrade {
            protocol: protocol.to_owned(),
            enabled,
            terminate_connect: terminate_connect && protocol == "CONNECT",
        })
        .boxed()
}

pub(super) fn fraction() -> Of<Fraction> {
    (any::<u32>(), select(vec![100, 10_000, 1_000_000]))
        .prop_map(|(numerator, denominator)| Fraction { numerator, denominator })
        .boxed()
}

pub(super) fn cors() -> Of<Cors> {
    (vec(string_match(), 0..3), (text(), text(), text(), text()), any::<(bool, bool, bool)>(), fraction())
        .prop_map(|(origins, texts, flags, share)| Cors {
            share,
            origins,
            methods: texts.0,
            headers: texts.1,
            expose: texts.2,
            max_age: texts.3,
            credentials: flags.0,
            private_network: flags.1,
            forward_unmatched: flags.2,
        })
        .boxed()
}

pub(super) fn fault() -> Of<Fault> {
    let time = prop_oneof![duration().prop_map(DelayTime::Fixed), Just(DelayTime::Header)];
    let delay = (time, fraction()).prop_map(|(time, share)| Delay { time, share });
    let answer = prop_oneof![
        (200u16..600).prop_map(AbortAnswer::Http),
        any::<u32>().prop_map(AbortAnswer::Grpc),
        Just(AbortAnswer::Header),
    ];
    let abort = (answer, fraction(), text()).prop_map(|(answer, share, body)| Abort { answer, share, body });
    let cluster = prop_oneof![Just(String::new()), name()];
    let headers = vec(header_match(), 0..2);
    (option::of(delay), option::of(abort), headers, cluster, option::of(any::<u32>()), vec(name(), 0..2))
        .prop_map(|(delay, abort, headers, upstream_cluster, max_active, downstream_nodes)| Fault {
            delay,
            abort,
            headers,
            upstream_cluster,
            max_active,
            downstream_nodes,
        })
        .boxed()
}

pub(super) fn setting<T: std::fmt::Debug + Clone + 'static>(config: Of<T>) -> Of<Setting<T>> {
    prop_oneof![Just(Setting::Disabled), config.prop_map(Setting::Use)].boxed()
}

pub(super) fn described() -> Of<(Metadata, Option<Provenance>)> {
    (metadata(), provenance()).boxed()
}
