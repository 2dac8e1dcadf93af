//! Health checks of the proxy itself, answered here (`envoy.filters.http.health_check`).

use crate::header::{HeaderMatch, RequestHead};

/// Which requests are health checks, and what has to be well for them to succeed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealthAnswer {
    /// What such a request looks like.
    pub headers: Vec<HeaderMatch>,
    /// Clusters, and the share of their endpoints that has to be healthy, in percent.
    pub clusters: Vec<(String, f64)>,
}

impl HealthAnswer {
    /// Whether a request is one.
    pub fn takes(&self, head: &RequestHead<'_>) -> bool {
        self.headers.iter().all(|header| header.matches(head))
    }
}
