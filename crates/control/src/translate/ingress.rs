//! The ports at which a Sidecar makes its workloads listen, instead of those that services lead to: where they listen,
//! where the application does, and how much it may be sent. What is in such a listener is for `inbound`.

use super::protocol::Protocol;
use super::registry::provenance;
use api::networking::{
    ConnectionPoolSettings, IstioIngressListener, Server, ServerTlsMode, ServerTlsSettings, Sidecar,
};
use api::{Diagnostic, Object};
use model::provenance::Provenance;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a Sidecar says of one port.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    /// Where to listen, instead of at the workload's own address.
    pub(super) bind: Option<IpAddr>,
    /// Where the application listens, where that is said.
    pub(super) to: Option<SocketAddr>,
    /// How much it may be sent.
    pub(super) pool: Option<ConnectionPoolSettings>,
    /// Where it is written.
    pub(super) from: Option<Provenance>,
    /// A server that ends TLS, where the mesh's own is off.
    pub(super) tls: Option<Box<Server>>,
}

/// What a workload's Sidecar asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ingress<'s> {
    pub(super) object: &'s Object,
    pub(super) sidecar: &'s Sidecar,
    /// The workload's address.
    pub(super) address: Option<IpAddr>,
    /// Its ports, each with the one on which the application really listens.
    pub(super) application_ports: &'s BTreeMap<u16, u16>,
}

impl Ingress<'_> {
    /// The ports that are written; `None` where none is, so that services decide.
    pub(super) fn ports(&self) -> Option<BTreeMap<u16, (Protocol, Wish)>> {
        let written = &self.sidecar.ingress;
        let port = |(index, port): (usize, &IstioIngressListener)| {
            let (tls, protocol) = terminated(port);
            let wish = Wish {
                bind: port.bind.parse().ok(),
                to: endpoint(&port.default_endpoint, self.address, self.application_ports),
                pool: port.connection_pool.clone().or_else(|| self.sidecar.inbound_connection_pool.clone()),
                from: Some(provenance(self.object, &format!("spec.ingress[{index}]"))),
                tls,
            };
            (port.port.number, (protocol, wish))
        };
        // The first of two for one port counts.
        (!written.is_empty()).then(|| written.iter().enumerate().rev().map(port).collect())
    }

    /// What is said of ports that are not written.
    pub(super) fn general(&self) -> Wish {
        Wish { pool: self.sidecar.inbound_connection_pool.clone(), ..Wish::default() }
    }
}

/// Where a `defaultEndpoint` leads. Port for port, the application may really listen on another.
fn endpoint(
    written: &str,
    address: Option<IpAddr>,
    application_ports: &BTreeMap<u16, u16>,
) -> Option<SocketAddr> {
    let written: SocketAddr = parsed(written)?;
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Some(match (application_ports.get(&written.port()), written.ip()) {
        (Some(really), _) => SocketAddr::new(local, *really),
        (None, ip) if ip.is_unspecified() => SocketAddr::new(address.unwrap_or(local), written.port()),
        (None, _) => written,
    })
}

/// The address of a `defaultEndpoint`; `:8080` is `127.0.0.1:8080`.
fn parsed(written: &str) -> Option<SocketAddr> {
    match written.strip_prefix(':') {
        Some(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?)),
        None => written.parse().ok(),
    }
}

/// The server that ends a port's TLS, if one does, and what is spoken behind it.
fn terminated(port: &IstioIngressListener) -> (Option<Box<Server>>, Protocol) {
    let written = port.port.protocol.as_str();
    let protocol = Protocol::parse(written).unwrap_or(Protocol::Auto);
    let ends = |tls: &&ServerTlsSettings| tls.mode != ServerTlsMode::Passthrough;
    let Some(tls) = port.tls.as_ref().filter(ends) else { return (None, protocol) };
    let server = Server { tls: Some(tls.clone()), ..Server::default() };
    let behind = match written.to_ascii_lowercase().as_str() {
        "https" => Protocol::Http,
        "tls" => Protocol::Tcp,
        _ => protocol,
    };
    (Some(Box::new(server)), behind)
}

/// What a Sidecar asks for that cannot be.
pub(super) fn unsupported(object: &Object, sidecar: &Sidecar, found: &mut Vec<Diagnostic>) {
    for (index, port) in sidecar.ingress.iter().enumerate() {
        if port.default_endpoint.starts_with("unix:") {
            let message = "Unix sockets are not supported yet; the port of this number on 127.0.0.1 is used";
            let path = format!("spec.ingress[{index}].defaultEndpoint");
            found.push(object.warning(&path, message).help("let the application listen at 127.0.0.1"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_endpoint_is_this_machine_the_workload_itself_or_where_the_application_really_listens() {
        let ports = BTreeMap::from([(9080, 40123)]);
        let address = Some("127.1.0.5".parse().unwrap());
        let to =
            |written: &str| endpoint(written, address, &ports).map(|to| to.to_string()).unwrap_or_default();
        assert_eq!(to("127.0.0.1:8080"), "127.0.0.1:8080");
        assert_eq!(to(":8080"), "127.0.0.1:8080");
        assert_eq!(to("[::1]:8080"), "[::1]:8080");
        assert_eq!(to("0.0.0.0:8080"), "127.1.0.5:8080");
        assert_eq!(to("[::]:8080"), "127.1.0.5:8080");
        assert_eq!(to("127.0.0.1:9080"), "127.0.0.1:40123");
        assert_eq!((to(""), to("unix:///s"), to("example.com:80")), Default::default());
    }

    #[test]
    fn https_that_ends_here_is_http_behind() {
        let port = |protocol: &str, tls| IstioIngressListener {
            port: api::networking::SidecarPort {
                number: 443,
                protocol: protocol.into(),
                ..Default::default()
            },
            tls,
            ..IstioIngressListener::default()
        };
        let simple = || Some(ServerTlsSettings { mode: ServerTlsMode::Simple, ..Default::default() });
        assert_eq!(terminated(&port("HTTPS", simple())).1, Protocol::Http);
        assert_eq!(terminated(&port("TLS", simple())).1, Protocol::Tcp);
        let (server, protocol) = terminated(&port("HTTPS", None));
        assert!(server.is_none() && protocol == Protocol::Tls);
    }
}
