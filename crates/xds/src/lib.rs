//! Envoy's discovery service (xDS v3) as pure state machines: no I/O, no clock, no runtime.
//!
//! Here: the asking side of ADS, delta in [`client`] and state-of-the-world in [`sotw_client`]; the serving side of one
//! ADS stream, delta in [`server`] and state-of-the-world in [`sotw`], over the immutable set of [`resources`].
//! Bootstrap files are read in [`bootstrap`]; resources are shown as JSON by [`json`].
//! Resources and the model are turned into each other by [`codec`].

pub mod json;
pub mod bootstrap;
pub mod sotw_client;
pub mod client;
pub mod sotw;
pub mod server;
mod delta_response;
pub mod resources;
pub mod codec;
