//! TLS towards destinations: mutual TLS of the mesh, chosen per endpoint unless a DestinationRule says otherwise, and
//! what a DestinationRule asks for by itself.

use super::policy::Policy;
use super::registry::{Port, Service};
use api::networking::{ClientTlsMode, ClientTlsSettings};
use model::cluster::{Transport, TransportMatch, UpstreamHttp};
use model::matcher::StringMatch;
use model::tls::{
    PeerValidation, SanKind, SanMatch, SecretSource, TlsVersions, UpstreamTls, WORKLOAD_CERTIFICATE,
    WORKLOAD_TRUST_BUNDLE,
};
use std::collections::BTreeMap;

/// The label of endpoints that take mutual TLS, in their `envoy.transport_socket_match` metadata.
pub(super) const TLS_MODE: &str = "tlsMode";
/// Its value.
pub(super) const TLS_MODE_ISTIO: &str = "istio";

/// How the endpoints of one cluster are reached.
pub(super) struct Reach<'r> {
    pub(super) service: &'r Service,
    pub(super) port: &'r Port,
    pub(super) subset: &'r str,
    pub(super) trust_domain: &'r str,
    /// Endpoints that can are spoken to by mutual TLS without being asked to.
    pub(super) auto_mtls: bool,
    /// The version of HTTP spoken; `None` when the cluster carries bytes.
    pub(super) http: Option<UpstreamHttp>,
}

impl Reach<'_> {
    /// The transports by endpoint, and that of endpoints that match none; `None` when a secret is not there.
    pub(super) fn transports(&self, policy: &Policy) -> Option<(Vec<TransportMatch>, Transport)> {
        Some(match policy.tls.as_ref().map(|tls| (tls.mode, tls)) {
            Some((ClientTlsMode::Disable, _)) => (Vec::new(), Transport::Plain),
            Some((ClientTlsMode::IstioMutual, tls)) => (Vec::new(), self.mesh(Some(tls))),
            Some((ClientTlsMode::Simple | ClientTlsMode::Mutual, tls)) => (Vec::new(), self.own(tls)?),
            None if self.auto_mtls && self.service.in_mesh => {
                let labels = BTreeMap::from([(TLS_MODE.to_owned(), TLS_MODE_ISTIO.into())]);
                let mutual =
                    TransportMatch { name: "tlsMode-istio".to_owned(), labels, transport: self.mesh(None) };
                (vec![mutual], Transport::Plain)
            }
            None => (Vec::new(), Transport::Plain),
        })
    }

    /// Mutual TLS with the mesh's certificates.
    fn mesh(&self, settings: Option<&ClientTlsSettings>) -> Transport {
        let Self { service, port, subset, .. } = self;
        let written = settings.map(|tls| tls.subject_alt_names.as_slice()).unwrap_or_default();
        let sni = settings.map(|tls| tls.sni.as_str()).filter(|sni| !sni.is_empty()).map(str::to_owned);
        let first = |names: [&[String]; 2]| names.into_iter().find(|n| !n.is_empty()).map(<[String]>::to_vec);
        let names = first([written, &service.subject_alt_names]);
        let names = names.unwrap_or_else(|| service.identities.iter().cloned().collect());
        let mut accepted: Vec<SanMatch> = names.into_iter().map(any_exact).collect();
        if accepted.is_empty() {
            // Nobody is known to run it yet: at least nobody of another namespace may claim to.
            let prefix = format!("spiffe://{}/ns/{}/sa/", self.trust_domain, service.namespace);
            accepted.push(SanMatch { kind: Some(SanKind::Uri), matcher: StringMatch::prefix(prefix) });
        }
        Transport::Tls(Box::new(UpstreamTls {
            certificate: Some(SecretSource::Sds(WORKLOAD_CERTIFICATE.to_owned())),
            validation: Some(PeerValidation {
                trust: SecretSource::Sds(WORKLOAD_TRUST_BUNDLE.to_owned()),
                subject_alt_names: accepted,
            }),
            sni: Some(
                sni.unwrap_or_else(|| format!("outbound_.{}_.{subset}_.{}", port.number, service.host)),
            ),
            alpn: self.alpn().iter().map(|p| (*p).to_owned()).collect(),
            versions: TlsVersions::default(),
        }))
    }

    /// What is offered in the mesh: Istio's own names tell the other side which chain to take, the standard ones which
    /// version of HTTP follows.
    fn alpn(&self) -> &'static [&'static str] {
        match self.http {
            Some(UpstreamHttp::Http1) => &["istio-http/1.1", "istio", "http/1.1"],
            Some(UpstreamHttp::Http2) => &["istio-h2", "istio", "h2"],
            // Either version may follow; the other side looks at the first bytes.
            Some(UpstreamHttp::AsDownstream | UpstreamHttp::Alpn) => &["istio-http/1.1", "istio-h2", "istio"],
            None => &["istio"],
        }
    }

    /// TLS of the destination's own. Certificates and authorities of clients are not delivered yet.
    fn own(&self, tls: &ClientTlsSettings) -> Option<Transport> {
        if !is_delivered(tls) {
            return None;
        }
        let host = self.service.host.trim_start_matches("*.");
        Some(Transport::Tls(Box::new(UpstreamTls {
            certificate: None,
            validation: None,
            sni: Some(if tls.sni.is_empty() { host.to_owned() } else { tls.sni.clone() }),
            alpn: match self.http {
                Some(UpstreamHttp::Http2) => vec!["h2".to_owned()],
                Some(_) => vec!["http/1.1".to_owned()],
                None => Vec::new(),
            },
            versions: TlsVersions::default(),
        })))
    }
}

/// Whether a client has all that these settings need: those that check nothing and show nothing need nothing.
pub(super) fn is_delivered(tls: &ClientTlsSettings) -> bool {
    match tls.mode {
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => true,
        ClientTlsMode::Simple => tls.insecure_skip_verify == Some(true),
        ClientTlsMode::Mutual => false,
    }
}

/// A name of any kind, exactly.
fn any_exact(name: String) -> SanMatch {
    let kind = name.starts_with("spiffe://").then_some(SanKind::Uri);
    SanMatch { kind, matcher: StringMatch::exact(name) }
}
