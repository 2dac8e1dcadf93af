//! Why *we* answered instead of the application: one table gives status, stable reason token, Envoy's response flag
//! and gRPC status for each cause. What is done about it (a retry, an answer) is `request`'s.

use http::StatusCode;

/// A cause for an answer of our own, or for the end of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The request is not proper HTTP; the connection is not kept.
    BadRequest,
    /// An authorization rule refuses it.
    Denied,
    /// Another site's page made a browser send it.
    Forged,
    /// Its body is larger than allowed.
    BodyTooLarge,
    /// Its path is refused (`model::path`).
    BadPath,
    /// A header name has an underscore where that is refused.
    Underscore,
    /// A protocol upgrade that nothing allows.
    UpgradeNotAllowed,
    /// Its headers are larger than allowed.
    HeadersTooLarge,
    /// The routes of this listener have not been delivered.
    RoutesMissing,
    /// No virtual host has this authority.
    UnknownHost,
    /// The virtual host has no route that matches.
    NoRoute,
    /// The cluster of the route does not exist.
    ClusterMissing,
    /// The cluster has no endpoint that may be used.
    NoHealthyEndpoint,
    /// A limit of the cluster is reached (circuit breaking).
    Overflow,
    /// No connection to the endpoint could be made.
    ConnectFailure,
    /// TLS with the endpoint failed.
    TlsFailure,
    /// TLS is wanted and a secret has not been delivered, or cannot be used.
    TlsNotReady,
    /// The endpoint ended the connection or the stream before it answered.
    UpstreamReset,
    /// The endpoint's answer is not proper HTTP.
    UpstreamProtocol,
    /// The route's timeout passed.
    Timeout,
    /// The per-try timeout passed and no try was left.
    PerTryTimeout,
    /// The same of the time that a try may be silent.
    PerTryIdle,
    /// No byte moved for longer than allowed.
    IdleTimeout,
    /// The same, after the request had come in as a whole.
    IdleAnswer,
    /// The exchange took longer than any may.
    MaxDuration,
    /// The same, after the request had come in as a whole.
    MaxDurationAnswer,
    /// The request did not come in as a whole in time.
    RequestTimeout,
    /// The client went away, or its request broke off.
    ClientGone,
    /// HTTPS is required here.
    TlsRequired,
    /// This proxy is going away.
    Draining,
}

/// What a [`Failure`] looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Status sent to the client.
    pub status: StatusCode,
    /// Reason token: Envoy's `RESPONSE_CODE_DETAILS` where it has one. It never changes.
    pub token: &'static str,
    /// Envoy's `RESPONSE_FLAGS`; `-` where there is none.
    pub flags: &'static str,
    /// `grpc-status` for gRPC requests.
    pub grpc_status: u32,
}

impl Failure {
    /// The table.
    pub fn outcome(self) -> Outcome {
        let (status, token, flags, grpc_status) = match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "http1.codec_error", "DPE", 13),
            Self::Denied => (StatusCode::FORBIDDEN, "rbac_access_denied", "-", 7),
            Self::Forged => (StatusCode::FORBIDDEN, "csrf_origin_mismatch", "-", 7),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request_payload_too_large", "-", 8),
            Self::BadPath => (StatusCode::BAD_REQUEST, "path_normalization_failed", "-", 13),
            Self::Underscore => (StatusCode::BAD_REQUEST, "unexpected_underscore", "DPE", 13),
            Self::UpgradeNotAllowed => (StatusCode::FORBIDDEN, "upgrade_failed", "-", 7),
            Self::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request_headers_too_large", "DPE", 13)
            }
            Self::RoutesMissing => (StatusCode::NOT_FOUND, "route_configuration_not_found", "NR", 12),
            Self::UnknownHost => (StatusCode::NOT_FOUND, "virtual_host_not_found", "NR", 12),
            Self::NoRoute => (StatusCode::NOT_FOUND, "route_not_found", "NR", 12),
            Self::ClusterMissing => (StatusCode::SERVICE_UNAVAILABLE, "cluster_not_found", "NC", 14),
            Self::NoHealthyEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream", "UH", 14),
            Self::Overflow => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_reset_before_response_started{overflow}",
                "UO",
                14,
            ),
            Self::ConnectFailure => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_reset_before_response_started{connection_failure}",
                "UF",
                14,
            ),
            Self::TlsFailure => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_reset_before_response_started{tls_failure}",
                "UF",
                14,
            ),
            Self::TlsNotReady => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_reset_before_response_started{tls_not_ready}",
                "UF",
                14,
            ),
            Self::UpstreamReset => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_reset_before_response_started{connection_termination}",
                "UC",
                14,
            ),
            Self::UpstreamProtocol => {
                (StatusCode::BAD_GATEWAY, "upstream_reset_before_response_started{protocol_error}", "UPE", 14)
            }
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "response_timeout", "UT", 14),
            Self::PerTryTimeout => (StatusCode::GATEWAY_TIMEOUT, "upstream_per_try_timeout", "UT", 14),
            Self::PerTryIdle => (StatusCode::GATEWAY_TIMEOUT, "upstream_per_try_idle_timeout", "UT", 14),
            Self::IdleTimeout => (StatusCode::REQUEST_TIMEOUT, "stream_idle_timeout", "SI", 4),
            Self::IdleAnswer => (StatusCode::GATEWAY_TIMEOUT, "stream_idle_timeout", "SI", 4),
            Self::MaxDuration => (StatusCode::REQUEST_TIMEOUT, "max_duration_timeout", "DT", 4),
            Self::MaxDurationAnswer => (StatusCode::GATEWAY_TIMEOUT, "max_duration_timeout", "DT", 4),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_overall_timeout", "-", 4),
            Self::ClientGone => (StatusCode::BAD_REQUEST, "downstream_remote_disconnect", "DC", 1),
            Self::TlsRequired => (StatusCode::MOVED_PERMANENTLY, "direct_response", "-", 14),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", "-", 14),
        };
        Outcome { status, token, flags, grpc_status }
    }

    /// What it is, for a person who sees the answer.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::BadRequest => "the request is not proper HTTP",
            Self::Denied => "access denied",
            Self::Forged => "the request does not come from this site (invalid origin)",
            Self::BodyTooLarge => "the request's body is too large",
            Self::BadPath => "the path is refused",
            Self::Underscore => "a header name has an underscore",
            Self::UpgradeNotAllowed => "the protocol switch is not allowed",
            Self::HeadersTooLarge => "the request's headers are too large",
            Self::RoutesMissing => "no routes have been delivered for this listener",
            Self::UnknownHost => "no such host here",
            Self::NoRoute => "no route matches",
            Self::ClusterMissing => "the destination of the route is not known",
            Self::NoHealthyEndpoint => "no healthy upstream",
            Self::Overflow => "the upstream has as many requests as it may have (overflow)",
            Self::ConnectFailure => "no connection to the upstream",
            Self::TlsFailure => "TLS with the upstream failed",
            Self::TlsNotReady => "TLS with the upstream is not ready",
            Self::UpstreamReset => "the upstream closed before it answered",
            Self::UpstreamProtocol => "the upstream's answer is not proper HTTP",
            Self::Timeout => "upstream request timeout",
            Self::PerTryTimeout => "upstream per try timeout",
            Self::PerTryIdle => "upstream per try idle timeout",
            Self::IdleTimeout | Self::IdleAnswer => "stream timeout",
            Self::MaxDuration | Self::MaxDurationAnswer => "downstream duration timeout",
            Self::RequestTimeout => "request timeout",
            Self::ClientGone => "the request broke off",
            Self::TlsRequired => "HTTPS is required",
            Self::Draining => "this proxy is going away",
        }
    }
}
