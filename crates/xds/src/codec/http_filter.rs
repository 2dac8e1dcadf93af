//! The filters of a connection manager: each has to be known or optional, and the last one has to be the router.

use super::place::{Decoded, Place, fields};
use super::value::{self, type_name, unpack};
use super::{authorization, filter, mutation, on_demand, small_filter, wire_order};
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use envoy_types::pb::google::protobuf::Any;
use model::filter::{HttpFilters, Placed};
use proto::http_filter::ConfigType;

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
/// Istio's filter that counts requests; Envoy as it comes does not know it and passes over it.
pub(crate) const STATS: &str = "istio.stats";
pub(crate) const STATS_TYPE: &str = "stats.PluginConfig";
/// Counts gRPC requests by service; names of statistics are our own.
const GRPC_STATS_TYPE: &str = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";

/// What is in a filter chain beside the router.
#[derive(Default)]
pub(crate) struct Found {
    /// Requests are counted.
    pub(crate) stats: bool,
    pub(crate) filters: HttpFilters,
}

/// Every filter has to be known or optional, and the last one has to be the router.
pub(crate) fn decode(place: &Place<'_>, filters: &[proto::HttpFilter]) -> Decoded<Found> {
    let (mut found, mut routed) = (Found::default(), false);
    for (i, filter) in filters.iter().enumerate() {
        let place = place.item("http_filters", i);
        fields!(place, filter => proto::HttpFilter {
            honoured: name, config_type, is_optional, disabled;
            ignored: ;
            refused: ;
        });
        if routed {
            return Err(
                place.error(format_args!("filter `{name}` stands behind the router, which comes last"))
            );
        }
        let any = match config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            _ if name == STATS => {
                found.stats |= !disabled;
                continue;
            }
            _ if *is_optional || *disabled => continue,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(place.field("config_discovery").unsupported("a filter that comes separately"));
            }
            None => return Err(place.unsupported(format_args!("filter `{name}` (no type)"))),
        };
        let config = place.field("typed_config");
        match type_name(any) {
            ROUTER => {
                check_router(&config, &unpack(&config, any)?)?;
                routed = true;
            }
            STATS_TYPE => found.stats |= !disabled,
            _ if name == STATS => found.stats |= !disabled,
            GRPC_STATS_TYPE => {}
            authorization::RBAC_TYPE if !*disabled => {
                let (rules, shadow) = authorization::decode(&config, &unpack(&config, any)?)?;
                found.filters.authorization.extend(rules);
                found.filters.shadows.extend(shadow);
            }
            small_filter::HEALTH_TYPE if !*disabled => {
                let health = small_filter::decode_health(&config, &unpack(&config, any)?)?;
                found.filters.health.push(health);
            }
            small_filter::NOTES_TYPE if !*disabled => {
                let notes = small_filter::decode_notes(&config, &unpack(&config, any)?)?;
                found.filters.notes.extend(notes);
            }
            _ if decode_placed(&place, name, any, *disabled, &mut found.filters)? => {}
            _ if *is_optional || *disabled => {}
            _ => return Err(place.unsupported(format_args!("filter `{name}` (type {})", any.type_url))),
        }
    }
    match routed {
        true => Ok(found),
        false => Err(place.field("http_filters").error("the last filter has to be the router")),
    }
}

/// Filters that routes may speak of. Returns whether it is one.
fn decode_placed(
    place: &Place<'_>,
    name: &str,
    any: &Any,
    disabled: bool,
    filters: &mut HttpFilters,
) -> Decoded<bool> {
    let config = place.field("typed_config");
    match type_name(any) {
        filter::CORS_TYPE => {
            check_placed(place, name, filter::CORS, filters.cors.is_some())?;
            filters.cors = Some(Placed { config: (), disabled });
        }
        filter::FAULT_TYPE => {
            check_placed(place, name, filter::FAULT, filters.fault.is_some())?;
            let config = filter::decode_fault(&config, &unpack(&config, any)?)?;
            filters.fault = Some(Box::new(Placed { config, disabled }));
        }
        small_filter::CSRF_TYPE => {
            check_placed(place, name, small_filter::CSRF, filters.csrf.is_some())?;
            let config = small_filter::decode_csrf(&config, &unpack(&config, any)?)?;
            filters.csrf = Some(Box::new(Placed { config, disabled }));
        }
        small_filter::BUFFER_TYPE => {
            check_placed(place, name, small_filter::BUFFER, filters.buffer.is_some())?;
            let config = small_filter::decode_buffer(&config, &unpack(&config, any)?)?;
            filters.buffer = Some(Placed { config, disabled });
        }
        small_filter::SESSION_TYPE => {
            check_placed(place, name, small_filter::SESSION, filters.session.is_some())?;
            let config = small_filter::decode_session(&config, &unpack(&config, any)?)?;
            filters.session = Some(Box::new(Placed { config, disabled }));
        }
        mutation::TYPE => {
            check_placed(place, name, mutation::NAME, filters.mutations.is_some())?;
            let config = mutation::decode_filter(&config, &unpack(&config, any)?)?;
            filters.mutations = Some(Box::new(Placed { config, disabled }));
        }
        on_demand::TYPE => {
            check_placed(place, name, on_demand::NAME, filters.on_demand.is_some())?;
            let config = on_demand::decode(&config, &unpack(&config, any)?)?;
            filters.on_demand = Some(Placed { config, disabled });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Routes speak of a filter by its name, and know only one of a kind.
fn check_placed(place: &Place<'_>, name: &str, known: &str, again: bool) -> Decoded<()> {
    match (name == known, again) {
        (true, false) => Ok(()),
        (true, true) => Err(place.unsupported(format_args!("filter `{name}` a second time"))),
        (false, _) => Err(place.field("name").unsupported(format_args!("`{name}` for the filter `{known}`"))),
    }
}

fn check_router(place: &Place<'_>, router: &Router) -> Decoded<()> {
    fields!(place, router => Router {
        honoured: ;
        // Of the headers that Envoy adds on its own, only the number of the attempt is ever added, where asked for.
        ignored: dynamic_stats, start_child_span, suppress_envoy_headers, suppress_grpc_request_failure_code_stats,
            reject_connect_request_early_data;
        refused: upstream_log, upstream_log_options, strict_check_headers, respect_expected_rq_timeout,
            upstream_http_filters;
    });
    Ok(())
}

/// Filters in the order in which they run.
pub(crate) fn encode(filters: &HttpFilters) -> Vec<proto::HttpFilter> {
    let filter = |name: &str, config, disabled| proto::HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        disabled,
        ..Default::default()
    };
    let cors = filters.cors.iter();
    let cors = cors.map(|placed| filter(filter::CORS, value::pack(&Cors {}), placed.disabled));
    let fault = filters.fault.iter().map(|placed| {
        filter(filter::FAULT, value::pack(&filter::encode_fault(&placed.config)), placed.disabled)
    });
    let rules = filters.authorization.iter();
    let rules = rules.map(|rules| filter(authorization::RBAC, authorization::encode(rules), false));
    let health = filters.health.iter();
    let health = health.map(|health| {
        let answers = small_filter::encode_health(health);
        filter(small_filter::HEALTH, value::pack_ordered(&answers, &wire_order::HEALTH_ANSWERS), false)
    });
    let csrf = filters.csrf.iter().map(|placed| {
        let config = value::pack(&small_filter::encode_csrf(&placed.config));
        filter(small_filter::CSRF, config, placed.disabled)
    });
    let buffer = filters.buffer.iter().map(|placed| {
        let config = value::pack(&small_filter::encode_buffer(placed.config));
        filter(small_filter::BUFFER, config, placed.disabled)
    });
    let session = filters.session.iter().map(|placed| {
        let config = value::pack(&small_filter::encode_session(placed.config.as_ref()));
        filter(small_filter::SESSION, config, placed.disabled)
    });
    let mutations = filters.mutations.iter().map(|placed| {
        let config = value::pack(&mutation::encode_filter(&placed.config));
        filter(mutation::NAME, config, placed.disabled)
    });
    // In Envoy a route that comes late is seen only by the filters behind.
    let on_demand = filters.on_demand.iter().map(|placed| {
        filter(on_demand::NAME, value::pack(&on_demand::encode(&placed.config)), placed.disabled)
    });
    let shadows = filters.shadows.iter();
    let shadows =
        shadows.map(|rules| filter(authorization::RBAC, authorization::encode_shadow(rules), false));
    let notes = small_filter::encode_notes(&filters.notes);
    let notes = notes.into_iter().map(|notes| filter(small_filter::NOTES, notes, false));
    let first = health.chain(cors).chain(notes).chain(shadows).chain(rules).chain(fault).chain(csrf);
    on_demand.chain(first).chain(buffer).chain(session).chain(mutations).collect()
}
