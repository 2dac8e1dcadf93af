//! How names of headers are written over HTTP/1 (`header_key_format`).

use super::place::{Decoded, Place};
use super::value::{self, type_name, unpack};
use core_proto::http1_protocol_options::HeaderKeyFormat;
use core_proto::http1_protocol_options::header_key_format::{HeaderFormat, ProperCaseWords};
use envoy_types::pb::envoy::config::core::v3 as core_proto;
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use model::listener::HeaderCase;

const PRESERVE: &str = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";

pub(crate) fn decode(
    place: &Place<'_>,
    http1: &Option<core_proto::Http1ProtocolOptions>,
) -> Decoded<HeaderCase> {
    let format = http1.as_ref().and_then(|http1| http1.header_key_format.as_ref());
    let place = place.field("header_key_format");
    match format.and_then(|format| format.header_format.as_ref()) {
        None => Ok(HeaderCase::Lower),
        Some(HeaderFormat::ProperCaseWords(_)) => Ok(HeaderCase::Proper),
        Some(HeaderFormat::StatefulFormatter(formatter)) => match &formatter.typed_config {
            Some(any) if type_name(any) == PRESERVE => {
                let place = place.field("stateful_formatter.typed_config");
                let config: PreserveCaseFormatterConfig = unpack(&place, any)?;
                place.refuse("forward_reason_phrase", &config.forward_reason_phrase)?;
                // How names that are added here look is not told to anybody.
                Ok(HeaderCase::Preserve)
            }
            _ => Err(place.unsupported(format_args!("formatter `{}`", formatter.name))),
        },
    }
}

pub(crate) fn encode(case: HeaderCase) -> Option<HeaderKeyFormat> {
    let format = match case {
        HeaderCase::Lower => return None,
        HeaderCase::Proper => HeaderFormat::ProperCaseWords(ProperCaseWords {}),
        HeaderCase::Preserve => HeaderFormat::StatefulFormatter(value::extension(
            "preserve_case",
            value::pack(&PreserveCaseFormatterConfig::default()),
        )),
    };
    Some(HeaderKeyFormat { header_format: Some(format) })
}
