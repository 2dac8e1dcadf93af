//! Access logs, as the mesh's settings ask for them. The default forms are Istio's, with the resource, file and line of
//! the rule that decided at the end.

use crate::world::World;
use api::Diagnostic;
use api::mesh_config::AccessLogEncoding;
use model::format::Template;
use model::listener::{AccessLog, LogFormat};

/// Istio's text format without its end of line.
const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%";

/// What follows it: the rule that decided.
const TEXT_PROVENANCE: &str = " \"%METADATA(ROUTE:ieum.dev:resource)%\" \
    %METADATA(ROUTE:ieum.dev:file)%:%METADATA(ROUTE:ieum.dev:line)%\n";

/// Keys and values of the JSON form: Istio's, then the rule that decided.
const JSON: [(&str, &str); 26] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("rule", "%METADATA(ROUTE:ieum.dev:resource)%"),
    ("rule_place", "%METADATA(ROUTE:ieum.dev:file)%:%METADATA(ROUTE:ieum.dev:line)%"),
];

/// The logs that every listener writes.
pub(super) fn access_logs(world: &World, found: &mut Vec<Diagnostic>) -> Vec<AccessLog> {
    let settings = world.settings();
    if settings.access_log_file.is_empty() {
        return Vec::new();
    }
    let json = settings.access_log_encoding == AccessLogEncoding::Json;
    let written = settings.access_log_format.as_str();
    let read = match (json, written) {
        (_, "") => default_format(json),
        (false, text) => Template::parse(text).map(LogFormat::Text).map_err(|error| error.to_string()),
        (true, text) => json_format(text),
    };
    let format = read.or_else(|error| {
        if let Some(object) = world.local_mesh_object() {
            let problem =
                object.warning("spec.meshConfig.accessLogFormat", format!("{error}; Istio's format is used"));
            found.push(problem.help("with JSON, write a JSON object whose values are format strings"));
        }
        default_format(json)
    });
    let path = settings.access_log_file.clone();
    format.map(|format| AccessLog::new(path, format)).into_iter().collect()
}

fn default_format(json: bool) -> Result<LogFormat, String> {
    if json {
        let field = |(key, format): &(&str, &str)| Ok(((*key).to_owned(), Template::parse(format)?));
        let fields: Result<_, model::format::FormatError> = JSON.iter().map(field).collect();
        return fields.map(LogFormat::Json).map_err(|error| error.to_string());
    }
    let text = Template::parse(&format!("{TEXT}{TEXT_PROVENANCE}"));
    text.map(LogFormat::Text).map_err(|error| error.to_string())
}

fn json_format(text: &str) -> Result<LogFormat, String> {
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    let field = |(key, value): (String, serde_json::Value)| {
        let format = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Ok((key, Template::parse(&format).map_err(|error| error.to_string())?))
    };
    fields.into_iter().map(field).collect::<Result<_, String>>().map(LogFormat::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_formats_are_well_formed() {
        assert!(matches!(default_format(false), Ok(LogFormat::Text(_))));
        assert!(matches!(default_format(true), Ok(LogFormat::Json(fields)) if fields.len() == JSON.len()));
    }

    #[test]
    fn a_json_format_keeps_the_order_of_its_keys_and_names_what_it_cannot_read() {
        let Ok(LogFormat::Json(fields)) = json_format(r#"{"b": "%PROTOCOL%", "a": "x"}"#) else {
            panic!("readable")
        };
        assert_eq!(fields.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert!(json_format("[%PROTOCOL%]").is_err() && json_format(r#"{"a": "%NOPE%"}"#).is_err());
    }
}
