//! Where a piece of running configuration came from, so that an answer can name the YAML behind it.
//! It rides in xDS metadata under [`NAMESPACE`]; it never influences a decision.

use std::fmt;

/// The xDS metadata namespace that carries provenance.
pub const NAMESPACE: &str = "ieum.dev";

/// The resource, file and line that decided something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// Kind and name, such as `VirtualService default/reviews`.
    pub resource: String,
    /// File as the user named it; empty when the resource did not come from a file.
    pub file: String,
    /// Line in that file, counted from 1; 0 when unknown.
    pub line: u32,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.file.is_empty() {
            write!(f, " ({}:{})", self.file, self.line)?;
        }
        Ok(())
    }
}
