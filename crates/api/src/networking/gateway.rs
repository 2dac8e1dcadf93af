//! `Gateway`: the ports, hosts and TLS settings of proxies at the edge.

use std::collections::BTreeMap;

use crate::decode::{choice, message};

message! {
    /// What the selected proxies listen on.
    pub struct Gateway {
        /// One per port and set of hosts.
        pub servers: Vec<Server>,
        /// Labels of the proxies; empty for all.
        pub selector: BTreeMap<String, String>,
    }
}

message! {
    /// A port, the hosts served on it, and their TLS settings.
    pub struct Server {
        /// The port.
        pub port: ServerPort,
        /// Address to listen on; all when empty.
        pub bind: String,
        /// Hosts: `host`, `*.domain`, `*`, each with an optional `namespace/` in front.
        pub hosts: Vec<String>,
        /// TLS towards clients.
        pub tls: Option<ServerTlsSettings>,
        /// Not implemented by Istio either.
        pub default_endpoint: String,
        /// Names the server; unique in the mesh.
        pub name: String,
    }
}

message! {
    /// A port of a Gateway.
    pub struct ServerPort {
        /// From 1.
        pub number: u16,
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS.
        pub protocol: String,
        /// Names the port.
        pub name: String,
        /// Deprecated.
        pub target_port: u16,
    }
}

message! {
    /// TLS towards clients.
    pub struct ServerTlsSettings {
        /// Answer plain HTTP with a 301 to HTTPS.
        pub https_redirect: bool,
        /// Which kind.
        pub mode: ServerTlsMode,
        /// File of the certificate.
        pub server_certificate: String,
        /// File of its key.
        pub private_key: String,
        /// File of the authorities that may sign clients' certificates.
        pub ca_certificates: String,
        /// File of revoked certificates.
        pub ca_crl: String,
        /// Secret with certificate and key.
        pub credential_name: String,
        /// Several such secrets.
        pub credential_names: Vec<String>,
        /// Secret with the authorities that may sign clients' certificates.
        pub ca_cert_credential_name: String,
        /// Several certificates, as files.
        pub tls_certificates: Vec<TlsCertificate>,
        /// Names one of which a client's certificate must have.
        pub subject_alt_names: Vec<String>,
        /// Key hashes (base64 SHA-256) one of which a client's certificate must have.
        pub verify_certificate_spki: Vec<String>,
        /// Certificate hashes (hex SHA-256) one of which a client's certificate must have.
        pub verify_certificate_hash: Vec<String>,
        /// Oldest version.
        pub min_protocol_version: TlsProtocol,
        /// Newest version.
        pub max_protocol_version: TlsProtocol,
        /// Cipher suites, by OpenSSL's names.
        pub cipher_suites: Vec<String>,
        /// Accept any client certificate.
        pub insecure_skip_verify: Option<bool>,
    }
}

message! {
    /// A certificate, as files.
    pub struct TlsCertificate {
        /// File of the certificate.
        pub server_certificate: String,
        /// File of its key.
        pub private_key: String,
        /// File of authorities.
        pub ca_certificates: String,
    }
}

choice! {
    /// Which kind of TLS towards clients.
    pub enum ServerTlsMode {
        /// Not terminated; routed by SNI.
        Passthrough = ("PASSTHROUGH", 0),
        /// Terminated.
        Simple = ("SIMPLE", 1),
        /// Terminated, clients need a certificate.
        Mutual = ("MUTUAL", 2),
        /// Not terminated; the SNI names the destination.
        AutoPassthrough = ("AUTO_PASSTHROUGH", 3),
        /// Terminated with the mesh's certificates, clients need one of the mesh.
        IstioMutual = ("ISTIO_MUTUAL", 4),
        /// Terminated, clients may have a certificate.
        OptionalMutual = ("OPTIONAL_MUTUAL", 5),
    }
}

choice! {
    /// Version of TLS.
    pub enum TlsProtocol {
        /// Chosen by the proxy.
        Auto = ("TLS_AUTO", 0),
        /// 1.0
        V1_0 = ("TLSV1_0", 1),
        /// 1.1
        V1_1 = ("TLSV1_1", 2),
        /// 1.2
        V1_2 = ("TLSV1_2", 3),
        /// 1.3
        V1_3 = ("TLSV1_3", 4),
    }
}
