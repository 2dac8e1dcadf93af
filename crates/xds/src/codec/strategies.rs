//! Models for property tests: anything that says one thing in one way.
#![allow(clippy::unwrap_used)]

use super::Resource;
use super::cluster_strategies::{assignment, cluster, secret};
use super::shaping_strategies as shaping;
use super::spread_strategies::{criteria, hash_policy, priority};
use http::HeaderName;
use model::cors::Cors;
use model::fault::{Abort, AbortAnswer, Delay, DelayTime, Fault};
use model::field::FieldName;
use model::format::Template;
use model::header::{EditAction, HeaderEdit, HeaderEdits, HeaderMatch, HeaderTest};
use model::matcher::{StringMatch, StringMatchKind};
use model::metadata::{Metadata, Value};
use model::provenance::Provenance;
use model::retry::{
    GRPC_RETRY_STATUSES, ResetBackOff, ResetFormat, RetryConditions, RetryExtras, RetryPolicy,
};
use model::route::*;
use model::uri_template::{UriRewrite, UriTemplate};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::time::Duration;

pub(super) type Of<T> = BoxedStrategy<T>;

pub(super) fn name() -> Of<String> {
    "[a-z][a-z0-9.|_-]{0,12}".boxed()
}

pub(super) fn text() -> Of<String> {
    "[ -~äß→]{0,12}".boxed()
}

fn filled() -> Of<String> {
    "[!-~ä]{1,8}".boxed()
}

fn path() -> Of<String> {
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

fn field_name() -> Of<FieldName> {
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

fn retry() -> Of<RetryPolicy> {
    let tokens = subsequence(
        vec!["5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream"],
        0..6,
    );
    let more = subsequence(
        vec!["retriable-4xx", "envoy-ratelimited", "http3-post-connect-failure", "ieum-idempotent-reset"],
        0..4,
    );
    let statuses = subsequence(GRPC_RETRY_STATUSES.map(|(_, status)| status).to_vec(), 0..5);
    let conditions = (
        (tokens, more, statuses),
        option::of(vec(100u16..600, 0..3)),
        vec((header_name().prop_map(|n| n.to_string()), string_match()), 0..2),
    )
        .prop_map(|((tokens, more, grpc_statuses), status_codes, response_headers)| RetryConditions {
            grpc_statuses,
            status_codes,
            response_headers,
            ..RetryConditions::parse(&[tokens, more].concat().join(",")).0
        });
    let reset = (
        vec((header_name(), select(vec![ResetFormat::Seconds, ResetFormat::UnixTimestamp])), 1..3),
        duration(),
    )
        .prop_map(|(headers, max)| ResetBackOff { headers, max });
    let extras =
        (vec(header_match(), 0..2), option::of(duration()), option::of(reset), any::<bool>(), criteria())
            .prop_map(|(request_headers, per_try_idle_timeout, reset, omit_canaries, omit)| RetryExtras {
                leaves_priorities_after: omit_canaries.then_some(2),
                request_headers,
                per_try_idle_timeout,
                reset,
                omit_canaries,
                omit,
            })
            .prop_map(|extras| (extras != RetryExtras::default()).then(|| Box::new(extras)));
    let picks = (any::<bool>(), 1u32..99, extras);
    (conditions, any::<u32>(), option::of(duration()), duration(), duration(), picks)
        .prop_map(|(conditions, retries, per_try_timeout, base, more, picks)| {
            let (avoid_previous_hosts, host_picks, extras) = picks;
            RetryPolicy {
                conditions,
                retries,
                per_try_timeout,
                back_off_base: base,
                back_off_max: base + more,
                avoid_previous_hosts,
                host_picks,
                more: extras,
            }
        })
        .boxed()
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

fn provenance() -> Of<Option<Provenance>> {
    option::of((text(), text(), any::<u32>()).prop_map(|(resource, file, line)| Provenance {
        resource: resource.into(),
        file: file.into(),
        line,
    }))
    .boxed()
}

fn condition() -> Of<RouteMatch> {
    let path = prop_oneof![
        path().prop_map(PathMatch::Exact),
        prop_oneof![path(), Just("/".to_owned()), Just(String::new())].prop_map(PathMatch::Prefix),
        path().prop_map(PathMatch::SegmentPrefix),
        Just(PathMatch::Regex(model::matcher::Pattern::new("/v[0-9]+/.*").unwrap())),
        Just(PathMatch::Template(UriTemplate::parse("/a/{b}/{c=**}").unwrap())),
        Just(PathMatch::Connect),
    ];
    let query = (name(), option::of(string_match())).prop_map(|(name, value)| QueryMatch { name, value });
    (path, vec(header_match(), 0..3), vec(query, 0..2), any::<(bool, bool)>(), option::of(fraction()))
        .prop_map(|(path, headers, query, (case_sensitive, grpc_only), fraction)| RouteMatch {
            path,
            case_sensitive,
            headers,
            query,
            grpc_only,
            fraction,
        })
        .boxed()
}

fn substitution() -> Of<Substitution> {
    Just(Substitution::new("^/(a+)/(.*)$", r"/\2/\1").unwrap()).boxed()
}

fn path_rewrite() -> Of<PathRewrite> {
    prop_oneof![
        path().prop_map(PathRewrite::Prefix),
        prop_oneof![path(), Just(r"/a\b".to_owned())].prop_map(PathRewrite::Full),
        substitution().prop_map(PathRewrite::Regex),
        Just(PathRewrite::Template(UriRewrite::parse("/{c}/x").unwrap())),
        Just(PathRewrite::Formatted(Template::parse("/a/%REQ(x-a)%").unwrap())),
    ]
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

fn target() -> Of<Target> {
    let weighted = (name(), 1u32..100, edits(), edits(), option::of(name()), criteria()).prop_map(
        |(cluster, weight, request_headers, response_headers, host_rewrite, subset)| WeightedCluster {
            cluster,
            weight,
            request_headers,
            response_headers,
            host_rewrite,
            subset,
        },
    );
    prop_oneof![
        name().prop_map(Target::Cluster),
        vec(weighted, 1..3).prop_map(Target::Weighted),
        header_name().prop_map(Target::Header),
    ]
    .boxed()
}

pub(super) fn fraction() -> Of<Fraction> {
    (any::<u32>(), select(vec![100, 10_000, 1_000_000]))
        .prop_map(|(numerator, denominator)| Fraction { numerator, denominator })
        .boxed()
}

fn mirror() -> Of<Mirror> {
    let target =
        prop_oneof![name().prop_map(MirrorTarget::Cluster), header_name().prop_map(MirrorTarget::Header),];
    let edits = vec(shaping::mutation(), 0..2);
    (target, option::of(fraction()), any::<bool>(), option::of(any::<bool>()), option::of(name()), edits)
        .prop_map(|(target, share, keep_host, trace_sampled, host, edits)| Mirror {
            target,
            share,
            keep_host,
            trace_sampled,
            host,
            edits,
        })
        .boxed()
}

fn cors() -> Of<Cors> {
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

fn filters() -> Of<Option<Box<FilterSettings>>> {
    (
        option::of(setting(cors())),
        option::of(setting(fault())),
        option::of(setting(shaping::csrf())),
        option::of(shaping::buffer_setting()),
        option::of(setting(shaping::session())),
        option::of(setting(shaping::mutations())),
    )
        .prop_map(|(cors, fault, csrf, buffer, session, mutations)| {
            FilterSettings { cors, fault, csrf, buffer, session, mutations }.boxed()
        })
        .boxed()
}

fn action() -> Of<Action> {
    let host = prop_oneof![
        name().prop_map(HostRewrite::Literal),
        Just(HostRewrite::Endpoint),
        header_name().prop_map(HostRewrite::Header),
        substitution().prop_map(HostRewrite::Path),
        Just(HostRewrite::Formatted(Template::parse("%REQ(x-a)%").unwrap())),
    ];
    let grpc = (option::of(duration()), prop_oneof![Just(Duration::ZERO), duration()])
        .prop_map(|(max, offset)| GrpcTimeout { max, offset });
    let forward = (
        target(),
        select(vec![503u16, 404, 500]),
        option::of(path_rewrite()),
        option::of(host),
        (option::of(duration()), option::of(duration()), option::of(duration()), option::of(grpc)),
        option::of(retry()),
        vec(upgrade(), 0..2),
        (vec(mirror(), 0..3), any::<bool>(), vec(hash_policy(), 0..3), criteria(), priority(), any::<bool>()),
    )
        .prop_map(|(target, status, path_rewrite, host_rewrite, times, retry, upgrades, more)| {
            let (timeout, idle_timeout, max_duration, grpc_timeout) = times;
            Action::forward(Forward {
                splits_by_hash: more.5 && matches!(target, Target::Weighted(_)),
                target,
                cluster_not_found_status: status,
                path_rewrite,
                host_rewrite,
                timeout,
                idle_timeout,
                retry,
                upgrades,
                max_duration,
                grpc_timeout,
                mirrors: more.0,
                append_forwarded_host: more.1,
                hash_policies: more.2,
                subset: more.3,
                priority: more.4,
            })
        });
    let redirect = (
        option::of(select(vec!["http", "https"]).prop_map(str::to_owned)),
        option::of(name()),
        option::of(1u16..),
        option::of(path_rewrite().prop_filter("redirects know no templates", |rewrite| {
            !matches!(rewrite, PathRewrite::Template(_))
        })),
        select(vec![301u16, 302, 303, 307, 308]),
        any::<bool>(),
    )
        .prop_map(|(scheme, host, port, path, status, strip_query)| {
            Action::Redirect(Redirect { scheme, host, port, path, status, strip_query })
        });
    let response = (200u16..600, prop_oneof![vec(any::<u8>(), 0..9), Just(vec![7; 5000])])
        .prop_map(|(status, body)| Action::Respond(DirectResponse { status, body }));
    prop_oneof![forward, redirect, response].boxed()
}

/// Takes out of an action what Envoy does not have beside such a match: rewrites by template go with matches by template,
/// and only these.
fn fitting(path: &PathMatch, action: Action) -> Action {
    let is_template = matches!(path, PathMatch::Template(_));
    let fits = |rewrite: &PathRewrite| match rewrite {
        PathRewrite::Template(_) => is_template,
        PathRewrite::Full(_) | PathRewrite::Formatted(_) => true,
        PathRewrite::Prefix(_) | PathRewrite::Regex(_) => !is_template,
    };
    match action {
        Action::Redirect(redirect) => {
            let path = redirect.path.clone().filter(fits);
            Action::Redirect(Redirect { path, ..redirect })
        }
        Action::Forward(forward) => {
            let path_rewrite = forward.path_rewrite.clone().filter(fits);
            Action::forward(Forward { path_rewrite, ..Forward::clone(&forward) })
        }
        other => other,
    }
}

fn route() -> Of<Route> {
    let matched = (condition(), action()).prop_map(|(condition, action)| {
        let action = fitting(&condition.path, action);
        (condition, action)
    });
    (name(), matched, edits(), edits(), filters(), metadata(), provenance())
        .prop_map(|(name, (condition, action), requests, answers, filters, metadata, provenance)| Route {
            name,
            condition,
            action,
            request_headers: requests,
            response_headers: answers,
            filters,
            metadata,
            provenance,
        })
        .boxed()
}

pub(super) fn routes() -> Of<RouteConfiguration> {
    let host = (
        name(),
        vec(name(), 1..3),
        vec(route(), 0..3),
        edits(),
        edits(),
        option::of(retry()),
        (any::<(bool, bool, bool)>(), filters()),
    )
        .prop_map(|(name, domains, routes, request_headers, response_headers, retry, more)| {
            let ((require_tls, attempts, told), filters) = more;
            VirtualHost {
                filters,
                name,
                domains,
                routes,
                request_headers,
                response_headers,
                retry,
                require_tls,
                attempt_count_in_request: attempts,
                attempt_count_in_response: told,
            }
        });
    (name(), vec(host, 0..3), edits(), edits(), any::<(bool, bool, bool)>(), filters())
        .prop_map(|(name, virtual_hosts, request_headers, response_headers, flags, filters)| {
            RouteConfiguration {
                filters,
                name,
                virtual_hosts,
                request_headers,
                response_headers,
                ignore_port: flags.0,
                most_specific_first: flags.1,
                validate_clusters: flags.2,
            }
        })
        .boxed()
}

pub(super) fn resource() -> Of<Resource> {
    prop_oneof![
        super::listener_strategies::listener().prop_map(Resource::Listener),
        routes().prop_map(Resource::Routes),
        cluster().prop_map(Resource::Cluster),
        assignment(false).prop_map(Resource::Endpoints),
        secret().prop_map(Resource::Secret),
    ]
    .boxed()
}

pub(super) fn described() -> Of<(Metadata, Option<Provenance>)> {
    (metadata(), provenance()).boxed()
}

/// The `Any` of a resource.
pub(super) fn any_of(resource: &Resource) -> envoy_types::pb::google::protobuf::Any {
    let value = match resource {
        Resource::Listener(listener) => super::encode_listener(listener),
        Resource::Routes(table) => super::encode_routes(table),
        Resource::Cluster(cluster) => super::encode_cluster(cluster),
        Resource::Endpoints(assignment) => super::encode_endpoints(assignment),
        Resource::Secret(secret) => super::encode_secret(secret),
    };
    envoy_types::pb::google::protobuf::Any { type_url: resource.type_url().to_owned(), value }
}
