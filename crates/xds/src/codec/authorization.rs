//! The filter `envoy.filters.http.rbac`: rules that a request must pass.

use super::place::{Decoded, Place, fields};
use super::{headers, text, value, wire_order};
use envoy_types::pb::envoy::config::rbac::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as Filter;
use envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher};
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::protobuf::Any;
use model::authorization::{Permission, Policy, Principal, RuleAction, Rules, ShadowRules};
use model::matcher::StringMatch;
use prost::{Message, Name};
use proto::permission::{Rule, Set as PermissionSet};
use proto::principal::{Authenticated, Identifier, Set as PrincipalSet};
use proto::rbac::Action;

pub(crate) const RBAC: &str = "envoy.filters.http.rbac";
pub(crate) const RBAC_TYPE: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
/// How deep rules may be nested.
const DEEPEST: u32 = 32;

/// The rules of a filter, which lets everything pass where it has none, and those that are only tried out.
pub(crate) fn decode(place: &Place<'_>, filter: &Filter) -> Decoded<(Option<Rules>, Option<ShadowRules>)> {
    fields!(place, filter => Filter {
        honoured: rules, shadow_rules, shadow_rules_stat_prefix;
        ignored: rules_stat_prefix, track_per_rule_stats;
        refused: matcher, shadow_matcher;
    });
    let rules = rules.as_ref().map(|rules| decode_rules(&place.field("rules"), rules)).transpose()?;
    let shadow = shadow_rules.as_ref().map(|rules| decode_rules(&place.field("shadow_rules"), rules));
    let prefix = shadow_rules_stat_prefix.clone();
    Ok((rules, shadow.transpose()?.map(|rules| ShadowRules { rules, prefix })))
}

fn decode_rules(place: &Place<'_>, rules: &proto::Rbac) -> Decoded<Rules> {
    fields!(place, rules => proto::Rbac {
        honoured: action, policies;
        ignored: ;
        refused: audit_logging_options;
    });
    let action = match Action::try_from(*action) {
        Ok(Action::Allow) => RuleAction::Allow,
        Ok(Action::Deny) => RuleAction::Deny,
        _ => return Err(place.field("action").unsupported(action)),
    };
    let mut named: Vec<_> = policies.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    let policies =
        named.into_iter().map(|(name, policy)| decode_policy(&place.key("policies", name), name, policy));
    Ok(Rules { action, policies: policies.collect::<Decoded<_>>()? })
}

fn decode_policy(place: &Place<'_>, name: &str, policy: &proto::Policy) -> Decoded<Policy> {
    fields!(place, policy => proto::Policy {
        honoured: permissions, principals;
        ignored: cel_config;
        refused: condition, checked_condition;
    });
    check_some(&place.field("permissions"), permissions)?;
    check_some(&place.field("principals"), principals)?;
    let permissions = permissions.iter().enumerate();
    let principals = principals.iter().enumerate();
    Ok(Policy {
        name: name.to_owned(),
        permissions: permissions
            .map(|(i, p)| decode_permission(&place.item("permissions", i), p, 0))
            .collect::<Decoded<_>>()?,
        principals: principals
            .map(|(i, p)| decode_principal(&place.item("principals", i), p, 0))
            .collect::<Decoded<_>>()?,
    })
}

/// As in Envoy, an empty list is a mistake rather than nothing or everything.
fn check_some<T>(place: &Place<'_>, list: &[T]) -> Decoded<()> {
    match list.is_empty() {
        true => Err(place.error("must not be empty")),
        false => Ok(()),
    }
}

fn check_depth(place: &Place<'_>, depth: u32) -> Decoded<u32> {
    match depth < DEEPEST {
        true => Ok(depth + 1),
        false => Err(place.error(format_args!("rules are nested deeper than {DEEPEST}"))),
    }
}

fn decode_permission(place: &Place<'_>, permission: &proto::Permission, depth: u32) -> Decoded<Permission> {
    let depth = check_depth(place, depth)?;
    let all = |place: &Place<'_>, set: &PermissionSet| {
        check_some(&place.field("rules"), &set.rules)?;
        let rules = set.rules.iter().enumerate();
        rules.map(|(i, p)| decode_permission(&place.item("rules", i), p, depth)).collect::<Decoded<Vec<_>>>()
    };
    Ok(match &permission.rule {
        Some(Rule::Any(true)) => Permission::Any,
        Some(Rule::AndRules(set)) => Permission::All(all(&place.field("and_rules"), set)?),
        Some(Rule::OrRules(set)) => Permission::OneOf(all(&place.field("or_rules"), set)?),
        Some(Rule::NotRule(rule)) => {
            Permission::Not(Box::new(decode_permission(&place.field("not_rule"), rule, depth)?))
        }
        Some(Rule::Header(header)) => {
            Permission::Header(headers::decode_match(&place.field("header"), header)?)
        }
        Some(Rule::UrlPath(path)) => Permission::Path(decode_path(&place.field("url_path"), path)?),
        Some(Rule::DestinationIp(range)) => {
            Permission::DestinationAddress(value::decode_range(&place.field("destination_ip"), range)?)
        }
        Some(Rule::DestinationPort(port)) => Permission::DestinationPort(*port..port.saturating_add(1)),
        Some(Rule::DestinationPortRange(range)) => {
            let place = place.field("destination_port_range");
            let bound = |n: i32| u32::try_from(n).map_err(|_| place.error(format_args!("{n} is no port")));
            Permission::DestinationPort(bound(range.start)?..bound(range.end)?)
        }
        Some(Rule::RequestedServerName(name)) => {
            Permission::ServerName(text::decode_string_match(&place.field("requested_server_name"), name)?)
        }
        Some(Rule::Any(false)) => return Err(place.field("any").error("must be true")),
        Some(Rule::Metadata(_)) => return Err(place.field("metadata").unsupported("a test of metadata")),
        Some(Rule::SourcedMetadata(_)) => {
            return Err(place.field("sourced_metadata").unsupported("a test of metadata"));
        }
        Some(Rule::Matcher(_)) => return Err(place.field("matcher").unsupported("an extension")),
        Some(Rule::UriTemplate(_)) => return Err(place.field("uri_template").unsupported("an extension")),
        None => return Err(place.error("it has no rule")),
    })
}

fn decode_principal(place: &Place<'_>, principal: &proto::Principal, depth: u32) -> Decoded<Principal> {
    let depth = check_depth(place, depth)?;
    let all = |place: &Place<'_>, set: &PrincipalSet| {
        check_some(&place.field("ids"), &set.ids)?;
        let ids = set.ids.iter().enumerate();
        ids.map(|(i, p)| decode_principal(&place.item("ids", i), p, depth)).collect::<Decoded<Vec<_>>>()
    };
    Ok(match &principal.identifier {
        Some(Identifier::Any(true)) => Principal::Any,
        Some(Identifier::AndIds(set)) => Principal::All(all(&place.field("and_ids"), set)?),
        Some(Identifier::OrIds(set)) => Principal::OneOf(all(&place.field("or_ids"), set)?),
        Some(Identifier::NotId(id)) => {
            Principal::Not(Box::new(decode_principal(&place.field("not_id"), id, depth)?))
        }
        Some(Identifier::Authenticated(authenticated)) => {
            let place = place.field("authenticated");
            let name = authenticated.principal_name.as_ref();
            let name = name.map(|n| text::decode_string_match(&place.field("principal_name"), n));
            Principal::Authenticated(name.transpose()?)
        }
        Some(Identifier::SourceIp(range)) => {
            Principal::DirectAddress(value::decode_range(&place.field("source_ip"), range)?)
        }
        Some(Identifier::DirectRemoteIp(range)) => {
            Principal::DirectAddress(value::decode_range(&place.field("direct_remote_ip"), range)?)
        }
        Some(Identifier::RemoteIp(range)) => {
            Principal::ClientAddress(value::decode_range(&place.field("remote_ip"), range)?)
        }
        Some(Identifier::Header(header)) => {
            Principal::Header(headers::decode_match(&place.field("header"), header)?)
        }
        Some(Identifier::UrlPath(path)) => Principal::Path(decode_path(&place.field("url_path"), path)?),
        Some(Identifier::Any(false)) => return Err(place.field("any").error("must be true")),
        Some(Identifier::Metadata(_) | Identifier::SourcedMetadata(_)) => {
            return Err(place.unsupported("a test of metadata"));
        }
        Some(Identifier::FilterState(_)) => {
            return Err(place.field("filter_state").unsupported("a test of filter state"));
        }
        Some(Identifier::Custom(_)) => return Err(place.field("custom").unsupported("an extension")),
        None => return Err(place.error("it has no identifier")),
    })
}

fn decode_path(place: &Place<'_>, path: &PathMatcher) -> Decoded<StringMatch> {
    match &path.rule {
        Some(path_matcher::Rule::Path(matcher)) => text::decode_string_match(&place.field("path"), matcher),
        None => Err(place.error("it has no rule")),
    }
}

pub(crate) fn encode(rules: &Rules) -> Any {
    pack(&Filter { rules: Some(encode_rules(rules)), ..Default::default() })
}

pub(crate) fn encode_shadow(shadow: &ShadowRules) -> Any {
    pack(&Filter {
        shadow_rules: Some(encode_rules(&shadow.rules)),
        shadow_rules_stat_prefix: shadow.prefix.clone(),
        ..Default::default()
    })
}

fn encode_rules(rules: &Rules) -> proto::Rbac {
    let policies = rules.policies.iter().map(|policy| {
        let encoded = proto::Policy {
            permissions: policy.permissions.iter().map(encode_permission).collect(),
            principals: policy.principals.iter().map(encode_principal).collect(),
            ..Default::default()
        };
        (policy.name.clone(), encoded)
    });
    let action = match rules.action {
        RuleAction::Allow => Action::Allow,
        RuleAction::Deny => Action::Deny,
    };
    proto::Rbac { action: action.into(), policies: policies.collect(), ..Default::default() }
}

fn pack(filter: &Filter) -> Any {
    Any {
        type_url: Filter::type_url(),
        value: wire_order::ordered(&filter.encode_to_vec(), &wire_order::RBAC),
    }
}

fn encode_permission(permission: &Permission) -> proto::Permission {
    let set = |all: &[Permission]| PermissionSet { rules: all.iter().map(encode_permission).collect() };
    let port = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let rule = match permission {
        Permission::Any => Rule::Any(true),
        Permission::All(all) => Rule::AndRules(set(all)),
        Permission::OneOf(some) => Rule::OrRules(set(some)),
        Permission::Not(inner) => Rule::NotRule(Box::new(encode_permission(inner))),
        Permission::Header(header) => Rule::Header(headers::encode_match(header)),
        Permission::Path(path) => Rule::UrlPath(encode_path(path)),
        Permission::DestinationAddress(range) => Rule::DestinationIp(value::encode_range(range)),
        Permission::DestinationPort(ports) if ports.len() == 1 => Rule::DestinationPort(ports.start),
        Permission::DestinationPort(ports) => {
            Rule::DestinationPortRange(Int32Range { start: port(ports.start), end: port(ports.end) })
        }
        Permission::ServerName(name) => Rule::RequestedServerName(text::encode_string_match(name)),
    };
    proto::Permission { rule: Some(rule) }
}

fn encode_principal(principal: &Principal) -> proto::Principal {
    let set = |all: &[Principal]| PrincipalSet { ids: all.iter().map(encode_principal).collect() };
    let identifier = match principal {
        Principal::Any => Identifier::Any(true),
        Principal::All(all) => Identifier::AndIds(set(all)),
        Principal::OneOf(some) => Identifier::OrIds(set(some)),
        Principal::Not(inner) => Identifier::NotId(Box::new(encode_principal(inner))),
        Principal::Authenticated(name) => Identifier::Authenticated(Authenticated {
            principal_name: name.as_ref().map(text::encode_string_match),
        }),
        Principal::DirectAddress(range) => Identifier::DirectRemoteIp(value::encode_range(range)),
        Principal::ClientAddress(range) => Identifier::RemoteIp(value::encode_range(range)),
        Principal::Header(header) => Identifier::Header(headers::encode_match(header)),
        Principal::Path(path) => Identifier::UrlPath(encode_path(path)),
    };
    proto::Principal { identifier: Some(identifier) }
}

fn encode_path(path: &StringMatch) -> PathMatcher {
    let matcher: StringMatcher = text::encode_string_match(path);
    PathMatcher { rule: Some(path_matcher::Rule::Path(matcher)) }
}
