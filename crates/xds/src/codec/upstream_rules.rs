//! What few clusters say of HTTP: streams and pings of their HTTP/2 connections, and which statuses are errors.

use super::place::{Decoded, Place, fields};
use super::value::{decode_duration, encode_duration, encode_number};
use envoy_types::pb::envoy::config::common::matcher::v3 as matcher;
use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, KeepaliveSettings};
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::OutlierDetection;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use matcher::match_predicate::{MatchSet, Rule};
use matcher::{HttpHeadersMatch, MatchPredicate};
use model::cluster::{Connections, Pings};
use model::matcher::StringMatch;

/// Streams and pings as HTTP/2 options say.
pub(crate) fn decode_http2(
    place: &Place<'_>,
    http2: &Option<Http2ProtocolOptions>,
    connections: &mut Connections,
) -> Decoded<()> {
    let Some(http2) = http2 else { return Ok(()) };
    connections.max_streams = http2.max_concurrent_streams.map(|max| max.value).filter(|max| *max > 0);
    let Some(given) = &http2.connection_keepalive else { return Ok(()) };
    let place = place.field("connection_keepalive");
    fields!(place, given => KeepaliveSettings {
        honoured: interval, timeout;
        ignored: interval_jitter, connection_idle_interval;
        refused: ;
    });
    let timeout = match timeout {
        Some(timeout) => decode_duration(&place.field("timeout"), timeout)?,
        None => return Err(place.field("timeout").error("this field is required")),
    };
    let interval =
        interval.as_ref().map(|time| decode_duration(&place.field("interval"), time)).transpose()?;
    connections.pings =
        interval.filter(|interval| !interval.is_zero()).map(|interval| Pings { interval, timeout });
    Ok(())
}

/// HTTP/2 options with what is said of connections.
pub(crate) fn encode_http2(connections: &Connections, options: Http2ProtocolOptions) -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        max_concurrent_streams: connections.max_streams.and_then(encode_number),
        connection_keepalive: connections.pings.map(|pings| KeepaliveSettings {
            interval: Some(encode_duration(pings.interval)),
            timeout: Some(encode_duration(pings.timeout)),
            ..Default::default()
        }),
        ..options
    }
}

/// The statuses that are errors: what Envoy looks at is a predicate on anything, of which this is the part that is known.
pub(crate) fn decode_errors(place: &Place<'_>, given: &Option<OutlierDetection>) -> Decoded<Vec<u16>> {
    let Some(OutlierDetection { error_matcher: Some(predicate) }) = given else { return Ok(Vec::new()) };
    let place = place.field("error_matcher");
    let mut statuses = Vec::new();
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => {
            for (i, rule) in set.rules.iter().enumerate() {
                let place = place.field("or_match");
                statuses.push(decode_error(&place.item("rules", i), rule)?);
            }
        }
        _ => statuses.push(decode_error(&place, predicate)?),
    }
    Ok(statuses)
}

fn decode_error(place: &Place<'_>, predicate: &MatchPredicate) -> Decoded<u16> {
    let exact = |matcher: &HeaderMatcher| match &matcher.header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(text)) => match &text.match_pattern {
            Some(MatchPattern::Exact(text)) => text.parse().ok(),
            _ => None,
        },
        Some(HeaderMatchSpecifier::ExactMatch(text)) => text.parse().ok(),
        _ => None,
    };
    let status = match &predicate.rule {
        Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers })) => match headers.as_slice() {
            [one] if one.name == ":status" && !one.invert_match => exact(one),
            _ => None,
        },
        _ => None,
    };
    status.ok_or_else(|| place.unsupported("anything but exact values of `:status`"))
}

pub(crate) fn encode_errors(statuses: &[u16]) -> Option<OutlierDetection> {
    let one = |status: &u16| {
        let specifier = HeaderMatchSpecifier::StringMatch(super::text::encode_string_match(
            &StringMatch::exact(status.to_string()),
        ));
        let header = HeaderMatcher {
            name: ":status".to_owned(),
            header_match_specifier: Some(specifier),
            ..Default::default()
        };
        MatchPredicate {
            rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers: vec![header] })),
        }
    };
    let error_matcher = match statuses {
        [] => return None,
        [only] => one(only),
        // Envoy wants two at least in such a set.
        many => {
            MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules: many.iter().map(one).collect() })) }
        }
    };
    Some(OutlierDetection { error_matcher: Some(error_matcher) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::codec::{cluster_proto, decode_cluster};
    use model::cluster::{
        Cluster, Connections, Discovery, Pings, ProxyVersion, Transport, TransportMatch, UpstreamHttp,
    };
    use std::time::Duration;

    #[test]
    fn what_a_cluster_says_of_connections_and_errors_is_read_back() {
        let ping = Pings { interval: Duration::from_secs(30), timeout: Duration::from_secs(5) };
        let connections = Connections {
            max_streams: Some(9),
            max_duration: Some(Duration::from_secs(60)),
            pings: Some(ping),
            ..Connections::default()
        };
        for statuses in [vec![], vec![429], vec![429, 503]] {
            let cluster = Cluster {
                http: UpstreamHttp::Http2,
                connections: connections.into(),
                error_statuses: statuses,
                ..Cluster::new("c", Discovery::Eds("c".to_owned()))
            };
            let read = decode_cluster(&cluster_proto(&cluster)).unwrap();
            assert_eq!((*read.connections, read.error_statuses), (connections, cluster.error_statuses));
        }
    }

    #[test]
    fn a_header_of_the_proxy_protocol_goes_before_every_transport_or_before_none() {
        let matches = vec![TransportMatch {
            name: "m".to_owned(),
            labels: Default::default(),
            transport: Transport::Plain,
        }];
        let cluster = Cluster {
            transport_matches: matches,
            proxy_header: Some(ProxyVersion::V2),
            ..Cluster::new("c", Discovery::Eds("c".to_owned()))
        };
        let mut proto = cluster_proto(&cluster);
        assert_eq!(decode_cluster(&proto).unwrap().proxy_header, Some(ProxyVersion::V2));
        proto.transport_socket = None;
        let problem = decode_cluster(&proto).unwrap_err().to_string();
        assert!(problem.contains("transport_socket_matches"), "{problem}");
    }
}
