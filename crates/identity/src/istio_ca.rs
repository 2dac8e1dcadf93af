//! The wire protocol of Istio's certificate authority, `istio.v1.auth.IstioCertificateService` (istio/api,
//! `security/v1alpha1/ca.proto`): messages, client call and server glue, written by hand because there is one method.
//!
//! Who may have which certificate is `ca`'s decision.

use http::uri::PathAndQuery;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Full name of the gRPC service.
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";
/// Path of its only method.
const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Largest message either side reads, in bytes: a few certificates.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// PKCS#10 request in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Lifetime wished for, in seconds; 0 leaves it to the CA.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Free-form hints; nothing in them is trusted.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<prost_types::Struct>,
}

/// A certificate with what is needed to use it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM certificates: the leaf, then intermediates, and last the trusted roots (one string, possibly several roots).
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// Asks the CA behind `channel` to certify the key that signed `csr_pem`.
///
/// `bearer` is the token that proves who asks; `None` when the channel does, by its client certificate.
pub async fn create_certificate(
    channel: tonic::transport::Channel,
    bearer: Option<&str>,
    csr_pem: &str,
    validity: Duration,
) -> Result<Vec<String>, Status> {
    let mut request = Request::new(IstioCertificateRequest {
        csr: csr_pem.to_owned(),
        validity_duration: i64::try_from(validity.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    if let Some(token) = bearer {
        let value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Status::invalid_argument("the token has characters that cannot be sent"))?;
        request.metadata_mut().insert("authorization", value);
    }
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    grpc.ready().await.map_err(|e| Status::unavailable(chain_of(&e)))?;
    let codec = ProstCodec::<IstioCertificateRequest, IstioCertificateResponse>::default();
    let response = grpc.unary(request, PathAndQuery::from_static(CREATE_CERTIFICATE), codec).await?;
    Ok(response.into_inner().cert_chain)
}

/// An error with its causes, on one line.
pub(crate) fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Wrappers often repeat what they wrap.
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// What a certificate authority does.
pub trait IstioCertificateService: Send + Sync + 'static {
    /// Certifies the key of the request for whoever the caller proves to be.
    fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> impl Future<Output = Result<Response<IstioCertificateResponse>, Status>> + Send;
}

/// An [`IstioCertificateService`] as a service for tonic's router.
pub struct IstioCertificateServer<S>(Arc<S>);

impl<S> IstioCertificateServer<S> {
    /// Serves `service`.
    pub fn new(service: S) -> Self {
        Self(Arc::new(service))
    }
}

impl<S> Clone for IstioCertificateServer<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> tonic::server::NamedService for IstioCertificateServer<S> {
    const NAME: &'static str = SERVICE_NAME;
}

impl<S, B> Service<http::Request<B>> for IstioCertificateServer<S>
where
    S: IstioCertificateService,
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != CREATE_CERTIFICATE {
            let status = Status::unimplemented(format!("{SERVICE_NAME} has only CreateCertificate"));
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let method = CreateCertificate(self.0.clone());
        Box::pin(async move {
            let codec = ProstCodec::<IstioCertificateResponse, IstioCertificateRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_BYTES);
            Ok(grpc.unary(method, request).await)
        })
    }
}

/// The method as tonic's unary handler calls it.
struct CreateCertificate<S>(Arc<S>);

impl<S: IstioCertificateService> tonic::server::UnaryService<IstioCertificateRequest>
    for CreateCertificate<S>
{
    type Response = IstioCertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<IstioCertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.create_certificate(request).await })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prost::Message;

    #[test]
    fn the_bytes_are_those_of_istios_protocol() {
        let request = IstioCertificateRequest { csr: "c".to_owned(), validity_duration: 60, metadata: None };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'c', 0x18, 60]);
        let response = IstioCertificateResponse { cert_chain: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(response.encode_to_vec(), [0x0a, 1, b'a', 0x0a, 1, b'b']);
    }
}
