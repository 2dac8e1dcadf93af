//! Secrets that gateways present to clients, and by which they judge them. They are sent inside of the listener that needs
//! them, to the gateway of their own namespace and to nobody else. What is written as files is read by the proxy itself.

use crate::world::World;
use api::Diagnostic;
use identity::certificate::parse_chain;
use identity::config::server_config;
use model::tls::{CertificatePair, DownstreamTls, SecretFiles, SecretSource, TlsVersions};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Secrets by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    all: HashMap<(String, String), Credential>,
}

#[derive(Debug, Default)]
struct Credential {
    certificate: Option<CertificatePair>,
    authorities: Option<Vec<u8>>,
    /// What they revoked.
    revoked: Option<Vec<u8>>,
}

impl Credentials {
    /// Every Secret with a certificate or authorities. One that cannot be used would take the whole listener with it, so
    /// each is tried first.
    pub(super) fn of(world: &World, found: &mut Vec<Diagnostic>) -> Self {
        let mut all = HashMap::new();
        for (object, secret) in world.secrets() {
            // Kubernetes' names, then those of generic secrets.
            let part = |names: [&str; 2]| names.into_iter().find_map(|name| secret.data.get(name)).cloned();
            let pair = part(["tls.crt", "cert"]).zip(part(["tls.key", "key"]));
            let pair = pair.map(|(chain_pem, key_pem)| CertificatePair { chain_pem, key_pem });
            let mut usable = |field: &str, problem: Option<String>| {
                if let Some(problem) = &problem {
                    let message = format!("this certificate cannot be used: {problem}");
                    let help = "servers that name this Secret take no connection";
                    found.push(object.warning(field, message).help(help));
                }
                problem.is_none()
            };
            let credential = Credential {
                certificate: pair.filter(|pair| usable("data.tls.crt", fault_of_pair(pair))),
                authorities: part(["ca.crt", "cacert"])
                    .filter(|pem| usable("data.ca.crt", parse_chain(pem).err().map(|e| e.to_string()))),
                revoked: part(["ca.crl", "crl"]),
            };
            all.insert((object.namespace().to_owned(), object.meta.name.clone()), credential);
        }
        Self { all }
    }

    fn find(&self, namespace: &str, name: &str) -> Option<&Credential> {
        self.all.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The certificate and key in that Secret.
    pub(super) fn certificate(&self, namespace: &str, name: &str) -> Option<&CertificatePair> {
        self.find(namespace, name)?.certificate.as_ref()
    }

    /// The authorities in that Secret, or in the one beside it that is called so with `-cacert`.
    pub(super) fn authorities(&self, namespace: &str, name: &str) -> Option<&Vec<u8>> {
        let beside = || self.find(namespace, &format!("{name}-cacert"))?.authorities.as_ref();
        self.find(namespace, name).and_then(|secret| secret.authorities.as_ref()).or_else(beside)
    }

    /// What the authorities in that Secret revoked, where they say so.
    pub(super) fn revoked(&self, namespace: &str, name: &str) -> Option<&Vec<u8>> {
        self.find(namespace, name)?.revoked.as_ref()
    }

    /// Whether any namespace has a certificate of that name.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.all.iter().any(|((_, known), secret)| known == name && secret.certificate.is_some())
    }
}

/// A certificate and its key in files of the proxy's own machine.
pub(super) fn pair_of_files(certificates: &str, key: &str) -> SecretSource<CertificatePair> {
    SecretSource::Files(SecretFiles { certificates: certificates.to_owned(), key: key.to_owned() })
}

/// Authorities, or what they revoked, in a file of the proxy's own machine; `None` where there is no path.
pub(super) fn file(path: &str) -> Option<SecretSource<Vec<u8>>> {
    let files = || SecretFiles { certificates: path.to_owned(), key: String::new() };
    (!path.is_empty()).then(|| SecretSource::Files(files()))
}

/// Where systems keep the authorities they trust.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The authorities that this system trusts. They are read once.
pub(super) fn system_authorities() -> Option<&'static Vec<u8>> {
    static FOUND: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let read = || {
        let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
        let files = named.into_iter().chain(SYSTEM_AUTHORITIES.map(std::path::PathBuf::from));
        files.filter_map(|file| std::fs::read(file).ok()).find(|pem| parse_chain(pem).is_ok())
    };
    FOUND.get_or_init(read).as_ref()
}

/// What keeps a certificate and its key from being presented together.
fn fault_of_pair(pair: &CertificatePair) -> Option<String> {
    let tls = DownstreamTls {
        tickets: true,
        certificates: vec![SecretSource::Inline(pair.clone())],
        validation: None,
        require_client_certificate: false,
        alpn: Vec::new(),
        versions: TlsVersions::default(),
    };
    server_config(&tls, &|_| None).err().map(|error| error.to_string())
}
