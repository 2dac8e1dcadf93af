//! TLS that ends at a gateway: certificates from Secrets of the gateway's namespace, from files of the gateway's machine, or
//! the mesh's own. A server whose certificate, or whose authorities for clients, are not there gets no connection.

use super::credentials::{Credentials, file, pair_of_files};
use api::networking::{Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use api::{Diagnostic, Object};
use model::matcher::StringMatch;
use model::tls::{
    CertificateDigest, CertificatePair, CipherSuites, DownstreamTls, KeyDigest, PeerChecks, PeerValidation,
    SanMatch, SecretSource, TlsVersion, TlsVersions, WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE,
};

/// The TLS of a server that terminates it, at a gateway in `namespace`; `None` when something it needs is not there, or
/// cannot be done.
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
    Some(DownstreamTls {
        tickets: true,
        certificates: certificates(tls, credentials, namespace)?,
        validation: if checks_clients { Some(validation(tls, credentials, namespace)?) } else { None },
        require_client_certificate: checks_clients && tls.mode != ServerTlsMode::OptionalMutual,
        alpn: alpn.iter().map(|p| (*p).to_owned()).collect(),
        versions: versions(tls)?,
    })
}

fn validation(tls: &ServerTlsSettings, credentials: &Credentials, namespace: &str) -> Option<PeerValidation> {
    let any_signer = tls.insecure_skip_verify == Some(true);
    let name = |name: &String| SanMatch { kind: None, matcher: StringMatch::exact(name.clone()) };
    let listed = secret_names(tls).into_iter().find_map(|name| credentials.revoked(namespace, name));
    let checks = PeerChecks {
        any_signer,
        // One that cannot be read must not become one that is not asked for.
        keys: tls.verify_certificate_spki.iter().map(|hash| KeyDigest::parse(hash)).collect::<Option<_>>()?,
        certificates: tls
            .verify_certificate_hash
            .iter()
            .map(|hash| CertificateDigest::parse(hash))
            .collect::<Option<_>>()?,
        revoked: file(&tls.ca_crl).or_else(|| listed.cloned().map(SecretSource::Inline)),
    };
    if any_signer {
        let trust = SecretSource::Inline(Vec::new());
        return Some(PeerValidation { trust, subject_alt_names: Vec::new(), checks });
    }
    Some(PeerValidation {
        trust: authorities(tls, credentials, namespace)?,
        subject_alt_names: tls.subject_alt_names.iter().map(name).collect(),
        checks,
    })
}

/// The versions of TLS that are offered; none below 1.2.
fn versions(tls: &ServerTlsSettings) -> Option<TlsVersions> {
    let max = match tls.max_protocol_version {
        TlsProtocol::V1_0 | TlsProtocol::V1_1 => return None,
        TlsProtocol::V1_2 => TlsVersion::V1_2,
        TlsProtocol::V1_3 | TlsProtocol::Auto => TlsVersion::V1_3,
    };
    let min = match tls.min_protocol_version {
        TlsProtocol::V1_3 => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    };
    let ciphers = match tls.cipher_suites.as_slice() {
        [] => CipherSuites::ALL,
        names => CipherSuites::named(names.iter().map(String::as_str))?,
    };
    Some(TlsVersions { min, max, ciphers })
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
    let found = found.cloned().map(SecretSource::Inline);
    let written = [(&tls.server_certificate, &tls.private_key)].into_iter();
    let more = tls.tls_certificates.iter().map(|one| (&one.server_certificate, &one.private_key));
    let files = written.chain(more).filter(|(certificate, _)| !certificate.is_empty());
    let files = files.map(|(certificate, key)| pair_of_files(certificate, key));
    Some(found.chain(files).collect::<Vec<_>>()).filter(|found| !found.is_empty())
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
    let secret = names.find_map(|name| credentials.authorities(namespace, name)).cloned();
    let of_certificates = || tls.tls_certificates.iter().find_map(|one| file(&one.ca_certificates));
    secret.map(SecretSource::Inline).or_else(|| file(&tls.ca_certificates)).or_else(of_certificates)
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
        for name in secret_names(tls).into_iter().filter(|name| !credentials.is_known(name)) {
            let message = format!(
                "no Secret `{name}` with `tls.crt` and `tls.key` is declared; without it this server takes no connection"
            );
            let help = "declare it in the gateway proxy's namespace";
            found.push(object.warning(&format!("{path}.tls.credentialName"), message).help(help));
        }
    }
    let mut tell = |field: &str, message: String, help: &str| {
        found.push(object.warning(&format!("{path}.tls.{field}"), message).help(help));
    };
    if matches!(tls.max_protocol_version, TlsProtocol::V1_0 | TlsProtocol::V1_1) {
        let message = "TLS below 1.2 is not spoken; this server takes no connection".to_owned();
        tell("maxProtocolVersion", message, "write `TLSV1_2` or `TLSV1_3`");
    }
    let unknown: Vec<&str> = tls
        .cipher_suites
        .iter()
        .map(String::as_str)
        .filter(|name| CipherSuites::named([*name]).is_none())
        .collect();
    if !unknown.is_empty() {
        let rest =
            if unknown.len() == tls.cipher_suites.len() { "; this server takes no connection" } else { "" };
        let message = format!(
            "not offered, for want of forward secrecy or authenticated encryption: {}{rest}",
            unknown.join(", ")
        );
        tell("cipherSuites", message, &format!("there are {}", CipherSuites::NAMES.join(", ")));
    }
    let message = |hash: &String| format!("`{hash}` is no SHA-256; this server takes no connection");
    for (at, hash) in tls.verify_certificate_spki.iter().enumerate() {
        if KeyDigest::parse(hash).is_none() {
            let help = "write it in base64, as 44 characters";
            tell(&format!("verifyCertificateSpki[{at}]"), message(hash), help);
        }
    }
    for (at, hash) in tls.verify_certificate_hash.iter().enumerate() {
        if CertificateDigest::parse(hash).is_none() {
            let help = "write it in hexadecimal digits, 64 of them, with colons or without";
            tell(&format!("verifyCertificateHash[{at}]"), message(hash), help);
        }
    }
}
