//! Who may do what: rules over requests and those who send them (`envoy.config.rbac.v3.RBAC`).
//!
//! A pure question. What cannot be known (no certificate, no server name) satisfies no test that asks for it, and a test
//! that cannot be made is a configuration that is refused, so that nothing turns an error into leave.

use crate::address::AddressRange;
use crate::header::{HeaderMatch, RequestHead};
use crate::matcher::StringMatch;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Rules that a request must pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What a policy that matches means.
    pub action: RuleAction,
    /// Policies, in the order of their names.
    pub policies: Vec<Policy>,
}

/// Rules whose verdict is only noted, so that they can be tried out (`shadow_rules`).
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowRules {
    /// The rules.
    pub rules: Rules,
    /// Stands before the names under which the verdict is noted (`shadow_rules_stat_prefix`).
    pub prefix: String,
}

/// What a policy that matches means (`RBAC.Action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Leave: a request that no policy matches is refused.
    Allow,
    /// Refusal: a request that no policy matches may pass.
    Deny,
}

/// One policy: a request that one of its permissions and one of its principals matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name, told to people.
    pub name: String,
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// What is done with a request (`RBAC.Permission`).
#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these hold.
    All(Vec<Permission>),
    /// One of these holds.
    OneOf(Vec<Permission>),
    /// This does not hold.
    Not(Box<Permission>),
    /// A header.
    Header(HeaderMatch),
    /// The canonical path, without the query.
    Path(StringMatch),
    /// The address that was connected to.
    DestinationAddress(AddressRange),
    /// The port that was connected to.
    DestinationPort(Range<u32>),
    /// SNI.
    ServerName(StringMatch),
}

/// Who sends a request (`RBAC.Principal`).
#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of these hold.
    All(Vec<Principal>),
    /// One of these holds.
    OneOf(Vec<Principal>),
    /// This does not hold.
    Not(Box<Principal>),
    /// A peer with a verified certificate; with a name that looks like this, where one is given.
    Authenticated(Option<StringMatch>),
    /// The peer of the connection.
    DirectAddress(AddressRange),
    /// The client, as trusted forwarding headers tell.
    ClientAddress(AddressRange),
    /// A header.
    Header(HeaderMatch),
    /// The canonical path, without the query.
    Path(StringMatch),
}

/// A request, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its head.
    pub head: &'a RequestHead<'a>,
    /// Name in the peer's verified certificate; `None` when it presented none.
    pub peer: Option<&'a str>,
    /// The peer of the connection.
    pub direct: IpAddr,
    /// The client, as trusted forwarding headers tell.
    pub client: IpAddr,
    /// Where the connection went to.
    pub destination: SocketAddr,
    /// SNI.
    pub server_name: Option<&'a str>,
}

/// What rules say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'r> {
    /// It may pass.
    pub allowed: bool,
    /// The policy that matched; `None` when none did.
    pub policy: Option<&'r str>,
}

impl Rules {
    /// Whether `subject` may pass.
    pub fn judge(&self, subject: &Subject<'_>) -> Verdict<'_> {
        let matched = self.policies.iter().find(|policy| policy.matches(subject));
        let allowed = match self.action {
            RuleAction::Allow => matched.is_some(),
            RuleAction::Deny => matched.is_none(),
        };
        Verdict { allowed, policy: matched.map(|policy| policy.name.as_str()) }
    }
}

impl Policy {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        self.permissions.iter().any(|p| p.matches(subject))
            && self.principals.iter().any(|p| p.matches(subject))
    }
}

impl Permission {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::All(all) => all.iter().all(|p| p.matches(subject)),
            Self::OneOf(some) => some.iter().any(|p| p.matches(subject)),
            Self::Not(inner) => !inner.matches(subject),
            Self::Header(header) => header.matches(subject.head),
            Self::Path(path) => path.matches(subject.head.path.as_bytes()),
            Self::DestinationAddress(range) => range.contains(subject.destination.ip()),
            Self::DestinationPort(ports) => ports.contains(&u32::from(subject.destination.port())),
            Self::ServerName(name) => subject.server_name.is_some_and(|sni| name.matches(sni.as_bytes())),
        }
    }
}

impl Principal {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::All(all) => all.iter().all(|p| p.matches(subject)),
            Self::OneOf(some) => some.iter().any(|p| p.matches(subject)),
            Self::Not(inner) => !inner.matches(subject),
            Self::Authenticated(name) => subject
                .peer
                .is_some_and(|peer| name.as_ref().is_none_or(|name| name.matches(peer.as_bytes()))),
            Self::DirectAddress(range) => range.contains(subject.direct),
            Self::ClientAddress(range) => range.contains(subject.client),
            Self::Header(header) => header.matches(subject.head),
            Self::Path(path) => path.matches(subject.head.path.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::{HeaderMap, Method};

    fn rules(action: RuleAction, permission: Permission, principal: Principal) -> Rules {
        let policy = Policy { name: "p".into(), permissions: vec![permission], principals: vec![principal] };
        Rules { action, policies: vec![policy] }
    }

    fn judge(rules: &Rules, path: &str, peer: Option<&str>) -> bool {
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path,
            query: None,
            headers: &headers,
        };
        let client = "10.0.0.1".parse().unwrap();
        let destination = "10.0.0.2:80".parse().unwrap();
        rules
            .judge(&Subject { head: &head, peer, direct: client, client, destination, server_name: None })
            .allowed
    }

    #[test]
    fn what_no_policy_matches_is_refused_by_allow_and_passed_by_deny() {
        let admin = || Permission::Path(StringMatch::prefix("/admin"));
        let allow = rules(RuleAction::Allow, admin(), Principal::Any);
        assert!(judge(&allow, "/admin/x", None) && !judge(&allow, "/", None));
        let deny = rules(RuleAction::Deny, admin(), Principal::Any);
        assert!(!judge(&deny, "/admin/x", None) && judge(&deny, "/", None));
        assert!(!judge(&Rules { action: RuleAction::Allow, policies: vec![] }, "/", None));
        assert!(judge(&Rules { action: RuleAction::Deny, policies: vec![] }, "/", None));
    }

    #[test]
    fn a_peer_without_a_certificate_satisfies_no_name() {
        let named = Principal::Authenticated(Some(StringMatch::prefix("spiffe://")));
        let allow = rules(RuleAction::Allow, Permission::Any, named.clone());
        assert!(judge(&allow, "/", Some("spiffe://a/ns/b/sa/c")) && !judge(&allow, "/", None));
        let not = rules(RuleAction::Deny, Permission::Any, Principal::Not(Box::new(named)));
        assert!(!judge(&not, "/", None), "whoever is not known is not the one who is let through");
    }

    #[test]
    fn ports_addresses_and_server_names_are_looked_at() {
        let of = |permission| rules(RuleAction::Allow, permission, Principal::Any);
        assert!(judge(&of(Permission::DestinationPort(80..81)), "/", None));
        assert!(!judge(&of(Permission::DestinationPort(81..90)), "/", None));
        let range = AddressRange { address: "10.0.0.0".parse().unwrap(), prefix_length: 24 };
        assert!(judge(&of(Permission::DestinationAddress(range)), "/", None));
        assert!(!judge(&of(Permission::ServerName(StringMatch::prefix(""))), "/", None));
    }
}
