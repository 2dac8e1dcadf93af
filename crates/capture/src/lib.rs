//! Capture: a workload's connections, in and out, are sent to the sidecar beside it, which learns where they were meant to
//! go (`SO_ORIGINAL_DST`). [`rules`] is what is captured, as data; [`script`] the same as a text for nftables; [`force`]
//! puts it in force in the network namespace it stands in, or takes it away again.
//!
//! Who makes namespaces, and what a sidecar does with what it is sent, is for others.

pub mod force;
pub mod script;
pub mod rules;

pub use force::{CaptureError, apply, clean};
pub use rules::{Own, Ports, Range, Ranges, Rules, WrongAnnotation};
