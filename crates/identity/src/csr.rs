//! Making a key and asking for it to be certified. The key never leaves the caller's hands.

use crate::spiffe::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use std::fmt;

/// A fresh key and the request for its certificate.
pub struct KeyAndRequest {
    /// ECDSA P-256 key, PKCS#8 in PEM.
    pub key_pem: String,
    /// PKCS#10 request in PEM, signed by that key.
    pub csr_pem: String,
}

impl fmt::Debug for KeyAndRequest {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyAndRequest({} bytes of request, key hidden)", self.csr_pem.len())
    }
}

/// Makes a key and a request that names `identity`, if known; a CA decides by itself whom it certifies.
pub fn generate(identity: Option<&SpiffeId>) -> Result<KeyAndRequest, CsrError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CsrError)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(id) = identity {
        params.subject_alt_names.push(SanType::URI(id.to_string().try_into().map_err(CsrError)?));
    }
    let csr_pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(CsrError)?;
    Ok(KeyAndRequest { key_pem: key.serialize_pem(), csr_pem })
}

/// A key or a request that could not be made.
#[derive(Debug)]
pub struct CsrError(rcgen::Error);

impl fmt::Display for CsrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate request could not be made")
    }
}

impl std::error::Error for CsrError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_names_the_identity_and_hides_the_key() {
        let made = generate(Some(&SpiffeId::new("td", "a", "b").unwrap())).unwrap();
        let request = rcgen::CertificateSigningRequestParams::from_pem(&made.csr_pem).unwrap();
        let uri = SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap());
        assert_eq!(request.params.subject_alt_names, [uri]);
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_request_without_identity_is_possible() {
        let made = generate(None).unwrap();
        let request = rcgen::CertificateSigningRequestParams::from_pem(&made.csr_pem).unwrap();
        assert!(request.params.subject_alt_names.is_empty());
    }
}
