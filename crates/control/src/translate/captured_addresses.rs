//! Virtual addresses: one for each host, distinct and the same in every run, so that where a connection was meant to go
//! says which host was meant. Written ones are taken as they are; the others are from 240.240.0.0/16, as Istio's.

use super::registry::Registry;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

/// Where addresses that nobody wrote come from.
const BLOCK: [u8; 2] = [240, 240];
/// Places in it: neither the first nor the last.
const PLACES: u64 = 65534;
/// What a Service without a virtual address says.
const HEADLESS: &str = "None";

/// The virtual addresses of all hosts.
#[derive(Debug, Default)]
pub(super) struct VirtualAddresses {
    by_host: HashMap<String, Vec<IpAddr>>,
    headless: HashSet<String>,
}

impl VirtualAddresses {
    /// Those of the services of `world`, all of which are in `registry`.
    pub(super) fn of(world: &World, registry: &Registry) -> Self {
        let mut written: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let mut headless = HashSet::new();
        for (object, service) in world.services() {
            let host = crate::hosts::full_name(&object.meta.name, object.namespace());
            match service.cluster_ip.as_str() {
                HEADLESS => drop(headless.insert(host)),
                address => drop(written.insert(host, address.parse().into_iter().collect())),
            }
        }
        for (_, entry) in world.service_entries() {
            // Several hosts of one entry cannot be told apart by an address that they share.
            let [host] = entry.hosts.as_slice() else { continue };
            // Ranges are no addresses to connect to.
            let addresses = entry.addresses.iter().filter_map(|address| address.parse().ok());
            written.entry(host.to_ascii_lowercase()).or_insert_with(|| addresses.collect());
        }
        let mut taken: HashSet<IpAddr> = written.values().flatten().copied().collect();
        let hosts: BTreeSet<&str> = registry.services().map(|(_, service)| service.host.as_str()).collect();
        let mut by_host = HashMap::with_capacity(hosts.len());
        for host in hosts.into_iter().filter(|host| !headless.contains(*host)) {
            let addresses = match written.remove(host).filter(|addresses| !addresses.is_empty()) {
                Some(addresses) => addresses,
                None => allocate(host, &mut taken).into_iter().collect(),
            };
            by_host.insert(host.to_owned(), addresses);
        }
        Self { by_host, headless }
    }

    /// Those of a host; none when it is headless.
    pub(super) fn of_host(&self, host: &str) -> &[IpAddr] {
        self.by_host.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a host stands for its endpoints' own addresses.
    pub(super) fn is_headless(&self, host: &str) -> bool {
        self.headless.contains(host)
    }
}

/// The first free place from where a host's name says.
fn allocate(host: &str, taken: &mut HashSet<IpAddr>) -> Option<IpAddr> {
    let start = host.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (0..PLACES).find_map(|step| {
        let place = (start.wrapping_add(step) % PLACES) as u16 + 1;
        let [c, d] = place.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(BLOCK[0], BLOCK[1], c, d));
        taken.insert(address).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_host_has_an_address_of_its_own_that_stays() {
        let mut taken = HashSet::new();
        let first = allocate("reviews.default.svc.cluster.local", &mut taken).unwrap();
        let again = allocate("reviews.default.svc.cluster.local", &mut HashSet::new()).unwrap();
        assert_eq!(first, again);
        assert_ne!(allocate("reviews.default.svc.cluster.local", &mut taken).unwrap(), first, "it is taken");
        let all: HashSet<IpAddr> =
            (0..2000).filter_map(|n| allocate(&format!("host-{n}"), &mut taken)).collect();
        assert_eq!(all.len(), 2000);
    }
}
