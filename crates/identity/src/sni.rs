//! Choosing one of a server's certificates by the name the client asks for.

use crate::certificate::{self, CertificateError};
use crate::verifier::dns_name_covers;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// A server's certificates in order of preference; never empty.
#[derive(Debug)]
pub(crate) struct CertificateChoice {
    first: Offered,
    others: Vec<Offered>,
}

#[derive(Debug)]
struct Offered {
    key: Arc<CertifiedKey>,
    dns_names: Vec<String>,
}

impl Offered {
    fn new(key: Arc<CertifiedKey>) -> Result<Self, CertificateError> {
        let leaf = key.cert.first().ok_or(CertificateError::Empty)?;
        let dns_names = certificate::facts(leaf)?.dns_sans;
        Ok(Self { key, dns_names })
    }

    fn names_exactly(&self, host: &str) -> bool {
        self.dns_names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    fn covers(&self, host: &str) -> bool {
        self.dns_names.iter().any(|name| dns_name_covers(name, host))
    }
}

impl CertificateChoice {
    /// A choice among `first` and `others`.
    pub(crate) fn new(
        first: Arc<CertifiedKey>,
        others: Vec<Arc<CertifiedKey>>,
    ) -> Result<Self, CertificateError> {
        let others = others.into_iter().map(Offered::new).collect::<Result<_, _>>()?;
        Ok(Self { first: Offered::new(first)?, others })
    }

    /// The certificate naming `host` exactly, else one with a wildcard for it, else the first; of several equally good
    /// ones the first `usable` one.
    fn choose(&self, host: Option<&str>, usable: impl Fn(&CertifiedKey) -> bool) -> &Arc<CertifiedKey> {
        let all = || std::iter::once(&self.first).chain(&self.others).filter(|o| usable(&o.key));
        let named = host.and_then(|host| {
            all().find(|o| o.names_exactly(host)).or_else(|| all().find(|o| o.covers(host)))
        });
        &named.or_else(|| all().next()).unwrap_or(&self.first).key
    }
}

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        Some(self.choose(hello.server_name(), usable).clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn key(names: &[&str]) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let der = crate::certificate::parse_key(key.serialize_pem().as_bytes()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(CertifiedKey::from_der(vec![certificate.der().clone()], der, &provider).unwrap())
    }

    #[test]
    fn the_most_specific_certificate_is_chosen_else_the_first() {
        let keys = [key(&["first.example"]), key(&["*.a.example"]), key(&["x.a.example"])];
        let choice = CertificateChoice::new(keys[0].clone(), keys[1..].to_vec()).unwrap();
        let chosen = |host| keys.iter().position(|k| Arc::ptr_eq(k, choice.choose(host, |_| true)));
        assert_eq!(chosen(Some("X.a.example")), Some(2));
        assert_eq!(chosen(Some("y.a.example")), Some(1));
        assert_eq!(chosen(Some("z.example")), Some(0));
        assert_eq!(chosen(None), Some(0));
    }

    #[test]
    fn a_certificate_the_client_cannot_check_is_passed_over() {
        let keys = [key(&["a.example"]), key(&["b.example"])];
        let choice = CertificateChoice::new(keys[0].clone(), keys[1..].to_vec()).unwrap();
        let not_first = |k: &CertifiedKey| k.cert != keys[0].cert;
        assert!(Arc::ptr_eq(choice.choose(Some("a.example"), not_first), &keys[1]));
    }
}
