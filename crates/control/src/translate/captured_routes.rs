//! The routes of a captured client: a table for each port that speaks HTTP at any address, by authority, and one for each
//! port of which the protocol is found out per connection.

use super::captured::{CapturedMaker, PASSTHROUGH, table_name};
use super::outbound::{TableMaker, aliases};
use super::registry::{Port, Service};
use super::rules::bare_route;
use model::route::{Action, DirectResponse, Forward, Route, RouteConfiguration, RouteMatch, VirtualHost};
use std::collections::{BTreeMap, HashSet};

impl CapturedMaker<'_> {
    /// Every table.
    pub(super) fn tables(&self, maker: &TableMaker<'_>) -> Vec<RouteConfiguration> {
        let mut by_port: BTreeMap<u16, Vec<(&Service, &Port)>> = BTreeMap::new();
        let mut tables = Vec::new();
        for (service, port) in self.ports() {
            if port.protocol.is_http() {
                by_port.entry(port.number).or_default().push((service, port));
            } else if port.protocol.may_be_http() {
                let host = maker.host(service, port, vec!["*".to_owned()]);
                tables.push(self.table(maker, table_name(service, port), vec![host]));
            }
        }
        for (number, ports) in by_port {
            let mut taken = HashSet::new();
            let mut hosts = Vec::new();
            for (service, port) in ports {
                let addresses = self.mesh.virtual_addresses.of_host(&service.host);
                let own = std::iter::once(service.host.clone()).chain(addresses.iter().map(bracketed));
                let domains = with_port(own, number, &mut taken);
                hosts.push((maker.host(service, port, domains), service));
            }
            let mut virtual_hosts: Vec<VirtualHost> = Vec::new();
            for (mut host, service) in hosts {
                // A full name declared elsewhere is never taken away by somebody's short one.
                let short = aliases(service, self.client.namespace).into_iter();
                host.domains.extend(with_port(short, number, &mut taken));
                virtual_hosts.push(host);
            }
            virtual_hosts.extend(maker.undeclared(number, &mut taken));
            if taken.insert("*".to_owned()) {
                virtual_hosts.push(self.anything_else());
            }
            tables.push(self.table(maker, number.to_string(), virtual_hosts));
        }
        tables
    }

    fn table(
        &self,
        maker: &TableMaker<'_>,
        name: String,
        virtual_hosts: Vec<VirtualHost>,
    ) -> RouteConfiguration {
        let mut table = RouteConfiguration { name, virtual_hosts, ..RouteConfiguration::default() };
        maker.tuner.tune(&mut table);
        table
    }

    /// The virtual host of hosts that nobody declares.
    fn anything_else(&self) -> VirtualHost {
        let allowed = self.elsewhere() == PASSTHROUGH;
        let (name, action) = match allowed {
            true => ("allow_any", Action::forward(Forward::to(PASSTHROUGH))),
            false => ("block_all", Action::Respond(DirectResponse { status: 502, body: Default::default() })),
        };
        let route: Route = bare_route(name, RouteMatch::any(), action, None);
        VirtualHost {
            name: name.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }
    }
}

fn bracketed(address: &std::net::IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// The authorities that stand for `hosts` at a listener for one port, as far as they are not taken.
fn with_port(hosts: impl Iterator<Item = String>, port: u16, taken: &mut HashSet<String>) -> Vec<String> {
    let domains = hosts.flat_map(|host| [format!("{host}:{port}"), host]);
    domains.filter(|domain| taken.insert(domain.clone())).collect()
}
