//! Which fields of Istio's API take effect: all of them, but for those that [`WORDS`] is about. `ieum check` tells of the
//! latter where they are written, and [`table`] is `docs/istio-api.md`.

use api::document::fields_of;
use std::fmt::Write;

/// How it stands with a field that does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It will.
    NotYet,
    /// At gateways it does.
    AtGateways,
    /// There is nothing here that it could be about.
    NotHere,
}

/// What is said of a field.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) kind: &'static str,
    /// The last part of its path, such as `connectionPool.http.maxRetries`; all below it is meant, too.
    path: &'static str,
    /// Only this value of it.
    pub(crate) value: Option<&'static str>,
    pub(crate) standing: Standing,
    /// What happens instead.
    pub(crate) instead: &'static str,
}

const fn not_yet(kind: &'static str, path: &'static str, instead: &'static str) -> Word {
    Word { kind, path, value: None, standing: Standing::NotYet, instead }
}

const fn not_here(kind: &'static str, path: &'static str, instead: &'static str) -> Word {
    Word { kind, path, value: None, standing: Standing::NotHere, instead }
}

const fn of_value(word: Word, value: &'static str) -> Word {
    Word { value: Some(value), ..word }
}

const VS: &str = "VirtualService";
const DR: &str = "DestinationRule";
const GATEWAY: &str = "Gateway";
const ENTRY: &str = "ServiceEntry";
const SIDECAR: &str = "Sidecar";
const GROUP: &str = "WorkloadGroup";
const PROXY: &str = "ProxyConfig";
const MESH: &str = "MeshConfig";
/// Kinds in the order of the table.
const KINDS: [&str; 10] =
    [VS, DR, GATEWAY, ENTRY, "WorkloadEntry", GROUP, SIDECAR, PROXY, "PeerAuthentication", "MeshConfig"];

/// No gateways between networks are declared anywhere; Istio reaches such endpoints directly, too.
const ONE_NETWORK: &str =
    "endpoints are reached directly: nothing says which gateways lead to other networks";

const ALLOW_ANY: &str = "it holds where traffic is captured (`ieum up --capture netns`); elsewhere declare such hosts in a ServiceEntry";
const VARIABLES: &str =
    "all but `ISTIO_META_ON_DEMAND`: sidecars are sent only what they ask for (`docs/on-demand.md`)";
const SPOKEN: &str = "what the port speaks decides";

/// What is said, by kind.
pub(crate) static WORDS: &[Word] = &[
    not_here(VS, "match[].statPrefix", "metrics keep their names, as `istio_requests_total` does everywhere"),
    not_here(VS, "fault.delay.exponentialDelay", "nobody implements it"),
    not_here(VS, "fault.abort.http2Error", "nobody implements it"),
    of_value(
        not_here(
            DR,
            "loadBalancer.simple",
            "there is no captured traffic; the less loaded of two endpoints is picked",
        ),
        "PASSTHROUGH",
    ),
    not_yet(
        DR,
        "loadBalancer.zoneAwareLbSetting",
        "all zones are alike; write `localityLbSetting` for preferences by place",
    ),
    not_here(
        DR,
        "outlierDetection.consecutiveErrors",
        "Istio ignores it too; write `consecutiveGatewayErrors`",
    ),
    Word {
        standing: Standing::AtGateways,
        ..not_yet(
            DR,
            "tunnel",
            "lead to it by an egress gateway: a sidecar's connections go straight to the destination",
        )
    },
    of_value(not_yet(GATEWAY, "servers[].bind", "nothing listens for this server"), "unix:///path"),
    not_here(GATEWAY, "servers[].defaultEndpoint", "nobody implements it"),
    not_here(GATEWAY, "port.targetPort", "the LocalMesh says where a gateway listens"),
    of_value(not_yet(ENTRY, "resolution", "name each host, with `resolution: DNS`"), "DYNAMIC_DNS"),
    not_here("WorkloadEntry", "network", ONE_NETWORK),
    of_value(not_yet(ENTRY, "endpoints[].address", "such an endpoint is left out"), "unix:///path"),
    not_here(ENTRY, "endpoints[].network", ONE_NETWORK),
    not_here(GROUP, "template.network", ONE_NETWORK),
    not_here(
        GROUP,
        "probe",
        "the condition `Healthy` in a WorkloadEntry's status says it; `ieum up` looks at its own",
    ),
    not_here(
        SIDECAR,
        "ingress[].captureMode",
        "the sidecar listens at its workload's address, however one gets there",
    ),
    of_value(
        not_yet(SIDECAR, "ingress[].defaultEndpoint", "let the application listen at 127.0.0.1"),
        "unix:///path",
    ),
    of_value(not_yet(SIDECAR, "egress[].bind", "the listener is left out"), "unix:///path"),
    not_here(SIDECAR, "port.targetPort", "Istio ignores it too; write `defaultEndpoint`"),
    not_here(SIDECAR, "tls.httpsRedirect", "Istio refuses it; a Gateway redirects"),
    not_here(SIDECAR, "connectionPool.http.h2UpgradePolicy", SPOKEN),
    not_here(SIDECAR, "inboundConnectionPool.http.h2UpgradePolicy", SPOKEN),
    not_here(SIDECAR, "connectionPool.http.useClientProtocol", SPOKEN),
    not_here(SIDECAR, "inboundConnectionPool.http.useClientProtocol", SPOKEN),
    of_value(not_yet(SIDECAR, "outboundTrafficPolicy.mode", ALLOW_ANY), "ALLOW_ANY"),
    of_value(
        not_yet(SIDECAR, "outboundTrafficPolicy.mode", "declare such hosts in a ServiceEntry"),
        "ALLOW_ANY_DYNAMIC_DNS",
    ),
    not_here(PROXY, "environmentVariables", VARIABLES),
    not_here(PROXY, "image", "there are no container images"),
    not_here(MESH, "defaultConfig.holdApplicationUntilProxyStarts", "it is always so"),
    not_here(MESH, "defaultConfig.drainDuration", "connections outlive every change of listeners"),
    not_here(MESH, "defaultConfig.parentShutdownDuration", "no proxy takes over from another"),
    not_here(MESH, "defaultConfig.proxyMetadata", VARIABLES),
    not_here(MESH, "defaultConfig.image", "there are no container images"),
    not_here(
        MESH,
        "defaultConfig.discoveryAddress",
        "`ieum up` says where the control plane is, or the bootstrap",
    ),
    not_here(MESH, "defaultConfig.configPath", "the bootstrap is in the state folder"),
    not_here(
        MESH,
        "defaultConfig.binaryPath",
        "the proxy is `ieum` itself; others are in `proxies` of the LocalMesh",
    ),
    not_here(MESH, "defaultConfig.serviceCluster", "names come from workloads"),
    not_here(MESH, "defaultConfig.statusPort", "the admin port of each proxy tells"),
    not_here(MESH, "defaultConfig.proxyAdminPort", "many proxies share a machine, so each gets a free port"),
    not_here(
        MESH,
        "defaultConfig.controlPlaneAuthPolicy",
        "proxies and the control plane always prove who they are",
    ),
    not_here(MESH, "defaultConfig.customConfigFile", "`ieum proxy --bootstrap` reads any"),
    not_here(MESH, "defaultConfig.proxyBootstrapTemplatePath", "`ieum proxy --bootstrap` reads any"),
    not_here(
        MESH,
        "defaultConfig.interceptionMode",
        "traffic is redirected by `--capture netns`, and never by TPROXY",
    ),
    not_here(MESH, "defaultConfig.statNameLength", "names of metrics have no limit"),
    of_value(not_yet("MeshConfig", "outboundTrafficPolicy.mode", ALLOW_ANY), "ALLOW_ANY"),
    of_value(
        not_yet("MeshConfig", "outboundTrafficPolicy.mode", "declare such hosts in a ServiceEntry"),
        "ALLOW_ANY_DYNAMIC_DNS",
    ),
];

/// What is said of the field at `path` (`spec.http[].timeout`) when it holds `value`; `None` when it takes effect. `words` are all that is
/// said of its kind.
pub(crate) fn standing(
    mut words: impl Iterator<Item = &'static Word>,
    path: &str,
    value: Option<&str>,
) -> Option<&'static Word> {
    words.find(|word| word.value.is_none_or(|wanted| value == Some(wanted)) && is_end_of(word.path, path))
}

fn is_end_of(end: &str, path: &str) -> bool {
    let path = path.strip_suffix("[]").unwrap_or(path);
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.') || rest.ends_with("[]"))
}

/// Whether a field's standing is another's: policies of subsets and ports are as the one of the whole.
fn is_repetition(path: &str) -> bool {
    path.starts_with("spec.subsets[].trafficPolicy.")
        || (path.contains("portLevelSettings[].") && !path.contains("portLevelSettings[].port."))
}

/// The table of every field, as `docs/istio-api.md` has it.
pub fn table() -> String {
    let mut out = String::from(
        "# Fields of Istio's API\n\n\
         Made from the code by a test of `crates/control`; `ieum check` tells of every field that is *not yet*. v1, v1beta1 and\n\
         v1alpha3 are read alike. Policies of subsets and ports of a DestinationRule are as the policy of the whole.\n",
    );
    for kind in KINDS {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n## {kind}\n\n| field | |\n|---|---|\n");
        for path in fields_of(kind).iter().filter(|path| !is_repetition(path)) {
            let name = path.strip_prefix("spec.").unwrap_or(path);
            let _ = writeln!(out, "| `{name}` | {} |", describe(kind, path));
        }
    }
    out
}

/// How it stands with the field at `path`, or with what it is a part of.
fn describe(kind: &str, path: &str) -> String {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    let whole = ends.filter_map(|end| path.get(..end)).find_map(|part| {
        WORDS.iter().find(|word| word.kind == kind && word.value.is_none() && is_end_of(word.path, part))
    });
    let text = |word: &Word| match word.standing {
        Standing::NotYet => format!("**not yet**: {}", word.instead),
        Standing::AtGateways => format!("honoured at gateways; **not yet** in sidecars: {}", word.instead),
        Standing::NotHere => format!("not meaningful here: {}", word.instead),
    };
    if let Some(word) = whole {
        return text(word);
    }
    let values = WORDS.iter().filter(|word| word.kind == kind && is_end_of(word.path, path));
    let values = values.filter_map(|word| Some(format!("; `{}` {}", word.value?, text(word))));
    format!("honoured{}", values.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_about_a_field_that_there_is() {
        for word in WORDS {
            let about = |path: &String| {
                let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
                ends.filter_map(|end| path.get(..end)).any(|part| is_end_of(word.path, part))
            };
            assert!(fields_of(word.kind).iter().any(about), "{} {}", word.kind, word.path);
        }
    }

    #[test]
    fn a_word_is_about_whole_names_only() {
        assert!(is_end_of("tls.caCrl", "spec.trafficPolicy.tls.caCrl"));
        assert!(is_end_of("bind", "spec.servers[].bind"));
        assert!(!is_end_of("tls.caCrl", "spec.trafficPolicy.mtls.caCrl"));
    }
}
