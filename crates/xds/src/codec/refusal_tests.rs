//! What cannot be obeyed of listeners and routes is refused by name; what may be passed over is.
#![allow(clippy::unwrap_used)]

use super::value::pack;
use super::{decode_listener, decode_routes};
use envoy_types::pb::envoy::config::accesslog::v3 as log;
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as http;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::google::protobuf::{Any, Duration};
use http::http_connection_manager::RouteSpecifier;
use model::listener::{HttpConnectionManager, Network};
use model::route::Action;
use route::route_action::ClusterSpecifier;
use route::route_match::PathSpecifier;

fn filter(name: &str, any: Any) -> http::HttpFilter {
    let config_type = Some(http::http_filter::ConfigType::TypedConfig(any));
    http::HttpFilter { name: name.to_owned(), config_type, ..Default::default() }
}

fn router() -> http::HttpFilter {
    filter("envoy.filters.http.router", pack(&Router::default()))
}

fn manager() -> http::HttpConnectionManager {
    http::HttpConnectionManager {
        http_filters: vec![router()],
        route_specifier: Some(RouteSpecifier::RouteConfig(Default::default())),
        ..Default::default()
    }
}

fn socket(address: &str) -> Option<core_proto::Address> {
    super::value::encode_address(&model::endpoint::EndpointAddress::Name(address.to_owned(), 80))
}

fn listening(any: Any) -> listener::Listener {
    let filter = listener::Filter {
        name: "last".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any)),
    };
    listener::Listener {
        name: "l".to_owned(),
        address: socket("127.0.0.1"),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

fn decoded(manager: http::HttpConnectionManager) -> HttpConnectionManager {
    let mut read = decode_listener(&listening(pack(&manager))).unwrap();
    match read.chains.remove(0).network {
        Network::Http(http) => *http,
        Network::Tcp(_) => panic!("HTTP"),
    }
}

/// What is said of a manager that cannot be obeyed, without what stands before it.
fn refused_http(manager: http::HttpConnectionManager) -> String {
    let error = decode_listener(&listening(pack(&manager))).unwrap_err().to_string();
    let before = "listener `l`: filter_chains[0].filters[0].typed_config";
    error.strip_prefix(before).unwrap_or_else(|| panic!("{error}")).to_owned()
}

fn refused_listener(change: impl FnOnce(&mut listener::Listener)) -> String {
    let mut proto = listening(pack(&manager()));
    change(&mut proto);
    decode_listener(&proto).unwrap_err().to_string()
}

fn table(change: impl FnOnce(&mut route::Route, &mut route::RouteAction)) -> route::RouteConfiguration {
    let mut action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster("c".to_owned())),
        ..Default::default()
    };
    let mut rule = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    };
    change(&mut rule, &mut action);
    rule.action.get_or_insert(route::route::Action::Route(action));
    let host = route::VirtualHost { name: "h".to_owned(), routes: vec![rule], ..Default::default() };
    route::RouteConfiguration { name: "r".to_owned(), virtual_hosts: vec![host], ..Default::default() }
}

fn refused_route(change: impl FnOnce(&mut route::Route, &mut route::RouteAction)) -> String {
    let error = decode_routes(&table(change)).unwrap_err().to_string();
    let before = "route configuration `r`: virtual_hosts[0].routes[0]";
    error.strip_prefix(before).unwrap_or_else(|| panic!("{error}")).to_owned()
}

#[test]
fn a_filter_nobody_knows_is_named_with_its_place_and_type() {
    let lua = filter("envoy.filters.http.lua", pack(&Lua::default()));
    let found =
        refused_http(http::HttpConnectionManager { http_filters: vec![lua.clone(), router()], ..manager() });
    assert_eq!(
        found,
        ".http_filters[0]: filter `envoy.filters.http.lua` (type \
         type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua) is not supported"
    );
    let optional = http::HttpFilter { is_optional: true, ..lua.clone() };
    let disabled = http::HttpFilter { disabled: true, ..lua.clone() };
    decoded(http::HttpConnectionManager { http_filters: vec![optional, disabled, router()], ..manager() });
    let found = refused_http(http::HttpConnectionManager { http_filters: vec![router(), lua], ..manager() });
    assert!(found.starts_with(".http_filters[1]: filter `envoy.filters.http.lua` stands behind"), "{found}");
    let found = refused_http(http::HttpConnectionManager { http_filters: vec![], ..manager() });
    assert_eq!(found, ".http_filters: the last filter has to be the router");
}

#[test]
fn istios_metrics_filter_is_known_by_name_or_type() {
    let by_type = Any { type_url: "type.googleapis.com/stats.PluginConfig".to_owned(), value: vec![] };
    let by_name = Any { type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".to_owned(), value: vec![] };
    for stats in [filter("any", by_type), filter("istio.stats", by_name)] {
        let stats = http::HttpFilter { is_optional: true, ..stats };
        assert!(
            decoded(http::HttpConnectionManager { http_filters: vec![stats, router()], ..manager() }).stats
        );
    }
    assert!(!decoded(manager()).stats);
}

#[test]
fn what_http_cannot_do_is_refused_by_field() {
    let m = manager;
    let scoped = Some(RouteSpecifier::ScopedRoutes(Default::default()));
    let seconds = |seconds| Some(Duration { seconds, nanos: 0 });
    let cases = [
        (
            http::HttpConnectionManager { forward_client_cert_details: 3, ..m() },
            ".forward_client_cert_details: ",
        ),
        (http::HttpConnectionManager { codec_type: 3, ..m() }, ".codec_type: codec 3 is not"),
        (
            http::HttpConnectionManager { server_header_transformation: 1, ..m() },
            ".server_header_transformation: ",
        ),
        (
            http::HttpConnectionManager { path_with_escaped_slashes_action: 9, ..m() },
            ".path_with_escaped_slashes_action: action 9",
        ),
        (http::HttpConnectionManager { route_specifier: scoped, ..m() }, ".scoped_routes: "),
        (
            http::HttpConnectionManager { route_specifier: None, ..m() },
            ": nothing is said about where routes",
        ),
        (
            http::HttpConnectionManager {
                tracing: Some(http::http_connection_manager::Tracing {
                    provider: Some(Default::default()),
                    ..Default::default()
                }),
                ..m()
            },
            ".tracing.provider: ",
        ),
        (
            http::HttpConnectionManager {
                http_protocol_options: Some(core_proto::Http1ProtocolOptions {
                    allow_chunked_length: true,
                    ..Default::default()
                }),
                ..m()
            },
            ".http_protocol_options.allow_chunked_length: ",
        ),
        (
            http::HttpConnectionManager {
                access_log: vec![log::AccessLog { filter: Some(Default::default()), ..Default::default() }],
                ..m()
            },
            ".access_log[0].filter: ",
        ),
    ];
    for (manager, wanted) in cases {
        let found = refused_http(manager);
        assert!(found.starts_with(wanted), "{found} should start with {wanted}");
    }
    let none = http::HttpConnectionManager { request_timeout: seconds(0), ..m() };
    assert_eq!(decoded(none).stream_idle_timeout, Some(std::time::Duration::from_secs(300)));
}

#[test]
fn what_a_listener_cannot_do_is_refused_by_field() {
    let found = refused_listener(|l| l.address = socket("example.com"));
    assert_eq!(found, "listener `l`: address: `example.com` is not an IP address");
    let found = refused_listener(|l| {
        let pipe = core_proto::Pipe { path: "/run/x".to_owned(), mode: 0 };
        l.address = Some(core_proto::Address { address: Some(core_proto::address::Address::Pipe(pipe)) });
    });
    assert_eq!(found, "listener `l`: address.pipe: Unix socket `/run/x` is not supported");
    let found = refused_listener(|l| {
        let name = "envoy.filters.listener.original_src".to_owned();
        l.listener_filters.push(listener::ListenerFilter { name, ..Default::default() });
    });
    assert!(
        found.contains("listener_filters[0]: listener filter `envoy.filters.listener.original_src`"),
        "{found}"
    );
    let found = refused_listener(|l| {
        l.filter_chains[0].filter_chain_match =
            Some(listener::FilterChainMatch { address_suffix: "x".to_owned(), ..Default::default() });
    });
    assert!(found.contains("filter_chains[0].filter_chain_match.address_suffix: "), "{found}");
    let found = refused_listener(|l| l.filter_chains.push(l.filter_chains[0].clone()));
    assert!(found.contains("filter_chains[1].filter_chain_match: it takes connections that"), "{found}");
    let found = refused_listener(|l| l.filter_chains[0].filters.clear());
    assert!(found.contains("filter_chains[0].filters: nothing is said"), "{found}");
    let tunnel = tcp::TcpProxy {
        cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster("c".to_owned())),
        tunneling_config: Some(tcp::tcp_proxy::TunnelingConfig {
            post_path: "/x".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let found = decode_listener(&listening(pack(&tunnel))).unwrap_err();
    assert_eq!(found.path, "filter_chains[0].filters[0].typed_config.tunneling_config.post_path");
    let found = decode_listener(&listening(pack(&Lua::default()))).unwrap_err();
    assert!(found.problem.starts_with("filter `last` (type type.googleapis.com/"), "{found}");
}

fn hedging() -> route::HedgePolicy {
    route::HedgePolicy { hedge_on_per_try_timeout: true, ..Default::default() }
}

#[test]
fn what_a_route_cannot_do_is_refused_by_field() {
    type Change = fn(&mut route::Route, &mut route::RouteAction);
    let cases: [(Change, &str); 15] = [
        (|_, a| a.hedge_policy = Some(hedging()), ".route.hedge_policy: "),
        (|_, a| a.internal_redirect_policy = Some(Default::default()), ".route.internal_redirect_policy: "),
        (
            |_, a| {
                let retry_priority = Some(Default::default());
                a.retry_policy = Some(route::RetryPolicy { retry_priority, ..Default::default() });
            },
            ".route.retry_policy.retry_priority: ",
        ),
        (|_, a| a.hash_policy.push(Default::default()), ".route.hash_policy[0]: "),
        (|_, a| a.request_mirror_policies.push(Default::default()), ".route.request_mirror_policies[0]: "),
        (|_, a| a.rate_limits.push(Default::default()), ".route.rate_limits: "),
        (|_, a| a.retry_policy_typed_config = Some(Default::default()), ".route.retry_policy_typed_config: "),
        (|_, a| a.path_rewrite_policy = Some(Default::default()), ".route.path_rewrite_policy: "),
        (|_, a| a.cluster_specifier = None, ".route: no cluster is named"),
        (
            |_, a| {
                let (prefix, rewrite) = ("/x".to_owned(), Some(Default::default()));
                (a.prefix_rewrite, a.regex_rewrite) = (prefix, rewrite);
            },
            ".route: only one of",
        ),
        (
            |_, a| {
                let duration = Some(Duration { seconds: -9, nanos: 0 });
                let max = route::route_action::MaxStreamDuration {
                    max_stream_duration: duration,
                    ..Default::default()
                };
                a.max_stream_duration = Some(max);
            },
            ".route.max_stream_duration.max_stream_duration: ",
        ),
        (|r, _| r.action = Some(route::route::Action::FilterAction(Default::default())), ".filter_action: "),
        (
            |r, _| {
                r.typed_per_filter_config.insert("cors".to_owned(), pack(&route::CorsPolicy::default()));
            },
            ".typed_per_filter_config[\"cors\"]: configuration of filter `cors` (type type.googleapis.com/",
        ),
        (
            |r, _| r.r#match.as_mut().unwrap().dynamic_metadata.push(Default::default()),
            ".match.dynamic_metadata: ",
        ),
        (
            |r, _| {
                let header = core_proto::HeaderValue {
                    key: "x-a".to_owned(),
                    value: "%NOPE%".to_owned(),
                    ..Default::default()
                };
                r.request_headers_to_add
                    .push(core_proto::HeaderValueOption { header: Some(header), ..Default::default() });
            },
            ".request_headers_to_add[0].header.value: command `%NOPE%` is not known",
        ),
    ];
    for (change, wanted) in cases {
        let found = refused_route(change);
        assert!(found.starts_with(wanted), "{found} should start with {wanted}");
    }
}

#[test]
fn a_filter_that_may_be_missing_may_be_configured_per_route() {
    let optional = pack(&route::FilterConfig { is_optional: true, ..Default::default() });
    let found = decode_routes(&table(|r, _| {
        r.typed_per_filter_config.insert("whatever".to_owned(), optional);
    }));
    assert!(found.is_ok(), "{found:?}");
}

#[test]
fn a_route_that_says_nothing_of_time_has_envoys_fifteen_seconds_and_zero_is_no_limit() {
    let timeout = |timeout| {
        let read = decode_routes(&table(|_, a| a.timeout = timeout)).unwrap();
        match &read.virtual_hosts[0].routes[0].action {
            Action::Forward(forward) => forward.timeout,
            _ => panic!("forwarded"),
        }
    };
    assert_eq!(timeout(None), Some(std::time::Duration::from_secs(15)));
    assert_eq!(timeout(Some(Duration::default())), None);
    let found = refused_route(|_, a| a.timeout = Some(Duration { seconds: -1, nanos: 0 }));
    assert!(found.starts_with(".route.timeout: -1 s"), "{found}");
}

#[test]
fn filters_are_named_as_routes_name_them_and_there_is_one_of_a_kind() {
    use envoy_types::pb::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy};
    let filter = |name: &str, disabled| http::HttpFilter {
        name: name.to_owned(),
        disabled,
        config_type: Some(http::http_filter::ConfigType::TypedConfig(pack(&Cors {}))),
        ..Default::default()
    };
    let (cors, other) = (filter("envoy.filters.http.cors", true), filter("cors", false));
    let read =
        decoded(http::HttpConnectionManager { http_filters: vec![cors.clone(), router()], ..manager() });
    assert!(read.filters.cors.unwrap().disabled);
    let found = refused_http(http::HttpConnectionManager {
        http_filters: vec![cors.clone(), cors, router()],
        ..manager()
    });
    assert!(found.contains("http_filters[1]: filter `envoy.filters.http.cors` a second time"), "{found}");
    let found =
        refused_http(http::HttpConnectionManager { http_filters: vec![other, router()], ..manager() });
    assert!(found.contains("http_filters[0].name: `cors` for the filter"), "{found}");
    let found = refused_route(|r, _| {
        let fault = pack(&CorsPolicy::default());
        r.typed_per_filter_config.insert("envoy.filters.http.fault".to_owned(), fault);
    });
    assert!(found.contains("configuration of filter `envoy.filters.http.fault`"), "{found}");
}

#[test]
fn mirrors_and_the_old_field_for_cors_are_handed_down_to_routes() {
    let mut proto = table(|_, a| a.cors = Some(Default::default()));
    proto.virtual_hosts[0].request_mirror_policies.push(route::route_action::RequestMirrorPolicy {
        cluster: "shadow".to_owned(),
        ..Default::default()
    });
    let read = decode_routes(&proto).unwrap();
    let read = &read.virtual_hosts[0].routes[0];
    let Action::Forward(forward) = &read.action else { panic!("forwarded") };
    assert_eq!(forward.mirrors.len(), 1);
    assert!(read.filters.as_ref().unwrap().cors.is_some());
}
