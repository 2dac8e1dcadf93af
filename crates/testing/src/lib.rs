//! What the tests of the whole stand on: programs by others, child processes, upstreams that remember what they saw,
//! clients that send exactly the bytes they are told to. Only tests use it; here a failure is a panic that says why.
#![allow(clippy::unwrap_used)]

pub mod differential;
pub mod exchange;
pub mod upstream;
pub mod process;
pub mod peers;
