//! TLS that ends at a gateway: certificates from Secrets of the gateway's namespace, or the mesh's own. A server whose
//! certificate, or whose authorities for clients, are not there gets no connection.

use super::credentials::Credentials;
use api::networking::{Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use api::{Diagnostic, Object};
use model::matcher::StringMatch;
use model::tls::{
    CertificatePair, DownstreamTls, PeerValidation, SanMatch, SecretSource, TlsVersion, TlsVersions,
    WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE,
};

/// The TLS of a server that terminates it, at a gateway in `namespace`; `None` when something it needs is not there.
pub(super) fn downstream(
    server: &Server,
    alpn: &[&str],
    credentials: &Credentials,
    namespace: &str,
) -> Option<DownstreamTls> {
    let tls = server.tls.as_ref()?;
    let checks_clients = matches!(
        tls.mode,
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual | ServerTlsMode::OptionalMutual
    );
    let name = |name: &String| SanMatch { kind: None, matcher: StringMatch::exact(name.clone()) };
    let validation = match checks_clients {
        true => Some(PeerValidation {
            trust: authorities(tls, credentials, namespace)?,
            subject_alt_names: tls.subject_alt_names.iter().map(name).collect(),
        }),
        false => None,
    };
    Some(DownstreamTls {
        tickets: true,
        certificates: certificates(tls, credentials, namespace)?,
        validation,
        require_client_certificate: checks_clients && tls.mode != ServerTlsMode::OptionalMutual,
        alpn: alpn.iter().map(|p| (*p).to_owned()).collect(),
        versions: TlsVersions {
            min: if tls.min_protocol_version == TlsProtocol::V1_3 {
                TlsVersion::V1_3
            } else {
                TlsVersion::V1_2
            },
            max: if tls.max_protocol_version == TlsProtocol::V1_2 {
                TlsVersion::V1_2
            } else {
                TlsVersion::V1_3
            },
        },
    })
}

/// Names of the Secrets with the server's certificates.
fn secret_names(tls: &ServerTlsSettings) -> Vec<&str> {
    match tls.credential_name.as_str() {
        "" => tls.credential_names.iter().map(String::as_str).collect(),
        name => vec![name],
    }
}

fn certificates(
    tls: &ServerTlsSettings,
    credentials: &Credentials,
    namespace: &str,
) -> Option<Vec<SecretSource<CertificatePair>>> {
    if tls.mode == ServerTlsMode::IstioMutual {
        return Some(vec![SecretSource::Sds(WORKLOAD_CERTIFICATE.to_owned())]);
    }
    let found = secret_names(tls).into_iter().filter_map(|name| credentials.certificate(namespace, name));
    let found: Vec<_> = found.cloned().map(SecretSource::Inline).collect();
    Some(found).filter(|found| !found.is_empty())
}

fn authorities(
    tls: &ServerTlsSettings,
    credentials: &Credentials,
    namespace: &str,
) -> Option<SecretSource<Vec<u8>>> {
    if tls.mode == ServerTlsMode::IstioMutual {
        return Some(SecretSource::Sds(WORKLOAD_TRUST_BUNDLE.to_owned()));
    }
    let own = Some(tls.ca_cert_credential_name.as_str()).filter(|name| !name.is_empty());
    let mut names = own.into_iter().chain(secret_names(tls));
    names.find_map(|name| credentials.authorities(namespace, name)).cloned().map(SecretSource::Inline)
}

/// What a server that ends TLS asks for in vain.
pub(super) fn unsupported(
    object: &Object,
    server: &Server,
    (path, credentials): (&str, &Credentials),
    found: &mut Vec<Diagnostic>,
) {
    let Some(tls) = &server.tls else { return };
    if tls.mode != ServerTlsMode::IstioMutual {
        let names = secret_names(tls);
        if names.is_empty() {
            let message = "certificates from files are not supported yet; this server takes no connection";
            let help =
                "put them into a Secret in the gateway proxy's namespace, and its name into `credentialName`";
            found.push(object.warning(&format!("{path}.tls"), message).help(help));
        }
        for name in names.into_iter().filter(|name| !credentials.is_known(name)) {
            let message = format!(
                "no Secret `{name}` with `tls.crt` and `tls.key` is declared; without it this server takes no connection"
            );
            let help = "declare it in the gateway proxy's namespace";
            found.push(object.warning(&format!("{path}.tls.credentialName"), message).help(help));
        }
    }
}
