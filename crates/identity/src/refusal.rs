//! Remembers why a certificate was refused until the failed handshake is described.
//!
//! rustls maps a verifier's error to the alert the peer sees, so verifiers must return its own error kinds (the peer is to
//! read `unknown_ca`, not `certificate_unknown`). Those kinds carry no names. rustls calls a verifier and returns its error
//! in one synchronous step, so the sentence waits in a thread-local from the verifier to the code that called rustls.

use std::cell::RefCell;

struct Refusal {
    error: rustls::Error,
    sentence: String,
}

thread_local! {
    static LAST: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// Keeps `sentence` as the explanation of `error`, in place of an earlier one nobody asked for.
pub(crate) fn record(error: &rustls::Error, sentence: String) {
    LAST.with(|last| last.replace(Some(Refusal { error: error.clone(), sentence })));
}

/// The explanation of `error`, if it was the last one recorded on this thread; it is given out once.
pub(crate) fn take(error: &rustls::Error) -> Option<String> {
    let refusal = LAST.with(|last| last.take())?;
    is_same(&refusal.error, error).then_some(refusal.sentence)
}

/// rustls never calls two errors of foreign kind equal; of those only one can be meant here.
fn is_same(a: &rustls::Error, b: &rustls::Error) -> bool {
    let is_foreign = |e| matches!(e, &rustls::Error::InvalidCertificate(rustls::CertificateError::Other(_)));
    a == b || (is_foreign(a) && is_foreign(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{CertificateError, Error};

    #[test]
    fn an_explanation_belongs_to_its_error_and_is_given_once() {
        let expired = Error::InvalidCertificate(CertificateError::Expired);
        record(&expired, "why".to_owned());
        assert_eq!(take(&expired).as_deref(), Some("why"));
        assert_eq!(take(&expired), None);
        record(&expired, "why".to_owned());
        assert_eq!(take(&Error::InvalidCertificate(CertificateError::UnknownIssuer)), None);
    }
}
