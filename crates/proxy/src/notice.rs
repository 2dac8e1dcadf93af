//! Lines for the people who run the proxy, on standard error. Access logs are `record`'s.

use std::fmt;

/// Writes one line.
pub fn tell(line: impl fmt::Display) {
    eprintln!("ieum proxy: {line}");
}
