//! Checks that need one object only.

use crate::diagnostic::Diagnostic;
use crate::object::Object;

/// Everything wrong with `object` that can be seen without looking at another.
pub fn validate(object: &Object) -> Vec<Diagnostic> {
    let _ = object;
    Vec::new()
}
