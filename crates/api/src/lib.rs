//! What the user *wrote*, faithfully: Istio, Kubernetes and Ieum resources from YAML or JSON text, with file, line and
//! column for every field, and every problem found in them as a [`Diagnostic`].
//!
//! Start at [`parse`]. What this crate leaves to others: reading files, keeping the last good version of a resource,
//! anything that needs a second resource (does the Service exist? is the subset defined?), and what the text *means*
//! for traffic. All of that is `control`.
//!
//! Modules are listed so that a module names only modules listed after it.

pub mod document;
pub mod validate;

mod object;

pub mod kubernetes;
pub mod local_mesh;
pub mod mesh_config;
pub mod networking;
pub mod security;

mod decode;

mod diagnostic;
pub mod duration;
pub mod wildcard;
pub mod yaml;

pub use decode::IntOrString;
pub use diagnostic::{Diagnostic, Severity};
pub use document::{Parsed, Rejected, parse};
pub use object::{Metadata, Object, ObjectKey, Origin, Spec};
