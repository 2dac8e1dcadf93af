//! Secrets: certificates with their keys, and whom to trust.

use super::place::{Decoded, Place, fields};
use super::text;
use super::value::{self, flag};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use model::tls::{CertificatePair, SanKind, SanMatch, Secret, SecretContent};
use proto::secret::Type;
use proto::subject_alt_name_matcher::SanType;

pub(crate) fn decode(place: &Place<'_>, secret: &proto::Secret) -> Decoded<Secret> {
    let content = match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            SecretContent::Certificate(decode_certificate(&place.field("tls_certificate"), certificate)?)
        }
        Some(Type::ValidationContext(context)) => {
            let place = place.field("validation_context");
            match decode_validation(&place, context)? {
                (Some(bundle), names) if names.is_empty() => SecretContent::TrustBundle(bundle),
                (Some(_), _) => return Err(place.unsupported("asking for names in a secret")),
                (None, _) => return Err(place.field("trusted_ca").error("this field is required")),
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

pub(crate) fn encode(secret: &Secret) -> proto::Secret {
    let content = match &secret.content {
        SecretContent::Certificate(pair) => Type::TlsCertificate(encode_certificate(pair)),
        SecretContent::TrustBundle(bundle) => Type::ValidationContext(encode_validation(Some(bundle), &[])),
    };
    proto::Secret { name: secret.name.clone(), r#type: Some(content) }
}

pub(crate) fn decode_certificate(
    place: &Place<'_>,
    certificate: &proto::TlsCertificate,
) -> Decoded<CertificatePair> {
    fields!(place, certificate => proto::TlsCertificate {
        honoured: certificate_chain, private_key;
        ignored: watched_directory, ocsp_staple, signed_certificate_timestamp;
        refused: pkcs12, private_key_provider, password, tls_params;
    });
    let needed = |name, data| {
        let place = place.field(name);
        value::decode_data(&place, data)?.ok_or_else(|| place.error("this field is required"))
    };
    Ok(CertificatePair {
        chain_pem: needed("certificate_chain", certificate_chain)?,
        key_pem: needed("private_key", private_key)?,
    })
}

pub(crate) fn encode_certificate(pair: &CertificatePair) -> proto::TlsCertificate {
    proto::TlsCertificate {
        certificate_chain: value::encode_data(&pair.chain_pem),
        private_key: value::encode_data(&pair.key_pem),
        ..Default::default()
    }
}

/// The bundle of authorities, and the names that a peer may have.
pub(crate) fn decode_validation(
    place: &Place<'_>,
    context: &proto::CertificateValidationContext,
) -> Decoded<(Option<Vec<u8>>, Vec<SanMatch>)> {
    fields!(place, context => proto::CertificateValidationContext {
        honoured: trusted_ca, match_typed_subject_alt_names, match_subject_alt_names,
            require_signed_certificate_timestamp;
        // The list of authorities sent to clients is only a hint to them.
        ignored: watched_directory, suppress_client_ca_list;
        refused: ca_certificate_provider_instance, system_root_certs, verify_certificate_spki,
            verify_certificate_hash, crl, allow_expired_certificate, trust_chain_verification,
            custom_validator_config, only_verify_leaf_cert_crl, max_verify_depth;
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
    Ok((value::decode_data(&place.field("trusted_ca"), trusted_ca)?, names))
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

pub(crate) fn encode_validation(
    bundle: Option<&Vec<u8>>,
    names: &[SanMatch],
) -> proto::CertificateValidationContext {
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
        trusted_ca: bundle.and_then(|bundle| value::encode_data(bundle)),
        match_typed_subject_alt_names: sans.collect(),
        ..Default::default()
    }
}
