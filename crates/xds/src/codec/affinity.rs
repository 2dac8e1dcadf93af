//! What requests are hashed by, and which subset of endpoints they ask for.

use super::place::{Decoded, Place, fields};
use super::{headers, value};
use envoy_types::pb::envoy::config::core::v3::Metadata as MetadataProto;
use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::google::protobuf::Struct;
use model::affinity::{AffinityCookie, HashPolicy, HashSource};
use model::balance::{Criteria, SUBSET_NAMESPACE};
use proto::route_action::{HashPolicy as HashPolicyProto, hash_policy as kinds};
use std::collections::HashMap;

/// The field `hash_policy` of `place`.
pub(crate) fn decode(place: &Place<'_>, policies: &[HashPolicyProto]) -> Decoded<Vec<HashPolicy>> {
    let policy = |(i, policy)| decode_policy(&place.item("hash_policy", i), policy);
    let found = policies.iter().enumerate().map(policy).collect::<Decoded<Vec<_>>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// `None` for a policy that never gives a hash.
fn decode_policy(place: &Place<'_>, policy: &HashPolicyProto) -> Decoded<Option<HashPolicy>> {
    use kinds::PolicySpecifier as Specifier;
    let source = match &policy.policy_specifier {
        Some(Specifier::Header(header)) => {
            let place = place.field("header");
            fields!(place, header => kinds::Header { honoured: header_name; ignored: ; refused: regex_rewrite; });
            HashSource::Header(headers::decode_plain_name(&place.field("header_name"), header_name)?)
        }
        Some(Specifier::Cookie(cookie)) => {
            let place = place.field("cookie");
            let ttl = cookie.ttl.as_ref().map(|ttl| value::decode_duration(&place.field("ttl"), ttl));
            let attribute = |a: &kinds::CookieAttribute| (a.name.clone(), a.value.clone());
            for text in [&cookie.name, &cookie.path] {
                if text.contains(|c: char| c == ';' || c.is_control()) {
                    return Err(place.error(format_args!("`{text}` cannot be part of a cookie")));
                }
            }
            HashSource::Cookie(AffinityCookie {
                name: cookie.name.clone(),
                ttl: ttl.transpose()?,
                path: cookie.path.clone(),
                attributes: cookie.attributes.iter().map(attribute).collect(),
            })
        }
        Some(Specifier::ConnectionProperties(properties)) if properties.source_ip => HashSource::SourceIp,
        Some(Specifier::ConnectionProperties(_)) => return Ok(None),
        Some(Specifier::QueryParameter(parameter)) => HashSource::Query(parameter.name.clone()),
        Some(Specifier::FilterState(state)) => {
            let what = format_args!("filter state `{}`", state.key);
            return Err(place.field("filter_state").unsupported(what));
        }
        None => return Err(place.error("nothing is said about what is hashed")),
    };
    Ok(Some(HashPolicy { source, terminal: policy.terminal }))
}

pub(crate) fn encode(policy: &HashPolicy) -> HashPolicyProto {
    use kinds::PolicySpecifier as Specifier;
    let specifier = match &policy.source {
        HashSource::Header(name) => {
            Specifier::Header(kinds::Header { header_name: name.as_str().to_owned(), ..Default::default() })
        }
        HashSource::Cookie(cookie) => {
            let attribute = |(name, value): &(String, String)| kinds::CookieAttribute {
                name: name.clone(),
                value: value.clone(),
            };
            Specifier::Cookie(kinds::Cookie {
                name: cookie.name.clone(),
                ttl: cookie.ttl.map(value::encode_duration),
                path: cookie.path.clone(),
                attributes: cookie.attributes.iter().map(attribute).collect(),
            })
        }
        HashSource::SourceIp => {
            Specifier::ConnectionProperties(kinds::ConnectionProperties { source_ip: true })
        }
        HashSource::Query(name) => Specifier::QueryParameter(kinds::QueryParameter { name: name.clone() }),
    };
    HashPolicyProto { policy_specifier: Some(specifier), terminal: policy.terminal }
}

/// What `metadata_match` asks of endpoints; only one namespace of it is ever looked at.
pub(crate) fn decode_subset(metadata: &Option<MetadataProto>) -> Criteria {
    let found = metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(SUBSET_NAMESPACE));
    found.map(value::decode_struct).unwrap_or_default()
}

pub(crate) fn encode_subset(criteria: &Criteria) -> Option<MetadataProto> {
    if criteria.is_empty() {
        return None;
    }
    let labels: Struct = value::encode_struct(criteria);
    let filter_metadata = HashMap::from([(SUBSET_NAMESPACE.to_owned(), labels)]);
    Some(MetadataProto { filter_metadata, ..Default::default() })
}
