//! Endpoints that are told who a connection is made for (the PROXY protocol, versions 1 and 2): each client has connections
//! of its own, so each is an endpoint of its own.

use super::endpoint::EndpointState;
use crate::record::Caller;
use model::cluster::ProxyVersion;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Known at the same time.
const MOST: usize = 4096;
/// One that nobody asked for so long is forgotten.
const KEPT: Duration = Duration::from_secs(60);
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

type Key = (u64, Arc<[u8]>);

/// What endpoints are told, and the endpoints of clients that were here lately.
pub(super) struct Announced {
    how: ProxyVersion,
    known: Mutex<FxHashMap<Key, (Arc<EndpointState>, Instant)>>,
}

impl Announced {
    pub(super) fn new(how: ProxyVersion) -> Self {
        Self { how, known: Mutex::default() }
    }

    /// `endpoint` for connections made for `caller`.
    pub(super) fn of(&self, endpoint: &Arc<EndpointState>, caller: &Caller) -> Arc<EndpointState> {
        let preface: Arc<[u8]> = header(self.how, caller).into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (_, asked)| asked.elapsed() < KEPT / 10);
        }
        let has_room = known.len() < MOST;
        let key = (endpoint.id, preface);
        if let Some((found, asked)) = known.get_mut(&key) {
            *asked = Instant::now();
            return found.clone();
        }
        let made = endpoint.beginning_with(key.1.clone());
        if has_room {
            known.insert(key, (made.clone(), Instant::now()));
        }
        made
    }

    pub(super) fn sweep(&self, idle: Option<Duration>) {
        let kept = idle.unwrap_or(KEPT).max(KEPT);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, asked)| asked.elapsed() < kept);
    }

    pub(super) fn each(&self, mut act: impl FnMut(&EndpointState)) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().for_each(|(endpoint, _)| act(endpoint));
    }
}

/// What a connection of the proxy's own begins with, such as a health check.
pub(super) fn own(how: ProxyVersion) -> Arc<[u8]> {
    match how {
        ProxyVersion::V2 => [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat().into(),
        ProxyVersion::V1 => b"PROXY UNKNOWN\r\n"[..].into(),
    }
}

fn header(how: ProxyVersion, caller: &Caller) -> Vec<u8> {
    let Caller { remote, local, .. } = caller;
    if how == ProxyVersion::V1 {
        let family = match (remote, local) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
            (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
            _ => return b"PROXY UNKNOWN\r\n".to_vec(),
        };
        let (from, to) = (remote.ip(), local.ip());
        return format!("PROXY {family} {from} {to} {} {}\r\n", remote.port(), local.port()).into_bytes();
    }
    let (family, mut rest) = match (remote, local) {
        (SocketAddr::V4(a), SocketAddr::V4(b)) => (0x11, [a.ip().octets(), b.ip().octets()].concat()),
        (SocketAddr::V6(a), SocketAddr::V6(b)) => (0x21, [a.ip().octets(), b.ip().octets()].concat()),
        _ => return own(how).to_vec(),
    };
    rest.extend_from_slice(&remote.port().to_be_bytes());
    rest.extend_from_slice(&local.port().to_be_bytes());
    match u16::try_from(rest.len()) {
        Ok(length) => [&SIGNATURE[..], &[0x21, family], &length.to_be_bytes(), &rest].concat(),
        Err(_) => own(how).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn caller(remote: &str, local: &str) -> Caller {
        Caller::new(remote.parse().unwrap(), local.parse().unwrap())
    }

    #[test]
    fn both_versions_say_who_a_connection_is_made_for() {
        let told = |how, remote, local| header(how, &caller(remote, local));
        let text = |remote, local| told(ProxyVersion::V1, remote, local);
        assert_eq!(text("10.0.0.1:7", "10.0.0.2:80"), b"PROXY TCP4 10.0.0.1 10.0.0.2 7 80\r\n");
        assert_eq!(text("[::1]:7", "[::2]:80"), b"PROXY TCP6 ::1 ::2 7 80\r\n");
        assert_eq!(text("[::1]:7", "10.0.0.2:80"), b"PROXY UNKNOWN\r\n");
        let wanted = [&SIGNATURE[..], &[0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 80]];
        assert_eq!(told(ProxyVersion::V2, "10.0.0.1:7", "10.0.0.2:80"), wanted.concat());
    }
}
