//! What is spoken on a port: as its `appProtocol` says, else the first part of its name, else unknown until seen.

use api::kubernetes::Transport;

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Protocol {
    /// HTTP/1.1, or whatever version of HTTP comes.
    Http,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// TLS of the application's own.
    Tls,
    /// Bytes.
    Tcp,
    /// Found out per connection.
    Auto,
}

/// Ports of protocols in which the server speaks first: waiting for the client to say something would wait for ever.
const SERVER_FIRST_PORTS: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// The protocol of a port; `None` for what is not TCP.
    pub(super) fn of(app_protocol: &str, name: &str, port: u16, transport: Transport) -> Option<Self> {
        if transport != Transport::Tcp {
            return None;
        }
        let prefix = name.split('-').next().unwrap_or_default();
        // `grpc-web` is the one protocol whose name holds the separator.
        let named = if name.to_ascii_lowercase().starts_with("grpc-web") {
            Some(Self::Grpc)
        } else {
            Self::parse(prefix)
        };
        Some(match Self::parse(app_protocol).or(named) {
            Some(protocol) => protocol,
            None if SERVER_FIRST_PORTS.contains(&port) => Self::Tcp,
            None => Self::Auto,
        })
    }

    /// A protocol by the name that Istio or Kubernetes gives it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "http1" | "kubernetes.io/ws" => Self::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" | "grpc-web" | "grpc_web" => Self::Grpc,
            "https" | "tls" | "kubernetes.io/wss" | "wss" => Self::Tls,
            "tcp" | "mongo" | "mysql" | "redis" | "amqp" | "kafka" => Self::Tcp,
            _ => return None,
        })
    }

    /// It is known to be HTTP.
    pub(super) fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// It may be HTTP.
    pub(super) fn may_be_http(self) -> bool {
        self.is_http() || self == Self::Auto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(app_protocol: &str, name: &str, port: u16) -> Option<Protocol> {
        Protocol::of(app_protocol, name, port, Transport::Tcp)
    }

    #[test]
    fn the_protocol_is_the_declared_one_then_the_names_then_unknown() {
        assert_eq!(of("grpc", "http-x", 80), Some(Protocol::Grpc));
        assert_eq!(of("", "http-web", 80), Some(Protocol::Http));
        assert_eq!(of("", "grpc-web-x", 80), Some(Protocol::Grpc));
        assert_eq!(of("", "web", 80), Some(Protocol::Auto));
        assert_eq!(of("example.com/own", "tcp-x", 80), Some(Protocol::Tcp));
    }

    #[test]
    fn a_server_that_speaks_first_is_not_waited_for_and_udp_is_none_of_ours() {
        assert_eq!(of("", "db", 3306), Some(Protocol::Tcp));
        assert_eq!(Protocol::of("", "dns", 53, Transport::Udp), None);
    }
}
