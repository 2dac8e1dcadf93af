//! Active health checks.

use super::place::{Decoded, Place, fields};
use super::value::{self, encode_duration, encode_flag, encode_number, flag_or};
use super::{headers, text};
use envoy_types::pb::envoy::config::core::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::{CodecClientType, Int64Range};
use http::{HeaderName, HeaderValue, Method};
use model::health::{HealthCheck, HttpProbe, Probe};
use proto::health_check as kinds;
use proto::health_check::{HealthChecker, payload};
use proto::{HeaderValue as HeaderValueProto, HeaderValueOption, RequestMethod};
use std::time::Duration;

/// Envoy's own lower bound for every time here.
const SHORTEST: Duration = Duration::from_millis(1);

pub(crate) fn decode(place: &Place<'_>, check: &proto::HealthCheck) -> Decoded<HealthCheck> {
    fields!(place, check => proto::HealthCheck {
        honoured: timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent, unhealthy_threshold,
            healthy_threshold, reuse_connection, no_traffic_interval, unhealthy_interval, health_checker;
        // What changes is told in a line of the log; failures that change nothing are not.
        ignored: no_traffic_healthy_interval, unhealthy_edge_interval, healthy_edge_interval, event_log_path,
            event_logger, always_log_health_check_failures, always_log_health_check_success;
        refused: alt_port, event_service, tls_options, transport_socket_match_criteria;
    });
    let time = |name: &str, given: &Option<_>| {
        given.as_ref().map(|given| value::decode_duration(&place.field(name), given)).transpose()
    };
    let needed = |name: &str, given: &Option<_>| match time(name, given)? {
        Some(found) if found >= SHORTEST => Ok(found),
        _ => Err(place.field(name).error("a time above 0 is needed")),
    };
    let threshold = |given: &Option<envoy_types::pb::google::protobuf::UInt32Value>| {
        given.map_or(1, |given| given.value.max(1))
    };
    let probe = match health_checker {
        Some(HealthChecker::HttpHealthCheck(http)) => {
            Probe::Http(decode_http(&place.field("http_health_check"), http)?)
        }
        Some(HealthChecker::GrpcHealthCheck(grpc)) => {
            let place = place.field("grpc_health_check");
            fields!(place, grpc => kinds::GrpcHealthCheck {
                honoured: service_name, authority;
                ignored: ;
                refused: initial_metadata;
            });
            Probe::Grpc { service: service_name.clone(), authority: authority.clone() }
        }
        Some(HealthChecker::TcpHealthCheck(tcp)) => decode_tcp(&place.field("tcp_health_check"), tcp)?,
        Some(HealthChecker::CustomHealthCheck(custom)) => {
            let what = format_args!("health check `{}`", custom.name);
            return Err(place.field("custom_health_check").unsupported(what));
        }
        None => return Err(place.error("nothing is said about what is asked")),
    };
    let interval = needed("interval", interval)?;
    let defaults = HealthCheck::new(probe, needed("timeout", timeout)?, interval);
    Ok(HealthCheck {
        jitter: time("interval_jitter", interval_jitter)?.unwrap_or_default(),
        jitter_percent: *interval_jitter_percent,
        initial_jitter: time("initial_jitter", initial_jitter)?.unwrap_or_default(),
        unhealthy_threshold: threshold(unhealthy_threshold),
        healthy_threshold: threshold(healthy_threshold),
        no_traffic_interval: time("no_traffic_interval", no_traffic_interval)?
            .unwrap_or(defaults.no_traffic_interval)
            .max(SHORTEST),
        unhealthy_interval: time("unhealthy_interval", unhealthy_interval)?.unwrap_or(interval).max(SHORTEST),
        reuse_connection: flag_or(reuse_connection, true),
        ..defaults
    })
}

fn decode_http(place: &Place<'_>, http: &kinds::HttpHealthCheck) -> Decoded<HttpProbe> {
    fields!(place, http => kinds::HttpHealthCheck {
        honoured: host, path, request_headers_to_add, expected_statuses, retriable_statuses, codec_client_type,
            service_name_matcher, method;
        // Nothing is sent that could be removed again.
        ignored: request_headers_to_remove, response_buffer_size;
        refused: send, receive;
    });
    let http2 = match CodecClientType::try_from(*codec_client_type) {
        Ok(CodecClientType::Http1) => false,
        Ok(CodecClientType::Http2) => true,
        _ => return Err(place.field("codec_client_type").unsupported("HTTP/3")),
    };
    if !path.starts_with('/') || http::uri::PathAndQuery::try_from(path.as_str()).is_err() {
        return Err(place.field("path").error(format_args!("`{path}` is no path")));
    }
    let header = |(i, option): (usize, &HeaderValueOption)| {
        let place = place.item("request_headers_to_add", i);
        let header = option.header.as_ref().ok_or_else(|| place.error("a header is missing"))?;
        let name: HeaderName = headers::decode_plain_name(&place.field("key"), &header.key)?;
        match HeaderValue::from_str(&header.value) {
            // What is made per request has no request here.
            Ok(value) if !header.value.contains('%') => Ok((name, value)),
            _ => Err(place.field("value").unsupported(format_args!("`{}`", header.value))),
        }
    };
    let expected = decode_statuses(place, "expected_statuses", expected_statuses)?;
    let service = service_name_matcher.as_ref();
    let service = service.map(|m| text::decode_string_match(&place.field("service_name_matcher"), m));
    Ok(HttpProbe {
        host: host.clone(),
        path: path.clone(),
        method: decode_method(place, *method)?,
        http2,
        expected: if expected.is_empty() { vec![(200, 201)] } else { expected },
        retriable: decode_statuses(place, "retriable_statuses", retriable_statuses)?,
        service: service.transpose()?,
        headers: request_headers_to_add.iter().enumerate().map(header).collect::<Decoded<_>>()?,
    })
}

const METHODS: [(RequestMethod, Method); 8] = [
    (RequestMethod::Get, Method::GET),
    (RequestMethod::Head, Method::HEAD),
    (RequestMethod::Post, Method::POST),
    (RequestMethod::Put, Method::PUT),
    (RequestMethod::Delete, Method::DELETE),
    (RequestMethod::Options, Method::OPTIONS),
    (RequestMethod::Trace, Method::TRACE),
    (RequestMethod::Patch, Method::PATCH),
];

fn decode_method(place: &Place<'_>, method: i32) -> Decoded<Method> {
    if method == RequestMethod::MethodUnspecified as i32 {
        return Ok(Method::GET);
    }
    let found = METHODS.iter().find(|(number, _)| *number as i32 == method);
    let unsupported = || place.field("method").unsupported(format_args!("method {method}"));
    found.map(|(_, method)| method.clone()).ok_or_else(unsupported)
}

fn decode_statuses(place: &Place<'_>, name: &str, ranges: &[Int64Range]) -> Decoded<Vec<(u16, u16)>> {
    let range =
        |(i, range): (usize, &Int64Range)| match (u16::try_from(range.start), u16::try_from(range.end)) {
            (Ok(start), Ok(end)) if (100..=600).contains(&end) && start >= 100 && start < end => {
                Ok((start, end))
            }
            _ => Err(place
                .item(name, i)
                .error(format_args!("from {} to before {} are no statuses", range.start, range.end))),
        };
    ranges.iter().enumerate().map(range).collect()
}

fn decode_tcp(place: &Place<'_>, tcp: &kinds::TcpHealthCheck) -> Decoded<Probe> {
    fields!(place, tcp => kinds::TcpHealthCheck {
        honoured: send, receive;
        ignored: ;
        refused: proxy_protocol_config;
    });
    let receive = receive.iter().enumerate().map(|(i, p)| decode_payload(&place.item("receive", i), p));
    Ok(Probe::Tcp {
        send: match send {
            Some(send) => decode_payload(&place.field("send"), send)?,
            None => Vec::new(),
        },
        receive: receive.collect::<Decoded<_>>()?,
    })
}

fn decode_payload(place: &Place<'_>, given: &kinds::Payload) -> Decoded<Vec<u8>> {
    let hex = |digits: &str| -> Option<Vec<u8>> {
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        rest.is_empty().then(|| pairs.iter().map(byte).collect())?
    };
    match &given.payload {
        Some(payload::Payload::Text(digits)) => hex(digits)
            .ok_or_else(|| place.field("text").error(format_args!("`{digits}` is not hexadecimal"))),
        Some(payload::Payload::Binary(bytes)) => Ok(bytes.clone()),
        None => Ok(Vec::new()),
    }
}

pub(crate) fn encode(check: &HealthCheck) -> proto::HealthCheck {
    let some = |time: Duration| Some(encode_duration(time)).filter(|_| !time.is_zero());
    proto::HealthCheck {
        timeout: Some(encode_duration(check.timeout)),
        interval: Some(encode_duration(check.interval)),
        initial_jitter: some(check.initial_jitter),
        interval_jitter: some(check.jitter),
        interval_jitter_percent: check.jitter_percent,
        unhealthy_threshold: encode_number(check.unhealthy_threshold),
        healthy_threshold: encode_number(check.healthy_threshold),
        reuse_connection: encode_flag(check.reuse_connection),
        no_traffic_interval: some(check.no_traffic_interval),
        unhealthy_interval: some(check.unhealthy_interval),
        health_checker: Some(encode_probe(&check.probe)),
        ..Default::default()
    }
}

fn encode_probe(probe: &Probe) -> HealthChecker {
    let bytes = |bytes: &Vec<u8>| kinds::Payload {
        // The text form is the one that every version reads.
        payload: Some(payload::Payload::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    };
    match probe {
        Probe::Http(http) => HealthChecker::HttpHealthCheck(encode_http(http)),
        Probe::Grpc { service, authority } => HealthChecker::GrpcHealthCheck(kinds::GrpcHealthCheck {
            service_name: service.clone(),
            authority: authority.clone(),
            ..Default::default()
        }),
        Probe::Tcp { send, receive } => HealthChecker::TcpHealthCheck(kinds::TcpHealthCheck {
            send: Some(send).filter(|send| !send.is_empty()).map(bytes),
            receive: receive.iter().map(bytes).collect(),
            ..Default::default()
        }),
    }
}

fn encode_http(http: &HttpProbe) -> kinds::HttpHealthCheck {
    let ranges = |all: &[(u16, u16)]| -> Vec<Int64Range> {
        all.iter().map(|(start, end)| Int64Range { start: (*start).into(), end: (*end).into() }).collect()
    };
    let header = |(name, value): &(HeaderName, HeaderValue)| HeaderValueOption {
        header: Some(HeaderValueProto {
            key: name.as_str().to_owned(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let method = METHODS.iter().find(|(_, method)| *method == http.method);
    kinds::HttpHealthCheck {
        host: http.host.clone(),
        path: http.path.clone(),
        method: method.map_or(RequestMethod::MethodUnspecified, |(number, _)| *number) as i32,
        codec_client_type: match http.http2 {
            true => CodecClientType::Http2,
            false => CodecClientType::Http1,
        } as i32,
        expected_statuses: ranges(&http.expected),
        retriable_statuses: ranges(&http.retriable),
        service_name_matcher: http.service.as_ref().map(text::encode_string_match),
        request_headers_to_add: http.headers.iter().map(header).collect(),
        ..Default::default()
    }
}
