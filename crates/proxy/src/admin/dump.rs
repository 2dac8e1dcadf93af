//! `/config_dump`: every resource with its version and state, in Envoy's shape. Private keys are left out.

use super::Admin;
use crate::discovery::{Catalog, Entry, Origin, Raw, Refusal, Version};
use identity::certificate::Rfc3339;
use model::on_demand::split_host_name;
use model::routing::RouteTable;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};
use xds::json::JsonWriter;

/// `W3JlZGFjdGVkXQ==` is `[redacted]` as Envoy shows it in a field of bytes.
const REDACTED: &str = "W3JlZGFjdGVkXQ==";

/// The whole dump; endpoints only where asked for, because there are many.
pub(super) fn config_dump(admin: &Admin, with_endpoints: bool) -> Value {
    admin.hub.read(|discovery| {
        let catalog = discovery.catalog();
        let dump = Dump {
            writer: JsonWriter::new(raws(catalog, with_endpoints).into_iter().map(Raw::to_any)),
            revision: &discovery.config().revision,
        };
        let started = wall_clock(admin.started);
        let mut configs = vec![json!({
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": { "node": admin.node_json() },
            "last_updated": started,
        })];
        configs.push(dump.clusters(catalog));
        if with_endpoints {
            configs.push(dump.endpoints(catalog));
        }
        configs.push(dump.listeners(catalog));
        configs.push(dump.routes(catalog));
        configs.push(dump.secrets(catalog));
        let mut all = json!({ "configs": configs });
        redact(&mut all);
        all
    })
}

fn raws(catalog: &Catalog, with_endpoints: bool) -> Vec<&Raw> {
    fn of<T>(entries: &BTreeMap<String, Entry<T>>) -> impl Iterator<Item = &Raw> {
        let versions = entries.values().flat_map(|entry| entry.latest.iter().chain(&entry.active));
        versions.filter_map(|version| version.raw.as_deref())
    }
    let mut all: Vec<&Raw> = of(&catalog.clusters.entries).collect();
    all.extend(of(&catalog.listeners.entries));
    all.extend(of(&catalog.routes.entries));
    all.extend(of(&catalog.virtual_hosts.entries));
    all.extend(of(&catalog.secrets.entries));
    if with_endpoints {
        all.extend(of(&catalog.assignments.entries));
    }
    all
}

struct Dump<'a> {
    writer: JsonWriter,
    revision: &'a str,
}

impl Dump<'_> {
    fn clusters(&self, catalog: &Catalog) -> Value {
        let entries = &catalog.clusters.entries;
        let dynamic = |active: bool| self.states(entries, "cluster", active);
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "version_info": self.revision,
            "static_clusters": self.fixed(entries, "cluster"),
            "dynamic_active_clusters": dynamic(true),
            "dynamic_warming_clusters": dynamic(false),
        })
    }

    fn listeners(&self, catalog: &Catalog) -> Value {
        let dynamic = catalog.listeners.entries.iter().filter(|(_, entry)| entry.origin == Origin::Dynamic);
        let dynamic = dynamic.map(|(name, entry)| {
            let mut shown = json!({ "name": name });
            if let Some(active) = &entry.active {
                shown["active_state"] = self.state(active, "listener");
            }
            if let Some(warming) = entry.latest.as_ref().filter(|_| !entry.is_settled()) {
                shown["warming_state"] = self.state(warming, "listener");
            }
            if entry.latest.is_none() && entry.active.is_some() {
                shown["draining_state"] = json!({});
            }
            add_error(&mut shown, entry.refusal.as_deref());
            shown
        });
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "version_info": self.revision,
            "static_listeners": self.fixed(&catalog.listeners.entries, "listener"),
            "dynamic_listeners": dynamic.collect::<Vec<_>>(),
        })
    }

    fn routes(&self, catalog: &Catalog) -> Value {
        let entries: &BTreeMap<String, Entry<RouteTable>> = &catalog.routes.entries;
        let mut active = self.states(entries, "route_config", true);
        active.iter_mut().for_each(|table| self.add_hosts(table, catalog));
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs": active,
            "dynamic_warming_route_configs": self.states(entries, "route_config", false),
        })
    }

    /// Adds the virtual hosts that came by themselves to their table, as Envoy shows them.
    fn add_hosts(&self, table: &mut Value, catalog: &Catalog) {
        let Some(name) = table["name"].as_str().map(str::to_owned) else { return };
        let of_table = |host: &str| split_host_name(host).is_some_and(|(table, _)| table == name);
        let hosts = catalog.virtual_hosts.entries.iter().filter(|(host, _)| of_table(host));
        let raws = hosts.filter_map(|(_, entry)| entry.active.as_ref()?.raw.as_ref());
        let mut shown: Vec<Value> = raws.map(|raw| self.writer.value(&raw.to_any())).collect();
        shown.iter_mut().filter_map(Value::as_object_mut).for_each(|host| drop(host.remove("@type")));
        if !shown.is_empty()
            && let Some(config) = table["route_config"].as_object_mut()
        {
            let all = config.entry("virtual_hosts").or_insert_with(|| json!([]));
            all.as_array_mut().into_iter().for_each(|all| all.append(&mut shown));
        }
    }

    fn endpoints(&self, catalog: &Catalog) -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
            "dynamic_endpoint_configs": self.states(&catalog.assignments.entries, "endpoint_config", true),
        })
    }

    fn secrets(&self, catalog: &Catalog) -> Value {
        let entries = &catalog.secrets.entries;
        let own = entries.iter().filter(|(_, entry)| entry.origin == Origin::Identity);
        let own = own.map(|(name, entry)| {
            let since = entry.active.as_ref().map(|version| wall_clock(version.since));
            json!({ "name": name, "version_info": "own identity", "last_updated": since })
        });
        let mut active = self.states(entries, "secret", true);
        active.extend(own);
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "static_secrets": self.fixed(entries, "secret"),
            "dynamic_active_secrets": active,
        })
    }

    fn fixed<T>(&self, entries: &BTreeMap<String, Entry<T>>, field: &str) -> Vec<Value> {
        let fixed = entries.iter().filter(|(_, entry)| entry.origin == Origin::Static);
        fixed.filter_map(|(_, entry)| Some(self.state(entry.latest.as_ref()?, field))).collect()
    }

    /// Resources of a control plane: those in force, or those that are waiting for something or are refused.
    fn states<T>(&self, entries: &BTreeMap<String, Entry<T>>, field: &str, active: bool) -> Vec<Value> {
        let mut shown = Vec::new();
        for (name, entry) in entries.iter().filter(|(_, entry)| entry.origin == Origin::Dynamic) {
            let version = match active {
                true => entry.active.as_ref(),
                false => entry.latest.as_ref().filter(|_| !entry.is_settled()),
            };
            // A refusal is shown beside what is in force instead, or alone.
            let refusal = entry.refusal.as_deref().filter(|_| active);
            if version.is_none() && refusal.is_none() {
                continue;
            }
            let mut state = version.map_or_else(|| json!({}), |version| self.state(version, field));
            state["name"] = json!(name);
            add_error(&mut state, refusal);
            shown.push(state);
        }
        shown
    }

    fn state<T>(&self, version: &Version<T>, field: &str) -> Value {
        let mut state = Map::new();
        if !version.version.is_empty() {
            state.insert("version_info".to_owned(), json!(&*version.version));
        }
        if let Some(raw) = &version.raw {
            state.insert(field.to_owned(), self.writer.value(&raw.to_any()));
        }
        state.insert("last_updated".to_owned(), json!(wall_clock(version.since)));
        Value::Object(state)
    }
}

fn add_error(shown: &mut Value, refusal: Option<&Refusal>) {
    if let Some(refusal) = refusal {
        shown["error_state"] = json!({
            "details": refusal.reason,
            "version_info": refusal.version,
            "last_update_attempt": wall_clock(refusal.at),
        });
    }
}

fn wall_clock(at: Instant) -> String {
    Rfc3339(SystemTime::now().checked_sub(at.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

/// Takes out what only its owner may know.
fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "private_key" | "password" | "session_ticket_keys" | "generic_secret" => {
                        *value = json!({ "inline_bytes": REDACTED });
                    }
                    _ => redact(value),
                }
            }
        }
        _ => {}
    }
}
