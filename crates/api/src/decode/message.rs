//! `message!`: a struct and how it is read from a mapping, in one declaration.

use super::{Decoder, Style, closest};
use crate::diagnostic::Severity;
use crate::yaml::{Entry, Node, Value, camel_case, is_camel_case_of};
use std::borrow::Cow;

/// A struct read field by field from a mapping.
pub(crate) trait Message: Default {
    /// Rust names of the fields and, where it is not their camelCase, the name in YAML.
    const FIELDS: &'static [(&'static str, Option<&'static str>)];

    /// Reads the value of field `index` into place.
    fn set(&mut self, index: usize, node: &Node, decoder: &mut Decoder);
}

/// Declares a struct whose fields are named in YAML as here, in camelCase; `as "name"` says otherwise.
macro_rules! message {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident $(as $json:literal)? : $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)*
        }

        impl $crate::decode::Message for $name {
            const FIELDS: &'static [(&'static str, Option<&'static str>)] =
                &[$((stringify!($field), $crate::decode::message!(@name $($json)?)),)*];

            fn set(&mut self, index: usize, node: &$crate::yaml::Node, decoder: &mut $crate::decode::Decoder) {
                let mut at = 0;
                $(
                    if index == at {
                        if let Some(value) = $crate::decode::Decode::decode(node, decoder) {
                            self.$field = value;
                        }
                        return;
                    }
                    at += 1;
                )*
                let _ = at;
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::yaml::Node, decoder: &mut $crate::decode::Decoder) -> Option<Self> {
                $crate::decode::decode_message(node, decoder)
            }

            fn list_fields(path: &str, all: &mut Vec<String>) {
                let mut names = <Self as $crate::decode::Message>::FIELDS.iter();
                $(
                    // The type stands for the field that is next.
                    if let Some(field) = names.next() {
                        let path = $crate::decode::field_path(path, *field);
                        <$type as $crate::decode::Decode>::list_fields(&path, all);
                    }
                )*
            }
        }
    };
    (@name $json:literal) => { Some($json) };
    (@name) => { None };
}
pub(crate) use message;

/// Reads a mapping; `null` is a message without fields.
pub(crate) fn decode_message<M: Message>(node: &Node, decoder: &mut Decoder) -> Option<M> {
    let entries = match &node.value {
        Value::Mapping(entries) => entries,
        Value::Scalar(_) if node.is_null() => return Some(M::default()),
        _ => {
            decoder
                .mismatch(node, "a mapping")
                .help(format!("write fields such as `{}:`", first_name::<M>()));
            return None;
        }
    };
    let mut message = M::default();
    let mut written = vec![false; M::FIELDS.len()];
    for entry in entries {
        match position::<M>(&entry.key, decoder.style) {
            Some(index) => {
                let name = match entry.key.contains('_') {
                    true => yaml_name(M::FIELDS[index]).into(),
                    false => Cow::from(&entry.key),
                };
                if std::mem::replace(&mut written[index], true) {
                    decoder.key(&entry.key, |decoder| {
                        let place = (entry.line, entry.column);
                        decoder.report(
                            Severity::Error,
                            place,
                            format!("the field `{name}` is written twice"),
                        );
                    });
                } else if !entry.value.is_null() {
                    decoder.key(&name, |decoder| message.set(index, &entry.value, decoder));
                }
            }
            None if decoder.style == Style::Kubernetes => {}
            None => unknown::<M>(entry, decoder),
        }
    }
    Some(message)
}

/// The names of the fields of `M` as they are written in YAML.
fn names<M: Message>() -> Vec<String> {
    M::FIELDS.iter().map(|field| yaml_name(*field)).collect()
}

fn unknown<M: Message>(entry: &Entry, decoder: &mut Decoder) {
    if decoder.has_warned_enough() {
        return;
    }
    let known = names::<M>();
    decoder.key(&entry.key, |decoder| {
        let message = format!("unknown field `{}`; it is ignored", entry.key);
        let problem = decoder.report(Severity::Warning, (entry.line, entry.column), message);
        match closest(&entry.key, known.iter().map(String::as_str)) {
            Some(name) => problem.help(format!("did you mean `{name}`?")),
            None => problem.help(format!("known here: {}", known.join(", "))),
        }
    });
}

fn position<M: Message>(key: &str, style: Style) -> Option<usize> {
    M::FIELDS.iter().position(|field| {
        let (name, yaml) = field;
        let snake = name.strip_prefix("r#").unwrap_or(name);
        (style == Style::Protobuf && key == snake)
            || yaml.map_or_else(|| is_camel_case_of(key, snake), |yaml| key == yaml)
    })
}

fn yaml_name((field, yaml): (&str, Option<&str>)) -> String {
    yaml.map_or_else(|| camel_case(field.strip_prefix("r#").unwrap_or(field)), str::to_owned)
}

/// The path of a field below `path`.
pub(crate) fn field_path(path: &str, field: (&str, Option<&str>)) -> String {
    format!("{path}.{}", yaml_name(field))
}

fn first_name<M: Message>() -> String {
    M::FIELDS.first().map(|field| yaml_name(*field)).unwrap_or_default()
}
