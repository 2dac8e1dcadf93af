//! Sessions that stay with one endpoint, whose address the client carries. What is said of them is `model::session`'s.

use super::{Cause, Stage};
use crate::failure::Failure;
use crate::record::RouteTaken;
use crate::snapshot::{ClusterState, EndpointState};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use model::filter::Setting;
use model::session::{Session, SessionCarrier};
use std::net::SocketAddr;
use std::sync::Arc;

/// The session of one request.
pub(super) struct Bond<'s> {
    session: &'s Session,
    /// The address that the client carries.
    carried: Option<SocketAddr>,
}

impl Stage<'_> {
    /// The session that a request belongs to, or begins. What carries it is taken out of the request, as in Envoy, when
    /// it is a header.
    pub(super) fn session<'t>(&'t self, taken: &'t RouteTaken, headers: &HeaderMap) -> Option<Bond<'t>> {
        let placed = self.http.manager.filters.session.as_ref()?;
        let session = match taken.filter_setting(|settings| settings.session.as_ref()) {
            Some(Setting::Disabled) => return None,
            Some(Setting::Use(session)) => session,
            None if placed.disabled => return None,
            None => placed.config.as_ref()?,
        };
        let carried = match &session.carrier {
            SessionCarrier::Header(name) => headers.get(name).and_then(|v| v.to_str().ok()),
            SessionCarrier::Cookie(cookie) => cookie_of(headers, &cookie.name),
        };
        let is_on_path = match &session.carrier {
            SessionCarrier::Header(_) => true,
            SessionCarrier::Cookie(cookie) => is_below(self.head.path(), &cookie.path),
        };
        is_on_path.then(|| {
            let carried = carried.and_then(|carried| open(&session.carrier, carried));
            Bond { session, carried }
        })
    }
}

impl Bond<'_> {
    /// The endpoint that the client carries, while it is there and healthy.
    pub(super) fn endpoint(&self, cluster: &ClusterState) -> Result<Option<Arc<EndpointState>>, Cause> {
        let Some(carried) = self.carried else { return Ok(None) };
        match cluster.usable_at(carried) {
            Some(endpoint) => Ok(Some(endpoint.clone())),
            None if self.session.strict => {
                let detail = format!("the session's endpoint {carried} is not there");
                Err(Cause::new(Failure::NoHealthyEndpoint, detail))
            }
            None => Ok(None),
        }
    }

    /// The status with which a strict session is refused.
    pub(super) fn refusal_status(&self) -> u16 {
        self.session.refusal_status
    }

    /// Gives the client the address of the endpoint that answered, unless it carries it.
    pub(super) fn write(&self, address: SocketAddr, headers: &mut HeaderMap) {
        if self.carried == Some(address) {
            return;
        }
        let sealed = seal(&self.session.carrier, address);
        match &self.session.carrier {
            SessionCarrier::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(sealed) {
                    headers.insert(name, value);
                }
            }
            SessionCarrier::Cookie(cookie) => {
                if let Ok(value) = HeaderValue::try_from(cookie.set(&sealed)) {
                    headers.append(SET_COOKIE, value);
                }
            }
        }
    }
}

/// Whether a cookie of `scope` is sent along with a request for `path` (RFC 6265, 5.1.4).
fn is_below(path: &str, scope: &str) -> bool {
    match path.strip_prefix(scope) {
        None => false,
        Some(rest) => scope.is_empty() || scope.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
    }
}

fn cookie_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|all| all.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(other, _)| *other == name).map(|(_, value)| value);
    values.next().map(|value| value.trim_matches('"'))
}

/// The address as it is carried; that of a cookie is a protobuf message, as Envoy writes it (field 1: the address).
fn seal(carrier: &SessionCarrier, address: SocketAddr) -> String {
    let address = address.to_string();
    match carrier {
        SessionCarrier::Header(_) => STANDARD.encode(address),
        SessionCarrier::Cookie(_) => {
            // An address is shorter than 128 bytes, so that its length is one byte.
            let mut message = vec![0x0a, u8::try_from(address.len()).unwrap_or_default()];
            message.extend_from_slice(address.as_bytes());
            STANDARD.encode(message)
        }
    }
}

fn open(carrier: &SessionCarrier, sealed: &str) -> Option<SocketAddr> {
    let bytes = STANDARD.decode(sealed).ok()?;
    let address = match carrier {
        SessionCarrier::Header(_) => bytes.as_slice(),
        SessionCarrier::Cookie(_) => {
            let [0x0a, length, rest @ ..] = bytes.as_slice() else { return None };
            rest.get(..usize::from(*length))?
        }
    };
    std::str::from_utf8(address).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use model::affinity::AffinityCookie;

    #[test]
    fn an_address_is_carried_as_envoy_writes_it() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let cookie = AffinityCookie { name: "s".into(), ttl: None, path: "/".into(), attributes: vec![] };
        let cookie = SessionCarrier::Cookie(cookie);
        assert_eq!(seal(&cookie, address), "Cg4xMjcuMC4wLjE6ODA4MA==");
        assert_eq!(open(&cookie, &seal(&cookie, address)), Some(address));
        let header = SessionCarrier::Header("x-s".parse().unwrap());
        assert_eq!(seal(&header, address), "MTI3LjAuMC4xOjgwODA=");
        assert_eq!(open(&header, "MTI3LjAuMC4xOjgwODA="), Some(address));
        assert_eq!(open(&cookie, "nonsense"), None);
    }

    #[test]
    fn a_cookie_belongs_to_its_path() {
        assert!(is_below("/a/b", "/a") && is_below("/a", "/a") && is_below("/ab", ""));
        assert!(!is_below("/ab", "/a") && !is_below("/", "/a"));
    }
}
