//! What is asked for when a request needs it: clusters (`envoy.filters.http.on_demand`) and virtual hosts (`vhds`).

use super::place::{Decoded, Place, fields};
use super::value;
use envoy_types::pb::envoy::config::route::v3::Vhds;
use envoy_types::pb::envoy::extensions::filters::http::on_demand::v3 as proto;
use model::filter::Setting;
use model::on_demand::{DEFAULT_TIMEOUT, OnDemand};

pub(crate) const NAME: &str = "envoy.filters.http.on_demand";
pub(crate) const TYPE: &str = "envoy.extensions.filters.http.on_demand.v3.OnDemand";
pub(crate) const ROUTE_TYPE: &str = "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig";

pub(crate) fn decode(place: &Place<'_>, filter: &proto::OnDemand) -> Decoded<OnDemand> {
    decode_clusters(place, &filter.odcds)
}

/// Where a route says nothing of clusters, none are asked for.
pub(crate) fn decode_setting(
    place: &Place<'_>,
    setting: &proto::PerRouteConfig,
) -> Decoded<Setting<OnDemand>> {
    decode_clusters(place, &setting.odcds).map(Setting::Use)
}

fn decode_clusters(place: &Place<'_>, odcds: &Option<proto::OnDemandCds>) -> Decoded<OnDemand> {
    let Some(odcds) = odcds else { return Ok(OnDemand::default()) };
    let place = place.field("odcds");
    fields!(place, odcds => proto::OnDemandCds {
        honoured: source, timeout;
        ignored: ;
        refused: resources_locator;
    });
    value::check_config_source(&place.field("source"), source)?;
    let timeout = timeout.as_ref().map(|t| value::decode_duration(&place.field("timeout"), t)).transpose()?;
    Ok(OnDemand { clusters: Some(timeout.unwrap_or(DEFAULT_TIMEOUT)) })
}

pub(crate) fn encode(on_demand: &OnDemand) -> proto::OnDemand {
    proto::OnDemand { odcds: encode_clusters(on_demand) }
}

pub(crate) fn encode_setting(on_demand: &OnDemand) -> proto::PerRouteConfig {
    proto::PerRouteConfig { odcds: encode_clusters(on_demand) }
}

fn encode_clusters(on_demand: &OnDemand) -> Option<proto::OnDemandCds> {
    on_demand.clusters.map(|timeout| proto::OnDemandCds {
        source: value::ads(),
        resources_locator: String::new(),
        timeout: Some(value::encode_duration(timeout)),
    })
}

/// Whether the hosts of a table are asked for.
pub(crate) fn decode_vhds(place: &Place<'_>, vhds: &Option<Vhds>) -> Decoded<bool> {
    match vhds {
        None => Ok(false),
        Some(vhds) => {
            value::check_config_source(&place.field("config_source"), &vhds.config_source)?;
            Ok(true)
        }
    }
}

pub(crate) fn encode_vhds(asks_for_hosts: bool) -> Option<Vhds> {
    asks_for_hosts.then(|| Vhds { config_source: value::ads() })
}
