//! Finding the virtual host for an authority among those of a route configuration: by hash, whatever their number.

use crate::rewrite::split_authority;
use crate::route::{RouteConfiguration, VirtualHost};
use rustc_hash::FxHashMap;
use std::fmt;

/// Which virtual host takes which authority.
#[derive(Debug, Default)]
pub struct HostIndex {
    exact: FxHashMap<Box<str>, u32>,
    /// `*.suffix`, by suffix with its dot, longest first.
    suffixes: Wildcards,
    /// `prefix.*`, by prefix with its dot, longest first.
    prefixes: Wildcards,
    any: Option<u32>,
    ignore_port: bool,
}

#[derive(Debug, Default)]
struct Wildcards {
    lengths: Vec<usize>,
    hosts: FxHashMap<Box<str>, u32>,
}

/// A route configuration that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTableError {
    /// Two virtual hosts claim one domain.
    DuplicateDomain {
        /// The domain.
        domain: String,
        /// The virtual host that came second.
        virtual_host: String,
    },
    /// A domain that is not `*`, exact, `*.suffix` or `prefix.*`.
    BadDomain {
        /// The domain.
        domain: String,
        /// The virtual host.
        virtual_host: String,
    },
}

impl fmt::Display for RouteTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateDomain { domain, virtual_host } => {
                write!(
                    f,
                    "domain `{domain}` of virtual host `{virtual_host}` is claimed by another virtual host, too"
                )
            }
            Self::BadDomain { domain, virtual_host } => {
                write!(
                    f,
                    "domain `{domain}` of virtual host `{virtual_host}` is neither a host nor a wildcard"
                )
            }
        }
    }
}

impl std::error::Error for RouteTableError {}

impl HostIndex {
    /// The index of a configuration's virtual hosts.
    pub fn of(config: &RouteConfiguration) -> Result<Self, RouteTableError> {
        let mut index = Self { ignore_port: config.ignore_port, ..Self::default() };
        for (at, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                index.add_domain(domain, at as u32, host)?;
            }
        }
        index.suffixes.seal();
        index.prefixes.seal();
        Ok(index)
    }

    fn add_domain(&mut self, domain: &str, index: u32, host: &VirtualHost) -> Result<(), RouteTableError> {
        let domain = domain.to_ascii_lowercase();
        let bad = || RouteTableError::BadDomain { domain: domain.clone(), virtual_host: host.name.clone() };
        let replaced = if domain == "*" {
            self.any.replace(index)
        } else if let Some(suffix) = domain.strip_prefix('*') {
            if suffix.contains('*') {
                return Err(bad());
            }
            self.suffixes.hosts.insert(suffix.into(), index)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            if prefix.contains('*') {
                return Err(bad());
            }
            self.prefixes.hosts.insert(prefix.into(), index)
        } else if domain.contains('*') || domain.is_empty() {
            return Err(bad());
        } else {
            self.exact.insert(domain.as_str().into(), index)
        };
        match replaced {
            Some(other) if other != index => {
                Err(RouteTableError::DuplicateDomain { domain, virtual_host: host.name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Position of the virtual host for an authority: exact, then the longest suffix wildcard, then the longest prefix
    /// wildcard, then `*`, as Envoy orders them.
    pub fn find(&self, authority: &str) -> Option<usize> {
        let authority = match self.ignore_port {
            true => split_authority(authority).0,
            false => authority,
        };
        // Almost every authority is in lower case already.
        let lowered;
        let authority = if authority.bytes().any(|b| b.is_ascii_uppercase()) {
            lowered = authority.to_ascii_lowercase();
            lowered.as_str()
        } else {
            authority
        };
        self.exact
            .get(authority)
            .copied()
            .or_else(|| {
                self.suffixes.find(|length| match authority.len() > length {
                    true => authority.get(authority.len() - length..),
                    false => None,
                })
            })
            .or_else(|| {
                self.prefixes.find(|length| match authority.len() > length {
                    true => authority.get(..length),
                    false => None,
                })
            })
            .or(self.any)
            .map(|at| at as usize)
    }
}

impl Wildcards {
    fn seal(&mut self) {
        self.lengths = self.hosts.keys().map(|k| k.len()).collect();
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
    }

    fn find<'a>(&self, part: impl Fn(usize) -> Option<&'a str>) -> Option<u32> {
        self.lengths.iter().find_map(|&length| self.hosts.get(part(length)?).copied())
    }
}
