//! An immutable set of marshalled resources, shared by every stream that serves it.
//! What the bytes mean is left to whoever encodes and decodes them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// One marshalled resource. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedResource {
    /// Opaque; a resource is sent again exactly when this differs from what the client was sent.
    pub version: String,
    /// The value of the `google.protobuf.Any`, without its type URL.
    pub body: Arc<[u8]>,
}

/// Resources by type URL, then by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSet {
    /// The version of the whole set, for `system_version_info`: shown to people, never compared.
    pub version: String,
    /// Shared between clones until one of them is changed.
    types: BTreeMap<String, Arc<BTreeMap<String, VersionedResource>>>,
}

impl ResourceSet {
    /// An empty set.
    pub fn new(version: impl Into<String>) -> Self {
        Self { version: version.into(), types: BTreeMap::new() }
    }

    /// Adds or replaces a resource while the set is being built.
    pub fn insert(&mut self, type_url: &str, name: &str, version: &str, body: impl Into<Arc<[u8]>>) {
        let resource = VersionedResource { version: version.to_owned(), body: body.into() };
        self.insert_shared(type_url, name, resource);
    }

    /// Adds or replaces a resource marshalled before, whose bytes stay shared.
    pub fn insert_shared(&mut self, type_url: &str, name: &str, resource: VersionedResource) {
        let of_type = self.types.entry(type_url.to_owned()).or_default();
        Arc::make_mut(of_type).insert(name.to_owned(), resource);
    }

    /// Takes from `other` the resources of every type in which the two are equal, so that they are held once.
    pub fn share_with(&mut self, other: &Self) {
        for (type_url, mine) in &mut self.types {
            if let Some(theirs) = other.types.get(type_url).filter(|theirs| *theirs == mine) {
                *mine = theirs.clone();
            }
        }
    }

    /// The named resource of a type.
    pub fn find(&self, type_url: &str, name: &str) -> Option<&VersionedResource> {
        self.types.get(type_url)?.get(name)
    }

    /// All resources of a type, in the order of their names.
    pub fn of_type(&self, type_url: &str) -> impl Iterator<Item = (&str, &VersionedResource)> {
        self.types
            .get(type_url)
            .into_iter()
            .flat_map(|all| all.iter())
            .map(|(name, resource)| (name.as_str(), resource))
    }
}
