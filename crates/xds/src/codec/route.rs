//! Route configurations, virtual hosts and routes. What a route asks of a request is `condition`'s, what it does
//! with one is `forward`'s and `answer`'s.

use super::place::{Decoded, Place, fields};
use super::value::{self, encode_flag, encode_number, flag_or};
use super::{answer, condition, filter, forward, headers, on_demand, retry};
use envoy_types::pb::envoy::config::route::v3 as proto;

use model::route::{
    Action, FilterSettings, Forward, Mirror, Route, RouteConfiguration, Setting, VirtualHost,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// `validate` says whether clusters have to exist where the table does not say so itself.
pub(crate) fn decode(
    place: &Place<'_>,
    table: &proto::RouteConfiguration,
    validate: bool,
) -> Decoded<RouteConfiguration> {
    fields!(place, table => proto::RouteConfiguration {
        honoured: name, virtual_hosts, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, most_specific_header_mutations_wins, validate_clusters,
            ignore_port_in_host_matching, typed_per_filter_config, request_mirror_policies, vhds;
        // No limit is put on bodies that the configuration itself brings along.
        ignored: max_direct_response_body_size_bytes, metadata;
        refused: internal_only_headers, cluster_specifier_plugins, vhost_header,
            ignore_path_parameters_in_path_matching, route_specifiers;
    });
    let mirrors = forward::decode_mirrors(place, request_mirror_policies)?;
    let hosts = virtual_hosts.iter().enumerate();
    let hosts = hosts.map(|(i, host)| decode_host(&place.item("virtual_hosts", i), host, &mirrors));
    Ok(RouteConfiguration {
        name: name.clone(),
        filters: filter::decode_settings(place, typed_per_filter_config)?,
        virtual_hosts: hosts.collect::<Decoded<_>>()?,
        request_headers: headers::decode_edits(
            place,
            headers::REQUEST,
            request_headers_to_add,
            request_headers_to_remove,
        )?,
        response_headers: headers::decode_edits(
            place,
            headers::RESPONSE,
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        ignore_port: *ignore_port_in_host_matching,
        most_specific_first: *most_specific_header_mutations_wins,
        validate_clusters: flag_or(validate_clusters, validate),
        asks_for_hosts: on_demand::decode_vhds(&place.field("vhds"), vhds)?,
    })
}

/// The largest body that Envoy takes in a direct response unless told otherwise.
const ENVOY_BODY_LIMIT: usize = 4096;

pub(crate) fn encode(table: &RouteConfiguration) -> proto::RouteConfiguration {
    let virtual_hosts = table.virtual_hosts.iter().map(encode_host).collect();
    proto::RouteConfiguration { virtual_hosts, ..encode_frame(table) }
}

/// What the table says of itself, without its virtual hosts.
pub(super) fn encode_frame(table: &RouteConfiguration) -> proto::RouteConfiguration {
    let (request_headers_to_add, request_headers_to_remove) = headers::encode_edits(&table.request_headers);
    let (response_headers_to_add, response_headers_to_remove) =
        headers::encode_edits(&table.response_headers);
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    let bodies = routes.filter_map(|route| match &route.action {
        Action::Respond(response) => Some(response.body.len()),
        _ => None,
    });
    let largest = bodies.max().filter(|size| *size > ENVOY_BODY_LIMIT);
    proto::RouteConfiguration {
        name: table.name.clone(),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        most_specific_header_mutations_wins: table.most_specific_first,
        validate_clusters: encode_flag(table.validate_clusters),
        ignore_port_in_host_matching: table.ignore_port,
        typed_per_filter_config: filter::encode_settings(table.filters.as_deref()),
        vhds: on_demand::encode_vhds(table.asks_for_hosts),
        max_direct_response_body_size_bytes: largest
            .and_then(|size| encode_number(u32::try_from(size).unwrap_or(u32::MAX))),
        ..Default::default()
    }
}

/// Mirrors of the table are those of each route that has none of its own, nor its host.
pub(crate) fn decode_host(
    place: &Place<'_>,
    host: &proto::VirtualHost,
    mirrors: &[Mirror],
) -> Decoded<VirtualHost> {
    use proto::virtual_host::TlsRequirementType as Tls;
    fields!(place, host => proto::VirtualHost {
        honoured: name, domains, routes, require_tls, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, typed_per_filter_config,
            include_request_attempt_count, include_attempt_count_in_response, retry_policy,
            request_mirror_policies, cors;
        // Virtual clusters only name statistics. Bodies are kept for retries within a bound of our own.
        ignored: virtual_clusters, per_request_buffer_limit_bytes, request_body_buffer_limit, metadata;
        refused: matcher, rate_limits, retry_policy_typed_config,
            hedge_policy, include_is_timeout_retry_header, route_specifiers;
    });
    let own = forward::decode_mirrors(place, request_mirror_policies)?;
    let mirrors = if own.is_empty() { mirrors } else { &own };
    let require_tls = match Tls::try_from(*require_tls) {
        Ok(Tls::None) => false,
        Ok(Tls::All) => true,
        _ => return Err(place.field("require_tls").unsupported("EXTERNAL_ONLY")),
    };
    let routes = routes.iter().enumerate();
    let routes = routes.map(|(i, route)| decode_route(&place.item("routes", i), route, mirrors));
    let mut routes: Vec<Route> = routes.collect::<Decoded<_>>()?;
    // There may be thousands: no room to spare.
    routes.shrink_to_fit();
    share(&mut routes);
    let retry = retry_policy.as_ref().map(|policy| retry::decode(&place.field("retry_policy"), policy));
    Ok(VirtualHost {
        name: name.clone(),
        domains: domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
        routes,
        request_headers: headers::decode_edits(
            place,
            headers::REQUEST,
            request_headers_to_add,
            request_headers_to_remove,
        )?,
        response_headers: headers::decode_edits(
            place,
            headers::RESPONSE,
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        retry: retry.transpose()?,
        require_tls,
        attempt_count_in_request: *include_request_attempt_count,
        attempt_count_in_response: *include_attempt_count_in_response,
        filters: with_old_cors(place, filter::decode_settings(place, typed_per_filter_config)?, cors)?,
    })
}

/// Lets routes hold once what they have in common with those before them.
fn share(routes: &mut [Route]) {
    /// Different ways to send requests on that are remembered.
    const LATEST: usize = 8;
    let mut latest: VecDeque<Arc<Forward>> = VecDeque::new();
    let mut last: Option<&Route> = None;
    for route in routes {
        if let Some(last) = last {
            route.metadata.share_with(&last.metadata);
            if let (Some(own), Some(known)) = (&mut route.provenance, &last.provenance) {
                own.share_with(known);
            }
        }
        if let Action::Forward(forward) = &mut route.action {
            match latest.iter().find(|known| *known == forward) {
                Some(known) => *forward = known.clone(),
                None => {
                    latest.truncate(LATEST - 1);
                    latest.push_front(forward.clone());
                }
            }
        }
        last = Some(route);
    }
}

pub(crate) fn encode_host(host: &VirtualHost) -> proto::VirtualHost {
    proto::VirtualHost { routes: host.routes.iter().map(encode_route).collect(), ..encode_host_frame(host) }
}

/// What a virtual host says of itself, without its routes.
pub(super) fn encode_host_frame(host: &VirtualHost) -> proto::VirtualHost {
    let (request_headers_to_add, request_headers_to_remove) = headers::encode_edits(&host.request_headers);
    let (response_headers_to_add, response_headers_to_remove) = headers::encode_edits(&host.response_headers);
    proto::VirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        require_tls: match host.require_tls {
            true => proto::virtual_host::TlsRequirementType::All as i32,
            false => proto::virtual_host::TlsRequirementType::None as i32,
        },
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        include_request_attempt_count: host.attempt_count_in_request,
        include_attempt_count_in_response: host.attempt_count_in_response,
        retry_policy: host.retry.as_ref().map(retry::encode),
        typed_per_filter_config: filter::encode_settings(host.filters.as_deref()),
        ..Default::default()
    }
}

fn decode_route(place: &Place<'_>, route: &proto::Route, mirrors: &[Mirror]) -> Decoded<Route> {
    use proto::route::Action as Proto;
    fields!(place, route => proto::Route {
        honoured: name, r#match, metadata, typed_per_filter_config, request_headers_to_add,
            request_headers_to_remove, response_headers_to_add, response_headers_to_remove, action;
        // A decorator only names spans.
        ignored: decorator, per_request_buffer_limit_bytes, stat_prefix, request_body_buffer_limit;
        refused: tracing, route_specifiers;
    });
    let mut filters = filter::decode_settings(place, typed_per_filter_config)?;
    let condition = match r#match {
        Some(condition) => condition::decode(&place.field("match"), condition)?,
        None => return Err(place.field("match").error("this field is required")),
    };
    let action = match action {
        Some(Proto::Route(sent)) => {
            let place = place.field("route");
            let mut forward = forward::decode(&place, sent)?;
            if forward.mirrors.is_empty() {
                forward.mirrors = mirrors.to_vec();
            }
            filters = with_old_cors(&place, filters, &sent.cors)?;
            Action::forward(forward)
        }
        Some(Proto::Redirect(redirect)) => {
            Action::Redirect(answer::decode_redirect(&place.field("redirect"), redirect)?)
        }
        Some(Proto::DirectResponse(response)) => {
            Action::Respond(answer::decode_response(&place.field("direct_response"), response)?)
        }
        Some(Proto::FilterAction(_)) => return Err(place.field("filter_action").unsupported("this action")),
        Some(Proto::NonForwardingAction(_)) => {
            return Err(place.field("non_forwarding_action").unsupported("this action"));
        }
        None => return Err(place.error("nothing is said about what to do with a request")),
    };
    let mut metadata = value::decode_metadata(metadata);
    let provenance = value::take_provenance(&mut metadata);
    let requests =
        headers::decode_edits(place, headers::REQUEST, request_headers_to_add, request_headers_to_remove)?;
    let answers =
        headers::decode_edits(place, headers::RESPONSE, response_headers_to_add, response_headers_to_remove)?;
    Ok(Route {
        name: name.clone(),
        condition,
        action,
        request_headers: requests,
        response_headers: answers,
        filters,
        metadata,
        provenance,
    })
}

pub(super) fn encode_route(route: &Route) -> proto::Route {
    use proto::route::Action as Proto;
    let (request_headers_to_add, request_headers_to_remove) = headers::encode_edits(&route.request_headers);
    let (response_headers_to_add, response_headers_to_remove) =
        headers::encode_edits(&route.response_headers);
    let action = match &route.action {
        Action::Forward(sent) => Proto::Route(forward::encode(sent, &route.condition)),
        Action::Redirect(redirect) => Proto::Redirect(answer::encode_redirect(redirect)),
        Action::Respond(response) => Proto::DirectResponse(answer::encode_response(response)),
    };
    proto::Route {
        name: route.name.clone(),
        r#match: Some(condition::encode(&route.condition)),
        metadata: value::encode_metadata(&route.metadata, route.provenance.as_ref()),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        action: Some(action),
        typed_per_filter_config: filter::encode_settings(route.filters.as_deref()),
        ..Default::default()
    }
}

/// The old field for CORS counts where the filter's own setting is absent.
fn with_old_cors(
    place: &Place<'_>,
    filters: Option<Box<FilterSettings>>,
    cors: &Option<proto::CorsPolicy>,
) -> Decoded<Option<Box<FilterSettings>>> {
    let mut settings = filters.map(|filters| *filters).unwrap_or_default();
    if let (None, Some(cors)) = (&settings.cors, cors) {
        settings.cors = Some(Setting::Use(filter::decode_old_cors(&place.field("cors"), cors)?));
    }
    Ok(settings.boxed())
}
