//! The world that is translated: the resources in force, by kind and in the order that decides between them (file, then
//! line; files have no creation time). It looks things up and decides nothing.

use api::kubernetes::{Deployment, Secret, Service};
use api::local_mesh::{GatewayProxy, LocalMesh};
use api::mesh_config::MeshConfig;
use api::networking::{
    DestinationRule, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
    WorkloadGroup,
};
use api::security::PeerAuthentication;
use api::{Object, Spec};
use std::sync::Arc;

/// Trust domain of meshes that name none.
const TRUST_DOMAIN: &str = "cluster.local";
/// Namespace of mesh-wide policies in meshes that name none.
const ROOT_NAMESPACE: &str = "istio-system";

/// The resources in force.
#[derive(Debug, Clone, Default)]
pub struct World {
    objects: Vec<Arc<Object>>,
    /// Position of the LocalMesh that counts.
    local_mesh: Option<usize>,
    settings: MeshConfig,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $variant:ident($spec:ty);)*) => {
        impl World {
            $($(#[$doc])*
            pub fn $name(&self) -> impl Iterator<Item = (&Arc<Object>, &$spec)> {
                self.objects.iter().filter_map(|object| match &object.spec {
                    Spec::$variant(spec) => Some((object, spec.as_ref())),
                    _ => None,
                })
            })*
        }
    };
}

kinds! {
    /// Secrets.
    secrets = Secret(Secret);
    /// Kubernetes services.
    services = Service(Service);
    /// Deployments.
    deployments = Deployment(Deployment);
    /// VirtualServices.
    virtual_services = VirtualService(VirtualService);
    /// DestinationRules.
    destination_rules = DestinationRule(DestinationRule);
    /// Gateways.
    gateways = Gateway(Gateway);
    /// ServiceEntries.
    service_entries = ServiceEntry(ServiceEntry);
    /// WorkloadEntries.
    workload_entries = WorkloadEntry(WorkloadEntry);
    /// WorkloadGroups.
    workload_groups = WorkloadGroup(WorkloadGroup);
    /// Sidecars.
    sidecars = Sidecar(Sidecar);
    /// ProxyConfigs.
    proxy_configs = ProxyConfig(ProxyConfig);
    /// PeerAuthentications.
    peer_authentications = PeerAuthentication(PeerAuthentication);
    /// LocalMeshes; [`World::local_mesh`] is the one that counts.
    local_meshes = LocalMesh(LocalMesh);
}

impl World {
    /// The world of these resources.
    pub fn of<'o>(objects: impl IntoIterator<Item = &'o Arc<Object>>) -> Self {
        let mut objects: Vec<Arc<Object>> = objects.into_iter().cloned().collect();
        objects.sort_by(|a, b| a.origin.cmp(&b.origin).then_with(|| a.id().cmp(&b.id())));
        let local_mesh = objects.iter().position(|o| matches!(o.spec, Spec::LocalMesh(_)));
        let mut world = Self { objects, local_mesh, settings: MeshConfig::default() };
        world.settings = world.local_mesh().map(|mesh| mesh.mesh_config.clone()).unwrap_or_default();
        world
    }

    /// All resources, in order.
    pub fn objects(&self) -> &[Arc<Object>] {
        &self.objects
    }

    /// The LocalMesh that counts: the first.
    pub fn local_mesh(&self) -> Option<&LocalMesh> {
        match &self.local_mesh_object()?.spec {
            Spec::LocalMesh(mesh) => Some(mesh),
            _ => None,
        }
    }

    /// The same as a resource.
    pub fn local_mesh_object(&self) -> Option<&Arc<Object>> {
        self.objects.get(self.local_mesh?)
    }

    /// The gateway proxy of that name, as the LocalMesh declares it.
    pub fn gateway_proxy(&self, name: &str) -> Option<&GatewayProxy> {
        self.local_mesh()?.gateways.iter().find(|gateway| gateway.name == name)
    }

    /// Mesh-wide settings.
    pub fn settings(&self) -> &MeshConfig {
        &self.settings
    }

    /// First part of every identity.
    pub fn trust_domain(&self) -> &str {
        match self.settings.trust_domain.as_str() {
            "" => TRUST_DOMAIN,
            domain => domain,
        }
    }

    /// Namespace of mesh-wide policies.
    pub fn root_namespace(&self) -> &str {
        match self.settings.root_namespace.as_str() {
            "" => ROOT_NAMESPACE,
            namespace => namespace,
        }
    }
}
