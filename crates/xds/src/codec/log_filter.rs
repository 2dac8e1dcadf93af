//! Conditions on exchanges (`AccessLogFilter`), as access logs and mapped answers have them.

use super::place::{Decoded, Place, fields};
use super::{condition, headers};
use envoy_types::pb::envoy::config::accesslog::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::RuntimeUInt32;
use model::log_filter::{Comparison, LogFilter, Relation};
use proto::access_log_filter::FilterSpecifier as Specifier;
use proto::comparison_filter::Op;

/// Response flags that are ever set here, and the others that Envoy knows, which never are.
const FLAGS: &[&str] = &[
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

pub(crate) fn decode(place: &Place<'_>, filter: &proto::AccessLogFilter) -> Decoded<LogFilter> {
    let all = |name: &str, filters: &[proto::AccessLogFilter]| {
        let place = place.field(name);
        let each = filters.iter().enumerate().map(|(i, filter)| decode(&place.item("filters", i), filter));
        match filters.len() {
            0 | 1 => Err(place.error("it joins two filters or more")),
            _ => each.collect::<Decoded<Vec<_>>>(),
        }
    };
    Ok(match &filter.filter_specifier {
        Some(Specifier::StatusCodeFilter(f)) => {
            LogFilter::Status(decode_comparison(&place.field("status_code_filter"), &f.comparison)?)
        }
        Some(Specifier::DurationFilter(f)) => {
            LogFilter::Duration(decode_comparison(&place.field("duration_filter"), &f.comparison)?)
        }
        Some(Specifier::NotHealthCheckFilter(_)) => LogFilter::NotHealthCheck,
        Some(Specifier::RuntimeFilter(f)) => {
            let place = place.field("runtime_filter");
            // There is no runtime that could say otherwise, and each exchange is chosen by itself.
            fields!(place, f => proto::RuntimeFilter {
                honoured: percent_sampled;
                ignored: runtime_key, use_independent_randomness;
                refused: ;
            });
            LogFilter::Share(condition::decode_percent(
                &place.field("percent_sampled"),
                percent_sampled.as_ref(),
            )?)
        }
        Some(Specifier::AndFilter(f)) => LogFilter::All(all("and_filter", &f.filters)?),
        Some(Specifier::OrFilter(f)) => LogFilter::Any(all("or_filter", &f.filters)?),
        Some(Specifier::HeaderFilter(f)) => {
            let place = place.field("header_filter.header");
            let header = f.header.as_ref().ok_or_else(|| place.error("this field is required"))?;
            LogFilter::Header(headers::decode_match(&place, header)?)
        }
        Some(Specifier::ResponseFlagFilter(f)) => {
            let unknown = f.flags.iter().position(|flag| !FLAGS.contains(&flag.as_str()));
            if let Some(at) = unknown {
                let place = place.field("response_flag_filter");
                return Err(place.item("flags", at).error("there is no such response flag"));
            }
            LogFilter::Flags(f.flags.clone())
        }
        Some(Specifier::GrpcStatusFilter(f)) => LogFilter::Grpc {
            statuses: f.statuses.iter().filter_map(|status| u32::try_from(*status).ok()).collect(),
            exclude: f.exclude,
        },
        Some(Specifier::TraceableFilter(_)) => return Err(unsupported(place, "traceable_filter")),
        Some(Specifier::MetadataFilter(_)) => return Err(unsupported(place, "metadata_filter")),
        Some(Specifier::LogTypeFilter(_)) => return Err(unsupported(place, "log_type_filter")),
        Some(Specifier::ExtensionFilter(f)) => {
            return Err(place.field("extension_filter").unsupported(format_args!("filter `{}`", f.name)));
        }
        None => return Err(place.error("nothing is said about what is logged")),
    })
}

fn unsupported(place: &Place<'_>, field: &str) -> super::DecodeError {
    place.field(field).unsupported("this filter")
}

fn decode_comparison(place: &Place<'_>, comparison: &Option<proto::ComparisonFilter>) -> Decoded<Comparison> {
    let place = place.field("comparison");
    let comparison = comparison.as_ref().ok_or_else(|| place.error("this field is required"))?;
    let value = comparison.value.as_ref().ok_or_else(|| place.field("value").error("it is required"))?;
    let relation = match Op::try_from(comparison.op) {
        Ok(Op::Eq) => Relation::Equal,
        Ok(Op::Ne) => Relation::NotEqual,
        Ok(Op::Ge) => Relation::AtLeast,
        Ok(Op::Le) => Relation::AtMost,
        Err(_) => return Err(place.field("op").unsupported(format_args!("comparison {}", comparison.op))),
    };
    Ok(Comparison { relation, value: value.default_value })
}

pub(crate) fn encode(filter: &LogFilter) -> proto::AccessLogFilter {
    let all = |filters: &[LogFilter]| filters.iter().map(encode).collect();
    let specifier = match filter {
        LogFilter::Status(comparison) => Specifier::StatusCodeFilter(proto::StatusCodeFilter {
            comparison: Some(encode_comparison(*comparison)),
        }),
        LogFilter::Duration(comparison) => Specifier::DurationFilter(proto::DurationFilter {
            comparison: Some(encode_comparison(*comparison)),
        }),
        LogFilter::NotHealthCheck => Specifier::NotHealthCheckFilter(proto::NotHealthCheckFilter {}),
        LogFilter::Share(share) => Specifier::RuntimeFilter(proto::RuntimeFilter {
            runtime_key: RUNTIME_KEY.to_owned(),
            percent_sampled: Some(condition::encode_percent(*share)),
            use_independent_randomness: true,
        }),
        LogFilter::All(filters) => Specifier::AndFilter(proto::AndFilter { filters: all(filters) }),
        LogFilter::Any(filters) => Specifier::OrFilter(proto::OrFilter { filters: all(filters) }),
        LogFilter::Header(header) => {
            Specifier::HeaderFilter(proto::HeaderFilter { header: Some(headers::encode_match(header)) })
        }
        LogFilter::Flags(flags) => {
            Specifier::ResponseFlagFilter(proto::ResponseFlagFilter { flags: flags.clone() })
        }
        LogFilter::Grpc { statuses, exclude } => Specifier::GrpcStatusFilter(proto::GrpcStatusFilter {
            statuses: statuses.iter().filter_map(|status| i32::try_from(*status).ok()).collect(),
            exclude: *exclude,
        }),
    };
    proto::AccessLogFilter { filter_specifier: Some(specifier) }
}

/// Envoy wants a name for what its runtime might say otherwise.
const RUNTIME_KEY: &str = "ieum.log_share";

fn encode_comparison(comparison: Comparison) -> proto::ComparisonFilter {
    let op = match comparison.relation {
        Relation::Equal => Op::Eq,
        Relation::NotEqual => Op::Ne,
        Relation::AtLeast => Op::Ge,
        Relation::AtMost => Op::Le,
    };
    let value = RuntimeUInt32 { default_value: comparison.value, runtime_key: RUNTIME_KEY.to_owned() };
    proto::ComparisonFilter { op: op as i32, value: Some(value) }
}
