//! What listeners of all kinds have in common: how HTTP is spoken on a connection, what is logged and traced.

use super::access_log::access_logs;
use crate::world::World;
use api::Diagnostic;
use api::mesh_config::NormalizationType;
use model::fault::Fault;
use model::filter::{HttpFilters, Placed};
use model::listener::{AccessLog, HttpConnectionManager, Listener, Network, RouteSource, TcpProxy, Tracing};
use model::path::{EscapedSlashes, PathNormalization};
use model::route::{Upgrade, WeightedCluster};
use std::time::Duration;

/// Share of requests that are traced where nobody says otherwise, in percent.
const SAMPLING: f64 = 1.0;
/// A TCP connection may be silent for so long.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Settings of the mesh for connections.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionSettings {
    access_logs: Vec<AccessLog>,
    tracing: Option<Tracing>,
    path: PathNormalization,
}

impl ConnectionSettings {
    pub(super) fn of(world: &World, found: &mut Vec<Diagnostic>) -> Self {
        let settings = world.settings();
        let sampling =
            settings.default_config.as_ref().and_then(|c| c.tracing.as_ref()).and_then(|t| t.sampling);
        // Trace context is made and passed on always; the share decides how many ask to be recorded.
        let random_sampling_percent = sampling.unwrap_or(SAMPLING);
        let written = settings.path_normalization.as_ref().map(|written| written.normalization);
        Self {
            access_logs: access_logs(world, found),
            tracing: Some(Tracing { random_sampling_percent }),
            path: path_normalization(written.unwrap_or_default()),
        }
    }

    /// HTTP with routes from `routes`.
    pub(super) fn http(&self, stat_prefix: &str, routes: RouteSource) -> HttpConnectionManager {
        HttpConnectionManager {
            stat_prefix: stat_prefix.to_owned(),
            path: self.path,
            upgrades: vec![upgrade("websocket")],
            stream_idle_timeout: None,
            server_name: None,
            tracing: self.tracing,
            stats: true,
            access_logs: self.access_logs.clone(),
            filters: route_filters(),
            ..HttpConnectionManager::new(routes)
        }
    }

    /// Bytes, to these clusters.
    pub(super) fn tcp(&self, stat_prefix: &str, clusters: Vec<WeightedCluster>) -> TcpProxy {
        TcpProxy {
            stat_prefix: stat_prefix.to_owned(),
            clusters,
            idle_timeout: Some(TCP_IDLE_TIMEOUT),
            access_logs: self.access_logs.clone(),
            ..TcpProxy::default()
        }
    }
}

/// How paths are made canonical.
fn path_normalization(written: NormalizationType) -> PathNormalization {
    let usual = PathNormalization::default();
    match written {
        NormalizationType::None => PathNormalization::NONE,
        NormalizationType::Default | NormalizationType::Base => usual,
        NormalizationType::MergeSlashes => PathNormalization { merge_slashes: true, ..usual },
        NormalizationType::DecodeAndMergeSlashes => {
            PathNormalization { merge_slashes: true, escaped_slashes: EscapedSlashes::Unescape, ..usual }
        }
    }
}

/// Traces this percentage of what comes to `listener`.
pub(super) fn sample(listener: &mut Listener, random_sampling_percent: f64) {
    for chain in &mut listener.chains {
        if let Network::Http(http) = &mut chain.network {
            http.tracing = Some(Tracing { random_sampling_percent });
        }
    }
}

/// The filters that do what routes say, and nothing by themselves.
pub(super) fn route_filters() -> HttpFilters {
    HttpFilters {
        cors: Some(Placed::new(())),
        fault: Some(Box::new(Placed::new(Fault::default()))),
        ..HttpFilters::default()
    }
}

/// Leave to switch to `protocol`.
pub(super) fn upgrade(protocol: &str) -> Upgrade {
    Upgrade { protocol: protocol.to_owned(), enabled: true, terminate_connect: false }
}

/// One cluster that gets everything.
pub(super) fn only(cluster: String) -> WeightedCluster {
    WeightedCluster {
        cluster,
        weight: 1,
        request_headers: Default::default(),
        response_headers: Default::default(),
        host_rewrite: None,
        subset: Default::default(),
    }
}
