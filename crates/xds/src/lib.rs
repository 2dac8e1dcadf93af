//! Envoy's discovery service (xDS v3) as pure state machines: no I/O, no clock, no runtime.
//!
//! Here: the serving side of one ADS stream, delta in [`server`] and state-of-the-world in [`sotw`], over the
//! immutable set of [`resources`].
//! Not yet: the client side, the codec between Envoy's protos and the model, bootstrap files.

pub mod sotw;
pub mod server;
pub mod resources;
