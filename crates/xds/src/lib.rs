//! Envoy's discovery service (xDS v3) as pure state machines: no I/O, no clock, no runtime.
//!
//! Here: [`server`], the serving side of one delta ADS stream, over the immutable set of [`resources`].
//! Not yet: state-of-the-world streams, the client side, the codec between Envoy's protos and the model,
//! bootstrap files.

pub mod server;
pub mod resources;
