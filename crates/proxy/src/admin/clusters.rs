//! `/clusters`: every cluster with its endpoints, in Envoy's text format and in its JSON.

use crate::snapshot::{ClusterState, EndpointState, Limited, Snapshot};
use model::endpoint::{Health, LocalityEndpoints};
use model::limits::Priority;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// In order of their names.
fn sorted(snapshot: &Snapshot) -> Vec<(&str, &ClusterState)> {
    let mut all: Vec<(&str, &ClusterState)> =
        snapshot.clusters.iter().map(|(name, cluster)| (&**name, &**cluster)).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

/// Envoy's text format, one fact a line.
pub(super) fn as_text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for (name, cluster) in sorted(snapshot) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}::observability_name::{name}");
        limits(&mut out, name, cluster);
        if let Some(eds) = crate::discovery::eds_name(&cluster.config) {
            let _ = writeln!(out, "{name}::eds_service_name::{eds}");
        }
        for endpoint in &cluster.endpoints {
            let place = place(cluster, endpoint);
            let (locality, priority) = (place.map(|p| &p.locality), place.map_or(0, |p| p.priority));
            let facts = [
                ("rq_active", endpoint.active.load(Ordering::Relaxed).to_string()),
                ("hostname", endpoint.endpoint.hostname.clone()),
                ("health_flags", health_flags(cluster, endpoint)),
                ("weight", endpoint.endpoint.weight.to_string()),
                ("region", locality.map(|l| l.region.clone()).unwrap_or_default()),
                ("zone", locality.map(|l| l.zone.clone()).unwrap_or_default()),
                ("sub_zone", locality.map(|l| l.sub_zone.clone()).unwrap_or_default()),
                ("priority", priority.to_string()),
            ];
            for (fact, value) in facts {
                let _ = writeln!(out, "{name}::{}::{fact}::{value}", endpoint.address);
            }
        }
    }
    out
}

/// The limits of each priority; none is told as the largest number, which is how Envoy is told of none.
fn limits(out: &mut String, name: &str, cluster: &ClusterState) {
    for (priority, word) in [(Priority::Default, "default_priority"), (Priority::High, "high_priority")] {
        let thresholds = cluster.config.limits.of(priority);
        let limited = [Limited::Connections, Limited::Pending, Limited::Requests, Limited::Retries];
        for what in limited {
            let limit = what.of(thresholds).unwrap_or(u32::MAX);
            let _ = writeln!(out, "{name}::{word}::{}::{limit}", what.as_str());
        }
    }
}

/// Envoy's `Clusters` message.
pub(super) fn as_json(snapshot: &Snapshot) -> Value {
    let clusters = sorted(snapshot).into_iter().map(|(name, cluster)| {
        let hosts: Vec<Value> = cluster.endpoints.iter().map(|endpoint| host(cluster, endpoint)).collect();
        let mut status = json!({ "name": name, "observability_name": name, "host_statuses": hosts });
        if let Some(eds) = crate::discovery::eds_name(&cluster.config) {
            status["eds_service_name"] = json!(eds);
        }
        status
    });
    json!({ "cluster_statuses": clusters.collect::<Vec<_>>() })
}

fn host(cluster: &ClusterState, endpoint: &EndpointState) -> Value {
    let place = place(cluster, endpoint);
    let mut host = json!({
        "address": { "socket_address": {
            "address": endpoint.address.ip().to_string(), "port_value": endpoint.address.port()
        }},
        "stats": [
            { "type": "GAUGE", "name": "rq_active", "value": endpoint.active.load(Ordering::Relaxed).to_string() },
        ],
        "health_status": health_status(cluster, endpoint),
        "weight": endpoint.endpoint.weight,
        "locality": {},
    });
    if !endpoint.endpoint.hostname.is_empty() {
        host["hostname"] = json!(endpoint.endpoint.hostname);
    }
    if let Some(place) = place {
        let parts = [
            ("region", &place.locality.region),
            ("zone", &place.locality.zone),
            ("sub_zone", &place.locality.sub_zone),
        ];
        for (part, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            host["locality"][part] = json!(value);
        }
        if place.priority > 0 {
            host["priority"] = json!(place.priority);
        }
    }
    host
}

/// The locality that an endpoint is in.
fn place<'c>(cluster: &'c ClusterState, endpoint: &EndpointState) -> Option<&'c LocalityEndpoints> {
    let all = cluster.assignment().into_iter().flat_map(|assignment| &assignment.localities);
    let mut with = all.filter(|locality| locality.endpoints.iter().any(|e| *e == *endpoint.endpoint));
    with.next()
}

fn health_flags(cluster: &ClusterState, endpoint: &EndpointState) -> String {
    let said = match endpoint.endpoint.health {
        Health::Unknown | Health::Healthy => "",
        Health::Unhealthy | Health::Draining => "/failed_eds_health",
        Health::Degraded => "/degraded_eds_health",
    };
    let checks = match (endpoint.fails_checks(&cluster.config), endpoint.awaits_checks(&cluster.config)) {
        (true, _) => "/failed_active_hc",
        (false, true) => "/pending_active_hc",
        (false, false) => "",
    };
    let outlier = if endpoint.is_ejected(&cluster.config) { "/failed_outlier_check" } else { "" };
    match format!("{checks}{outlier}{said}") {
        flags if flags.is_empty() => "healthy".to_owned(),
        flags => flags,
    }
}

fn health_status(cluster: &ClusterState, endpoint: &EndpointState) -> Value {
    let mut status = json!({ "eds_health_status": eds_health(endpoint.endpoint.health) });
    if endpoint.fails_checks(&cluster.config) {
        status["failed_active_health_check"] = json!(true);
    }
    if endpoint.is_ejected(&cluster.config) {
        status["failed_outlier_check"] = json!(true);
    }
    status
}

fn eds_health(health: Health) -> &'static str {
    match health {
        // Envoy calls what it knows nothing bad of healthy.
        Health::Unknown | Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
        Health::Degraded => "DEGRADED",
    }
}
