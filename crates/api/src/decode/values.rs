//! How the basic values are read: texts, numbers, durations, lists, maps.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::{Decode, Decoder, Style};
use crate::duration;
use crate::yaml::{Kind, Node, Scalar, Value};

/// A number, or a name: Kubernetes' `targetPort`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(u16),
    /// A name.
    String(String),
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::String(name) => f.write_str(name),
        }
    }
}

impl Decode for IntOrString {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match node.text() {
            Some(text) => Some(Self::String(text.to_owned())),
            None if scalar_of(node).is_some_and(|scalar| matches!(scalar.kind, Kind::Integer(_))) => {
                u16::decode(node, decoder).map(Self::Int)
            }
            None => {
                decoder.mismatch(node, "a port number or a port name");
                None
            }
        }
    }
}

/// Protobuf `bytes`: base64 in YAML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Decode for Bytes {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        // Long ones are written over several lines.
        let text: String = String::decode(node, decoder)?.split_ascii_whitespace().collect();
        match STANDARD.decode(&text).or_else(|_| URL_SAFE.decode(&text)) {
            Ok(bytes) => Some(Self(bytes)),
            Err(error) => {
                decoder
                    .error(node, format!("expected base64: {error}"))
                    .help("plain text goes into `string`");
                None
            }
        }
    }
}

impl Decode for String {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        if let Some(text) = node.text() {
            return Some(text.to_owned());
        }
        if node.is_null() && decoder.style == Style::Kubernetes {
            return Some(String::new());
        }
        let written = scalar_of(node).filter(|_| !node.is_null()).map(|scalar| scalar.text.clone());
        let problem = decoder.mismatch(node, "a string");
        if let Some(written) = written {
            problem.help(format!("write \"{written}\" in quotes"));
        }
        None
    }
}

impl Decode for bool {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        if let Some(Scalar { kind: Kind::Bool(value), .. }) = scalar_of(node) {
            return Some(*value);
        }
        let problem = decoder.mismatch(node, "true or false");
        if matches!(node.text(), Some("true" | "false")) {
            problem.help("leave the quotes away");
        }
        None
    }
}

/// The whole number of a scalar: protobuf's JSON also takes `80.0` and `"80"`.
fn integer(node: &Node, decoder: &mut Decoder) -> Option<i128> {
    let lenient = decoder.style == Style::Protobuf;
    match scalar_of(node) {
        Some(Scalar { kind: Kind::Integer(number), .. }) => return Some(*number),
        // Exact: whole numbers of this size have an exact float.
        #[allow(clippy::cast_possible_truncation)]
        Some(Scalar { kind: Kind::Float(number), .. }) if number.fract() == 0.0 && number.abs() < 1e15 => {
            return Some(*number as i128);
        }
        Some(Scalar { kind: Kind::Text, text }) if lenient => {
            if let Ok(number) = text.parse() {
                return Some(number);
            }
        }
        _ => {}
    }
    let unquoted = node.text().is_some_and(|text| text.parse::<i128>().is_ok());
    let problem = decoder.mismatch(node, "a whole number");
    if unquoted {
        problem.help("leave the quotes away");
    }
    None
}

macro_rules! decode_integers {
    ($($type:ty),*) => {$(
        impl Decode for $type {
            fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
                let number = integer(node, decoder)?;
                let value = <$type>::try_from(number).ok();
                if value.is_none() {
                    let message = format!("{number} is not between {} and {}", <$type>::MIN, <$type>::MAX);
                    decoder.error(node, message);
                }
                value
            }
        }
    )*};
}
decode_integers!(i32, u16, u32, u64);

impl Decode for f64 {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let value = match scalar_of(node) {
            // Percentages and rates: the precision of a float is enough.
            #[allow(clippy::cast_precision_loss)]
            Some(Scalar { kind: Kind::Integer(number), .. }) => Some(*number as f64),
            Some(Scalar { kind: Kind::Float(number), .. }) => Some(*number),
            Some(Scalar { kind: Kind::Text, text }) if decoder.style == Style::Protobuf => text.parse().ok(),
            _ => None,
        };
        let value = value.filter(|value: &f64| value.is_finite());
        if value.is_none() {
            decoder.mismatch(node, "a number");
        }
        value
    }
}

impl Decode for Duration {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let Some(text) = node.text() else {
            let number = scalar_of(node).filter(|s| matches!(s.kind, Kind::Integer(_) | Kind::Float(_)));
            let written = number.map(|scalar| scalar.text.clone());
            let problem = decoder.mismatch(node, "a duration");
            match written {
                Some(written) => problem
                    .help(format!("add a unit: `{written}s` for seconds, `{written}ms` for milliseconds")),
                None => problem.help("write it as `10s`, `100ms` or `1h`"),
            }
            return None;
        };
        match duration::parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                decoder.error(node, error.to_string()).help("write it as `10s`, `100ms` or `1h`");
                None
            }
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        T::decode(node, decoder).map(Some)
    }

    fn list_fields(path: &str, all: &mut Vec<String>) {
        T::list_fields(path, all);
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        T::decode(node, decoder).map(Box::new)
    }

    fn list_fields(path: &str, all: &mut Vec<String>) {
        T::list_fields(path, all);
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            decoder.mismatch(node, "a list").help("begin each item with `- `");
            return None;
        };
        let items = items.iter().enumerate();
        Some(
            items
                .filter_map(|(index, item)| decoder.index(index, |decoder| T::decode(item, decoder)))
                .collect(),
        )
    }

    fn list_fields(path: &str, all: &mut Vec<String>) {
        T::list_fields(&format!("{path}[]"), all);
    }
}

/// What can be the key of a map.
pub(crate) trait MapKey: Ord + Sized {
    /// What it is, for a message.
    const EXPECTED: &'static str;

    /// Reads the key's text.
    fn from_key(text: &str) -> Option<Self>;
}

impl MapKey for String {
    const EXPECTED: &'static str = "a text";

    fn from_key(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl MapKey for u16 {
    const EXPECTED: &'static str = "a port number";

    fn from_key(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl<K: MapKey, T: Decode> Decode for BTreeMap<K, T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            decoder.mismatch(node, "a mapping").help("write `key: value` pairs");
            return None;
        };
        let mut map = BTreeMap::new();
        for entry in entries {
            decoder.key(&entry.key, |decoder| match K::from_key(&entry.key) {
                Some(key) => {
                    if let Some(value) = T::decode(&entry.value, decoder) {
                        map.insert(key, value);
                    }
                }
                None => {
                    decoder.error(&entry.value, format!("expected {}, found `{}`", K::EXPECTED, entry.key));
                }
            });
        }
        Some(map)
    }

    fn list_fields(path: &str, all: &mut Vec<String>) {
        T::list_fields(&format!("{path}.*"), all);
    }
}

fn scalar_of(node: &Node) -> Option<&Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        _ => None,
    }
}
