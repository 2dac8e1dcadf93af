//! Routes for property tests, with all that stands in them.
#![allow(clippy::unwrap_used)]

use super::shaping_strategies as shaping;
use super::spread_strategies::{criteria, hash_policy, priority};
use super::strategies::*;
use model::format::Template;
use model::retry::{
    GRPC_RETRY_STATUSES, ResetBackOff, ResetFormat, RetryConditions, RetryExtras, RetryPolicy,
};
use model::route::*;
use model::uri_template::{UriRewrite, UriTemplate};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::time::Duration;

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

fn filters() -> Of<Option<Box<FilterSettings>>> {
    (
        option::of(setting(cors())),
        option::of(setting(fault())),
        option::of(setting(shaping::csrf())),
        option::of(shaping::buffer_setting()),
        option::of(setting(shaping::session())),
        option::of(setting(shaping::mutations())),
        option::of(setting(shaping::on_demand())),
    )
        .prop_map(|(cors, fault, csrf, buffer, session, mutations, on_demand)| {
            FilterSettings { cors, fault, csrf, buffer, session, mutations, on_demand }.boxed()
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
    (name(), vec(host, 0..3), edits(), edits(), any::<[bool; 4]>(), filters())
        .prop_map(|(name, virtual_hosts, request_headers, response_headers, flags, filters)| {
            RouteConfiguration {
                filters,
                name,
                virtual_hosts,
                request_headers,
                response_headers,
                ignore_port: flags[0],
                most_specific_first: flags[1],
                validate_clusters: flags[2],
                asks_for_hosts: flags[3],
            }
        })
        .boxed()
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
