//! TLS that ends at a gateway. Certificates are asked for over SDS by Istio's names: `kubernetes://<secret>` for a
//! Secret, `file-cert:<certificate>~<key>` and `file-root:<authorities>` for files.

use super::gateways::ServerKind;
use api::networking::{Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use api::{Diagnostic, Object};
use model::matcher::StringMatch;
use model::tls::{
    CertificatePair, DownstreamTls, PeerValidation, SanMatch, SecretSource, TlsVersion, TlsVersions,
    WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE,
};

/// The TLS of a server that terminates it; `None` when it names no certificate.
pub(super) fn downstream(server: &Server, alpn: &[&str]) -> Option<DownstreamTls> {
    let tls = server.tls.as_ref()?;
    let certificates = certificates(tls);
    if certificates.is_empty() {
        return None;
    }
    let checks_clients = matches!(
        tls.mode,
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual | ServerTlsMode::OptionalMutual
    );
    let name = |name: &String| SanMatch { kind: None, matcher: StringMatch::exact(name.clone()) };
    let validation = PeerValidation {
        trust: SecretSource::Sds(authorities(tls)),
        subject_alt_names: tls.subject_alt_names.iter().map(name).collect(),
    };
    Some(DownstreamTls {
        certificates,
        validation: checks_clients.then_some(validation),
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

fn certificates(tls: &ServerTlsSettings) -> Vec<SecretSource<CertificatePair>> {
    let mut names = Vec::new();
    if tls.mode == ServerTlsMode::IstioMutual {
        names.push(WORKLOAD_CERTIFICATE.to_owned());
    } else if !tls.credential_name.is_empty() {
        names.push(format!("kubernetes://{}", tls.credential_name));
    } else if !tls.credential_names.is_empty() {
        names.extend(tls.credential_names.iter().map(|name| format!("kubernetes://{name}")));
    } else if !tls.server_certificate.is_empty() {
        names.push(format!("file-cert:{}~{}", tls.server_certificate, tls.private_key));
    } else {
        let files = tls.tls_certificates.iter();
        names.extend(files.map(|pair| format!("file-cert:{}~{}", pair.server_certificate, pair.private_key)));
    }
    names.into_iter().map(SecretSource::Sds).collect()
}

fn authorities(tls: &ServerTlsSettings) -> String {
    let secret =
        [&tls.ca_cert_credential_name, &tls.credential_name].into_iter().find(|name| !name.is_empty());
    match (tls.mode, secret) {
        (ServerTlsMode::IstioMutual, _) => WORKLOAD_TRUST_BUNDLE.to_owned(),
        (_, Some(name)) if *name == tls.ca_cert_credential_name => format!("kubernetes://{name}"),
        (_, Some(name)) => format!("kubernetes://{name}-cacert"),
        (_, None) => format!("file-root:{}", tls.ca_certificates),
    }
}

/// What a server asks for in vain.
pub(super) fn unsupported(
    object: &Object,
    server: &Server,
    kind: ServerKind,
    path: &str,
    found: &mut Vec<Diagnostic>,
) {
    if !server.bind.is_empty() {
        let message = "`bind` is not supported yet; the gateway's own address counts";
        found.push(object.warning(&format!("{path}.bind"), message).help("remove it"));
    }
    let Some(tls) = &server.tls else { return };
    let terminates = matches!(kind, ServerKind::Https | ServerKind::TlsTerminated);
    if terminates && certificates(tls).is_empty() {
        let message = "this server names no certificate, so that nothing listens for it";
        found.push(
            object
                .warning(&format!("{path}.tls"), message)
                .help("set `credentialName`, or `serverCertificate` and `privateKey`"),
        );
    }
    let mut tell = |written: bool, field: &str, help: &str| {
        if written {
            let message =
                format!("`{field}` is not supported yet and does nothing; the rest of the server works");
            found.push(object.warning(&format!("{path}.tls.{field}"), message).help(help));
        }
    };
    tell(!tls.cipher_suites.is_empty(), "cipherSuites", "the proxy's own are offered");
    tell(!tls.ca_crl.is_empty(), "caCrl", "revoked certificates are accepted");
    tell(
        !tls.verify_certificate_spki.is_empty(),
        "verifyCertificateSpki",
        "clients are judged by their issuer",
    );
    tell(
        !tls.verify_certificate_hash.is_empty(),
        "verifyCertificateHash",
        "clients are judged by their issuer",
    );
    tell(tls.insecure_skip_verify == Some(true), "insecureSkipVerify", "clients are judged by their issuer");
}
