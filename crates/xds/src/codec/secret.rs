//! Secrets: certificates with their keys, and whom to trust.

use super::place::{DecodeError, Decoded, Place, fields};
use super::text;
use super::value::{self, flag};
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use model::tls::{
    CertificateDigest, CertificatePair, KeyDigest, PeerChecks, PeerValidation, SanKind, SanMatch, Secret,
    SecretContent, SecretFiles, SecretSource,
};
use proto::certificate_validation_context::TrustChainVerification;
use proto::secret::Type;
use proto::subject_alt_name_matcher::SanType;

pub(crate) fn decode(place: &Place<'_>, secret: &proto::Secret) -> Decoded<Secret> {
    let content = match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            let place = place.field("tls_certificate");
            match decode_certificate(&place, certificate)? {
                SecretSource::Inline(pair) => SecretContent::Certificate(pair),
                SecretSource::Files(files) => return Err(unread(&place.field("certificate_chain"), &files)),
                SecretSource::Sds(_) => return Err(place.error("a secret that is another")),
            }
        }
        Some(Type::ValidationContext(context)) => {
            let place = place.field("validation_context");
            let asked = decode_validation(&place, context)?;
            if !asked.names.is_empty() || asked.checks != PeerChecks::default() {
                return Err(place.unsupported("asking for names or hashes in a secret"));
            }
            match asked.trust {
                Some(SecretSource::Inline(bundle)) => SecretContent::TrustBundle(bundle),
                Some(SecretSource::Files(files)) => return Err(unread(&place.field("trusted_ca"), &files)),
                Some(SecretSource::Sds(_)) | None => {
                    return Err(place.field("trusted_ca").error("this field is required"));
                }
            }
        }
        Some(Type::SessionTicketKeys(_)) => {
            return Err(place.field("session_ticket_keys").unsupported("this kind of secret"));
        }
        Some(Type::GenericSecret(_)) => {
            return Err(place.field("generic_secret").unsupported("this kind of secret"));
        }
        None => return Err(place.error("the secret holds nothing")),
    };
    Ok(Secret { name: secret.name.clone(), content })
}

/// A secret is sent to have it, not to be told where it is.
fn unread(place: &Place<'_>, files: &SecretFiles) -> DecodeError {
    let place = place.field("filename");
    place.error(format_args!("file `{}` cannot be read in a secret sent over xDS", files.certificates))
}

pub(crate) fn encode(secret: &Secret) -> proto::Secret {
    let content = match &secret.content {
        SecretContent::Certificate(pair) => Type::TlsCertificate(encode_pair(pair)),
        SecretContent::TrustBundle(bundle) => Type::ValidationContext(proto::CertificateValidationContext {
            trusted_ca: value::encode_data(bundle),
            ..Default::default()
        }),
    };
    proto::Secret { name: secret.name.clone(), r#type: Some(content) }
}

pub(crate) fn decode_certificate(
    place: &Place<'_>,
    certificate: &proto::TlsCertificate,
) -> Decoded<SecretSource<CertificatePair>> {
    fields!(place, certificate => proto::TlsCertificate {
        honoured: certificate_chain, private_key;
        ignored: watched_directory, ocsp_staple, signed_certificate_timestamp;
        refused: pkcs12, private_key_provider, password, tls_params;
    });
    if let (Some(certificates), Some(key)) = (file(place, certificate_chain), file(place, private_key)) {
        return Ok(SecretSource::Files(SecretFiles { certificates, key }));
    }
    let needed = |name, data| {
        let place = place.field(name);
        value::decode_data(&place, data)?.ok_or_else(|| place.error("this field is required"))
    };
    Ok(SecretSource::Inline(CertificatePair {
        chain_pem: needed("certificate_chain", certificate_chain)?,
        key_pem: needed("private_key", private_key)?,
    }))
}

/// The path of a file that is read later, by whoever runs what is configured here.
fn file(place: &Place<'_>, data: &Option<DataSource>) -> Option<String> {
    match data.as_ref()?.specifier.as_ref()? {
        Specifier::Filename(path) if !place.reads_files() => Some(path.clone()),
        _ => None,
    }
}

fn decode_source(place: &Place<'_>, data: &Option<DataSource>) -> Decoded<Option<SecretSource<Vec<u8>>>> {
    match file(place, data) {
        Some(certificates) => Ok(Some(SecretSource::Files(SecretFiles { certificates, key: String::new() }))),
        None => Ok(value::decode_data(place, data)?.map(SecretSource::Inline)),
    }
}

fn encode_source(source: &SecretSource<Vec<u8>>) -> Option<DataSource> {
    match source {
        SecretSource::Inline(bytes) => value::encode_data(bytes),
        SecretSource::Files(files) => encode_file(&files.certificates),
        SecretSource::Sds(_) => None,
    }
}

fn encode_file(path: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..Default::default() })
}

pub(crate) fn encode_files(files: &SecretFiles) -> proto::TlsCertificate {
    proto::TlsCertificate {
        certificate_chain: encode_file(&files.certificates),
        private_key: encode_file(&files.key),
        ..Default::default()
    }
}

pub(crate) fn encode_pair(pair: &CertificatePair) -> proto::TlsCertificate {
    proto::TlsCertificate {
        certificate_chain: value::encode_data(&pair.chain_pem),
        private_key: value::encode_data(&pair.key_pem),
        ..Default::default()
    }
}

/// What is said of peers' certificates.
pub(crate) struct Asked {
    /// The authorities.
    pub(crate) trust: Option<SecretSource<Vec<u8>>>,
    /// Names that a peer may have.
    pub(crate) names: Vec<SanMatch>,
    /// What else.
    pub(crate) checks: PeerChecks,
}

pub(crate) fn decode_validation(
    place: &Place<'_>,
    context: &proto::CertificateValidationContext,
) -> Decoded<Asked> {
    fields!(place, context => proto::CertificateValidationContext {
        honoured: trusted_ca, match_typed_subject_alt_names, match_subject_alt_names,
            require_signed_certificate_timestamp, verify_certificate_spki, verify_certificate_hash, crl,
            trust_chain_verification;
        // The list of authorities sent to clients is only a hint to them. It is the leaf that lists are looked at for.
        ignored: watched_directory, suppress_client_ca_list, only_verify_leaf_cert_crl;
        refused: ca_certificate_provider_instance, system_root_certs, allow_expired_certificate,
            custom_validator_config, max_verify_depth;
    });
    place.refuse("require_signed_certificate_timestamp", &flag(require_signed_certificate_timestamp))?;
    let mut names = Vec::new();
    for (i, san) in match_typed_subject_alt_names.iter().enumerate() {
        names.push(decode_san(&place.item("match_typed_subject_alt_names", i), san)?);
    }
    // As in Envoy, the old field counts only where the new one is empty.
    if match_typed_subject_alt_names.is_empty() {
        for (i, matcher) in match_subject_alt_names.iter().enumerate() {
            let place = place.item("match_subject_alt_names", i);
            names.push(SanMatch { kind: None, matcher: text::decode_string_match(&place, matcher)? });
        }
    }
    names.shrink_to_fit();
    let unreadable = |place: Place<'_>, text: &String| place.error(format_args!("`{text}` is no SHA-256"));
    let key = |(i, text): (usize, &String)| {
        let place = place.item("verify_certificate_spki", i);
        KeyDigest::parse(text).ok_or_else(|| unreadable(place, text))
    };
    let certificate = |(i, text): (usize, &String)| {
        let place = place.item("verify_certificate_hash", i);
        CertificateDigest::parse(text).ok_or_else(|| unreadable(place, text))
    };
    let checks = PeerChecks {
        any_signer: *trust_chain_verification == TrustChainVerification::AcceptUntrusted as i32,
        keys: verify_certificate_spki.iter().enumerate().map(key).collect::<Decoded<_>>()?,
        certificates: verify_certificate_hash.iter().enumerate().map(certificate).collect::<Decoded<_>>()?,
        revoked: decode_source(&place.field("crl"), crl)?,
    };
    Ok(Asked { trust: decode_source(&place.field("trusted_ca"), trusted_ca)?, names, checks })
}

/// The validation that is asked for; `None` where there is nothing to judge by.
pub(crate) fn judged(place: &Place<'_>, asked: Asked) -> Decoded<Option<PeerValidation>> {
    let Asked { trust, names: subject_alt_names, mut checks } = asked;
    let has_pins = !checks.keys.is_empty() || !checks.certificates.is_empty();
    let trust = match trust {
        Some(trust) => trust,
        None if checks.any_signer || has_pins => SecretSource::Inline(Vec::new()),
        None if subject_alt_names.is_empty() && checks.revoked.is_none() => return Ok(None),
        None => return Err(place.error("names are asked for, but nothing says whom to trust")),
    };
    // Who asks for one certificate need not say who signs it.
    checks.any_signer |= trust == SecretSource::Inline(Vec::new());
    Ok(Some(PeerValidation { trust, subject_alt_names, checks }))
}

fn decode_san(place: &Place<'_>, san: &proto::SubjectAltNameMatcher) -> Decoded<SanMatch> {
    fields!(place, san => proto::SubjectAltNameMatcher { honoured: san_type, matcher; ignored: ; refused: oid; });
    let kind = match SanType::try_from(*san_type) {
        Ok(SanType::Email) => SanKind::Email,
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::IpAddress) => SanKind::Ip,
        _ => return Err(place.field("san_type").unsupported(format_args!("name type {san_type}"))),
    };
    match matcher {
        Some(matcher) => {
            let matcher = text::decode_string_match(&place.field("matcher"), matcher)?;
            Ok(SanMatch { kind: Some(kind), matcher })
        }
        None => Err(place.field("matcher").error("this field is required")),
    }
}

pub(crate) fn encode_validation(validation: &PeerValidation) -> proto::CertificateValidationContext {
    let PeerValidation { trust, subject_alt_names: names, checks } = validation;
    let san = |kind, matcher| proto::SubjectAltNameMatcher {
        san_type: match kind {
            SanKind::Dns => SanType::Dns,
            SanKind::Uri => SanType::Uri,
            SanKind::Ip => SanType::IpAddress,
            SanKind::Email => SanType::Email,
        } as i32,
        matcher: Some(text::encode_string_match(matcher)),
        ..Default::default()
    };
    // A name of any kind is asked for once per kind: the field that said it in one is going away in Envoy.
    const ALL: [SanKind; 4] = [SanKind::Dns, SanKind::Uri, SanKind::Ip, SanKind::Email];
    let sans = names.iter().flat_map(|name| match &name.kind {
        Some(kind) => vec![san(*kind, &name.matcher)],
        None => ALL.iter().map(|kind| san(*kind, &name.matcher)).collect(),
    });
    proto::CertificateValidationContext {
        trusted_ca: encode_source(trust).filter(|_| *trust != SecretSource::Inline(Vec::new())),
        match_typed_subject_alt_names: sans.collect(),
        verify_certificate_spki: checks.keys.iter().map(|digest| digest.as_str().to_owned()).collect(),
        verify_certificate_hash: checks
            .certificates
            .iter()
            .map(|digest| digest.as_str().to_owned())
            .collect(),
        crl: checks.revoked.as_ref().and_then(encode_source),
        only_verify_leaf_cert_crl: checks.revoked.is_some(),
        trust_chain_verification: match checks.any_signer {
            true => TrustChainVerification::AcceptUntrusted as i32,
            false => TrustChainVerification::VerifyTrustChain as i32,
        },
        ..Default::default()
    }
}
