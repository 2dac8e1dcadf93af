//! One name asked for: of the servers that a cluster names, or those of the system, with its file of hosts.

use crate::{mark, names};
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver, TokioResolver};
use model::cluster::{Dns, Family};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

/// Files that say how the system resolves names.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// Resolvers that are kept.
const MOST: usize = 64;

/// What a name came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// These addresses, in the server's order, good for so long where that is said.
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// There is no such name, or it has none.
    Nothing,
    /// Nobody could tell.
    Failed,
}

/// Who is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind {
    servers: Vec<SocketAddr>,
    over_tcp: bool,
    without_search: bool,
    family: Family,
}

/// Resolvers, made once as long as the system says the same.
#[derive(Default)]
pub(super) struct Resolvers {
    stamp: [Option<SystemTime>; 2],
    made: Vec<(Kind, Option<TokioResolver>)>,
}

impl Resolvers {
    /// One for `dns`; `None` where the system has to be asked, as it names no servers or would lead questions back here.
    pub(super) fn resolver(&mut self, dns: &Dns) -> Option<TokioResolver> {
        if dns.servers.is_empty() && mark::is_set() {
            return None;
        }
        let stamp = FILES.map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok());
        if stamp != self.stamp || self.made.len() >= MOST {
            (self.stamp, self.made) = (stamp, Vec::new());
        }
        let kind = Kind {
            servers: dns.servers.clone(),
            over_tcp: dns.over_tcp,
            without_search: dns.without_search,
            family: dns.family,
        };
        if let Some((_, made)) = self.made.iter().find(|(known, _)| *known == kind) {
            return made.clone();
        }
        let made = make(&kind);
        self.made.push((kind, made.clone()));
        made
    }
}

fn make(kind: &Kind) -> Option<TokioResolver> {
    let (system, mut options) = match read_system_conf() {
        Ok(system) => system,
        Err(_) if kind.servers.is_empty() => return None,
        Err(_) => (ResolverConfig::default(), ResolverOpts::default()),
    };
    let (domain, search, servers) = system.into_parts();
    let servers = match kind.servers.is_empty() {
        true => servers,
        false => kind.servers.iter().map(|server| server_at(*server)).collect(),
    };
    let only_tcp = |mut server: NameServerConfig| {
        server.connections.retain(|c| !kind.over_tcp || matches!(c.protocol, ProtocolConfig::Tcp));
        server
    };
    let (domain, search) = if kind.without_search { (None, Vec::new()) } else { (domain, search) };
    let config = ResolverConfig::from_parts(domain, search, servers.into_iter().map(only_tcp).collect());
    // How long an answer is good is decided by whoever asks again.
    options.cache_size = 0;
    options.ip_strategy = match kind.family {
        Family::V4 => LookupIpStrategy::Ipv4Only,
        Family::V6 => LookupIpStrategy::Ipv6Only,
        Family::PreferV4 => LookupIpStrategy::Ipv4thenIpv6,
        Family::PreferV6 => LookupIpStrategy::Ipv6thenIpv4,
        Family::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().ok()
}

fn server_at(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    server.connections = server.connections.into_iter().map(at_port).collect();
    server
}

/// Asks for `name`.
pub(super) async fn look_up(resolver: Option<TokioResolver>, name: &str, family: Family) -> Found {
    let Some(resolver) = resolver else { return by_system(name, family).await };
    match resolver.lookup_ip(name).await {
        Ok(found) => {
            let ttl = found.as_lookup().answers().iter().map(|record| record.ttl).min();
            let addresses: Vec<IpAddr> = found.iter().collect();
            match addresses.is_empty() {
                true => Found::Nothing,
                false => Found::Addresses(addresses, ttl.map(|ttl| Duration::from_secs(ttl.into()))),
            }
        }
        Err(error) if error.is_no_records_found() => Found::Nothing,
        Err(_) => Found::Failed,
    }
}

/// As the system does; where what this proxy sends is marked, past the rules that would bring it back here.
async fn by_system(name: &str, family: Family) -> Found {
    let Ok(all) = names::lookup(name).await else { return Found::Failed };
    let of = |v4: bool| all.iter().copied().filter(|ip| ip.is_ipv4() == v4).collect::<Vec<_>>();
    let or = |first: Vec<IpAddr>, other: Vec<IpAddr>| if first.is_empty() { other } else { first };
    let addresses = match family {
        Family::V4 => of(true),
        Family::V6 => of(false),
        Family::PreferV4 => or(of(true), of(false)),
        Family::PreferV6 => or(of(false), of(true)),
        Family::All => all.clone(),
    };
    match addresses.is_empty() {
        true => Found::Nothing,
        false => Found::Addresses(addresses, None),
    }
}
