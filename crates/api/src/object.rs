//! A resource as it was written, with where it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::kubernetes::{Deployment, Secret, Service};
use crate::local_mesh::LocalMesh;
use crate::networking::{
    DestinationRule, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
    WorkloadGroup,
};
use crate::security::PeerAuthentication;
use crate::yaml::Node;

/// A resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Who it is.
    pub meta: Metadata,
    /// Where it was written.
    pub origin: Origin,
    /// What it says.
    pub spec: Spec,
    /// The text it was read from, for the place of each field.
    pub(crate) source: Arc<Node>,
}

/// Who a resource is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `networking.istio.io/v1`, as written.
    pub api_version: String,
    /// `VirtualService`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace as written; see [`Object::namespace`].
    pub namespace: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Where a resource was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as the caller named it.
    pub file: Arc<str>,
    /// Line on which the resource begins, from 1.
    pub line: u32,
}

/// What a resource says, by kind. Kinds that are not read never become an [`Object`].
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// `v1` Namespace: its labels are all it says.
    Namespace,
    /// `v1` ServiceAccount: its name is all it says.
    ServiceAccount,
    /// `v1` Secret.
    Secret(Box<Secret>),
    /// `v1` Service.
    Service(Box<Service>),
    /// `apps/v1` Deployment.
    Deployment(Box<Deployment>),
    /// `networking.istio.io` VirtualService.
    VirtualService(Box<VirtualService>),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(Box<DestinationRule>),
    /// `networking.istio.io` Gateway.
    Gateway(Box<Gateway>),
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry(Box<ServiceEntry>),
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry(Box<WorkloadEntry>),
    /// `networking.istio.io` WorkloadGroup.
    WorkloadGroup(Box<WorkloadGroup>),
    /// `networking.istio.io` Sidecar.
    Sidecar(Box<Sidecar>),
    /// `networking.istio.io` ProxyConfig.
    ProxyConfig(Box<ProxyConfig>),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(Box<PeerAuthentication>),
    /// `ieum.dev/v1alpha1` LocalMesh.
    LocalMesh(Box<LocalMesh>),
}

/// What tells resources apart: kind, namespace and name. Displays as `VirtualService default/reviews`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// `VirtualService`.
    pub kind: String,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

impl Metadata {
    /// What tells the resource apart from others.
    pub fn key(&self) -> ObjectKey {
        let namespaced = self.kind != "Namespace" && self.kind != "LocalMesh";
        let namespace = if namespaced { self.namespace.as_deref().unwrap_or("default") } else { "" };
        ObjectKey { kind: self.kind.clone(), namespace: namespace.to_owned(), name: self.name.clone() }
    }
}

impl Object {
    /// Its namespace: `default` when none is written.
    pub fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or("default")
    }

    /// What tells it apart from others.
    pub fn id(&self) -> ObjectKey {
        self.meta.key()
    }

    /// The line of the field at `path` (`spec.http[0].timeout`), or of its nearest ancestor that is written.
    pub fn line_of(&self, path: &str) -> u32 {
        self.source.position(path).0
    }

    /// Line and column of the field at `path`, or of its nearest ancestor that is written.
    pub fn position_of(&self, path: &str) -> (u32, u32) {
        self.source.position(path)
    }

    /// The tree it was read from.
    pub fn source(&self) -> &Node {
        &self.source
    }

    /// A problem at a field that keeps the resource from being used.
    pub fn error(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Error, field, message)
    }

    /// A problem at a field that leaves the resource usable.
    pub fn warning(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Warning, field, message)
    }

    /// Something worth knowing about a field.
    pub fn info(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Info, field, message)
    }

    fn diagnostic(&self, severity: Severity, field: &str, message: impl Into<String>) -> Diagnostic {
        let (line, column) = self.position_of(field);
        Diagnostic::new(severity, self.origin.file.clone(), line, message)
            .column(column)
            .field(field)
            .resource(self.id().to_string())
    }
}
