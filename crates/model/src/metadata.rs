//! Free-form metadata on resources (`envoy.config.core.v3.Metadata`): namespaced, JSON-like values.
//! Those who put something in agree with those who read it; this module only carries it.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// Metadata by namespace (`filter_metadata`). Clones share it: what thousands of routes carry is there once.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata(pub Arc<Map<Fields>>);

/// Most things carry nothing.
static NOTHING: LazyLock<Metadata> = LazyLock::new(|| Metadata(Arc::default()));

impl Default for Metadata {
    fn default() -> Self {
        NOTHING.clone()
    }
}

/// A value of `google.protobuf.Struct`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; protobuf knows only doubles here.
    Number(f64),
    /// A string.
    String(String),
    /// A list.
    List(Vec<Value>),
    /// A nested struct.
    Struct(Fields),
}

/// Values by key (`google.protobuf.Struct`).
pub type Fields = Map<Value>;

/// What belongs to names, in the order of the names. Most maps here hold one entry or two, and there are thousands of
/// them: each takes what its entries take, where a tree would take half a kilobyte for the first.
#[derive(Clone, PartialEq)]
pub struct Map<V>(Vec<(String, V)>);

impl Metadata {
    /// Whether nothing is carried.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value at `namespace`, then `key`.
    pub fn value(&self, namespace: &str, key: &str) -> Option<&Value> {
        self.0.get(namespace)?.get(key)
    }

    /// The string at `namespace`, then `key`.
    pub fn string(&self, namespace: &str, key: &str) -> Option<&str> {
        self.value(namespace, key)?.as_str()
    }

    /// Takes out all that is in `namespace`.
    pub fn remove(&mut self, namespace: &str) -> Option<Fields> {
        let taken =
            self.0.contains_key(namespace).then(|| Arc::make_mut(&mut self.0).remove(namespace)).flatten();
        if self.0.is_empty() {
            *self = Self::default();
        }
        taken
    }

    /// Shares what `other` carries, if it is the same.
    pub fn share_with(&mut self, other: &Self) {
        if self.0 == other.0 {
            self.0 = other.0.clone();
        }
    }

    /// Puts `value` at `namespace`, then `key`.
    pub fn set(&mut self, namespace: &str, key: &str, value: impl Into<Value>) {
        let namespaces = Arc::make_mut(&mut self.0);
        namespaces.get_or_insert_with(namespace, Fields::new).insert(key.to_owned(), value.into());
    }
}

impl<V> Map<V> {
    /// Nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(key))
    }

    /// What belongs to `key`.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.get(self.place(key).ok()?).map(|(_, value)| value)
    }

    /// What belongs to `key`, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        let at = self.place(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Whether anything belongs to `key`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.place(key).is_ok()
    }

    /// Lets `value` belong to `key`; what did before comes back.
    pub fn insert(&mut self, key: String, value: V) -> Option<V> {
        match self.get_mut(&key) {
            Some(known) => Some(std::mem::replace(known, value)),
            None => {
                let at = self.place(&key).unwrap_or_else(|at| at);
                self.0.reserve_exact(1);
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// What belongs to `key`; what `make` makes, if nothing did.
    pub fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> V) -> &mut V {
        let at = self.place(key).unwrap_or_else(|at| {
            self.0.reserve_exact(1);
            self.0.insert(at, (key.to_owned(), make()));
            at
        });
        &mut self.0[at].1
    }

    /// Takes out what belongs to `key`.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let (_, value) = self.0.remove(self.place(key).ok()?);
        self.0.shrink_to_fit();
        Some(value)
    }

    /// All entries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// All names.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &String> {
        self.0.iter().map(|(key, _)| key)
    }

    /// What belongs to them.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

// Derived, it would ask for `V: Default`.
impl<V> Default for Map<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V> FromIterator<(String, V)> for Map<V> {
    /// Of entries with one name the last counts.
    fn from_iter<I: IntoIterator<Item = (String, V)>>(entries: I) -> Self {
        let mut all: Vec<(String, V)> = entries.into_iter().collect();
        all.reverse();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.dedup_by(|(later, _), (kept, _)| later == kept);
        all.shrink_to_fit();
        Self(all)
    }
}

impl<V, const N: usize> From<[(String, V); N]> for Map<V> {
    fn from(entries: [(String, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<V> Extend<(String, V)> for Map<V> {
    fn extend<I: IntoIterator<Item = (String, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<V> IntoIterator for Map<V> {
    type Item = (String, V);
    type IntoIter = std::vec::IntoIter<(String, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'m, V> IntoIterator for &'m Map<V> {
    type Item = (&'m String, &'m V);
    type IntoIter = std::iter::Map<std::slice::Iter<'m, (String, V)>, fn(&'m (String, V)) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl Value {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// The text an access log shows for it; nested values are left out (`None`).
    pub fn as_text(&self) -> Option<String> {
        match self {
            Value::String(s) => Some(s.clone()),
            Value::Bool(b) => Some(b.to_string()),
            Value::Number(n) => Some(n.to_string()),
            Value::Null | Value::List(_) | Value::Struct(_) => None,
        }
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::String(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::String(s)
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Value::Number(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_in_the_order_of_its_names_and_the_last_of_one_name_counts() {
        let mut map: Map<u32> = [("b", 1), ("a", 2), ("b", 3)].map(|(k, v)| (k.to_owned(), v)).into();
        assert_eq!(format!("{map:?}"), r#"{"a": 2, "b": 3}"#);
        assert_eq!(map.insert("c".into(), 4), None);
        assert_eq!(map.insert("a".into(), 5), Some(2));
        assert_eq!(map.remove("b"), Some(3));
        assert_eq!((map.get("a"), map.get("b"), map.len()), (Some(&5), None, 2));
    }

    #[test]
    fn what_equals_its_neighbour_is_shared_and_what_is_empty_is_one() {
        let mut first = Metadata::default();
        first.set("istio", "config", "x");
        let mut second = Metadata::default();
        second.set("istio", "config", "x");
        second.share_with(&first);
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!(second.remove("istio").map(|fields| fields.len()), Some(1));
        assert!(
            Arc::ptr_eq(&second.0, &Metadata::default().0) && first.string("istio", "config") == Some("x")
        );
    }
}
