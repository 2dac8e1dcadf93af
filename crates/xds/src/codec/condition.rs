//! What a route asks of a request (`RouteMatch`).

use super::place::{Decoded, Place, fields};
use super::value::{self, encode_flag, flag_or};
use super::{headers, text};
use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use model::route::{Fraction, PathMatch, QueryMatch, RouteMatch};
use model::uri_template::UriTemplate;
use proto::query_parameter_matcher::QueryParameterMatchSpecifier as QuerySpecifier;
use proto::route_match::{GrpcRouteMatchOptions, PathSpecifier};

const TEMPLATE: &str = "envoy.path.match.uri_template.uri_template_matcher";

pub(crate) fn decode(place: &Place<'_>, condition: &proto::RouteMatch) -> Decoded<RouteMatch> {
    fields!(place, condition => proto::RouteMatch {
        honoured: case_sensitive, runtime_fraction, headers, query_parameters, grpc, path_specifier;
        ignored: ;
        refused: cookies, tls_context, dynamic_metadata, filter_state;
    });
    let path = match path_specifier {
        Some(PathSpecifier::Prefix(p)) => PathMatch::Prefix(p.clone()),
        Some(PathSpecifier::Path(p)) => PathMatch::Exact(p.clone()),
        Some(PathSpecifier::PathSeparatedPrefix(p)) => PathMatch::SegmentPrefix(p.clone()),
        Some(PathSpecifier::SafeRegex(r)) => {
            PathMatch::Regex(text::decode_pattern(&place.field("safe_regex"), r)?)
        }
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        Some(PathSpecifier::PathMatchPolicy(p)) => {
            let place = place.field("path_match_policy");
            match p
                .typed_config
                .as_ref()
                .filter(|any| value::type_name(any).ends_with(".UriTemplateMatchConfig"))
            {
                Some(any) => {
                    let place = place.field("typed_config");
                    let config: UriTemplateMatchConfig = value::unpack(&place, any)?;
                    let place = place.field("path_template");
                    PathMatch::Template(
                        UriTemplate::parse(&config.path_template).map_err(|e| place.error(e))?,
                    )
                }
                None => return Err(place.unsupported(format_args!("policy `{}`", p.name))),
            }
        }
        None => return Err(place.error("nothing is said about the path")),
    };
    let header = |(i, m)| self::headers::decode_match(&place.item("headers", i), m);
    let query = |(i, m)| decode_query(&place.item("query_parameters", i), m);
    let fraction = runtime_fraction.as_ref().map(|f| decode_fraction(&place.field("runtime_fraction"), f));
    Ok(RouteMatch {
        path,
        case_sensitive: flag_or(case_sensitive, true),
        headers: headers.iter().enumerate().map(header).collect::<Decoded<_>>()?,
        query: query_parameters.iter().enumerate().map(query).collect::<Decoded<_>>()?,
        grpc_only: grpc.is_some(),
        fraction: fraction.transpose()?,
    })
}

/// There is no runtime that could say otherwise, so the default counts, as in an Envoy without one.
pub(crate) fn decode_fraction(place: &Place<'_>, fraction: &RuntimeFractionalPercent) -> Decoded<Fraction> {
    let place = place.field("default_value");
    match &fraction.default_value {
        None => Err(place.error("this field is required")),
        percent => decode_percent(&place, percent.as_ref()),
    }
}

/// Nothing said is nothing.
pub(crate) fn decode_percent(place: &Place<'_>, percent: Option<&FractionalPercent>) -> Decoded<Fraction> {
    let Some(percent) = percent else { return Ok(Fraction { numerator: 0, denominator: 100 }) };
    let denominator = match DenominatorType::try_from(percent.denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return Err(place.unsupported(format_args!("denominator {}", percent.denominator))),
    };
    Ok(Fraction { numerator: percent.numerator, denominator })
}

fn decode_query(place: &Place<'_>, matcher: &proto::QueryParameterMatcher) -> Decoded<QueryMatch> {
    let value = match &matcher.query_parameter_match_specifier {
        None | Some(QuerySpecifier::PresentMatch(true)) => None,
        Some(QuerySpecifier::PresentMatch(false)) => {
            return Err(place.field("present_match").unsupported("a parameter that must be absent"));
        }
        Some(QuerySpecifier::StringMatch(m)) => {
            Some(text::decode_string_match(&place.field("string_match"), m)?)
        }
    };
    Ok(QueryMatch { name: matcher.name.clone(), value })
}

pub(crate) fn encode(condition: &RouteMatch) -> proto::RouteMatch {
    let path = match &condition.path {
        PathMatch::Exact(p) => PathSpecifier::Path(p.clone()),
        PathMatch::Prefix(p) => PathSpecifier::Prefix(p.clone()),
        // The slash already separates, and Envoy takes none at the end here.
        PathMatch::SegmentPrefix(p) if p.is_empty() || p.ends_with('/') => PathSpecifier::Prefix(p.clone()),
        PathMatch::SegmentPrefix(p) => PathSpecifier::PathSeparatedPrefix(p.clone()),
        PathMatch::Regex(r) => PathSpecifier::SafeRegex(text::encode_regex(r.source())),
        PathMatch::Template(template) => {
            let config = UriTemplateMatchConfig { path_template: template.source().to_owned() };
            PathSpecifier::PathMatchPolicy(value::extension(TEMPLATE, value::pack(&config)))
        }
        PathMatch::Connect => PathSpecifier::ConnectMatcher(proto::route_match::ConnectMatcher {}),
    };
    proto::RouteMatch {
        // Absent means the same, and not every client of ours knows the field.
        case_sensitive: if condition.case_sensitive { None } else { encode_flag(false) },
        runtime_fraction: condition.fraction.map(encode_fraction),
        headers: condition.headers.iter().map(headers::encode_match).collect(),
        query_parameters: condition.query.iter().map(encode_query).collect(),
        grpc: condition.grpc_only.then_some(GrpcRouteMatchOptions {}),
        path_specifier: Some(path),
        ..Default::default()
    }
}

pub(crate) fn encode_fraction(fraction: Fraction) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(encode_percent(fraction)), runtime_key: String::new() }
}

pub(crate) fn encode_percent(fraction: Fraction) -> FractionalPercent {
    let (numerator, denominator) = match fraction.denominator {
        100 => (fraction.numerator, DenominatorType::Hundred),
        10_000 => (fraction.numerator, DenominatorType::TenThousand),
        1_000_000 => (fraction.numerator, DenominatorType::Million),
        other => {
            let share = u64::from(fraction.numerator) * 1_000_000 / u64::from(other.max(1));
            (u32::try_from(share).unwrap_or(u32::MAX), DenominatorType::Million)
        }
    };
    FractionalPercent { numerator, denominator: denominator as i32 }
}

fn encode_query(query: &QueryMatch) -> proto::QueryParameterMatcher {
    let specifier = match &query.value {
        None => QuerySpecifier::PresentMatch(true),
        Some(m) => QuerySpecifier::StringMatch(text::encode_string_match(m)),
    };
    proto::QueryParameterMatcher {
        name: query.name.clone(),
        query_parameter_match_specifier: Some(specifier),
    }
}
