//! What the tests of this crate share: an authority in a temporary directory, TLS settings around it, and inspection.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use identity::config::{client_config, server_config, server_name};
use identity::handshake::{HandshakeError, accept, connect};
use identity::spiffe::SpiffeId;
use ieum_ca::authority::Authority;
use model::matcher::StringMatch;
use model::tls::{
    CertificatePair, DownstreamTls, PeerValidation, SanKind, SanMatch, SecretSource, TlsVersions, UpstreamTls,
};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub const HOUR: Duration = Duration::from_secs(3600);

/// An authority and the directory it lives in.
pub struct Mesh {
    pub authority: Authority,
    pub dir: TempDir,
}

pub fn mesh() -> Mesh {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(&dir.path().join("ca"), "cluster.local", SystemTime::now()).unwrap();
    Mesh { authority, dir }
}

pub fn id(account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", account).unwrap()
}

impl Mesh {
    pub fn pair(&self, account: &str) -> CertificatePair {
        self.authority.issue(&id(account), HOUR, SystemTime::now()).unwrap()
    }

    /// Trusts this mesh's roots and, if given, only peers with this SPIFFE id.
    pub fn validation(&self, peer: Option<&str>) -> PeerValidation {
        let uri = |account| SanMatch {
            kind: Some(SanKind::Uri),
            matcher: StringMatch::exact(id(account).to_string()),
        };
        PeerValidation {
            trust: SecretSource::Inline(self.authority.roots_pem().as_bytes().to_vec()),
            subject_alt_names: peer.map(uri).into_iter().collect(),
            checks: Default::default(),
        }
    }

    pub fn server(&self, account: &str) -> DownstreamTls {
        DownstreamTls {
            tickets: true,
            certificates: vec![SecretSource::Inline(self.pair(account))],
            validation: Some(self.validation(None)),
            require_client_certificate: true,
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            versions: TlsVersions::default(),
        }
    }

    pub fn client(&self, account: &str, server: &str) -> UpstreamTls {
        UpstreamTls {
            certificate: Some(SecretSource::Inline(self.pair(account))),
            validation: Some(self.validation(Some(server)).into()),
            sni: Some("outbound_.9080_._.reviews.shop.svc.cluster.local".to_owned()),
            alpn: vec!["h2".to_owned()],
            versions: TlsVersions::default(),
        }
    }
}

pub type ServerStream = tokio_rustls::server::TlsStream<DuplexStream>;
pub type ClientStream = tokio_rustls::client::TlsStream<DuplexStream>;

/// Shakes hands in memory; each side also reads one byte of the other, because a TLS 1.3 client learns of its refusal late.
pub async fn shake(
    server: &DownstreamTls,
    client: &UpstreamTls,
) -> (Result<ServerStream, String>, Result<ClientStream, String>) {
    let server = server_config(server, &|_| None).unwrap();
    let name = server_name(client.sni.as_deref()).unwrap();
    let client = client_config(client, &|_| None).unwrap();
    shake_with(server, client, name).await
}

/// [`shake`] with configurations already built.
pub async fn shake_with(
    server: std::sync::Arc<rustls::ServerConfig>,
    client: std::sync::Arc<rustls::ClientConfig>,
    name: rustls_pki_types::ServerName<'static>,
) -> (Result<ServerStream, String>, Result<ClientStream, String>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let text = |e: HandshakeError| e.to_string();
    let serve = async {
        let mut stream = accept(far, server).await.map_err(text)?;
        let mut byte = [0];
        stream.write_all(b"s").await.map_err(|e| e.to_string())?;
        stream.read_exact(&mut byte).await.map_err(|e| e.to_string())?;
        Ok(stream)
    };
    let call = async {
        let mut stream = connect(near, client, name).await.map_err(text)?;
        let mut byte = [0];
        let read = stream.read_exact(&mut byte).await;
        read.map_err(|e| identity::handshake::describe_handshake_error(&e))?;
        stream.write_all(b"c").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        Ok(stream)
    };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(serve, call) }).await.unwrap()
}

/// What `openssl` prints for `input`.
pub fn openssl(arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}
