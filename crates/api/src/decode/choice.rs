//! `choice!`: an enumeration and how it is read, by name or by protobuf number.

use super::{Decoder, Style, closest};
use crate::yaml::{Kind, Node, Value};

/// An enumeration with its names and numbers in protobuf.
pub(crate) trait Choice: Copy + 'static {
    /// Every value with its name and its number.
    const VALUES: &'static [(Self, &'static str, i128)];
}

/// Declares an enumeration; the first value is the default.
macro_rules! choice {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $(#[$first_meta:meta])* $first:ident = ($first_text:literal, $first_number:literal),
        $($(#[$value_meta:meta])* $value:ident = ($text:literal, $number:literal),)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name {
            $(#[$first_meta])*
            #[default]
            $first,
            $($(#[$value_meta])* $value,)*
        }

        impl $name {
            /// The name as it is written in YAML.
            $vis fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$value => $text,)*
                }
            }
        }

        impl $crate::decode::Choice for $name {
            const VALUES: &'static [(Self, &'static str, i128)] =
                &[(Self::$first, $first_text, $first_number), $((Self::$value, $text, $number),)*];
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::yaml::Node, decoder: &mut $crate::decode::Decoder) -> Option<Self> {
                $crate::decode::decode_choice(node, decoder)
            }
        }
    };
}
pub(crate) use choice;

/// Reads one of the names of `C` or, from protobuf's JSON, one of its numbers.
pub(crate) fn decode_choice<C: Choice>(node: &Node, decoder: &mut Decoder) -> Option<C> {
    let by_name = node.text().and_then(|text| C::VALUES.iter().find(|(_, name, _)| *name == text));
    let by_number = match &node.value {
        Value::Scalar(scalar) => match scalar.kind {
            Kind::Integer(written) if decoder.style == Style::Protobuf => {
                C::VALUES.iter().find(|(_, _, number)| *number == written)
            }
            _ => None,
        },
        _ => None,
    };
    if let Some((value, _, _)) = by_name.or(by_number) {
        return Some(*value);
    }
    let names = || C::VALUES.iter().map(|(_, name, _)| *name);
    let all: Vec<&str> = names().collect();
    let near = node.text().and_then(|text| closest(text, names()));
    let problem = decoder.mismatch(node, &format!("one of {}", all.join(", ")));
    match (near, &node.value) {
        (Some(near), _) => problem.help(format!("did you mean `{near}`?")),
        // `mode: NO` and `protocol: on` arrive as booleans: say how to write the name.
        (None, Value::Scalar(scalar)) if matches!(scalar.kind, Kind::Bool(_)) => {
            problem
                .help(format!("YAML reads `{0}` as a boolean; to mean the name write \"{0}\"", scalar.text));
        }
        _ => {}
    }
    None
}
