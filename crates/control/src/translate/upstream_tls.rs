//! TLS towards destinations: mutual TLS of the mesh, chosen per endpoint unless a DestinationRule says otherwise, and
//! what a DestinationRule asks for by itself.

use super::credentials::{Credentials, file, pair_of_files, system_authorities};
use super::policy::Policy;
use super::registry::{Port, Service};
use crate::world::World;
use api::Diagnostic;
use api::networking::{ClientTlsMode, ClientTlsSettings};
use model::cluster::{Transport, TransportMatch, UpstreamHttp};
use model::matcher::StringMatch;
use model::metadata::Fields;
use model::tls::{
    PeerChecks, PeerValidation, SanKind, SanMatch, SecretSource, TlsVersions, UpstreamTls,
    WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE,
};
use std::sync::Arc;

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
    /// First parts of identities that are as good.
    pub(super) aliases: &'r [String],
    /// Endpoints that can are spoken to by mutual TLS without being asked to.
    pub(super) auto_mtls: bool,
    pub(super) credentials: &'r Credentials,
    /// The namespace whose Secrets the client may have.
    pub(super) secrets_of: Option<&'r str>,
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
                let labels = Fields::from([(TLS_MODE.to_owned(), TLS_MODE_ISTIO.into())]);
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
        let names =
            names.unwrap_or_else(|| service.identities.iter().flat_map(|id| self.with_aliases(id)).collect());
        let mut accepted: Vec<SanMatch> = names.into_iter().map(any_exact).collect();
        if accepted.is_empty() {
            // Nobody is known to run it yet: at least nobody of another namespace may claim to.
            let prefix = format!("spiffe://{}/ns/{}/sa/", self.trust_domain, service.namespace);
            let one = |prefix| SanMatch { kind: Some(SanKind::Uri), matcher: StringMatch::prefix(prefix) };
            accepted.extend(self.with_aliases(&prefix).map(one));
        }
        Transport::Tls(Box::new(UpstreamTls {
            certificate: Some(SecretSource::Sds(WORKLOAD_CERTIFICATE.to_owned())),
            validation: Some(Arc::new(PeerValidation {
                trust: SecretSource::Sds(WORKLOAD_TRUST_BUNDLE.to_owned()),
                subject_alt_names: accepted,
                checks: PeerChecks::default(),
            })),
            sni: Some(
                sni.unwrap_or_else(|| format!("outbound_.{}_.{subset}_.{}", port.number, service.host)),
            ),
            alpn: self.alpn().iter().map(|p| (*p).to_owned()).collect(),
            versions: TlsVersions::default(),
        }))
    }

    /// An identity of the mesh, and the same in each trust domain that is as good.
    fn with_aliases<'i>(&self, id: &'i str) -> impl Iterator<Item = String> + use<'i, '_> {
        let rest = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest);
        let same = move |alias: &String| rest.map(|rest| format!("spiffe://{alias}/{rest}"));
        std::iter::once(id.to_owned()).chain(self.aliases.iter().filter_map(same))
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

    /// TLS of the destination's own; `None` when something that it needs is not there.
    fn own(&self, tls: &ClientTlsSettings) -> Option<Transport> {
        let host = self.service.host.trim_start_matches("*.");
        let names = match tls.subject_alt_names.as_slice() {
            [] if self.service.subject_alt_names.is_empty() => vec![host.to_owned()],
            [] => self.service.subject_alt_names.clone(),
            written => written.to_vec(),
        };
        let checks = tls.insecure_skip_verify != Some(true);
        let listed = || self.credentials.revoked(self.secrets_of?, &tls.credential_name);
        let validation = |trust| PeerValidation {
            trust,
            subject_alt_names: names.into_iter().map(any_exact).collect(),
            checks: PeerChecks {
                revoked: file(&tls.ca_crl).or_else(|| listed().cloned().map(SecretSource::Inline)),
                ..PeerChecks::default()
            },
        };
        Some(Transport::Tls(Box::new(UpstreamTls {
            certificate: match tls.mode {
                ClientTlsMode::Mutual if tls.credential_name.is_empty() => {
                    Some(pair_of_files(&tls.client_certificate, &tls.private_key))
                }
                ClientTlsMode::Mutual => {
                    let pair = self.credentials.certificate(self.secrets_of?, &tls.credential_name)?;
                    Some(SecretSource::Inline(pair.clone()))
                }
                _ => None,
            },
            validation: if checks { Some(validation(self.authorities(tls)?).into()) } else { None },
            sni: Some(if tls.sni.is_empty() { host.to_owned() } else { tls.sni.clone() }),
            alpn: match self.http {
                Some(UpstreamHttp::Http2) => vec!["h2".to_owned()],
                Some(_) => vec!["http/1.1".to_owned()],
                None => Vec::new(),
            },
            versions: TlsVersions::default(),
        })))
    }

    /// Who may have signed the server's certificate: as the Secret or the file says, else as the system does.
    fn authorities(&self, tls: &ClientTlsSettings) -> Option<SecretSource<Vec<u8>>> {
        let system = || system_authorities().cloned().map(SecretSource::Inline);
        match (tls.credential_name.as_str(), tls.ca_certificates.as_str()) {
            ("", "" | "system") => system(),
            ("", path) => file(path),
            (name, _) => {
                // A Secret for `MUTUAL` may have nothing but certificate and key.
                match self.credentials.authorities(self.secrets_of?, name) {
                    Some(authorities) => Some(SecretSource::Inline(authorities.clone())),
                    None if tls.mode == ClientTlsMode::Mutual => system(),
                    None => None,
                }
            }
        }
    }
}

/// Tells of TLS that cannot be: without what it needs, the destination does not exist.
pub(super) fn unsupported(world: &World, credentials: &Credentials, found: &mut Vec<Diagnostic>) {
    for (object, rule) in world.destination_rules() {
        let subsets = rule.subsets.iter().enumerate().filter_map(|(at, subset)| {
            Some((format!("spec.subsets[{at}].trafficPolicy"), subset.traffic_policy.as_ref()?))
        });
        let whole = rule.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
        for (path, policy) in whole.chain(subsets) {
            let ports = policy.port_level_settings.iter().enumerate();
            let ports = ports.filter_map(|(at, port)| {
                Some((format!("{path}.portLevelSettings[{at}]"), port.tls.as_ref()?))
            });
            for (path, tls) in policy.tls.iter().map(|tls| (path.clone(), tls)).chain(ports) {
                if let Some((problem, help)) = problem(tls, object.namespace(), credentials) {
                    let message = format!("{problem}; such requests are answered with 503");
                    found.push(object.warning(&format!("{path}.tls"), message).help(help));
                }
            }
        }
    }
}

fn problem(
    tls: &ClientTlsSettings,
    namespace: &str,
    credentials: &Credentials,
) -> Option<(String, &'static str)> {
    let is_own = matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    let name = tls.credential_name.as_str();
    if !is_own || (tls.mode == ClientTlsMode::Simple && tls.insecure_skip_verify == Some(true)) {
        return None;
    }
    let is_there = match tls.mode {
        _ if name.is_empty() => true,
        ClientTlsMode::Mutual => credentials.certificate(namespace, name).is_some(),
        _ => credentials.authorities(namespace, name).is_some(),
    };
    let problem = || format!("namespace `{namespace}` has no Secret `{name}` with what this needs");
    (!is_there).then(|| (problem(), "declare it, with `tls.crt` and `tls.key` for `MUTUAL`, and `ca.crt`"))
}

/// A name of any kind, exactly.
fn any_exact(name: String) -> SanMatch {
    let kind = name.starts_with("spiffe://").then_some(SanKind::Uri);
    SanMatch { kind, matcher: StringMatch::exact(name) }
}
