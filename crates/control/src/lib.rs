//! The control plane, as far as it goes today: folders of files become one set of resources, in which the last good
//! version of each stays in force while a newer one is wrong.
//!
//! Translating that set into what proxies run, and serving it to them, is not here yet.
//! A module names only modules listed after it.

pub mod translate;
pub mod node;
pub mod world;
pub mod references;
pub mod hosts;
pub mod store;
pub mod source;
