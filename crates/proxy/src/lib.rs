//! The data plane: what comes in at a listener is routed, secured, sent on and recorded, as xDS says.
//!
//! It knows no user-facing resource and no control plane, only the model and the wire. A module names only modules
//! listed after it.

pub mod run;
pub mod admin;
pub mod dns;
pub mod names;
pub mod health;
pub mod discovery;
pub mod worker;
pub mod connection;
mod tcp;
pub mod request;
pub mod local;
pub mod upstream;
pub mod snapshot;
pub mod record;
pub mod failure;
pub mod notice;
pub mod wire;
pub mod stream;
pub mod mark;
