//! Which endpoint a request is sent to, and when it is sent to none: limits, outliers, affinity, subsets, priorities.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod failing;
mod checks;
mod limits;
mod picking;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use support::*;

fn forwarding(forward: Forward) -> Vec<Route> {
    vec![route("/", Action::forward(forward))]
}
