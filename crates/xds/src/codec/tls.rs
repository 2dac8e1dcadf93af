//! TLS contexts of listeners and clusters.

use super::place::{Decoded, Place, fields};
use super::secret;
use super::value::{self, encode_flag, flag};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use model::tls::{
    CertificatePair, CipherSuites, DownstreamTls, PeerValidation, SecretSource, TlsVersion, TlsVersions,
    UpstreamTls,
};
use proto::common_tls_context::{CombinedCertificateValidationContext as Combined, ValidationContextType};
use proto::tls_parameters::TlsProtocol;
use std::sync::Arc;

/// What both directions share.
struct Common {
    certificates: Vec<SecretSource<CertificatePair>>,
    validation: Option<PeerValidation>,
    alpn: Vec<String>,
    versions: TlsVersions,
}

pub(crate) fn decode_downstream(
    place: &Place<'_>,
    context: &proto::DownstreamTlsContext,
) -> Decoded<DownstreamTls> {
    use proto::downstream_tls_context::OcspStaplePolicy;
    fields!(place, context => proto::DownstreamTlsContext {
        honoured: common_tls_context, require_client_certificate, ocsp_staple_policy, require_sni,
            session_ticket_keys_type;
        // How sessions are resumed, and which of the ciphers both sides take is preferred, is the TLS library's.
        ignored: disable_stateful_session_resumption, session_timeout, full_scan_certs_on_sni_mismatch,
            prefer_client_ciphers;
        refused: ;
    });
    use proto::downstream_tls_context::SessionTicketKeysType as Tickets;
    let tickets = match session_ticket_keys_type {
        None => true,
        Some(Tickets::DisableStatelessSessionResumption(disable)) => !disable,
        keys => {
            place.refuse("session_ticket_keys", keys)?;
            true
        }
    };
    place.refuse("require_sni", &flag(require_sni))?;
    // No response is ever stapled, which is right unless one must be.
    if *ocsp_staple_policy == OcspStaplePolicy::MustStaple as i32 {
        return Err(place.field("ocsp_staple_policy").unsupported("MUST_STAPLE"));
    }
    let common = decode_common(&place.field("common_tls_context"), common_tls_context)?;
    if common.certificates.is_empty() {
        return Err(place
            .field("common_tls_context")
            .error("a listener that speaks TLS needs a certificate"));
    }
    let require_client_certificate = flag(require_client_certificate);
    if require_client_certificate && common.validation.is_none() {
        return Err(place.error("client certificates are required, but nothing says whom to trust"));
    }
    Ok(DownstreamTls {
        certificates: common.certificates,
        validation: common.validation,
        require_client_certificate,
        alpn: common.alpn,
        versions: common.versions,
        tickets,
    })
}

pub(crate) fn encode_downstream(tls: &DownstreamTls) -> proto::DownstreamTlsContext {
    let common = encode_common(&tls.certificates, tls.validation.as_ref(), &tls.alpn, tls.versions);
    proto::DownstreamTlsContext {
        session_ticket_keys_type: (!tls.tickets).then_some(
            proto::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(true),
        ),
        common_tls_context: Some(common),
        require_client_certificate: encode_flag(tls.require_client_certificate),
        ..Default::default()
    }
}

pub(crate) fn decode_upstream(
    place: &Place<'_>,
    context: &proto::UpstreamTlsContext,
) -> Decoded<UpstreamTls> {
    fields!(place, context => proto::UpstreamTlsContext {
        honoured: common_tls_context, sni;
        ignored: max_session_keys, enforce_rsa_key_usage;
        refused: auto_host_sni, auto_sni_san_validation, allow_renegotiation;
    });
    let place = place.field("common_tls_context");
    let mut common = decode_common(&place, common_tls_context)?;
    let certificate = common.certificates.pop();
    if !common.certificates.is_empty() {
        return Err(place.unsupported("more than one certificate towards a server"));
    }
    Ok(UpstreamTls {
        certificate,
        validation: common.validation.map(Arc::new),
        sni: (!sni.is_empty()).then(|| sni.clone()),
        alpn: common.alpn,
        versions: common.versions,
    })
}

pub(crate) fn encode_upstream(tls: &UpstreamTls) -> proto::UpstreamTlsContext {
    let common =
        encode_common(tls.certificate.as_slice(), tls.validation.as_deref(), &tls.alpn, tls.versions);
    proto::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: tls.sni.clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn decode_common(place: &Place<'_>, common: &Option<proto::CommonTlsContext>) -> Decoded<Common> {
    let nothing = proto::CommonTlsContext::default();
    let common = common.as_ref().unwrap_or(&nothing);
    fields!(place, common => proto::CommonTlsContext {
        honoured: tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols,
            validation_context_type;
        ignored: ;
        refused: tls_certificate_provider_instance, custom_tls_certificate_selector,
            tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker,
            key_log;
    });
    let mut certificates = Vec::new();
    for (i, certificate) in tls_certificates.iter().enumerate() {
        let pair = secret::decode_certificate(&place.item("tls_certificates", i), certificate)?;
        certificates.push(pair);
    }
    for (i, config) in tls_certificate_sds_secret_configs.iter().enumerate() {
        let place = place.item("tls_certificate_sds_secret_configs", i);
        certificates.push(SecretSource::Sds(decode_sds(&place, config)?));
    }
    Ok(Common {
        certificates,
        validation: decode_validation(place, validation_context_type)?,
        alpn: alpn_protocols.clone(),
        versions: decode_versions(&place.field("tls_params"), tls_params)?,
    })
}

fn encode_common(
    certificates: &[SecretSource<CertificatePair>],
    validation: Option<&PeerValidation>,
    alpn: &[String],
    versions: TlsVersions,
) -> proto::CommonTlsContext {
    let (mut inline, mut sds) = (Vec::new(), Vec::new());
    for certificate in certificates {
        match certificate {
            SecretSource::Inline(pair) => inline.push(secret::encode_pair(pair)),
            SecretSource::Files(files) => inline.push(secret::encode_files(files)),
            SecretSource::Sds(name) => sds.push(encode_sds(name)),
        }
    }
    let version = |v| match v {
        TlsVersion::V1_2 => TlsProtocol::TlSv12 as i32,
        TlsVersion::V1_3 => TlsProtocol::TlSv13 as i32,
    };
    proto::CommonTlsContext {
        tls_params: Some(proto::TlsParameters {
            tls_minimum_protocol_version: version(versions.min),
            tls_maximum_protocol_version: version(versions.max),
            cipher_suites: match versions.ciphers {
                CipherSuites::ALL => Vec::new(),
                some => some.names().map(str::to_owned).collect(),
            },
            ..Default::default()
        }),
        tls_certificates: inline,
        tls_certificate_sds_secret_configs: sds,
        alpn_protocols: alpn.to_vec(),
        validation_context_type: validation.map(encode_validation),
        ..Default::default()
    }
}

fn decode_versions(place: &Place<'_>, params: &Option<proto::TlsParameters>) -> Decoded<TlsVersions> {
    let Some(params) = params else { return Ok(TlsVersions::default()) };
    fields!(place, params => proto::TlsParameters {
        honoured: tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites;
        ignored: ;
        refused: ecdh_curves, signature_algorithms, compliance_policies;
    });
    let default = TlsVersions::default();
    let version = |name, value: i32, default| match TlsProtocol::try_from(value) {
        Ok(TlsProtocol::TlsAuto) => Ok(default),
        Ok(TlsProtocol::TlSv12) => Ok(TlsVersion::V1_2),
        Ok(TlsProtocol::TlSv13) => Ok(TlsVersion::V1_3),
        _ => Err(place.field(name).unsupported("a TLS version below 1.2")),
    };
    let min = version("tls_minimum_protocol_version", *tls_minimum_protocol_version, default.min)?;
    let max = version("tls_maximum_protocol_version", *tls_maximum_protocol_version, default.max)?;
    // Of equal preference are those in brackets; which is taken is the TLS library's choice anyway.
    let names = cipher_suites.iter().flat_map(|names| names.split(['[', ']', '|']));
    let ciphers = match cipher_suites.is_empty() {
        true => CipherSuites::ALL,
        false => CipherSuites::named(names).ok_or_else(|| {
            place.field("cipher_suites").unsupported(format_args!("none of {}", cipher_suites.join(", ")))
        })?,
    };
    match min <= max {
        true => Ok(TlsVersions { min, max, ciphers }),
        false => Err(place.error("the lowest version is above the highest")),
    }
}

fn decode_validation(
    place: &Place<'_>,
    context: &Option<ValidationContextType>,
) -> Decoded<Option<PeerValidation>> {
    match context {
        None => Ok(None),
        Some(ValidationContextType::ValidationContext(context)) => {
            let place = place.field("validation_context");
            secret::judged(&place, secret::decode_validation(&place, context)?)
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            let name = decode_sds(&place.field("validation_context_sds_secret_config"), config)?;
            let (subject_alt_names, checks) = Default::default();
            Ok(Some(PeerValidation { trust: SecretSource::Sds(name), subject_alt_names, checks }))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            decode_combined(&place.field("combined_validation_context"), combined).map(Some)
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => Err(place.unsupported("a validation context from a certificate provider")),
    }
}

fn decode_combined(place: &Place<'_>, combined: &Combined) -> Decoded<PeerValidation> {
    fields!(place, combined => Combined {
        honoured: default_validation_context, validation_context_sds_secret_config;
        ignored: ;
        refused: validation_context_certificate_provider, validation_context_certificate_provider_instance;
    });
    let (subject_alt_names, checks) = match default_validation_context {
        None => Default::default(),
        Some(context) => {
            let place = place.field("default_validation_context");
            let asked = secret::decode_validation(&place, context)?;
            if asked.trust.is_some() {
                return Err(place.field("trusted_ca").unsupported("a bundle beside one that comes over SDS"));
            }
            (asked.names, asked.checks)
        }
    };
    let place = place.field("validation_context_sds_secret_config");
    match validation_context_sds_secret_config {
        Some(config) => {
            let trust = SecretSource::Sds(decode_sds(&place, config)?);
            Ok(PeerValidation { trust, subject_alt_names, checks })
        }
        None => Err(place.error("this field is required")),
    }
}

fn encode_validation(validation: &PeerValidation) -> ValidationContextType {
    let context = secret::encode_validation(validation);
    match &validation.trust {
        SecretSource::Inline(_) | SecretSource::Files(_) => ValidationContextType::ValidationContext(context),
        SecretSource::Sds(name) if context == Default::default() => {
            ValidationContextType::ValidationContextSdsSecretConfig(encode_sds(name))
        }
        SecretSource::Sds(name) => ValidationContextType::CombinedValidationContext(Combined {
            default_validation_context: Some(context),
            validation_context_sds_secret_config: Some(encode_sds(name)),
            ..Default::default()
        }),
    }
}

/// The name of a secret; one without a source is among the static secrets of the bootstrap.
fn decode_sds(place: &Place<'_>, config: &proto::SdsSecretConfig) -> Decoded<String> {
    if config.sds_config.is_some() {
        value::check_config_source(&place.field("sds_config"), &config.sds_config)?;
    }
    match config.name.is_empty() {
        true => Err(place.field("name").error("this field is required")),
        false => Ok(config.name.clone()),
    }
}

fn encode_sds(name: &str) -> proto::SdsSecretConfig {
    proto::SdsSecretConfig { name: name.to_owned(), sds_config: value::ads() }
}
