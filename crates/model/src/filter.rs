//! HTTP filters beside the router: which ones there are, and what a table, a host or a route says of them
//! (`http_filters`, `typed_per_filter_config`). The most specific one that says something is heard.

use crate::authorization::{Rules, ShadowRules};
use crate::cors::Cors;
use crate::csrf::Csrf;
use crate::fault::Fault;
use crate::health_answer::HealthAnswer;
use crate::metadata::Fields;
use crate::mutation::{HeaderMutations, Mutations};
use crate::on_demand::OnDemand;
use crate::session::Session;

/// The filters of a connection manager. They run in the order of these fields, whatever the configuration's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpFilters {
    /// `envoy.filters.http.health_check`, any number of them.
    pub health: Vec<HealthAnswer>,
    /// `envoy.filters.http.cors`; it does only what tables, hosts and routes say.
    pub cors: Option<Placed<()>>,
    /// `envoy.filters.http.rbac`, any number of them; a request must pass each.
    pub authorization: Vec<Rules>,
    /// Rules of the same filters that are only tried out.
    pub shadows: Vec<ShadowRules>,
    /// `envoy.filters.http.set_metadata`, any number of them.
    pub notes: Vec<Note>,
    /// `envoy.filters.http.fault`.
    pub fault: Option<Box<Placed<Fault>>>,
    /// `envoy.filters.http.csrf`.
    pub csrf: Option<Box<Placed<Csrf>>>,
    /// `envoy.filters.http.buffer`: bytes that a request's body may have.
    pub buffer: Option<Placed<u32>>,
    /// `envoy.filters.http.stateful_session`; `None` in it does only what tables, hosts and routes say.
    pub session: Option<Box<Placed<Option<Session>>>>,
    /// `envoy.filters.http.header_mutation`.
    pub mutations: Option<Box<Placed<HeaderMutations>>>,
    /// `envoy.filters.http.on_demand`: clusters that are not there are asked for, once it is known which.
    pub on_demand: Option<Placed<OnDemand>>,
}

/// What is noted of every request (`envoy.filters.http.set_metadata`), for logs and headers to quote.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Where it is noted.
    pub namespace: String,
    /// What.
    pub fields: Fields,
    /// What is noted there already is joined; else it stays alone.
    pub joins: bool,
}

/// A filter that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<T> {
    /// What it does where nothing else is said.
    pub config: T,
    /// Only where something else is said it does anything.
    pub disabled: bool,
}

impl<T> Placed<T> {
    /// One that does this.
    pub fn new(config: T) -> Self {
        Self { config, disabled: false }
    }
}

/// What a table, a host or a route says of filters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FilterSettings {
    /// Of `envoy.filters.http.cors`.
    pub cors: Option<Setting<Cors>>,
    /// Of `envoy.filters.http.fault`.
    pub fault: Option<Setting<Fault>>,
    /// Of `envoy.filters.http.csrf`.
    pub csrf: Option<Setting<Csrf>>,
    /// Of `envoy.filters.http.buffer`.
    pub buffer: Option<Setting<u32>>,
    /// Of `envoy.filters.http.stateful_session`.
    pub session: Option<Setting<Session>>,
    /// Of `envoy.filters.http.header_mutation`. What table, host and route say is done one after the other.
    pub mutations: Option<Setting<Mutations>>,
    /// Of `envoy.filters.http.on_demand`.
    pub on_demand: Option<Setting<OnDemand>>,
}

impl FilterSettings {
    /// These settings, unless nothing is said.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// What is said of one filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting<T> {
    /// It does nothing.
    Disabled,
    /// It does this.
    Use(T),
}

impl<T> Setting<T> {
    /// What it does.
    pub fn used(&self) -> Option<&T> {
        match self {
            Self::Disabled => None,
            Self::Use(config) => Some(config),
        }
    }
}
