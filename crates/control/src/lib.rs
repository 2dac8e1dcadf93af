//! The control plane: folders of files become one set of resources in force, that becomes what proxies run, and it is served
//! to them over ADS as it changes, with certificates for those who prove who they are.
//!
//! Start at [`plane`]: a configuration's journey. What a resource says is `api`'s, what bytes mean is `xds`', and signing is
//! `ca`'s. A module names only modules listed after it.

pub mod plane;
mod admin;
mod ads;
mod secrets;
mod generation;
mod serve;
mod join_tokens;
mod status;
mod watch;
pub mod event;
pub mod translate;
pub mod support;
pub mod node;
pub mod world;
pub mod references;
pub mod hosts;
pub mod store;
pub mod source;
