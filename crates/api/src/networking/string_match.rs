//! `StringMatch {exact | prefix | regex}`.

use crate::decode::{Decode, Decoder, message};
use crate::yaml::Node;

/// How a text must look. Regular expressions are RE2 and match the whole text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StringMatch {
    /// `{}`: nothing is asked of the text; for a header it must be present.
    #[default]
    Any,
    /// `exact`: this text.
    Exact(String),
    /// `prefix`: begins with this text.
    Prefix(String),
    /// `regex`: as a whole described by this expression.
    Regex(String),
}

impl StringMatch {
    /// The name of the field that is set, `exact`, `prefix` or `regex`; empty for `{}`.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Regex(_) => "regex",
        }
    }
}

message! {
    /// The oneof as it is written.
    struct Written {
        /// This text.
        exact: Option<String>,
        /// Begins with this text.
        prefix: Option<String>,
        /// Described by this expression.
        regex: Option<String>,
    }
}

impl Decode for StringMatch {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        if let Some(text) = node.text() {
            let help = format!("write `exact: {text}`, `prefix: {text}` or `regex: {text}`");
            decoder.mismatch(node, "one of exact, prefix and regex").help(help);
            return None;
        }
        if node.is_null() {
            decoder
                .error(node, "no match is written")
                .help("write `exact:`, `prefix:` or `regex:`, or `{}` for any value");
            return None;
        }
        let written = Written::decode(node, decoder)?;
        match (written.exact, written.prefix, written.regex) {
            (None, None, None) => Some(Self::Any),
            (Some(text), None, None) => Some(Self::Exact(text)),
            (None, Some(text), None) => Some(Self::Prefix(text)),
            (None, None, Some(text)) => Some(Self::Regex(text)),
            _ => {
                decoder.error(node, "only one of exact, prefix and regex can be set");
                None
            }
        }
    }
}
