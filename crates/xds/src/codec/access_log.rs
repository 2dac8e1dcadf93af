//! Access logs: lines of text or JSON, appended to a file or a standard stream.

use super::place::{Decoded, Place, fields};
use super::value::{self, extension, pack, type_name, unpack};
use super::{log_filter, wire_order};
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog as Proto, access_log::ConfigType};
use envoy_types::pb::envoy::config::core::v3::{
    JsonFormatOptions, SubstitutionFormatString, substitution_format_string::Format,
};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream;
use envoy_types::pb::envoy::extensions::formatter::metadata::v3::Metadata as MetadataFormatter;
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
use file_access_log::AccessLogFormat;
use model::format::Template;
use model::listener::{AccessLog, LogFormat};
use prost::{Message, Name};

/// What Envoy writes when nothing is said.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

pub(crate) fn decode(place: &Place<'_>, logs: &[Proto]) -> Decoded<Vec<AccessLog>> {
    logs.iter().enumerate().map(|(i, log)| decode_one(&place.item("access_log", i), log)).collect()
}

fn decode_one(place: &Place<'_>, log: &Proto) -> Decoded<AccessLog> {
    fields!(place, log => Proto { honoured: name, config_type, filter; ignored: ; refused: ; });
    let filter =
        filter.as_ref().map(|filter| log_filter::decode(&place.field("filter"), filter)).transpose()?;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(place.unsupported(format_args!("access log `{name}` (no type)")));
    };
    let place = place.field("typed_config");
    let (path, (format, omit_empty)) = match type_name(any) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            decode_file(&place, &unpack(&place, any)?)?
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let log: stream::StdoutAccessLog = unpack(&place, any)?;
            let format =
                log.access_log_format.map(|stream::stdout_access_log::AccessLogFormat::LogFormat(f)| f);
            ("/dev/stdout".to_owned(), decode_log_format(&place, &format)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let log: stream::StderrAccessLog = unpack(&place, any)?;
            let format =
                log.access_log_format.map(|stream::stderr_access_log::AccessLogFormat::LogFormat(f)| f);
            ("/dev/stderr".to_owned(), decode_log_format(&place, &format)?)
        }
        _ => return Err(place.unsupported(format_args!("access log `{name}` (type {})", any.type_url))),
    };
    Ok(AccessLog { path, format, filter, omit_empty })
}

/// A format, and whether commands without a value are left out.
type Said = (LogFormat, bool);

fn decode_file(place: &Place<'_>, log: &FileAccessLog) -> Decoded<(String, Said)> {
    let format = match &log.access_log_format {
        None => return Ok((log.path.clone(), decode_log_format(place, &None)?)),
        Some(AccessLogFormat::LogFormat(format)) => {
            return Ok((log.path.clone(), decode_log_format(place, &Some(format.clone()))?));
        }
        Some(AccessLogFormat::Format(text)) => decode_text(&place.field("format"), text)?,
        Some(AccessLogFormat::JsonFormat(fields)) => decode_json(&place.field("json_format"), fields)?,
        Some(AccessLogFormat::TypedJsonFormat(fields)) => {
            decode_json(&place.field("typed_json_format"), fields)?
        }
    };
    Ok((log.path.clone(), (format, false)))
}

fn decode_log_format(place: &Place<'_>, format: &Option<SubstitutionFormatString>) -> Decoded<Said> {
    let place = place.field("log_format");
    match format {
        None => Ok((decode_text(&place, DEFAULT_FORMAT)?, false)),
        Some(format) => Ok((decode_format(&place, format)?, format.omit_empty_values)),
    }
}

/// What lines or bodies look like; whether commands without a value are left out, the caller reads.
pub(crate) fn decode_format(place: &Place<'_>, format: &SubstitutionFormatString) -> Decoded<LogFormat> {
    fields!(place, format => SubstitutionFormatString {
        honoured: format;
        // A formatter only brings commands along; one that is used and not known is refused as a command.
        ignored: content_type, formatters, json_format_options, omit_empty_values;
        refused: ;
    });
    match format {
        Some(Format::TextFormat(text)) => decode_text(&place.field("text_format"), text),
        Some(Format::TextFormatSource(source)) => {
            let place = place.field("text_format_source");
            let bytes = value::decode_data(&place, &Some(source.clone()))?.unwrap_or_default();
            let text =
                String::from_utf8(bytes).map_err(|_| place.unsupported("a format that is not UTF-8"))?;
            decode_text(&place, &text)
        }
        Some(Format::JsonFormat(fields)) => decode_json(&place.field("json_format"), fields),
        None => Err(place.error("no format is given")),
    }
}

fn decode_text(place: &Place<'_>, text: &str) -> Decoded<LogFormat> {
    Template::parse(text).map(LogFormat::Text).map_err(|e| place.error(e))
}

/// Keys come in no order of their own; they are put into that of their names.
fn decode_json(place: &Place<'_>, fields: &Struct) -> Decoded<LogFormat> {
    let mut keys: Vec<&String> = fields.fields.keys().collect();
    keys.sort();
    let mut parsed = Vec::new();
    for key in keys {
        let place = place.key("fields", key);
        let text = match fields.fields.get(key).and_then(|value| value.kind.as_ref()) {
            Some(Kind::StringValue(text)) => text,
            _ => return Err(place.unsupported("a value that is not a string")),
        };
        parsed.push((key.clone(), Template::parse(text).map_err(|e| place.error(e))?));
    }
    Ok(LogFormat::Json(parsed))
}

/// The same as it is written.
pub(crate) fn encode_format(format: &LogFormat, omit_empty: bool) -> SubstitutionFormatString {
    let (format, uses_metadata) = match format {
        LogFormat::Text(text) => {
            let source = value::encode_text(text.source());
            (Format::TextFormatSource(source), uses_metadata(text))
        }
        LogFormat::Json(fields) => {
            let values = fields.iter().map(|(key, text)| {
                (key.clone(), Value { kind: Some(Kind::StringValue(text.source().to_owned())) })
            });
            let uses = fields.iter().any(|(_, text)| uses_metadata(text));
            (Format::JsonFormat(Struct { fields: values.collect() }), uses)
        }
    };
    let formatter = || extension("envoy.formatter.metadata", pack(&MetadataFormatter {}));
    SubstitutionFormatString {
        omit_empty_values: omit_empty,
        // So that Envoy writes keys in the order in which they are decoded here.
        json_format_options: matches!(format, Format::JsonFormat(_))
            .then_some(JsonFormatOptions { sort_properties: true }),
        formatters: if uses_metadata { vec![formatter()] } else { Vec::new() },
        format: Some(format),
        ..Default::default()
    }
}

pub(crate) fn encode(log: &AccessLog) -> Proto {
    let format = encode_format(&log.format, log.omit_empty);
    let file =
        FileAccessLog { path: log.path.clone(), access_log_format: Some(AccessLogFormat::LogFormat(format)) };
    let value = wire_order::ordered(&file.encode_to_vec(), &wire_order::FILE_ACCESS_LOG);
    let any = Any { type_url: FileAccessLog::type_url(), value };
    Proto {
        name: "envoy.access_loggers.file".to_owned(),
        filter: log.filter.as_ref().map(log_filter::encode),
        config_type: Some(ConfigType::TypedConfig(any)),
    }
}

/// `%METADATA(…)%` is an extension of its own.
fn uses_metadata(text: &Template) -> bool {
    text.source().contains("%METADATA(")
}
