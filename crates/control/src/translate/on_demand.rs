//! Sidecars that are sent only what they ask for: their listeners ask for clusters when a request needs one, their tables
//! come without virtual hosts, and each authority that is asked for gets one of its own.

use super::Tables;
use super::authentication::is_subset;
use crate::node::is_true;
use crate::world::World;
use model::filter::Placed;
use model::host_index::HostIndex;
use model::listener::{Direction, FilterChain, Listener, Network, RouteSource};
use model::on_demand::{DEFAULT_TIMEOUT, OnDemand, host_name, split_host_name};
use model::rewrite::split_authority;
use model::route::{Action, MirrorTarget, RouteConfiguration, VirtualHost};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What makes the node metadata `ON_DEMAND` in Istio.
pub(super) const VARIABLE: &str = "ISTIO_META_ON_DEMAND";

/// What variables of a proxy say of it.
pub(super) fn setting(variables: &BTreeMap<String, String>) -> Option<bool> {
    is_true(variables.get(VARIABLE).map(String::as_str))
}

/// Which sidecars are sent only what they ask for, as far as neither they nor their pods say so.
#[derive(Debug)]
pub(super) struct OnDemandSettings {
    mesh: bool,
    root_namespace: String,
    /// Namespace, labels and what is said, of ProxyConfigs in their order.
    configs: Vec<(String, BTreeMap<String, String>, bool)>,
}

impl OnDemandSettings {
    pub(super) fn of(world: &World) -> Self {
        let settings = world.settings().default_config.as_ref();
        let configs = world.proxy_configs().filter_map(|(object, config)| {
            let said = setting(&config.environment_variables)?;
            let selector = config.selector.as_ref().map(|selector| selector.match_labels.clone());
            Some((object.namespace().to_owned(), selector.unwrap_or_default(), said))
        });
        Self {
            mesh: settings.and_then(|settings| setting(&settings.proxy_metadata)).unwrap_or(false),
            root_namespace: world.root_namespace().to_owned(),
            configs: configs.collect(),
        }
    }

    /// What selects the workload is heard first, then what is about its namespace, then what is about all.
    pub(super) fn holds(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let of = |place: &str, whole: bool| {
            let fits = |(ns, selector, _): &&(String, BTreeMap<String, String>, bool)| {
                ns == place && selector.is_empty() == whole && is_subset(selector, labels)
            };
            self.configs.iter().find(fits).map(|(.., said)| *said)
        };
        let whole = || of(namespace, true).or_else(|| of(&self.root_namespace, true));
        of(namespace, false).or_else(whole).unwrap_or(self.mesh)
    }
}

/// Makes an outbound listener ask for clusters that are not there.
pub(super) fn ask(listener: &mut Listener) {
    if listener.direction != Direction::Outbound {
        return;
    }
    for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
        if let Network::Http(http) = &mut chain.network
            && matches!(http.routes, RouteSource::Rds(_))
        {
            http.filters.on_demand = Some(Placed::new(OnDemand { clusters: Some(DEFAULT_TIMEOUT) }));
        }
    }
}

/// Tables whose virtual hosts are given out one by one.
#[derive(Debug, Default)]
pub(crate) struct LeanTables {
    by_name: HashMap<String, (Arc<RouteConfiguration>, HostIndex)>,
}

impl LeanTables {
    pub(crate) fn of(tables: &Tables) -> Self {
        // What does not compile is refused by every proxy; here it has no hosts.
        let index = |table: &Arc<RouteConfiguration>| HostIndex::of(table).unwrap_or_default();
        let by_name = tables.iter().map(|table| (table.name.clone(), (table.clone(), index(table))));
        Self { by_name: by_name.collect() }
    }

    /// The tables as they are sent: without their hosts.
    pub(crate) fn frames(&self) -> impl Iterator<Item = RouteConfiguration> {
        self.by_name.values().map(|(table, _)| RouteConfiguration {
            name: table.name.clone(),
            virtual_hosts: Vec::new(),
            request_headers: table.request_headers.clone(),
            response_headers: table.response_headers.clone(),
            ignore_port: table.ignore_port,
            most_specific_first: table.most_specific_first,
            validate_clusters: false,
            filters: table.filters.clone(),
            asks_for_hosts: true,
        })
    }

    /// The virtual host that is asked for as `name`: it takes this authority and no other, so that hosts which come later
    /// need not be known to tell whose a request is.
    pub(crate) fn virtual_host(&self, name: &str) -> Option<VirtualHost> {
        let (table, authority) = split_host_name(name)?;
        let (table, index) = self.by_name.get(table)?;
        let host = table.virtual_hosts.get(index.find(authority)?)?;
        Some(VirtualHost {
            name: host_name(&table.name, authority),
            domains: vec![match table.ignore_port {
                true => split_authority(authority).0.to_owned(),
                false => authority.to_owned(),
            }],
            ..host.clone()
        })
    }

    /// The names of all hosts that are no wildcards.
    #[cfg(test)]
    pub(crate) fn host_names(&self) -> Vec<String> {
        let domains = self.by_name.values().flat_map(|(table, _)| {
            let domains = table.virtual_hosts.iter().flat_map(|host| &host.domains);
            domains.filter(|domain| !domain.contains('*')).map(|domain| host_name(&table.name, domain))
        });
        let mut names: Vec<String> = domains.collect();
        names.sort();
        names
    }

    /// Clusters that get copies of requests: no request waits for those.
    pub(crate) fn mirrors(&self) -> BTreeSet<String> {
        let hosts = self.by_name.values().flat_map(|(table, _)| &table.virtual_hosts);
        let actions = hosts.flat_map(|host| &host.routes).map(|route| &route.action);
        let forwards = actions.filter_map(|action| match action {
            Action::Forward(forward) => Some(forward),
            Action::Redirect(_) | Action::Respond(_) => None,
        });
        let targets = forwards.flat_map(|forward| &forward.mirrors).map(|mirror| &mirror.target);
        let named = targets.filter_map(|target| match target {
            MirrorTarget::Cluster(name) => Some(name.clone()),
            MirrorTarget::Header(_) => None,
        });
        named.collect()
    }
}

/// Clusters that no request can ask for: those of connections that are passed on as bytes.
pub(crate) fn always_needed(listeners: &[Arc<Listener>]) -> BTreeSet<String> {
    let chains = |listener: &Arc<Listener>| -> Vec<String> {
        let chains = listener.chains.iter().chain(&listener.default_chain);
        let tcp = chains.filter_map(|chain: &FilterChain| match &chain.network {
            Network::Tcp(tcp) => Some(&tcp.clusters),
            Network::Http(_) => None,
        });
        tcp.flatten().map(|target| target.cluster.clone()).collect()
    };
    listeners.iter().flat_map(chains).collect()
}
