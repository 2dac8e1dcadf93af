//! What an exchange leaves behind: access log lines, metrics, a trace context. Facts are collected while a request
//! passes; everything is written once, when its answer's body ends or is given up.
//!
//! [`Recorder`] is compiled with the snapshot, one per connection manager or TCP proxy, and holds every handle that is
//! needed, so that a finished request costs a few additions. It decides nothing about traffic.

mod clock;
mod count;
mod counters;
mod edits;
mod exchange;
mod facts;
mod kept;
mod log;
mod peer;
mod recorder;
mod series;
mod sink;
mod telemetry;
mod trace;
mod traffic;
mod view;
mod writer;

pub use counters::{Counter, Gauge, Label};
pub use exchange::{Caller, ConnectionRecord, Exchange, Note, RequestRecord, RouteTaken, UpstreamRecord};
pub use peer::NodeLabels;
pub use recorder::Recorder;
pub use telemetry::{ClusterCounters, ListenerCounters, OpenConnection, Telemetry};

#[cfg(test)]
mod tests;
