//! The process itself: `/ready`, `/server_info`, `/listeners`, `/certs`, `/memory`, and its own metrics.

use super::{Admin, Answer, State, answer};
use crate::discovery::{Discovery, is_own_secret};
use crate::worker::ListenerStatus;
use http::StatusCode;
use identity::certificate::{self, CertificateFacts, Rfc3339};
use model::listener::Listener;
use model::metadata::Value as Fact;
use model::tls::SecretContent;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::SystemTime;

impl Admin {
    pub(super) fn ready(&self) -> Answer {
        let state = self.state();
        let status = if state == State::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(status, "text/plain; charset=UTF-8", format!("{}\n", state.as_str()))
    }

    /// Every listener in force has its address.
    pub(super) fn all_listen(&self) -> bool {
        let statuses = (self.listeners)();
        let is_bound = |name: &String| {
            let mut of_name = statuses.iter().filter(|status| status.name == *name).peekable();
            of_name.peek().is_some() && of_name.all(|status| status.bound.is_ok())
        };
        self.hub.read(|discovery| {
            let listeners = discovery.config().listeners.iter();
            // Some have no sockets of their own.
            let has_socket = |listener: &Listener| listener.address.is_some() && !listener.binding.unbound;
            listeners.filter(|(_, listener)| has_socket(listener)).all(|(name, _)| is_bound(name))
        })
    }

    pub(super) fn prometheus(&self) -> String {
        let mut out = self.hub.live().telemetry().prometheus();
        self.hub.read(|discovery| write_own(self, discovery, &mut out));
        out
    }

    pub(super) fn listeners_text(&self) -> String {
        let lines = (self.listeners)().into_iter().map(|status| match status.bound {
            Ok(()) => format!("{}::{}\n", status.name, status.address),
            Err(why) => format!("{}::{}::cannot listen: {why}\n", status.name, status.address),
        });
        lines.collect()
    }

    pub(super) fn listeners_json(&self) -> Value {
        let one = |status: ListenerStatus| {
            let mut value = json!({
                "name": status.name,
                "local_address": { "socket_address": {
                    "address": status.address.ip().to_string(), "port_value": status.address.port()
                }},
            });
            if let Err(why) = status.bound {
                value["error"] = json!(why);
            }
            value
        };
        json!({ "listener_statuses": (self.listeners)().into_iter().map(one).collect::<Vec<_>>() })
    }

    pub(super) fn server_info(&self) -> Value {
        let uptime = format!("{}s", self.started.elapsed().as_secs());
        let settings = &self.settings;
        let mut info = json!({
            "version": concat!("ieum/", env!("CARGO_PKG_VERSION")),
            "state": self.state().as_str(),
            "hot_restart_version": "disabled",
            "command_line_options": {
                "config_path": settings.bootstrap,
                "concurrency": settings.concurrency,
                "drain_time": format!("{}s", settings.drain_time.as_secs_f64()),
            },
            "node": self.node_json(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "revision": self.hub.read(|discovery| discovery.config().revision.clone()),
        });
        if let Some(stream) = &self.stream {
            let stream = stream.borrow();
            info["control_plane"] = json!({
                "connected": stream.connected.is_some(),
                "connected_for_seconds": stream.connected.map(|since| since.elapsed().as_secs()),
                "last_failure": stream.failure,
                "streams": stream.streams,
                "responses": stream.responses,
            });
        }
        info
    }

    /// The node as Envoy shows it, with the name of the program and without the list of its extensions.
    pub(super) fn node_json(&self) -> Value {
        let node = &self.node;
        let metadata: Map<String, Value> = node.metadata.iter().map(|(k, v)| (k.clone(), fact(v))).collect();
        let locality = &node.locality;
        json!({
            "id": node.id,
            "cluster": node.cluster,
            "metadata": metadata,
            "locality": { "region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone },
            "user_agent_name": node.proto.user_agent_name,
        })
    }

    pub(super) fn certificates(&self) -> Value {
        self.hub.read(|discovery| {
            let secrets = discovery.config().secrets.values();
            let all = secrets.map(|secret| {
                let (field, pem) = match &secret.content {
                    SecretContent::Certificate(pair) => ("cert_chain", &pair.chain_pem),
                    SecretContent::TrustBundle(pem) => ("ca_cert", pem),
                };
                let chain = certificate::parse_chain(pem).unwrap_or_default();
                let facts = chain.iter().filter_map(|c| certificate::facts(c).ok());
                let mut shown = json!({ "name": secret.name, "own_identity": is_own_secret(secret) });
                shown[field] = facts.map(|facts| certificate_json(&facts)).collect();
                shown
            });
            json!({ "certificates": all.collect::<Vec<_>>() })
        })
    }
}

fn certificate_json(facts: &CertificateFacts) -> Value {
    let names = facts.uri_sans.iter().map(|uri| json!({ "uri": uri }));
    let names = names.chain(facts.dns_sans.iter().map(|dns| json!({ "dns": dns })));
    let names = names.chain(facts.ip_sans.iter().map(|ip| json!({ "ip_address": ip.to_string() })));
    let left = facts.not_after.duration_since(SystemTime::now()).unwrap_or_default();
    json!({
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial_number": facts.serial,
        "subject_alt_names": names.collect::<Vec<_>>(),
        "days_until_expiration": (left.as_secs() / 86_400).to_string(),
        "seconds_until_expiration": left.as_secs(),
        "valid_from": Rfc3339(facts.not_before).to_string(),
        "expiration_time": Rfc3339(facts.not_after).to_string(),
    })
}

fn fact(value: &Fact) -> Value {
    match value {
        Fact::Null => Value::Null,
        Fact::Bool(b) => json!(b),
        Fact::Number(n) => json!(n),
        Fact::String(s) => json!(s),
        Fact::List(items) => items.iter().map(fact).collect(),
        Fact::Struct(entries) => Value::Object(entries.iter().map(|(k, v)| (k.clone(), fact(v))).collect()),
    }
}

/// Metrics about the process, after those about traffic.
fn write_own(admin: &Admin, discovery: &Discovery, out: &mut String) {
    let catalog = discovery.catalog();
    let refused = [
        count(&catalog.listeners.entries),
        count(&catalog.routes.entries),
        count(&catalog.clusters.entries),
        count(&catalog.assignments.entries),
        count(&catalog.secrets.entries),
    ];
    let connected = admin.stream.as_ref().is_some_and(|stream| stream.borrow().connected.is_some());
    let gauges = [
        ("ieum_uptime_seconds", "Time since the start.", admin.started.elapsed().as_secs()),
        ("ieum_live", "The proxy can serve.", u64::from(admin.state() == State::Live)),
        ("ieum_control_plane_connected", "The ADS stream is up.", u64::from(connected)),
        ("ieum_refused_resources", "Resources whose newest version is refused.", refused.iter().sum()),
        ("ieum_listeners", "Listeners in force.", discovery.config().listeners.len() as u64),
        ("ieum_clusters", "Clusters in force.", discovery.config().clusters.len() as u64),
        ("ieum_resident_memory_bytes", "Memory of the process.", resident_bytes()),
    ];
    for (name, help, value) in gauges {
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    let name = "ieum_certificate_expiry_seconds";
    for secret in discovery.config().secrets.values() {
        if let SecretContent::Certificate(pair) = &secret.content
            && let Some(leaf) =
                certificate::parse_chain(&pair.chain_pem).ok().and_then(|c| c.into_iter().next())
            && let Ok(facts) = certificate::facts(&leaf)
        {
            let left = facts.not_after.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
            let label: String = secret.name.escape_default().collect();
            let _ = writeln!(out, "{name}{{secret=\"{label}\"}} {left}");
        }
    }
}

fn count<T>(entries: &std::collections::BTreeMap<String, crate::discovery::Entry<T>>) -> u64 {
    entries.values().filter(|entry| entry.refusal.is_some()).count() as u64
}

/// Prometheus text as Envoy's plain list: `name{labels}: value`.
pub(super) fn plain_stats(prometheus: &str) -> String {
    let samples = prometheus.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.filter_map(|line| line.rsplit_once(' '));
    pairs.map(|(name, value)| format!("{name}: {value}\n")).collect()
}

/// Memory of the process, in Envoy's words as far as they apply.
pub(super) fn memory() -> Value {
    json!({ "allocated": resident_bytes().to_string(), "physical": resident_bytes().to_string() })
}

/// What the kernel says is resident; 0 where it does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}
