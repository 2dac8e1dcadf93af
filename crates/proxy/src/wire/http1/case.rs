//! Names of fields in capitals, where that is configured: HTTP/1 knows no difference, some of its users do.

use bytes::Bytes;
use http::Extensions;
use model::header::HeaderCase;
use std::sync::Arc;

/// The names of a head's fields that came in with capitals, as they came. It travels in the head's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Names(Arc<[Bytes]>);

impl Names {
    /// `None` where no name has a capital.
    pub(super) fn of(names: impl Iterator<Item = Bytes>) -> Option<Self> {
        let names: Arc<[Bytes]> = names.filter(|name| name.iter().any(u8::is_ascii_uppercase)).collect();
        (!names.is_empty()).then_some(Self(names))
    }
}

/// How the names of a head are written.
#[derive(Clone, Copy)]
pub(crate) struct Case<'h> {
    configured: HeaderCase,
    names: Option<&'h Names>,
}

impl<'h> Case<'h> {
    /// As `configured` for the connection; a head that remembers its names keeps them.
    pub(crate) fn new(configured: HeaderCase, head: &'h Extensions) -> Self {
        Self { configured, names: head.get() }
    }

    /// Writes `name`, which is in lower case.
    pub(super) fn write(self, name: &str, out: &mut Vec<u8>) {
        let is_same = |as_came: &&Bytes| as_came.eq_ignore_ascii_case(name.as_bytes());
        match (self.names, self.configured) {
            (None, HeaderCase::Lower | HeaderCase::Preserve) => out.extend_from_slice(name.as_bytes()),
            (Some(names), _) => match names.0.iter().find(is_same) {
                Some(as_came) => out.extend_from_slice(as_came),
                None => out.extend_from_slice(name.as_bytes()),
            },
            (None, HeaderCase::Proper) => {
                let mut begins = true;
                out.extend(name.bytes().map(|byte| {
                    let written = if begins { byte.to_ascii_uppercase() } else { byte };
                    begins = !byte.is_ascii_alphanumeric();
                    written
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, configured: HeaderCase, names: &[&'static str]) -> String {
        let mut head = Extensions::new();
        if let Some(names) = Names::of(names.iter().map(|name| Bytes::from_static(name.as_bytes()))) {
            head.insert(names);
        }
        let mut out = Vec::new();
        Case::new(configured, &head).write(name, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn names_are_written_as_configured_and_kept_where_they_are_remembered() {
        assert_eq!(written("x-request-id", HeaderCase::Lower, &[]), "x-request-id");
        assert_eq!(written("x-request-id", HeaderCase::Proper, &[]), "X-Request-Id");
        assert_eq!(written("x-request-id", HeaderCase::Preserve, &[]), "x-request-id");
        assert_eq!(written("soapaction", HeaderCase::Preserve, &["Host", "SOAPAction"]), "SOAPAction");
        assert_eq!(written("x-added", HeaderCase::Preserve, &["SOAPAction"]), "x-added");
    }
}
