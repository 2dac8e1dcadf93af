//! The certificate service as the control plane mounts it: it looks at the file of join tokens before each request, so
//! that a token counts from the moment it is written.

use crate::join_tokens::JoinTokenFile;
use ca::authority::Authority;
use ca::service::CertificateService;
use identity::istio_ca::{IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::{Request, Response, Status};

/// The service.
pub(super) struct Certificates {
    service: CertificateService,
    tokens: Arc<JoinTokenFile>,
}

impl Certificates {
    /// Issues certificates of at most `max_lifetime`.
    pub(super) fn new(authority: Arc<Authority>, tokens: Arc<JoinTokenFile>, max_lifetime: Duration) -> Self {
        Self { service: CertificateService::new(authority, tokens.tokens(), max_lifetime), tokens }
    }
}

impl IstioCertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.tokens.refresh(SystemTime::now());
        self.service.create_certificate(request).await
    }
}
