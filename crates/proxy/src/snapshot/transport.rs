//! Transports as they run: TLS made once for each cluster that needs it.

use super::Config;
use identity::config::{client_config, server_name};
use model::cluster::{Transport, UpstreamHttp};
use model::tls::UpstreamTls;
use rustls_pki_types::ServerName;
use std::sync::Arc;

/// A transport that is ready to be used, or the reason why it is not.
#[derive(Clone)]
pub enum TransportState {
    /// Bytes as they are.
    Plain,
    /// TLS.
    Tls {
        /// The client's side of it, or why it cannot be made (a secret that has not been delivered).
        config: Result<Arc<rustls::ClientConfig>, Arc<str>>,
        /// The name handed to rustls; sent as SNI where the configuration says so.
        server_name: ServerName<'static>,
    },
}

/// Protocols offered by ALPN: as configured, else those without which a server would choose HTTP/1.1, as in Envoy.
fn offered(tls: &UpstreamTls, http: UpstreamHttp) -> Vec<String> {
    let needed: &[&str] = match http {
        UpstreamHttp::Http2 => &["h2"],
        UpstreamHttp::Alpn => &["h2", "http/1.1"],
        UpstreamHttp::Http1 | UpstreamHttp::AsDownstream => &[],
    };
    match tls.alpn.is_empty() {
        true => needed.iter().map(|protocol| (*protocol).to_owned()).collect(),
        false => tls.alpn.clone(),
    }
}

/// The transports of one cluster, each made once.
pub(super) struct Transports<'c> {
    pub(super) config: &'c Config,
    pub(super) http: UpstreamHttp,
    pub(super) made: Vec<(Transport, TransportState)>,
    /// What connections that are made for nobody begin with.
    pub(super) preface: Option<Arc<[u8]>>,
}

impl Transports<'_> {
    pub(super) fn state(&mut self, transport: &Transport) -> TransportState {
        if let Some((_, state)) = self.made.iter().find(|(made, _)| made == transport) {
            return state.clone();
        }
        let state = match transport {
            Transport::Plain => TransportState::Plain,
            Transport::Tls(tls) => {
                let tls = UpstreamTls { alpn: offered(tls, self.http), ..(**tls).clone() };
                let made = client_config(&tls, &|name| self.config.secret(name));
                let named = server_name(tls.sni.as_deref()).or_else(|_| server_name(None));
                match named {
                    Ok(server_name) => {
                        TransportState::Tls { config: made.map_err(|e| e.to_string().into()), server_name }
                    }
                    // Never plaintext in its place.
                    Err(e) => TransportState::Tls {
                        config: Err(e.to_string().into()),
                        server_name: ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into()),
                    },
                }
            }
        };
        self.made.push((transport.clone(), state.clone()));
        state
    }
}
