//! Istio's traffic resources, `networking.istio.io` v1, v1beta1 and v1alpha3 (the three are the same), field for field.
//!
//! As in protobuf, an absent scalar is its zero (`""`, `0`, `false`); where absence means something else than zero, the
//! field is an `Option`. Nothing is defaulted here: what absence means for traffic is decided by `control`.

mod destination_rule;
mod sidecar;

mod service_entry;
mod gateway;
mod traffic_policy;
mod virtual_service;

mod outbound_traffic;
mod string_match;

pub use destination_rule::{DestinationRule, Subset};
pub use gateway::{
    Gateway, Server, ServerPort, ServerTlsMode, ServerTlsSettings, TlsCertificate, TlsProtocol,
};
pub use outbound_traffic::{OutboundTrafficMode, OutboundTrafficPolicy};
pub use service_entry::{Location, Resolution, ServiceEntry, ServicePort, WorkloadEntry, WorkloadSelector};
pub use sidecar::*;
pub use string_match::StringMatch;
pub use traffic_policy::*;
pub use virtual_service::*;
