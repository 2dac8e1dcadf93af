//! Where a part of a resource is written, to tell what is wrong with it.

use api::{Diagnostic, Object};

/// Where something is written, and where to tell what is wrong with it.
pub(super) struct Place<'p> {
    pub(super) object: &'p Object,
    pub(super) path: &'p str,
    pub(super) found: &'p mut Vec<Diagnostic>,
}

impl Place<'_> {
    /// Tells of the field `field` below the place.
    pub(super) fn tell(&mut self, field: &str, message: String, help: &str) {
        self.found.push(self.object.warning(&format!("{}.{field}", self.path), message).help(help));
    }
}
