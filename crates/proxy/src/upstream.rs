//! Towards endpoints: connections made, kept and used again, one set of pools per thread.
//!
//! HTTP/1.1 connections are handed out one request at a time, the newest first; HTTP/2 connections are shared by many.
//! A connection belongs to one endpoint under one transport: its id. Which endpoint, and whether to try another, is
//! `request`'s decision.

mod pool;
mod lease;
mod endpoint_pool;
mod http1;
mod http2;
mod body;
mod connect;
mod mirrors;
mod rest;
mod sent;
mod watch;

pub use body::{BodyTally, FillError, Outgoing, Replay};
pub use connect::{ConnectError, Connected, Facts, Stream, connect};
pub use lease::Lease;
pub use mirrors::{MirrorSeat, Mirrors};
pub use pool::Pools;
pub use sent::Sent;
pub use watch::Watch;
