//! Listeners for property tests.
#![allow(clippy::unwrap_used)]

use super::cluster_strategies::downstream;
use super::route_strategies::routes;
use super::shaping_strategies as shaping;
use super::strategies::{described, duration, fault, header_match, name, string_match, upgrade};
use model::authorization::{Permission, Policy, Principal, RuleAction, Rules, ShadowRules};
use model::filter::HttpFilters;
use model::listener::*;
use model::local_reply::LocalReplies;
use model::mutation::Mutation;
use model::path::{EscapedSlashes, PathNormalization};
use model::rewrite::{HostStripping, PortStripping};
use model::route::{RouteConfiguration, Upgrade, WeightedCluster};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

type Of<T> = BoxedStrategy<T>;

fn address_range() -> Of<AddressRange> {
    any::<(std::net::IpAddr, u8)>()
        .prop_map(|(address, length)| AddressRange {
            address,
            prefix_length: length % if address.is_ipv4() { 33 } else { 129 },
        })
        .boxed()
}

fn condition() -> Of<ChainMatch> {
    let range = address_range();
    let server = prop_oneof![name(), name().prop_map(|n| format!("*.{n}"))];
    let transport = select(vec!["tls".to_owned(), "raw_buffer".to_owned()]);
    let kind = select(vec![SourceType::Any, SourceType::Local, SourceType::External]);
    let sources = (vec(range.clone(), 0..2), kind, vec(range.clone(), 0..2), vec(1u16.., 0..2));
    (
        option::of(any::<u16>()),
        vec(range, 0..3),
        vec(server, 0..3),
        option::of(transport),
        vec(name(), 0..3),
        sources,
    )
        .prop_map(
            |(destination_port, destinations, server_names, transport, application_protocols, sources)| {
                let (direct_sources, source_type, sources, source_ports) = sources;
                ChainMatch {
                    destination_port,
                    destinations,
                    server_names,
                    transport_protocol: transport,
                    application_protocols,
                    direct_sources,
                    source_type,
                    sources,
                    source_ports,
                }
            },
        )
        .boxed()
}

fn log() -> Of<AccessLog> {
    (name(), shaping::log_format(), option::of(shaping::log_filter()), any::<bool>())
        .prop_map(|(path, format, filter, omit_empty)| AccessLog { path, format, filter, omit_empty })
        .boxed()
}

fn tcp() -> Of<Network> {
    let cluster = (name(), 1u32..9).prop_map(|(cluster, weight)| WeightedCluster {
        cluster,
        weight,
        ..WeightedCluster::default()
    });
    let times = (option::of(duration()), option::of(duration()));
    (name(), vec(cluster, 1..3), times, option::of(1u32..9), vec(log(), 0..2))
        .prop_map(|(stat_prefix, clusters, times, max_connect_attempts, access_logs)| {
            Network::Tcp(Box::new(TcpProxy {
                stat_prefix,
                clusters,
                idle_timeout: times.0,
                max_duration: times.1,
                max_connect_attempts,
                access_logs,
                ..TcpProxy::default()
            }))
        })
        .boxed()
}

fn http() -> Of<HttpConnectionManager> {
    let source = prop_oneof![
        routes().prop_map(|table| RouteSource::Inline(RouteConfiguration { asks_for_hosts: false, ..table })),
        name().prop_map(RouteSource::Rds)
    ];
    let slashes = select(vec![
        EscapedSlashes::Keep,
        EscapedSlashes::Reject,
        EscapedSlashes::Unescape,
        EscapedSlashes::Redirect,
    ]);
    let path = (any::<(bool, bool)>(), slashes).prop_map(|((normalize, merge_slashes), escaped_slashes)| {
        PathNormalization { normalize, merge_slashes, escaped_slashes }
    });
    let tracing = (0u8..=100).prop_map(|share| Tracing { random_sampling_percent: f64::from(share) });
    // Only a route can say that a CONNECT ends here.
    let upgrade = upgrade().prop_map(|upgrade| Upgrade { terminate_connect: false, ..upgrade });
    (
        (name(), source, path, any::<(bool, bool, bool)>(), any::<u32>(), vec(upgrade, 0..2)),
        (option::of(duration()), option::of(duration()), option::of(name())),
        (option::of(tracing), vec(log(), 0..2), select(vec![Codec::Auto, Codec::Http1, Codec::Http2])),
        (option::of(duration()), option::of(duration()), option::of(1u32..9)),
        (
            option::of(duration()),
            option::of(duration()),
            filters(),
            select(vec![Underscores::Keep, Underscores::Reject, Underscores::Drop]),
            shaped(),
        ),
    )
        .prop_map(|((stat_prefix, source, path, flags, trusted_hops, upgrades), times, more, ends, last)| {
            HttpConnectionManager {
                underscores: last.3,
                local_replies: last.4.0,
                stripping: last.4.1,
                early_edits: last.4.2,
                heads: last.4.3,
                header_case: last.4.4,
                client_cert: last.4.5,
                makes_request_id: last.4.6.0,
                returns_request_id: last.4.6.1,
                keeps_forwarded_for: last.4.6.2,
                via: last.4.7,
                max_stream_duration: ends.0,
                max_connection_duration: ends.1,
                max_requests_per_connection: ends.2,
                request_timeout: last.0,
                request_headers_timeout: last.1,
                filters: last.2,
                stat_prefix,
                codec: more.2,
                path,
                edge: flags.0,
                trusted_hops,
                upgrades,
                stream_idle_timeout: times.0,
                idle_timeout: times.1,
                server_name: times.2,
                keep_request_id: flags.1,
                tracing: more.0,
                stats: flags.2,
                access_logs: more.1,
                ..HttpConnectionManager::new(source)
            }
        })
        .boxed()
}

type Shaped = (
    LocalReplies,
    HostStripping,
    Vec<Mutation>,
    HeadLimits,
    HeaderCase,
    ClientCert,
    (bool, bool, bool),
    String,
);

fn shaped() -> Of<Shaped> {
    let ports = select(vec![PortStripping::Keep, PortStripping::Matching, PortStripping::Any]);
    let stripping =
        (ports, any::<bool>()).prop_map(|(port, trailing_dot)| HostStripping { port, trailing_dot });
    let heads = (option::of(1u32..99), option::of(1u32..99))
        .prop_map(|(kilobytes, count)| HeadLimits { kilobytes, count });
    (
        shaping::local_replies(),
        stripping,
        vec(shaping::mutation(), 0..2),
        heads,
        select(vec![HeaderCase::Lower, HeaderCase::Proper, HeaderCase::Preserve]),
        select(vec![ClientCert::Sanitize, ClientCert::ForwardOnly, ClientCert::AlwaysForward]),
        any::<(bool, bool, bool)>(),
        name(),
    )
        .boxed()
}

fn filters() -> Of<HttpFilters> {
    (
        option::of(shaping::placed(Just(()).boxed())),
        (vec(rules(), 0..2), vec((rules(), name()), 0..2), vec(shaping::note(), 0..2)),
        option::of(shaping::placed(fault()).prop_map(Box::new)),
        (
            vec(shaping::health(), 0..2),
            option::of(shaping::placed(shaping::csrf()).prop_map(Box::new)),
            option::of(shaping::placed((1u32..9).boxed())),
            option::of(shaping::placed(option::of(shaping::session()).boxed()).prop_map(Box::new)),
            option::of(shaping::placed(shaping::header_mutations()).prop_map(Box::new)),
            option::of(shaping::placed(shaping::on_demand())),
        ),
    )
        .prop_map(|(cors, rules, fault, (health, csrf, buffer, session, mutations, on_demand))| HttpFilters {
            health,
            cors,
            authorization: rules.0,
            shadows: rules.1.into_iter().map(|(rules, prefix)| ShadowRules { rules, prefix }).collect(),
            notes: rules.2,
            fault,
            csrf,
            buffer,
            session,
            mutations,
            on_demand,
        })
        .boxed()
}

fn rules() -> Of<Rules> {
    let policy = (vec(permission(), 1..3), vec(principal(), 1..3));
    (any::<bool>(), btree_map("[a-z]{1,8}", policy, 0..3))
        .prop_map(|(allow, policies)| Rules {
            action: if allow { RuleAction::Allow } else { RuleAction::Deny },
            policies: policies
                .into_iter()
                .map(|(name, (permissions, principals))| Policy { name, permissions, principals })
                .collect(),
        })
        .boxed()
}

fn permission() -> Of<Permission> {
    let leaf = prop_oneof![
        Just(Permission::Any),
        header_match().prop_map(Permission::Header),
        string_match().prop_map(Permission::Path),
        address_range().prop_map(Permission::DestinationAddress),
        (0u32..60_000, 1u32..5_000)
            .prop_map(|(start, length)| Permission::DestinationPort(start..start + length)),
        string_match().prop_map(Permission::ServerName),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(Permission::All),
            vec(inner.clone(), 1..3).prop_map(Permission::OneOf),
            inner.prop_map(|inner| Permission::Not(Box::new(inner))),
        ]
    })
    .boxed()
}

fn principal() -> Of<Principal> {
    let leaf = prop_oneof![
        Just(Principal::Any),
        option::of(string_match()).prop_map(Principal::Authenticated),
        address_range().prop_map(Principal::DirectAddress),
        address_range().prop_map(Principal::ClientAddress),
        header_match().prop_map(Principal::Header),
        string_match().prop_map(Principal::Path),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(Principal::All),
            vec(inner.clone(), 1..3).prop_map(Principal::OneOf),
            inner.prop_map(|inner| Principal::Not(Box::new(inner))),
        ]
    })
    .boxed()
}

fn network() -> Of<Network> {
    prop_oneof![tcp(), http().prop_map(|http| Network::Http(Box::new(http)))].boxed()
}

fn chain() -> Of<FilterChain> {
    (name(), condition(), option::of(downstream()), network())
        .prop_map(|(name, condition, tls, network)| FilterChain { name, condition, tls, network })
        .boxed()
}

pub(super) fn listener() -> Of<Listener> {
    let direction = select(vec![Direction::Unspecified, Direction::Inbound, Direction::Outbound]);
    let default_chain =
        option::of(chain().prop_map(|chain| FilterChain { condition: ChainMatch::default(), ..chain }));
    let header =
        any::<(bool, bool)>().prop_map(|(optional, keeps_tlvs)| ProxyHeader { optional, keeps_tlvs });
    let inspect = (option::of(header), any::<(bool, bool, bool)>()).prop_map(
        |(proxy_protocol, (tls, http, original_destination))| Inspection {
            proxy_protocol,
            tls,
            http,
            original_destination,
        },
    );
    let address = any::<(std::net::IpAddr, u16)>().prop_map(Into::into);
    let more = vec(any::<(std::net::IpAddr, u16)>().prop_map(Into::into), 0..3);
    let binding = (more, any::<(bool, bool, bool, bool)>()).prop_map(
        |(more, (unbound, hands_over, transparent, freebind))| Binding {
            more,
            unbound,
            hands_over,
            transparent,
            freebind,
        },
    );
    let sockets = (address, binding);
    (name(), sockets, inspect, vec(chain(), 0..3), default_chain, direction, described())
        .prop_map(|(name, sockets, inspect, chains, default_chain, direction, (metadata, provenance))| {
            let (address, binding) = sockets;
            let apart = |(port, mut chain): (u16, FilterChain)| {
                chain.condition.destination_port = Some(port);
                chain
            };
            let chains = (1..).zip(chains).map(apart).collect();
            let original_destination = inspect.original_destination || binding.hands_over;
            Listener {
                name,
                address: Some(address),
                binding,
                inspect: Inspection { original_destination, ..inspect },
                chains,
                default_chain,
                direction,
                metadata,
                provenance,
            }
        })
        .boxed()
}

/// What a gRPC client reads, written in full.
pub(super) fn api_listener() -> Of<Listener> {
    (listener(), http())
        .prop_map(|(listener, http)| {
            let chain = FilterChain {
                name: String::new(),
                condition: ChainMatch::default(),
                tls: None,
                network: Network::Http(Box::new(http)),
            };
            Listener {
                address: None,
                binding: Binding::default(),
                inspect: Inspection::default(),
                chains: vec![chain],
                default_chain: None,
                ..listener
            }
        })
        .boxed()
}
