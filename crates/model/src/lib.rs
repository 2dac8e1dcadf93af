//! The mesh as it runs: listeners, routes, clusters, endpoints, TLS, and the pure questions one can ask of them.
//!
//! No I/O, no clock, no randomness: time and entropy are arguments. Both planes and every tool call the same
//! functions, so that what is validated is what runs. A module names only modules listed after it.

pub mod listener;
pub mod local_reply;
pub mod log_filter;
pub mod routing;
pub mod host_index;
pub mod rewrite;
pub mod route;
pub mod filter;
pub mod cors;
pub mod csrf;
pub mod health_answer;
pub mod fault;
pub mod mutation;
pub mod on_demand;
pub mod authorization;
pub mod fraction;
pub mod retry;
pub mod session;
pub mod cluster;
pub mod health;
pub mod outlier;
pub mod limits;
pub mod affinity;
pub mod balance;
pub mod endpoint;
pub mod header;
pub mod format;
pub mod field;
pub mod uri_template;
pub mod path;
pub mod tls;
pub mod matcher;
pub mod metadata;
pub mod provenance;
pub mod address;
