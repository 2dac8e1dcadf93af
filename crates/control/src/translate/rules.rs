//! VirtualServices, compiled: for each host the rules that say where its requests go. Which virtual hosts they end up in
//! is decided by `outbound`, `gateways` and `grpc`.

use super::actions::{Defaults, Destination, Outcome, tunnel_target};
use super::connection_rules::{ConnectionCondition, ConnectionRule};
use super::delegates::Delegates;
use super::edits::{request_edits, response_edits};
use super::interventions::filters;
use super::matches::{Asker, MESH, Scope, gateway_name, request};
use super::place::Place;
use super::protocol::Protocol;
use super::registry::{Registry, provenance};
use super::visibility::{Visibility, covers, specificity};
use crate::hosts::full_name;
use crate::world::World;
use api::networking::{HttpRoute, VirtualService};
use api::{Diagnostic, Object};
use model::address::AddressRange;
use model::filter::FilterSettings;
use model::header::HeaderEdits;
use model::metadata::Metadata;
use model::provenance::Provenance;
use model::route::{Action, HostRewrite, Route, RouteMatch, Target};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Every VirtualService, in the order that decides between them.
#[derive(Debug, Default)]
pub(super) struct Rules {
    all: Vec<RuleSet>,
    /// Positions by host, for hosts without a wildcard.
    exact: HashMap<String, Vec<usize>>,
    /// Positions with hosts that have one.
    wildcards: Vec<(String, usize)>,
}

/// A VirtualService.
#[derive(Debug)]
pub(super) struct RuleSet {
    pub(super) object: Arc<Object>,
    /// Full names, or wildcards.
    pub(super) hosts: Vec<String>,
    /// `mesh` or `namespace/name`.
    pub(super) gateways: Vec<String>,
    pub(super) visibility: Visibility,
    http: Vec<HttpRule>,
    tcp: Vec<ConnectionRule>,
    tls: Vec<ConnectionRule>,
}

#[derive(Debug)]
struct HttpRule {
    /// At least one; each becomes a route.
    conditions: Vec<Condition>,
    name: String,
    outcome: Outcome,
    request_headers: HeaderEdits,
    response_headers: HeaderEdits,
    filters: Option<Box<FilterSettings>>,
    provenance: Provenance,
    metadata: Metadata,
}

#[derive(Debug)]
struct Condition {
    name: String,
    request: RouteMatch,
    scope: Scope,
}

impl Rules {
    pub(super) fn of(
        world: &World,
        registry: &Registry,
        defaults: &Defaults,
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut all = Vec::new();
        let delegates = Delegates::of(world);
        let export_to = &world.settings().default_virtual_service_export_to;
        let sources = Sources { registry, defaults, delegates: &delegates, export_to };
        for (object, spec) in world.virtual_services() {
            // Without hosts it is a delegate, which only another VirtualService can bring to effect.
            if !spec.hosts.is_empty() {
                all.push(RuleSet::of(object, spec, &sources, found));
            }
        }
        let mut rules = Self { all, exact: HashMap::new(), wildcards: Vec::new() };
        for (at, set) in rules.all.iter().enumerate() {
            for host in &set.hosts {
                match host.starts_with('*') {
                    true => rules.wildcards.push((host.clone(), at)),
                    false => rules.exact.entry(host.clone()).or_default().push(at),
                }
            }
        }
        // The most specific first; the sort keeps the order of the rest.
        rules.wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(specificity(host)));
        rules
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &RuleSet> {
        self.all.iter()
    }

    /// The rules at this position.
    pub(super) fn at(&self, at: usize) -> Option<&RuleSet> {
        self.all.get(at)
    }

    /// The rules that sidecars in `namespace` obey for `host`: the most specific, of those the first. Of rules that are not
    /// among `seen`, which stands for all when absent, nothing is known.
    pub(super) fn for_host(
        &self,
        host: &str,
        namespace: &str,
        seen: Option<&BTreeSet<usize>>,
    ) -> Option<&RuleSet> {
        let exact = self.exact.get(host).into_iter().flatten().copied();
        let wild = self.wildcards.iter().filter(|(pattern, _)| covers(pattern, host)).map(|(_, at)| *at);
        let seen = exact.chain(wild).filter(|at| seen.is_none_or(|seen| seen.contains(at)));
        seen.filter_map(|at| self.all.get(at)).find(|rules| rules.is_for_mesh(namespace))
    }

    /// The rules that sidecars in `namespace` obey, of those that are `seen`.
    pub(super) fn for_mesh<'r>(
        &'r self,
        namespace: &'r str,
        seen: Option<&'r BTreeSet<usize>>,
    ) -> impl Iterator<Item = &'r RuleSet> {
        let seen = self.all.iter().enumerate().filter(move |(at, _)| seen.is_none_or(|s| s.contains(at)));
        seen.map(|(_, rules)| rules).filter(move |rules| rules.is_for_mesh(namespace))
    }

    /// Every set of labels that a rule asks of its clients: proxies that agree in them get the same routes.
    pub(super) fn client_labels(&self) -> BTreeSet<BTreeMap<String, String>> {
        let http = self.all.iter().flat_map(|r| &r.http).flat_map(|r| &r.conditions).map(|c| &c.scope);
        let connections = self.all.iter().flat_map(|r| r.tcp.iter().chain(&r.tls));
        let connections = connections.flat_map(|r| &r.conditions).map(|condition| &condition.scope);
        http.chain(connections).map(Scope::labels).filter(|labels| !labels.is_empty()).cloned().collect()
    }

    /// Every range of addresses that a rule asks its clients to be in.
    pub(super) fn client_subnets(&self) -> Vec<AddressRange> {
        let rules = self.all.iter().filter(|set| set.is_for(MESH)).flat_map(|set| &set.tcp);
        rules.flat_map(|rule| &rule.conditions).flat_map(|condition| &condition.sources).copied().collect()
    }
}

/// What rules are made with.
struct Sources<'s> {
    registry: &'s Registry,
    defaults: &'s Defaults,
    delegates: &'s Delegates<'s>,
    /// Who sees rules that do not say so.
    export_to: &'s [String],
}

impl RuleSet {
    fn of(
        object: &Arc<Object>,
        spec: &VirtualService,
        sources: &Sources<'_>,
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let (namespace, registry) = (object.namespace(), sources.registry);
        let gateways = match spec.gateways.as_slice() {
            [] => vec![MESH.to_owned()],
            written => written.iter().map(|gateway| gateway_name(gateway, namespace)).collect(),
        };
        let mut http = Vec::new();
        for (index, rule) in spec.http.iter().enumerate() {
            let path = format!("spec.http[{index}]");
            if rule.delegate.is_none() {
                http.extend(HttpRule::of(object, &path, rule, sources, found));
                continue;
            }
            let mut place = Place { object, path: &path, found };
            for merged in sources.delegates.expand(rule, &mut place) {
                let path = format!("spec.http[{}]", merged.index);
                http.extend(HttpRule::of(merged.object, &path, &merged.rule, sources, found));
            }
        }
        Self {
            object: object.clone(),
            hosts: spec.hosts.iter().map(|host| full_name(host, namespace)).collect(),
            gateways,
            visibility: Visibility::of(&spec.export_to, sources.export_to, namespace),
            http,
            tcp: ConnectionRule::of_tcp(object, spec, registry),
            tls: ConnectionRule::of_tls(object, spec, registry),
        }
    }

    /// Whether `gateway` (`mesh` or `namespace/name`) obeys it.
    pub(super) fn is_for(&self, gateway: &str) -> bool {
        self.gateways.iter().any(|one| one == gateway)
    }

    /// Whether sidecars in `namespace` obey it.
    pub(super) fn is_for_mesh(&self, namespace: &str) -> bool {
        self.is_for(MESH) && self.visibility.includes(namespace)
    }

    /// The hosts that it leads to, each with the port where one is chosen.
    pub(super) fn leads_to(&self) -> impl Iterator<Item = (&str, Option<u16>)> {
        let http = self.http.iter().flat_map(|rule| rule.outcome.all_destinations());
        let connections = self.tcp.iter().chain(&self.tls).flat_map(|rule| &rule.destinations);
        http.chain(connections).map(Destination::host_and_port)
    }

    /// Whether it says anything of HTTP.
    pub(super) fn has_http(&self) -> bool {
        !self.http.is_empty()
    }

    /// The routes of its HTTP rules for `asker`, up to one that takes everything.
    pub(super) fn routes(&self, asker: &Asker<'_>) -> Vec<Route> {
        let mut routes = Vec::new();
        for rule in &self.http {
            for condition in rule.conditions.iter().filter(|c| c.scope.includes(asker)) {
                routes.push(rule.route(condition, asker.port));
                if condition.request == RouteMatch::any() {
                    return routes;
                }
            }
        }
        routes
    }

    /// Where the bytes of a tunnel to `host` go: as a rule for connections says, unless the port is known to be HTTP; else
    /// as the HTTP rule that takes everything does, where the port may be; `None` when neither says anything.
    pub(super) fn tunnel(
        &self,
        host: &str,
        protocol: Protocol,
        asker: &Asker<'_>,
        registry: &Registry,
    ) -> Option<(Target, Provenance)> {
        let of = |to: &[Destination], from: &Provenance| {
            Some((tunnel_target(to, asker.port, registry)?, from.clone()))
        };
        let mut connection = self.connection_rules(Some(host), asker).filter(|_| !protocol.is_http());
        if let Some(rule) = connection.next() {
            return of(&rule.destinations, &rule.provenance);
        }
        let takes_all = |c: &Condition| c.scope.includes(asker) && c.request == RouteMatch::any();
        let mut http = self.http.iter().filter(|_| protocol.may_be_http());
        let rule = http.find(|rule| rule.conditions.iter().any(takes_all))?;
        of(rule.outcome.destinations(), &rule.provenance)
    }

    /// The rules for connections of `asker`, in order: those by server name first.
    pub(super) fn connection_rules<'r>(
        &'r self,
        server_name: Option<&'r str>,
        asker: &'r Asker<'_>,
    ) -> impl Iterator<Item = &'r ConnectionRule> {
        self.tls.iter().chain(&self.tcp).filter(move |rule| {
            let holding = |condition: &ConnectionCondition| {
                let named =
                    || server_name.is_some_and(|name| condition.names.iter().any(|one| covers(one, name)));
                condition.holds(asker) && (condition.names.is_empty() || named())
            };
            rule.conditions.iter().any(holding)
        })
    }

    /// The rules for connections without server names that are for `asker`, each with the conditions that are.
    pub(super) fn tcp_rules<'r>(
        &'r self,
        asker: &'r Asker<'_>,
    ) -> impl Iterator<Item = (&'r ConnectionRule, &'r ConnectionCondition)> {
        let unnamed = |condition: &&ConnectionCondition| condition.names.is_empty() && condition.holds(asker);
        let rules = self.tls.iter().chain(&self.tcp);
        rules.flat_map(move |rule| rule.conditions.iter().filter(unnamed).map(move |c| (rule, c)))
    }

    /// The TLS rules for `asker`, each with the conditions that are.
    pub(super) fn tls_rules<'r>(
        &'r self,
        asker: &'r Asker<'_>,
    ) -> impl Iterator<Item = (&'r ConnectionRule, &'r ConnectionCondition)> {
        let named = |condition: &&ConnectionCondition| !condition.names.is_empty() && condition.holds(asker);
        self.tls.iter().flat_map(move |rule| rule.conditions.iter().filter(named).map(move |c| (rule, c)))
    }
}

impl HttpRule {
    fn of(
        object: &Arc<Object>,
        path: &str,
        rule: &HttpRoute,
        sources: &Sources<'_>,
        found: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let namespace = object.namespace();
        let mut conditions = Vec::new();
        for (at, m) in rule.r#match.iter().enumerate() {
            match request(m) {
                Ok(request) => {
                    let scope = Scope::of_http(m, namespace);
                    conditions.push(Condition { name: m.name.clone(), request, scope });
                }
                Err(error) => found.push(
                    object
                        .error(
                            &format!("{path}.match[{at}]"),
                            format!("{error}; this match takes no request"),
                        )
                        .help("write a regular expression in RE2 syntax"),
                ),
            }
        }
        if rule.r#match.is_empty() {
            conditions.push(Condition {
                name: String::new(),
                request: RouteMatch::any(),
                scope: Scope::default(),
            });
        }
        if conditions.is_empty() {
            return None;
        }
        let mut place = Place { object, path, found };
        let filters = filters(rule, &mut place);
        let is_faulty = filters.as_ref().is_some_and(|filters| filters.fault.is_some());
        let mut outcome = Outcome::of(rule, is_faulty, sources.registry, sources.defaults, &mut place);
        let (mut request_headers, host) = request_edits(rule.headers.as_ref(), "headers", &mut place);
        let mut response_headers = response_edits(rule.headers.as_ref(), "headers", &mut place);
        if let (Outcome::Forward { forward, .. }, Some(host)) = (&mut outcome, host) {
            forward.host_rewrite.get_or_insert(HostRewrite::Literal(host));
        }
        let (request, response) = outcome.edits();
        prepend(&mut request_headers, request);
        prepend(&mut response_headers, response);
        let name = match rule.name.as_str() {
            "" => format!("{namespace}/{}/{}", object.meta.name, path.trim_start_matches("spec.")),
            name => name.to_owned(),
        };
        let mut metadata = Metadata::default();
        let config = format!(
            "/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{}",
            object.meta.name
        );
        metadata.set("istio", "config", config);
        let provenance = provenance(object, path);
        Some(Self {
            conditions,
            name,
            outcome,
            request_headers,
            response_headers,
            filters,
            provenance,
            metadata,
        })
    }

    fn route(&self, condition: &Condition, port: u16) -> Route {
        let name = match condition.name.as_str() {
            "" => self.name.clone(),
            name => format!("{}.{name}", self.name),
        };
        let (action, from) = (self.outcome.action(port), Some(self.provenance.clone()));
        Route {
            request_headers: self.request_headers.clone(),
            response_headers: self.response_headers.clone(),
            filters: self.filters.clone(),
            metadata: self.metadata.clone(),
            ..bare_route(&name, condition.request.clone(), action, from)
        }
    }
}

/// Puts the edits of a destination before those of its rule.
fn prepend(edits: &mut HeaderEdits, mut first: HeaderEdits) {
    first.remove.append(&mut edits.remove);
    first.add.append(&mut edits.add);
    *edits = first;
}

/// Moves routes that take everything behind those that do not; routes of several VirtualServices meet on gateways.
pub(super) fn catch_all_last(routes: &mut [Route]) {
    routes.sort_by_key(|route| route.condition == RouteMatch::any());
}

/// A route of default routing: everything, to one cluster.
pub(super) fn default_route(
    cluster: String,
    timeout: Option<std::time::Duration>,
    from: &Provenance,
) -> Route {
    let mut forward = model::route::Forward::to(cluster);
    forward.timeout = timeout;
    bare_route("default", RouteMatch::any(), Action::forward(forward), Some(from.clone()))
}

/// A route that edits nothing.
pub(super) fn bare_route(
    name: &str,
    condition: RouteMatch,
    action: Action,
    provenance: Option<Provenance>,
) -> Route {
    Route {
        name: name.to_owned(),
        condition,
        action,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        filters: None,
        metadata: Metadata::default(),
        provenance,
    }
}
