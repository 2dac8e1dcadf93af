//! The name of a header as configuration writes it: a field, or a pseudo header of HTTP/2 and later.

use http::HeaderName;

/// A field or pseudo header, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FieldName {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`, which stands for `Host` too.
    Authority,
    /// `:path`, query included.
    Path,
    /// Any other.
    Field(HeaderName),
}

impl FieldName {
    /// Reads a name as configuration writes it; `None` when it is no header name. `host` is `:authority`.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            other => Self::Field(HeaderName::from_bytes(other.as_bytes()).ok()?),
        })
    }

    /// The name in lower case, pseudo headers with their colon.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Field(name) => name.as_str(),
        }
    }
}
