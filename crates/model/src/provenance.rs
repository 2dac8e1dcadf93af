//! Where a piece of running configuration came from, so that an answer can name the YAML behind it.
//! It rides in xDS metadata under [`NAMESPACE`]; it never influences a decision.

use std::fmt;
use std::sync::Arc;

/// The xDS metadata namespace that carries provenance.
pub const NAMESPACE: &str = "ieum.dev";

/// The resource, file and line that decided something. Texts are shared: thousands of routes come from one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// Kind and name, such as `VirtualService default/reviews`.
    pub resource: Arc<str>,
    /// File as the user named it; empty when the resource did not come from a file.
    pub file: Arc<str>,
    /// Line in that file, counted from 1; 0 when unknown.
    pub line: u32,
}

impl Provenance {
    /// Shares the texts of `other` that are the same.
    pub fn share_with(&mut self, other: &Self) {
        for (own, known) in [(&mut self.resource, &other.resource), (&mut self.file, &other.file)] {
            if own == known {
                *own = known.clone();
            }
        }
    }
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
