//! What is captured and what is not, as Istio's annotations `traffic.sidecar.istio.io/*` say it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Port of the sidecar for what the workload sends.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port of the sidecar for what the workload receives.
pub const INBOUND_PORT: u16 = 15006;
/// Port of the sidecar for questions of the workload to name servers.
pub const DNS_PORT: u16 = 15053;
/// User and group that Istio's sidecars run as.
pub const SIDECAR_ID: u32 = 1337;
/// The mark of packets that a sidecar sends, where users do not tell it apart.
pub const SIDECAR_MARK: u32 = 1337;

/// Ports of the sidecar's own that others call: HBONE, merged metrics, health, the proxy's metrics.
pub(crate) const SIDECAR_PORTS: [u16; 4] = [15008, 15020, 15021, 15090];

/// What is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// By what the sidecar's own traffic is known, which is never captured.
    pub own: Own,
    /// Where connections out of the workload go; `None` leaves them alone.
    pub outbound_port: Option<u16>,
    /// Where connections to the workload go; `None` leaves them alone.
    pub inbound_port: Option<u16>,
    /// Where questions to name servers go; `None` leaves them alone.
    pub dns_port: Option<u16>,
    /// Ports of the workload that are captured.
    pub inbound: Ports,
    /// Ports of the workload that are not captured, whatever [`Rules::inbound`] says.
    pub inbound_except: Vec<u16>,
    /// Destinations that are captured.
    pub outbound: Ranges,
    /// Ports that are captured at any destination.
    pub outbound_ports: Vec<u16>,
    /// Destinations that are not captured, whatever else is said.
    pub outbound_except: Vec<Range>,
    /// Ports at any destination that are not captured, whatever else is said.
    pub outbound_ports_except: Vec<u16>,
    /// Network interfaces whose traffic is left alone.
    pub interfaces_except: Vec<String>,
    /// Who reaches the workload directly: whoever supervises it.
    pub direct_sources: Vec<IpAddr>,
    /// Ports that nobody but [`Rules::direct_sources`] reaches: the sidecar's admin pages.
    pub private_ports: Vec<u16>,
}

/// By what the sidecar's own traffic is known. What is given counts, any of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// The mark of its packets.
    pub mark: Option<u32>,
    /// The user it runs as.
    pub uid: Option<u32>,
    /// The group it runs as.
    pub gid: Option<u32>,
}

impl Own {
    /// The user and group of Istio's sidecars.
    pub const ISTIO: Self = Self { mark: None, uid: Some(SIDECAR_ID), gid: Some(SIDECAR_ID) };

    /// The mark, where sidecar and application are of one user.
    pub const MARK: Self = Self { mark: Some(SIDECAR_MARK), uid: None, gid: None };
}

/// Some ports, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// All.
    All,
    /// These.
    Only(Vec<u16>),
}

/// Some destinations, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// All.
    All,
    /// These.
    Only(Vec<Range>),
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Its first address.
    pub address: IpAddr,
    /// Bits that all of its addresses have in common.
    pub prefix: u8,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Range {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or an address that stands for itself.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse::<u8>().ok().filter(|prefix| *prefix <= bits)?,
            None => bits,
        };
        Some(Self { address: first(address, prefix), prefix })
    }
}

/// The first address of a range; what stands behind the prefix does not count.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// An annotation that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongAnnotation {
    /// Its key.
    pub key: String,
    /// What it says.
    pub value: String,
    /// What it should be.
    pub expected: &'static str,
}

impl fmt::Display for WrongAnnotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "annotation `{}: {}` is not {}", self.key, self.value, self.expected)
    }
}

impl std::error::Error for WrongAnnotation {}

const PREFIX: &str = "traffic.sidecar.istio.io/";
const MODE: &str = "sidecar.istio.io/interceptionMode";

impl Rules {
    /// All TCP connections, both ways, and all questions to name servers.
    pub fn all(own: Own) -> Self {
        Self {
            own,
            outbound_port: Some(OUTBOUND_PORT),
            inbound_port: Some(INBOUND_PORT),
            dns_port: Some(DNS_PORT),
            inbound: Ports::All,
            inbound_except: Vec::new(),
            outbound: Ranges::All,
            outbound_ports: Vec::new(),
            outbound_except: Vec::new(),
            outbound_ports_except: Vec::new(),
            interfaces_except: Vec::new(),
            direct_sources: Vec::new(),
            private_ports: Vec::new(),
        }
    }

    /// The same, but for what a pod's annotations say. Of annotations, only those that are about capture count.
    pub fn annotated<'a>(
        own: Own,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, WrongAnnotation> {
        let mut rules = Self::all(own);
        let sorted: BTreeMap<_, _> = annotations.into_iter().collect();
        for (key, value) in sorted {
            rules.take(key, value.trim())?;
        }
        Ok(rules)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), WrongAnnotation> {
        let wrong = |expected| WrongAnnotation { key: key.to_owned(), value: value.to_owned(), expected };
        let ports = || ports(value).ok_or_else(|| wrong("a list of ports, such as `80,443`"));
        let ranges = || ranges(value).ok_or_else(|| wrong("a list of ranges, such as `10.0.0.0/8,fd00::/8`"));
        if key == MODE {
            return match value {
                "REDIRECT" => Ok(()),
                _ => Err(wrong("REDIRECT: nothing else is supported")),
            };
        }
        match key.strip_prefix(PREFIX) {
            Some("includeInboundPorts") => {
                self.inbound = if value == "*" { Ports::All } else { Ports::Only(ports()?) };
            }
            Some("excludeInboundPorts") => self.inbound_except = ports()?,
            Some("includeOutboundPorts") if value == "*" => self.outbound = Ranges::All,
            Some("includeOutboundPorts") => self.outbound_ports = ports()?,
            Some("excludeOutboundPorts") => self.outbound_ports_except = ports()?,
            Some("includeOutboundIPRanges") => {
                self.outbound = if value == "*" { Ranges::All } else { Ranges::Only(ranges()?) };
            }
            Some("excludeOutboundIPRanges") => self.outbound_except = ranges()?,
            Some("excludeInterfaces") => {
                let names = items(value).map(str::to_owned).collect::<Vec<_>>();
                // What is written into a script between quotes must not end them.
                let is_name = |name: &String| {
                    name.len() < 16 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-@:*".contains(c))
                };
                if !names.iter().all(is_name) {
                    return Err(wrong("a list of network interfaces, such as `eth1,eth2`"));
                }
                self.interfaces_except = names;
            }
            Some("kubevirtInterfaces" | "rerouteVirtualInterfaces") if !value.is_empty() => {
                return Err(wrong("empty: interfaces of virtual machines are not supported"));
            }
            _ => {}
        }
        Ok(())
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn ports(list: &str) -> Option<Vec<u16>> {
    let mut ports: Vec<u16> =
        items(list).map(|port| port.parse().ok().filter(|port| *port != 0)).collect::<Option<_>>()?;
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

fn ranges(list: &str) -> Option<Vec<Range>> {
    items(list).map(Range::parse).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn annotated(pairs: &[(&str, &str)]) -> Result<Rules, WrongAnnotation> {
        let map: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Rules::annotated(Own::ISTIO, &map)
    }

    #[test]
    fn annotations_say_what_is_captured_and_what_is_not() {
        let rules = annotated(&[
            ("traffic.sidecar.istio.io/includeInboundPorts", "80, 9080,80"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "22"),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.1.2.3/8,fd00::5/8"),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.9.9.9"),
            ("traffic.sidecar.istio.io/excludeOutboundPorts", "5432"),
            ("traffic.sidecar.istio.io/includeOutboundPorts", "25"),
            ("traffic.sidecar.istio.io/excludeInterfaces", "eth1,docker0"),
            ("prometheus.io/port", "none of ours"),
        ])
        .unwrap();
        assert_eq!(rules.inbound, Ports::Only(vec![80, 9080]));
        assert_eq!(rules.inbound_except, [22]);
        let told = |ranges: &[Range]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
        let Ranges::Only(included) = &rules.outbound else { unreachable!("ranges are given") };
        assert_eq!(told(included), ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(told(&rules.outbound_except), ["10.9.9.9/32"]);
        assert_eq!((rules.outbound_ports, rules.outbound_ports_except), (vec![25], vec![5432]));
        assert_eq!(rules.interfaces_except, ["eth1", "docker0"]);
    }

    #[test]
    fn an_empty_list_of_inbound_ports_captures_none_and_a_star_all() {
        let inbound =
            |value| annotated(&[("traffic.sidecar.istio.io/includeInboundPorts", value)]).unwrap().inbound;
        assert_eq!(inbound(""), Ports::Only(vec![]));
        assert_eq!(inbound("*"), Ports::All);
        assert_eq!(annotated(&[]).unwrap(), Rules::all(Own::ISTIO));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_annotation() {
        for (key, value) in [
            ("traffic.sidecar.istio.io/excludeInboundPorts", "80,http"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "0"),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/33"),
            ("traffic.sidecar.istio.io/excludeInterfaces", "eth0\" accept #"),
            ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ] {
            let error = annotated(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }
}
