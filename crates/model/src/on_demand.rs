//! Asking for what a request needs and the proxy was not sent (`envoy.filters.http.on_demand`, VHDS).

use std::time::Duration;

/// How long a request waits where nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked for on behalf of requests (`OnDemand`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnDemand {
    /// Clusters are asked for (`odcds`), and a request waits so long for its own; `None` asks for none.
    pub clusters: Option<Duration>,
}

/// The name by which the virtual host for `authority` in the table `table` is asked for.
pub fn host_name(table: &str, authority: &str) -> String {
    format!("{table}/{authority}")
}

/// The table and the authority in such a name.
pub fn split_host_name(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('/')
}
