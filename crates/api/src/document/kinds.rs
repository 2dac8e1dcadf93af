//! Which kinds are read, and what is said about the others.

use crate::decode::{Decode, Decoder, Style, closest};
use crate::diagnostic::Severity;
use crate::object::Spec;
use crate::yaml::Node;

/// A kind that is read.
pub(super) struct ReadKind {
    group: &'static str,
    /// The versions read, the one to prefer first. They differ in nothing we read.
    versions: &'static [&'static str],
    kind: &'static str,
    pub(super) style: Style,
    /// The field that is read; empty when it is the resource itself.
    pub(super) body: &'static str,
    /// Reads it.
    pub(super) read: fn(&Node, &mut Decoder) -> Option<Spec>,
}

/// What is known of a kind.
pub(super) enum Found {
    /// It is read.
    Read(&'static ReadKind),
    /// It is misspelt: the field, what is wrong with it and what would be right.
    Wrong { field: &'static str, message: String, help: String },
    /// It exists, but not for us.
    Unsupported { severity: Severity, help: Option<String> },
}

const CORE: &str = "";
const APPS: &str = "apps";
const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const IEUM: &str = "ieum.dev";

const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// Kinds of Istio that we do not read: a name close to one of them is no misspelling of ours.
const OTHER_ISTIO: [&str; 8] = [
    "AuthorizationPolicy",
    "EnvoyFilter",
    "IstioOperator",
    "RequestAuthentication",
    "ServiceEntryStatus",
    "Telemetry",
    "TrafficExtension",
    "WasmPlugin",
];

/// Kinds without effect on a mesh that runs without a cluster.
const INERT: [&str; 16] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CustomResourceDefinition",
    "HorizontalPodAutoscaler",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PodMonitor",
    "PriorityClass",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "ServiceMonitor",
    "StorageClass",
];

/// The fields of a kind of Istio's, as paths: `spec.http[].timeout`; `*` stands for a key of a map. Of `MeshConfig`, too.
pub fn fields_of(kind: &str) -> Vec<String> {
    use crate::{mesh_config, networking, security};
    let mut all = Vec::new();
    let list = match kind {
        "VirtualService" => networking::VirtualService::list_fields,
        "DestinationRule" => networking::DestinationRule::list_fields,
        "Gateway" => networking::Gateway::list_fields,
        "ServiceEntry" => networking::ServiceEntry::list_fields,
        "WorkloadEntry" => networking::WorkloadEntry::list_fields,
        "WorkloadGroup" => networking::WorkloadGroup::list_fields,
        "Sidecar" => networking::Sidecar::list_fields,
        "ProxyConfig" => networking::ProxyConfig::list_fields,
        "PeerAuthentication" => security::PeerAuthentication::list_fields,
        "MeshConfig" => mesh_config::MeshConfig::list_fields,
        _ => return all,
    };
    list("spec", &mut all);
    all
}

macro_rules! boxed {
    ($spec:ident) => {
        |node, decoder| Decode::decode(node, decoder).map(Spec::$spec)
    };
}

static KINDS: &[ReadKind] = &[
    kubernetes(CORE, "Namespace", |_, _| Some(Spec::Namespace)),
    kubernetes(CORE, "ServiceAccount", |_, _| Some(Spec::ServiceAccount)),
    ReadKind { body: "", ..kubernetes(CORE, "Secret", boxed!(Secret)) },
    kubernetes(CORE, "Service", boxed!(Service)),
    kubernetes(APPS, "Deployment", boxed!(Deployment)),
    istio(NETWORKING, NETWORKING_VERSIONS, "VirtualService", boxed!(VirtualService)),
    istio(NETWORKING, NETWORKING_VERSIONS, "DestinationRule", boxed!(DestinationRule)),
    istio(NETWORKING, NETWORKING_VERSIONS, "Gateway", boxed!(Gateway)),
    istio(NETWORKING, NETWORKING_VERSIONS, "ServiceEntry", boxed!(ServiceEntry)),
    istio(NETWORKING, NETWORKING_VERSIONS, "WorkloadEntry", boxed!(WorkloadEntry)),
    istio(NETWORKING, NETWORKING_VERSIONS, "WorkloadGroup", boxed!(WorkloadGroup)),
    istio(NETWORKING, NETWORKING_VERSIONS, "Sidecar", boxed!(Sidecar)),
    istio(NETWORKING, NETWORKING_VERSIONS, "ProxyConfig", boxed!(ProxyConfig)),
    istio(SECURITY, &["v1", "v1beta1"], "PeerAuthentication", boxed!(PeerAuthentication)),
    istio(IEUM, &["v1alpha1"], "LocalMesh", boxed!(LocalMesh)),
];

type Read = fn(&Node, &mut Decoder) -> Option<Spec>;

const fn kubernetes(group: &'static str, kind: &'static str, read: Read) -> ReadKind {
    ReadKind { group, versions: &["v1"], kind, style: Style::Kubernetes, body: "spec", read }
}

const fn istio(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    read: Read,
) -> ReadKind {
    ReadKind { group, versions, kind, style: Style::Protobuf, body: "spec", read }
}

impl ReadKind {
    /// The apiVersion to prefer.
    fn api_version(&self) -> String {
        let version = self.versions.first().copied().unwrap_or_default();
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}

/// What is known of `kind` in `api_version`.
pub(super) fn find(api_version: &str, kind: &str) -> Found {
    for (field, value) in [("apiVersion", api_version), ("kind", kind)] {
        if value.is_empty() {
            let help = match KINDS.iter().find(|read| read.kind == kind) {
                Some(read) => format!("write `apiVersion: {}`", read.api_version()),
                None => format!("write `{field}:`"),
            };
            return Found::Wrong { field, message: format!("`{field}` is missing"), help };
        }
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or((CORE, api_version));
    if let Some(read) = KINDS.iter().find(|read| read.kind == kind && read.group == group) {
        if read.versions.contains(&version) {
            return Found::Read(read);
        }
        let message = format!("there is no version `{version}` of {kind}");
        return Found::Wrong {
            field: "apiVersion",
            message,
            help: format!("write `apiVersion: {}`", read.api_version()),
        };
    }
    let ours = [CORE, NETWORKING, SECURITY, IEUM].contains(&group);
    if let Some(read) = KINDS.iter().find(|read| read.kind == kind).filter(|_| ours) {
        let message = format!("there is no kind {kind} in `{api_version}`");
        return Found::Wrong {
            field: "apiVersion",
            message,
            help: format!("write `apiVersion: {}`", read.api_version()),
        };
    }
    let near = closest(kind, KINDS.iter().filter(|read| read.group == group).map(|read| read.kind));
    let exists = OTHER_ISTIO.contains(&kind) || INERT.contains(&kind) || kind.starts_with("Pod");
    if let Some(near) = near.filter(|_| ours && !exists) {
        let message = format!("there is no kind {kind} in `{api_version}`");
        return Found::Wrong { field: "kind", message, help: format!("did you mean `{near}`?") };
    }
    let severity = if INERT.contains(&kind) { Severity::Info } else { Severity::Warning };
    Found::Unsupported { severity, help: stand_in(group, kind) }
}

/// What to write in place of a kind that is not read.
fn stand_in(group: &str, kind: &str) -> Option<String> {
    let text = match (group, kind) {
        (APPS, "StatefulSet" | "DaemonSet" | "ReplicaSet") | (CORE, "Pod" | "ReplicationController") => {
            "its processes are not started; a Deployment's are"
        }
        ("networking.k8s.io", "Ingress") => {
            "a Gateway and a VirtualService of networking.istio.io say the same"
        }
        (SECURITY, "AuthorizationPolicy" | "RequestAuthentication") => {
            "nothing enforces it: requests it would deny pass"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
