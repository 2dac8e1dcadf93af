//! `DestinationRule`: how to speak to a service, and the subsets it has.

use std::collections::BTreeMap;

use super::traffic_policy::TrafficPolicy;
use crate::decode::message;
use crate::security::WorkloadSelector;

message! {
    /// Policies for traffic to a host, applied after routing.
    pub struct DestinationRule {
        /// A service's name, or a wildcard; a short one belongs to the rule's namespace.
        pub host: String,
        /// For the host as a whole.
        pub traffic_policy: Option<TrafficPolicy>,
        /// Named parts of the service.
        pub subsets: Vec<Subset>,
        /// Namespaces that see it: `.`, `*` or names.
        pub export_to: Vec<String>,
        /// The client workloads it is for; all when absent.
        pub workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    /// A part of a service, by labels.
    pub struct Subset {
        /// Its name in VirtualServices.
        pub name: String,
        /// Labels its workloads have, in addition to the service's selector.
        pub labels: BTreeMap<String, String>,
        /// Overrides the host's policy block by block.
        pub traffic_policy: Option<TrafficPolicy>,
    }
}
