//! Connections through the threads that serve them: real sockets on loopback, raw bytes in, raw bytes out.
#![allow(clippy::unwrap_used, missing_docs)]

mod harness;
mod lives;
mod requests;
mod tunnels;
