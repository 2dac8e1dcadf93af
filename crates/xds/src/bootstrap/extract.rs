//! From Envoy's message to what we follow. A field we do not follow is refused when traffic would differ for it;
//! one that tunes the process only is told and passed over.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::config::bootstrap::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as wkt;
use model::metadata::Value;

use super::{Ads, Bootstrap, Locality, Node, Problem, Problems, Source};
use core::config_source::ConfigSourceSpecifier;
use core::grpc_service::TargetSpecifier;

struct Findings {
    source: Source,
    refused: Vec<Problem>,
    ignored: Vec<Problem>,
}

impl Findings {
    fn refuse(&mut self, field: &str, message: impl Into<String>) {
        self.refused.push(self.source.problem(field, message));
    }

    fn ignore(&mut self, is_set: bool, field: &str, reason: &str) {
        if is_set {
            self.ignored.push(self.source.problem(field, format!("has no effect: {reason}")));
        }
    }
}

/// Takes a bootstrap apart, with every problem it has.
pub(super) fn extract(mut message: pb::Bootstrap, source: Source) -> Result<Bootstrap, Problems> {
    let mut found = Findings { source, refused: Vec::new(), ignored: Vec::new() };
    refuse_what_changes_traffic(&message, &mut found);
    tell_what_is_ignored(&message, &mut found);
    let mark = mark(&message, &mut found);
    let node = node(message.node.take().unwrap_or_default());
    let admin = message.admin.as_ref().and_then(|admin| admin_address(admin, &mut found));
    let resources = message.static_resources.take().unwrap_or_default();
    let clusters: BTreeSet<&str> = resources.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let dynamic = message.dynamic_resources.take().unwrap_or_default();
    let ads = dynamic.ads_config.as_ref().and_then(|config| ads(config, &clusters, &mut found));
    let lds = is_ads(dynamic.lds_config.as_ref(), "dynamic_resources.lds_config", &mut found);
    let cds = is_ads(dynamic.cds_config.as_ref(), "dynamic_resources.cds_config", &mut found);
    for (is_asked, field) in [(lds, "dynamic_resources.lds_config"), (cds, "dynamic_resources.cds_config")] {
        if is_asked && dynamic.ads_config.is_none() {
            found.refuse(field, "asks over ADS, and there is no `dynamic_resources.ads_config`");
        }
    }
    if dynamic.ads_config.is_some() && node.id.is_empty() {
        found.refuse("node.id", "is required where `dynamic_resources.ads_config` is set");
    }
    let names = resources.clusters.iter().map(|cluster| cluster.name.as_str());
    check_names("static_resources.clusters", "cluster", names, &mut found);
    let names = resources.secrets.iter().map(|secret| secret.name.as_str());
    check_names("static_resources.secrets", "secret", names, &mut found);
    // Listeners may go without a name, and then each is another one.
    let names = resources.listeners.iter().map(|listener| listener.name.as_str());
    check_unique("static_resources.listeners", "listener", names.filter(|name| !name.is_empty()), &mut found);
    if !found.refused.is_empty() {
        return Err(Problems(found.refused));
    }
    Ok(Bootstrap {
        node,
        admin,
        static_listeners: resources.listeners,
        static_clusters: resources.clusters,
        static_secrets: resources.secrets,
        ads,
        lds,
        cds,
        mark,
        ignored: found.ignored,
        source: found.source,
    })
}

/// The mark of packets to endpoints. It is all that is followed of how connections to them are bound.
fn mark(message: &pb::Bootstrap, found: &mut Findings) -> Option<u32> {
    // `SOL_SOCKET` and `SO_MARK` of Linux.
    const SO_MARK: (i64, i64) = (1, 36);
    let config = message.cluster_manager.as_ref()?.upstream_bind_config.as_ref()?;
    let only_options =
        core::BindConfig { socket_options: config.socket_options.clone(), ..Default::default() };
    let mark = match config.socket_options.as_slice() {
        [
            core::SocketOption {
                level, name, value: Some(core::socket_option::Value::IntValue(value)), ..
            },
        ] if (*level, *name) == SO_MARK && *config == only_options => u32::try_from(*value).ok(),
        _ => None,
    };
    if mark.is_none() {
        let field = "cluster_manager.upstream_bind_config";
        found.refuse(
            field,
            "binding connections to endpoints is not supported, but for one socket option, SO_MARK",
        );
    }
    mark
}

fn refuse_what_changes_traffic(message: &pb::Bootstrap, found: &mut Findings) {
    let dynamic = message.dynamic_resources.as_ref();
    let refusals = [
        (message.hds_config.is_some(), "hds_config", "health checks on behalf of a server are not supported"),
        (
            !matches!(message.header_prefix.as_str(), "" | "x-envoy"),
            "header_prefix",
            "another prefix than `x-envoy` is not supported",
        ),
        (!message.default_socket_interface.is_empty(), "default_socket_interface", "is not supported"),
        (
            !message.certificate_provider_instances.is_empty(),
            "certificate_provider_instances",
            "certificates come from files, static secrets or SDS",
        ),
        (!message.config_sources.is_empty(), "config_sources", "`xdstp://` names are not supported"),
        (
            message.default_config_source.is_some(),
            "default_config_source",
            "`xdstp://` names are not supported",
        ),
        (message.xds_delegate_extension.is_some(), "xds_delegate_extension", "is not supported"),
        (
            dynamic.is_some_and(|dynamic| !dynamic.lds_resources_locator.is_empty()),
            "dynamic_resources.lds_resources_locator",
            "`xdstp://` names are not supported; use `lds_config: {ads: {}}`",
        ),
        (
            dynamic.is_some_and(|dynamic| !dynamic.cds_resources_locator.is_empty()),
            "dynamic_resources.cds_resources_locator",
            "`xdstp://` names are not supported; use `cds_config: {ads: {}}`",
        ),
    ];
    for (is_set, field, reason) in refusals {
        if is_set {
            found.refuse(field, reason);
        }
    }
    let regex = message.default_regex_engine.as_ref().and_then(|engine| engine.typed_config.as_ref());
    if regex.is_some_and(|any| !any.type_url.ends_with("regex_engines.v3.GoogleRE2")) {
        found.refuse(
            "default_regex_engine",
            "patterns are of the kind RE2 takes; no other engine is supported",
        );
    }
    for (at, extension) in message.bootstrap_extensions.iter().enumerate() {
        let kind = extension.typed_config.as_ref().map_or("", |any| any.type_url.as_str());
        let field = format!("bootstrap_extensions[{at}]");
        match kind.ends_with("internal_listener.v3.InternalListener") {
            true => found.ignore(true, &field, "internal listeners are not supported"),
            false => found.refuse(&field, format!("`{}` is not supported", extension.name)),
        }
    }
}

fn tell_what_is_ignored(message: &pb::Bootstrap, found: &mut Findings) {
    let own = "the proxy looks after this itself";
    let telemetry = "metrics are served at the admin address only";
    let manager = message.cluster_manager.as_ref();
    found.ignore(message.layered_runtime.is_some(), "layered_runtime", "there are no runtime keys");
    found.ignore(!message.flags_path.is_empty(), "flags_path", "there are no runtime keys");
    found.ignore(message.overload_manager.is_some(), "overload_manager", own);
    found.ignore(message.watchdogs.is_some(), "watchdogs", own);
    found.ignore(!message.fatal_actions.is_empty(), "fatal_actions", own);
    found.ignore(message.memory_allocator_manager.is_some(), "memory_allocator_manager", own);
    found.ignore(message.enable_worker_cpu_affinity, "enable_worker_cpu_affinity", own);
    found.ignore(
        message.typed_dns_resolver_config.is_some(),
        "typed_dns_resolver_config",
        "the system resolves names",
    );
    found.ignore(message.listener_manager.is_some(), "listener_manager", own);
    found.ignore(!message.stats_sinks.is_empty(), "stats_sinks", telemetry);
    found.ignore(message.stats_config.is_some(), "stats_config", "metrics have their own names and labels");
    found.ignore(
        message.application_log_config.is_some(),
        "application_log_config",
        "use the proxy's own flags",
    );
    let load = manager.is_some_and(|manager| manager.load_stats_config.is_some());
    found.ignore(load, "cluster_manager.load_stats_config", "load reports are not sent");
    let log = message.admin.as_ref().is_some_and(|admin| !admin.access_log.is_empty());
    found.ignore(log, "admin.access_log", "the admin interface keeps no log");
}

fn node(mut proto: core::Node) -> Node {
    let fields = proto.metadata.as_ref().map(|metadata| metadata.fields.clone()).unwrap_or_default();
    let locality = proto.locality.clone().unwrap_or_default();
    if proto.user_agent_name.is_empty() {
        let version =
            core::node::UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned());
        proto.user_agent_name = "ieum".to_owned();
        proto.user_agent_version_type.get_or_insert(version);
    }
    Node {
        id: proto.id.clone(),
        cluster: proto.cluster.clone(),
        metadata: fields.into_iter().map(|(key, value)| (key, json(value))).collect(),
        locality: Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone },
        proto,
    }
}

/// A value of a `Struct`. Its depth is bounded by what the YAML reader and prost take.
fn json(value: wkt::Value) -> Value {
    use wkt::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => Value::Number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => Value::List(list.values.into_iter().map(json).collect()),
        Some(Kind::StructValue(fields)) => {
            let fields = fields.fields.into_iter().map(|(key, value)| (key, json(value)));
            Value::Struct(fields.collect())
        }
    }
}

fn admin_address(admin: &pb::Admin, found: &mut Findings) -> Option<SocketAddr> {
    use core::socket_address::PortSpecifier;
    let field = "admin.address";
    // Without an address Envoy serves no admin interface.
    let address = match admin.address.as_ref()?.address.as_ref()? {
        core::address::Address::SocketAddress(address) => address,
        core::address::Address::Pipe(_) | core::address::Address::EnvoyInternalAddress(_) => {
            found.refuse(field, "must be a `socket_address`");
            return None;
        }
    };
    let port = match &address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port).ok(),
        Some(PortSpecifier::NamedPort(_)) | None => None,
    };
    match (address.address.parse::<IpAddr>(), port) {
        (Ok(ip), Some(port)) => Some(SocketAddr::new(ip, port)),
        (Err(_), _) => {
            let message = format!("`{}` is not an IP address", address.address);
            found.refuse("admin.address.socket_address.address", message);
            None
        }
        (_, None) => {
            found.refuse("admin.address.socket_address", "needs a `port_value` from 0 to 65535");
            None
        }
    }
}

fn ads(config: &core::ApiConfigSource, clusters: &BTreeSet<&str>, found: &mut Findings) -> Option<Ads> {
    use core::api_config_source::ApiType;
    let field = "dynamic_resources.ads_config";
    let delta = match ApiType::try_from(config.api_type) {
        Ok(ApiType::DeltaGrpc) => true,
        Ok(ApiType::Grpc) => false,
        _ => {
            found.refuse(&format!("{field}.api_type"), "must be `DELTA_GRPC` or `GRPC`");
            return None;
        }
    };
    if config.transport_api_version != core::ApiVersion::V3 as i32 {
        found.refuse(&format!("{field}.transport_api_version"), "must be `V3`");
    }
    if !config.config_validators.is_empty() {
        found.refuse(&format!("{field}.config_validators"), "are not supported");
    }
    let [service] = config.grpc_services.as_slice() else {
        let count = config.grpc_services.len();
        found.refuse(&format!("{field}.grpc_services"), format!("must have one entry; there are {count}"));
        return None;
    };
    let field = format!("{field}.grpc_services[0]");
    let grpc = match &service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => grpc,
        Some(TargetSpecifier::GoogleGrpc(google)) => {
            let advice = format!(
                "is not supported: declare `{}` as a static cluster with HTTP/2 and name it in `envoy_grpc.cluster_name`",
                google.target_uri
            );
            found.refuse(&format!("{field}.google_grpc"), advice);
            return None;
        }
        None => {
            found.refuse(&field, "needs an `envoy_grpc`");
            return None;
        }
    };
    if !clusters.contains(grpc.cluster_name.as_str()) {
        let message = format!("`{}` is not one of `static_resources.clusters`", grpc.cluster_name);
        found.refuse(&format!("{field}.envoy_grpc.cluster_name"), message);
    }
    let initial_metadata =
        service.initial_metadata.iter().map(|header| (header.key.clone(), header.value.clone()));
    Some(Ads {
        cluster: grpc.cluster_name.clone(),
        authority: if grpc.authority.is_empty() { grpc.cluster_name.clone() } else { grpc.authority.clone() },
        delta,
        initial_metadata: initial_metadata.collect(),
        node_on_first_only: config.set_node_on_first_message_only,
    })
}

/// Whether resources are asked for over ADS; any other source is refused.
fn is_ads(config: Option<&core::ConfigSource>, field: &str, found: &mut Findings) -> bool {
    let Some(config) = config else { return false };
    let (auto, v3) = (core::ApiVersion::Auto as i32, core::ApiVersion::V3 as i32);
    if ![auto, v3].contains(&config.resource_api_version) {
        found.refuse(&format!("{field}.resource_api_version"), "must be `V3`");
    }
    match &config.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => return true,
        #[allow(deprecated, reason = "people still write it, and are told what to write")]
        Some(ConfigSourceSpecifier::PathConfigSource(_) | ConfigSourceSpecifier::Path(_)) => {
            let message =
                "resources from watched files are not supported; use `static_resources`, or `ads: {}`";
            found.refuse(field, message);
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => {
            let message = "a discovery service of its own is not supported; describe it as `ads_config` and use `ads: {}`";
            found.refuse(field, message);
        }
        Some(ConfigSourceSpecifier::Self_(_)) | None => found.refuse(field, "needs `ads: {}`"),
    }
    false
}

fn check_names<'a>(
    field: &str,
    kind: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    found: &mut Findings,
) {
    for (at, _) in names.clone().enumerate().filter(|(_, name)| name.is_empty()) {
        found.refuse(&format!("{field}[{at}]"), format!("a {kind} needs a `name`"));
    }
    check_unique(field, kind, names.filter(|name| !name.is_empty()), found);
}

fn check_unique<'a>(field: &str, kind: &str, names: impl Iterator<Item = &'a str>, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            found.refuse(field, format!("more than one {kind} is named `{name}`"));
        }
    }
}
