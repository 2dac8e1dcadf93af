//! Immutable sets of marshalled resources, shared by every stream that serves them.
//!
//! A set is made of layers, and what many proxies have in common is one layer of all their sets. Every resource is
//! marshalled once, as it goes onto the wire; what differs between two layers is worked out once, whoever asks.
//! What the bytes mean is left to whoever encodes and decodes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Longest wire form of resources that are sent together, unless one alone is longer. gRPC clients refuse messages of more
/// than 4 MB, and receivers keep a buffer as large as the largest.
pub(crate) const MAX_PIECE: usize = 2 << 20;

/// Earlier layers to which a layer remembers its differences.
const MAX_DIFFERENCES: usize = 8;

/// One marshalled resource. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct VersionedResource {
    version: Arc<str>,
    /// A `resources` field of a `DeltaDiscoveryResponse`, whole; the body is its end.
    wire: Bytes,
    body_at: usize,
}

impl PartialEq for VersionedResource {
    fn eq(&self, other: &Self) -> bool {
        let same_bytes = self.wire.as_ptr() == other.wire.as_ptr() && self.wire.len() == other.wire.len();
        same_bytes || (self.version == other.version && self.wire == other.wire)
    }
}

impl Eq for VersionedResource {}

impl VersionedResource {
    /// The resource `name` of a type. `version` is opaque: a resource is sent again exactly when it differs from what
    /// the client was sent. `body` is the value of the `google.protobuf.Any`.
    pub fn new(type_url: &str, name: &str, version: &str, body: &[u8]) -> Self {
        let length_of = |tag, content: usize| key_len(tag) + encoded_len_varint(content as u64) + content;
        let any = length_of(1, type_url.len()) + length_of(2, body.len());
        // Of a `Resource`: its version is field 1, the resource 2 and its name 3.
        let resource = length_of(3, name.len()) + length_of(1, version.len()) + length_of(2, any);
        let mut wire = BytesMut::with_capacity(length_of(2, resource));
        let mut begin = |tag, length: usize, content: &[u8]| {
            encode_key(tag, WireType::LengthDelimited, &mut wire);
            encode_varint(length as u64, &mut wire);
            wire.put_slice(content);
        };
        begin(2, resource, b"");
        begin(3, name.len(), name.as_bytes());
        begin(1, version.len(), version.as_bytes());
        begin(2, any, b"");
        begin(1, type_url.len(), type_url.as_bytes());
        begin(2, body.len(), body);
        let wire = wire.freeze();
        Self { version: version.into(), body_at: wire.len() - body.len(), wire }
    }

    /// What says that there is no resource `name` (of a type where clients wait for that, which is virtual hosts').
    pub fn missing(name: &str) -> Self {
        const VERSION: &str = "missing";
        let resource = Resource {
            name: name.to_owned(),
            version: VERSION.to_owned(),
            aliases: vec![name.to_owned()],
            ..Resource::default()
        };
        // A response with nothing else is its `resources` field.
        let response = DeltaDiscoveryResponse { resources: vec![resource], ..Default::default() };
        let wire = Bytes::from(response.encode_to_vec());
        Self { version: VERSION.into(), body_at: wire.len(), wire }
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The value of the `google.protobuf.Any`, without its type URL.
    pub fn body(&self) -> &[u8] {
        self.wire.get(self.body_at..).unwrap_or_default()
    }

    /// The whole `resources` field of a `DeltaDiscoveryResponse`.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }
}

/// Names, shared.
pub type Names = Arc<[Arc<str>]>;

/// Resources that are sent together.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// `resources` fields as they go onto the wire.
    pub(crate) wire: Vec<Bytes>,
    /// Their names.
    pub(crate) names: Names,
}

impl Piece {
    /// Bytes on the wire.
    pub(crate) fn size(&self) -> usize {
        self.wire.iter().map(Bytes::len).sum()
    }

    /// These resources in pieces of at most [`MAX_PIECE`]; their bytes stay shared.
    pub(crate) fn cut<'r>(
        resources: impl IntoIterator<Item = (&'r Arc<str>, &'r VersionedResource)>,
    ) -> Vec<Self> {
        let (mut pieces, mut wire, mut names, mut size) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (name, resource) in resources {
            if size + resource.wire.len() > MAX_PIECE && !names.is_empty() {
                let names = std::mem::take(&mut names).into();
                pieces.push(Self { wire: std::mem::take(&mut wire), names });
                size = 0;
            }
            size += resource.wire.len();
            wire.push(resource.wire.clone());
            names.push(name.clone());
        }
        if !names.is_empty() {
            pieces.push(Self { wire, names: names.into() });
        }
        pieces
    }

    /// The same with one stretch of bytes of its own.
    fn joined(self) -> Self {
        let mut wire = BytesMut::with_capacity(self.size());
        self.wire.iter().for_each(|resource| wire.put_slice(resource));
        Self { wire: vec![wire.freeze()], names: self.names }
    }
}

/// All that is in a layer.
#[derive(Debug)]
pub(crate) struct Whole {
    /// As it is sent.
    pub(crate) pieces: Vec<Piece>,
    /// All names.
    pub(crate) names: Names,
}

/// Resources of one type.
#[derive(Debug, Default)]
pub struct Layer {
    resources: BTreeMap<Arc<str>, VersionedResource>,
    whole: OnceLock<Whole>,
    /// Names that differ from earlier layers.
    differences: Mutex<Vec<(Weak<Layer>, Names)>>,
}

impl Clone for Layer {
    /// One with the same resources, to be changed.
    fn clone(&self) -> Self {
        Self { resources: self.resources.clone(), ..Self::default() }
    }
}

impl PartialEq for Layer {
    fn eq(&self, other: &Self) -> bool {
        self.resources == other.resources
    }
}

impl Eq for Layer {}

impl Layer {
    /// Adds or replaces a resource while the layer is being built.
    pub fn insert(&mut self, name: Arc<str>, resource: VersionedResource) {
        self.forget();
        self.resources.insert(name, resource);
    }

    /// Takes a resource out while the layer is being built.
    pub fn remove(&mut self, name: &str) {
        self.forget();
        self.resources.remove(name);
    }

    fn forget(&mut self) {
        self.whole = OnceLock::new();
        self.differences.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// How many resources are in it.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// The resource of that name, with its name.
    pub fn find(&self, name: &str) -> Option<(&Arc<str>, &VersionedResource)> {
        self.resources.get_key_value(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &VersionedResource)> {
        self.resources.iter()
    }

    /// All resources as they go onto the wire, and their names; made once.
    pub(crate) fn whole(&self) -> &Whole {
        self.whole.get_or_init(|| {
            let pieces: Vec<Piece> = Piece::cut(&self.resources).into_iter().map(Piece::joined).collect();
            let names = match &pieces[..] {
                [only] => only.names.clone(),
                _ => self.resources.keys().cloned().collect(),
            };
            Whole { pieces, names }
        })
    }

    /// Names whose resources are not what they are in `old`: new, different or gone. Worked out once.
    pub(crate) fn changes_since(self: &Arc<Self>, old: &Arc<Self>) -> Names {
        if Arc::ptr_eq(self, old) {
            return Names::default();
        }
        let mut known = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        let to_old = |(other, _): &&(Weak<Self>, Names)| std::ptr::eq(other.as_ptr(), Arc::as_ptr(old));
        if let Some((_, names)) = known.iter().find(to_old) {
            return names.clone();
        }
        let names = self.compare(old);
        // Whoever is still at an old layer keeps it alive, so that no other layer has its address.
        known.retain(|(other, _)| other.strong_count() > 0);
        if known.len() >= MAX_DIFFERENCES {
            known.remove(0);
        }
        known.push((Arc::downgrade(old), names.clone()));
        names
    }

    fn compare(&self, old: &Self) -> Names {
        let (mut before, mut after) = (old.resources.iter().peekable(), self.resources.iter().peekable());
        let mut names = Vec::new();
        loop {
            match (before.peek(), after.peek()) {
                (Some((gone, _)), Some((new, _))) if gone < new => {
                    names.extend(before.next().map(|(name, _)| name.clone()))
                }
                (Some((name, was)), Some((same, is))) if name == same => {
                    if was != is {
                        names.push((*same).clone());
                    }
                    before.next();
                    after.next();
                }
                (_, Some(_)) => names.extend(after.next().map(|(name, _)| name.clone())),
                (Some(_), None) => names.extend(before.next().map(|(name, _)| name.clone())),
                (None, None) => return names.into(),
            }
        }
    }
}

/// Resources by type URL, then by name. No name is in two layers of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSet {
    /// The version of the whole set, for `system_version_info`: shown to people, never compared.
    pub version: Arc<str>,
    types: BTreeMap<Arc<str>, Vec<Arc<Layer>>>,
}

impl ResourceSet {
    /// An empty set.
    pub fn new(version: impl AsRef<str>) -> Self {
        Self { version: version.as_ref().into(), types: BTreeMap::new() }
    }

    /// Adds or replaces a resource while the set is being built; layers given before stay as they are for others.
    pub fn insert(&mut self, type_url: &str, name: &str, version: &str, body: impl AsRef<[u8]>) {
        self.insert_shared(type_url, name, VersionedResource::new(type_url, name, version, body.as_ref()));
    }

    /// Adds or replaces a resource marshalled before, whose bytes stay shared.
    pub fn insert_shared(&mut self, type_url: &str, name: &str, resource: VersionedResource) {
        let layers = self.types.entry(type_url.into()).or_default();
        if layers.is_empty() {
            layers.push(Arc::default());
        }
        let place = layers.iter().position(|layer| layer.find(name).is_some()).unwrap_or(layers.len() - 1);
        if let Some(layer) = layers.get_mut(place) {
            Arc::make_mut(layer).insert(name.into(), resource);
        }
    }

    /// Adds a layer that is shared with other sets.
    pub fn add(&mut self, type_url: &str, layer: Arc<Layer>) {
        self.types.entry(type_url.into()).or_default().push(layer);
    }

    /// The layers of a type.
    pub fn layers(&self, type_url: &str) -> &[Arc<Layer>] {
        self.types.get(type_url).map(Vec::as_slice).unwrap_or_default()
    }

    /// The named resource of a type.
    pub fn find(&self, type_url: &str, name: &str) -> Option<&VersionedResource> {
        find(self.layers(type_url), name).map(|(_, resource)| resource)
    }

    /// All resources of a type, layer by layer, in each in the order of their names.
    pub fn of_type(&self, type_url: &str) -> impl Iterator<Item = (&str, &VersionedResource)> {
        self.layers(type_url)
            .iter()
            .flat_map(|layer| layer.iter())
            .map(|(name, resource)| (&**name, resource))
    }
}

/// The named resource in some layers.
pub(crate) fn find<'l>(
    layers: &'l [Arc<Layer>],
    name: &str,
) -> Option<(&'l Arc<str>, &'l VersionedResource)> {
    layers.iter().find_map(|layer| layer.find(name))
}

/// Names whose resources are not in `new` what they are in `old`, each once.
pub(crate) fn changes(old: &[Arc<Layer>], new: &[Arc<Layer>]) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for at in 0..old.len().max(new.len()) {
        match (old.get(at), new.get(at)) {
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
            (Some(old), Some(new)) => names.extend(new.changes_since(old).iter().cloned()),
            (old, new) => {
                names.extend(old.or(new).into_iter().flat_map(|layer| layer.iter()).map(|(n, _)| n.clone()))
            }
        }
    }
    if names.is_empty() {
        return names;
    }
    names.sort();
    names.dedup();
    // What only moved from one layer to another did not change.
    names.retain(|name| match (find(old, name), find(new, name)) {
        (Some((_, was)), Some((_, is))) => was != is,
        _ => true,
    });
    names
}
