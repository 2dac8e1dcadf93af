//! TLS for the samples that stand for something outside of the mesh: certificates from files, and what a connection
//! turned out to be. What goes on inside is for `http`.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Where the certificates are.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub(super) struct Files {
    /// Speak TLS with this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Take only clients with a certificate of this authority (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    client_ca: Option<PathBuf>,
}

impl Files {
    /// What accepts connections with them; nothing when there are none.
    pub(super) fn acceptor(&self) -> Result<Option<TlsAcceptor>, String> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else { return Ok(None) };
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| told(key, &e))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be used: {e}"))?;
        let verified = match &self.client_ca {
            None => versions.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|e| told(path, &e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                versions.with_client_cert_verifier(verifier.map_err(|e| told(path, &e))?)
            }
        };
        let mut config = verified.with_single_cert(chain, key).map_err(|e| told(certificate, &e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}

fn told(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path).map_err(|e| told(path, &e))?;
    all.collect::<Result<_, _>>().map_err(|e| told(path, &e))
}

/// What a connection turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    version: Option<String>,
    server_name: Option<String>,
    protocol: Option<String>,
    has_client_certificate: bool,
}

impl Facts {
    /// Those of a connection after its handshake.
    pub(super) fn of(connection: &ServerConnection) -> Self {
        Facts {
            version: connection.protocol_version().and_then(|v| v.as_str()).map(str::to_owned),
            server_name: connection.server_name().map(str::to_owned),
            protocol: connection.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
            has_client_certificate: connection.peer_certificates().is_some(),
        }
    }

    /// For a report.
    pub(super) fn json(&self) -> Value {
        json!({
            "version": self.version,
            "server_name": self.server_name,
            "alpn": self.protocol,
            "client_certificate": self.has_client_certificate,
        })
    }
}
