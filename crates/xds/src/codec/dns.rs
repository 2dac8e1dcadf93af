//! How the names of a cluster are resolved: in fields of the cluster and in a cluster type of its own.

use super::place::{Decoded, Place, fields};
use super::value::{self, decode_limit, encode_duration, type_name, unpack};
use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::{
    Address, DnsResolutionConfig, DnsResolverOptions, TypedExtensionConfig,
};
use envoy_types::pb::envoy::extensions::clusters::dns::v3::{DnsCluster, dns_cluster};
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::google::protobuf::Duration as DurationProto;
use model::cluster::{Discovery, Dns, Family};
use model::endpoint::EndpointAddress;
use proto::cluster::{CustomClusterType, DiscoveryType, DnsLookupFamily, RefreshRate};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const TYPE: &str = "envoy.extensions.clusters.dns.v3.DnsCluster";
const CARES: &str = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
const SYSTEM: &str = "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig";

/// What is said, in whichever of the two ways.
pub(crate) struct Given<'g> {
    pub(crate) refresh: &'g Option<DurationProto>,
    pub(crate) failure: &'g Option<RefreshRate>,
    pub(crate) respects_ttl: bool,
    pub(crate) jitter: &'g Option<DurationProto>,
    pub(crate) family: Option<DnsLookupFamily>,
    pub(crate) resolver: &'g Option<TypedExtensionConfig>,
}

pub(crate) fn decode(place: &Place<'_>, given: &Given<'_>) -> Decoded<Dns> {
    let default = Dns::default();
    let limit = |name: &str, duration| decode_limit(&place.field(name), duration, None);
    let failure = given.failure.as_ref().map(|rate| {
        let place = place.field("dns_failure_refresh_rate");
        let base = decode_limit(&place.field("base_interval"), &rate.base_interval, None)?;
        let base = base.ok_or_else(|| place.field("base_interval").error("this field is required"))?;
        let most = decode_limit(&place.field("max_interval"), &rate.max_interval, None)?;
        Ok((base, most.unwrap_or(base * 10).max(base)))
    });
    let mut dns = Dns {
        refresh: limit("dns_refresh_rate", given.refresh)?.unwrap_or(default.refresh),
        respects_ttl: given.respects_ttl,
        failure: failure.transpose()?,
        jitter: limit("dns_jitter", given.jitter)?.unwrap_or(Duration::ZERO),
        family: match given.family {
            Some(DnsLookupFamily::Auto) => Family::PreferV6,
            Some(DnsLookupFamily::V4Preferred) => Family::PreferV4,
            Some(DnsLookupFamily::V4Only) => Family::V4,
            Some(DnsLookupFamily::V6Only) => Family::V6,
            Some(DnsLookupFamily::All) => Family::All,
            None => return Err(place.field("dns_lookup_family").unsupported("this family")),
        },
        ..default
    };
    if let Some(resolver) = given.resolver {
        decode_resolver(&place.field("typed_dns_resolver_config"), resolver, &mut dns)?;
    }
    Ok(dns)
}

fn decode_resolver(place: &Place<'_>, resolver: &TypedExtensionConfig, dns: &mut Dns) -> Decoded<()> {
    let place = place.field("typed_config");
    let Some(any) = &resolver.typed_config else { return Err(place.error("this field is required")) };
    match type_name(any) {
        CARES => {
            let config: CaresDnsResolverConfig = unpack(&place, any)?;
            place.refuse("use_resolvers_as_fallback", &config.use_resolvers_as_fallback)?;
            dns.servers = decode_servers(&place, "resolvers", &config.resolvers)?;
            decode_options(&config.dns_resolver_options, dns);
            Ok(())
        }
        // What the system says.
        SYSTEM => Ok(()),
        _ => Err(place.unsupported(format_args!("resolver `{}` (type {})", resolver.name, any.type_url))),
    }
}

/// The older ways to name servers.
pub(crate) fn decode_old(
    place: &Place<'_>,
    (config, servers, over_tcp): (&Option<DnsResolutionConfig>, &Vec<Address>, bool),
    dns: &mut Dns,
) -> Decoded<()> {
    dns.over_tcp = over_tcp;
    dns.servers = decode_servers(place, "dns_resolvers", servers)?;
    if let Some(config) = config {
        dns.servers = decode_servers(&place.field("dns_resolution_config"), "resolvers", &config.resolvers)?;
        decode_options(&config.dns_resolver_options, dns);
    }
    Ok(())
}

fn decode_servers(place: &Place<'_>, name: &str, servers: &[Address]) -> Decoded<Vec<SocketAddr>> {
    let server = |(i, server): (usize, &Address)| {
        let place = place.item(name, i);
        match value::decode_address(&place, &Some(server.clone()))? {
            EndpointAddress::Socket(address) => Ok(address),
            other => Err(place.error(format_args!("`{other}` is not an IP address"))),
        }
    };
    servers.iter().enumerate().map(server).collect()
}

fn decode_options(options: &Option<DnsResolverOptions>, dns: &mut Dns) {
    if let Some(options) = options {
        dns.over_tcp |= options.use_tcp_for_dns_lookups;
        dns.without_search = options.no_default_search_domain;
    }
}

/// The cluster type of its own for DNS, and the older type that says the same.
pub(crate) fn decode_type(place: &Place<'_>, custom: &CustomClusterType) -> Decoded<(DiscoveryType, Dns)> {
    let place = place.field("typed_config");
    let dns: DnsCluster = unpack(&place, &custom.typed_config.clone().unwrap_or_default())?;
    fields!(place, &dns => DnsCluster {
        honoured: dns_lookup_family, all_addresses_in_single_endpoint, dns_refresh_rate, dns_failure_refresh_rate,
            respect_dns_ttl, dns_jitter, typed_dns_resolver_config;
        ignored: dns_min_refresh_rate;
        refused: ;
    });
    use envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as Here;
    let family = match Here::try_from(*dns_lookup_family) {
        Ok(Here::Unspecified | Here::Auto) => Some(DnsLookupFamily::Auto),
        Ok(Here::V4Only) => Some(DnsLookupFamily::V4Only),
        Ok(Here::V6Only) => Some(DnsLookupFamily::V6Only),
        Ok(Here::V4Preferred) => Some(DnsLookupFamily::V4Preferred),
        Ok(Here::All) => Some(DnsLookupFamily::All),
        Err(_) => None,
    };
    let failure = dns_failure_refresh_rate.as_ref().map(|rate: &dns_cluster::RefreshRate| RefreshRate {
        base_interval: rate.base_interval,
        max_interval: rate.max_interval,
    });
    let given = Given {
        refresh: dns_refresh_rate,
        failure: &failure,
        respects_ttl: *respect_dns_ttl,
        jitter: dns_jitter,
        family,
        resolver: typed_dns_resolver_config,
    };
    let kind = match *all_addresses_in_single_endpoint {
        true => DiscoveryType::LogicalDns,
        false => DiscoveryType::StrictDns,
    };
    Ok((kind, decode(&place, &given)?))
}

/// The fields of a cluster that speak of DNS.
pub(crate) fn encode(discovery: &Discovery, dns: &Dns) -> proto::Cluster {
    if !matches!(discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_)) {
        return proto::Cluster::default();
    }
    let default = Dns::default();
    let family = match dns.family {
        Family::PreferV6 => DnsLookupFamily::Auto,
        Family::PreferV4 => DnsLookupFamily::V4Preferred,
        Family::V4 => DnsLookupFamily::V4Only,
        Family::V6 => DnsLookupFamily::V6Only,
        Family::All => DnsLookupFamily::All,
    };
    let has_own = !dns.servers.is_empty() || dns.over_tcp || dns.without_search;
    let resolver = || CaresDnsResolverConfig {
        resolvers: dns
            .servers
            .iter()
            .filter_map(|server| value::encode_address(&EndpointAddress::Socket(*server)))
            .collect(),
        dns_resolver_options: Some(DnsResolverOptions {
            use_tcp_for_dns_lookups: dns.over_tcp,
            no_default_search_domain: dns.without_search,
        }),
        ..Default::default()
    };
    proto::Cluster {
        dns_lookup_family: family as i32,
        dns_refresh_rate: (dns.refresh != default.refresh).then(|| encode_duration(dns.refresh)),
        respect_dns_ttl: dns.respects_ttl,
        dns_jitter: (!dns.jitter.is_zero()).then(|| encode_duration(dns.jitter)),
        dns_failure_refresh_rate: dns.failure.map(|(base, most)| RefreshRate {
            base_interval: Some(encode_duration(base)),
            max_interval: Some(encode_duration(most)),
        }),
        typed_dns_resolver_config: has_own.then(|| TypedExtensionConfig {
            name: "envoy.network.dns_resolver.cares".to_owned(),
            typed_config: Some(value::pack(&resolver())),
        }),
        ..Default::default()
    }
}
