//! Free-form metadata on resources (`envoy.config.core.v3.Metadata`): namespaced, JSON-like values.
//! Those who put something in agree with those who read it; this module only carries it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Metadata by namespace (`filter_metadata`). Clones share it: what thousands of routes carry is there once.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata(pub Arc<BTreeMap<String, BTreeMap<String, Value>>>);

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
    Struct(BTreeMap<String, Value>),
}

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
    pub fn remove(&mut self, namespace: &str) -> Option<BTreeMap<String, Value>> {
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
        namespaces.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.into());
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
