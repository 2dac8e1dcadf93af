//! Which ports of 127.0.0.1 a mesh takes, from flags and files, and that they are free. Pure but for looking.

use super::addresses::is_free;
use super::plan::Gateway;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::str::FromStr;

/// The port base when nobody says: Istio's.
pub(super) const DEFAULT_BASE: u16 = 15000;

/// Where the control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlPorts {
    pub(super) xds: SocketAddr,
    pub(super) xds_tls: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// `NAME:PORT=LOCAL` or `PORT=LOCAL`: the local port for a listener port of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GatewayPort {
    gateway: Option<String>,
    port: u16,
    local: u16,
}

impl FromStr for GatewayPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected PORT=LOCAL or NAME:PORT=LOCAL, such as 80=8081".to_owned();
        let (left, local) = text.split_once('=').ok_or_else(wrong)?;
        let (gateway, port) = match left.rsplit_once(':') {
            Some((gateway, port)) => (Some(gateway.to_owned()), port),
            None => (None, left),
        };
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        Ok(GatewayPort { gateway, port: number(port)?, local: number(local)? })
    }
}

/// A port that cannot be had.
#[derive(Debug, PartialEq)]
pub(super) enum PortError {
    /// Somebody else listens.
    Busy { address: SocketAddr, purpose: String, help: String },
    /// Shifting went beyond 65535.
    OutOfRange { port: u16, base: u16 },
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { address, purpose, help } => write!(
                f,
                "port {} of {} is in use, and {purpose} needs it; stop what listens there (`ss -ltnp 'sport = :{}'` \
                 tells), or {help}",
                address.port(),
                address.ip(),
                address.port()
            ),
            Self::OutOfRange { port, base } => {
                write!(f, "port {port} moved by --port-base {base} is no port; choose a smaller base")
            }
        }
    }
}

impl std::error::Error for PortError {}

/// The ports of the control plane for a base; base 0 takes any that are free.
pub(super) fn control_ports(base: u16) -> Result<ControlPorts, PortError> {
    if base == 0 {
        // Held together, so that they differ.
        let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let port = |at: usize| held.get(at)?.as_ref().ok()?.local_addr().ok();
        let lost = || PortError::Busy {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            purpose: "the control plane".to_owned(),
            help: "free some".to_owned(),
        };
        let (xds, tls, admin) = (port(0), port(1), port(2));
        return Ok(ControlPorts {
            xds: xds.ok_or_else(lost)?,
            xds_tls: tls.ok_or_else(lost)?,
            admin: admin.ok_or_else(lost)?,
        });
    }
    let shifted = |offset: u16, purpose: &str| {
        let port = base.checked_add(offset);
        let port = port.ok_or(PortError::OutOfRange { port: DEFAULT_BASE + offset, base })?;
        let help = format!("choose others with --port-base (now {base})");
        free(port, purpose, &help)
    };
    Ok(ControlPorts {
        xds: shifted(10, "the control plane's xDS")?,
        xds_tls: shifted(12, "the control plane's xDS and CA over TLS")?,
        admin: shifted(14, "the control plane's admin page")?,
    })
}

/// The local ports of a gateway: what a flag says, or else what is written, moved as far as the base was.
pub(super) fn gateway_ports(
    gateway: &Gateway,
    base: u16,
    told: &[GatewayPort],
) -> Result<BTreeMap<u16, u16>, PortError> {
    let mut ports = BTreeMap::new();
    for (port, written) in &gateway.ports {
        let names =
            |t: &&GatewayPort| t.port == *port && t.gateway.as_ref().is_none_or(|g| *g == gateway.name);
        let local = match (told.iter().rev().find(names), written, base) {
            (Some(told), ..) => told.local,
            (None, 0, _) | (None, _, 0) => 0,
            (None, written, base) => {
                let moved = i32::from(*written) + i32::from(base) - i32::from(DEFAULT_BASE);
                let moved = u16::try_from(moved).ok().filter(|port| *port != 0);
                moved.ok_or(PortError::OutOfRange { port: *written, base })?
            }
        };
        let purpose = format!("port {port} of the gateway {}", gateway.name);
        let help = format!("choose another with --gateway-port {}:{port}=PORT", gateway.name);
        ports.insert(*port, free(local, &purpose, &help)?.port());
    }
    Ok(ports)
}

fn free(port: u16, purpose: &str, help: &str) -> Result<SocketAddr, PortError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let busy = || PortError::Busy { address, purpose: purpose.to_owned(), help: help.to_owned() };
    match port {
        0 => {
            let any = TcpListener::bind(address).and_then(|listener| listener.local_addr());
            any.map_err(|_| busy())
        }
        _ if is_free(address) => Ok(address),
        _ => Err(busy()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan::Proxy;
    use super::*;

    fn gateway(ports: &[(u16, u16)]) -> Gateway {
        Gateway {
            namespace: "istio-system".to_owned(),
            name: "ingress".to_owned(),
            labels: BTreeMap::new(),
            service_account: "ingress".to_owned(),
            proxy: Proxy::Own,
            threads: None,
            ports: ports.iter().copied().collect(),
            schemes: BTreeMap::new(),
            path: None,
        }
    }

    /// A port that was free a moment ago.
    fn any_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_flag_beats_the_file_and_names_one_gateway_or_all() {
        let local = any_port();
        let told = |text: &str| vec![text.parse::<GatewayPort>().unwrap()];
        let ports =
            |told: &[GatewayPort]| gateway_ports(&gateway(&[(80, 0)]), DEFAULT_BASE, told).unwrap()[&80];
        assert_eq!(ports(&told(&format!("80={local}"))), local);
        assert_eq!(ports(&told(&format!("ingress:80={local}"))), local);
        assert_ne!(ports(&told(&format!("other:80={local}"))), local);
        for wrong in ["80", "x=1", "80=", "a:b=1", "80=99999"] {
            assert!(wrong.parse::<GatewayPort>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_base_moves_gateways_as_far_as_the_control_plane() {
        let written = any_port();
        let moved = gateway_ports(&gateway(&[(80, written - 1000)]), DEFAULT_BASE + 1000, &[]).unwrap();
        assert_eq!(moved[&80], written);
        let error = gateway_ports(&gateway(&[(80, 65000)]), DEFAULT_BASE + 1000, &[]).unwrap_err();
        assert_eq!(error, PortError::OutOfRange { port: 65000, base: 16000 });
        assert!(control_ports(u16::MAX).is_err());
    }

    #[test]
    fn a_busy_port_is_told_with_who_needs_it_and_what_to_do() {
        let used = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = used.local_addr().unwrap().port();
        let error = gateway_ports(&gateway(&[(80, port)]), DEFAULT_BASE, &[]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("port {port} of 127.0.0.1 is in use")), "{error}");
        assert!(error.contains("port 80 of the gateway ingress needs it"), "{error}");
        assert!(error.contains("--gateway-port ingress:80=PORT"), "{error}");
    }

    #[test]
    fn base_zero_takes_ports_that_are_free_and_differ() {
        let ports = control_ports(0).unwrap();
        assert!(ports.xds != ports.xds_tls && ports.xds != ports.admin && ports.xds.port() != 0);
        assert_ne!(gateway_ports(&gateway(&[(80, 8080)]), 0, &[]).unwrap()[&80], 0);
    }
}
