//! A request's head made canonical: authority, path, scheme and client found once, hop-by-hop headers dropped, forwarding
//! headers added. RFC 9110 sections 7.2 and 7.6, RFC 9112 section 3.2.

use super::answer::REQUEST_ID;
use super::edits::Outbound;
use crate::failure::Failure;
use crate::record::ConnectionRecord;
use http::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use model::header::RequestHead;
use model::listener::{ClientCert, HttpConnectionManager, Underscores};
use model::rewrite::HostStripping;
use model::route::Redirect;
use std::net::{IpAddr, SocketAddr};

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers that end at the next hop and may be named by `Connection` (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 11] = [
    "close",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "proxy-connection",
    "http2-settings",
    "proxy-authenticate",
    "proxy-authorization",
];

/// How names begin of headers that only proxies of the mesh may set: they speak of paths, limits and identities.
const INTERNAL: &str = "x-envoy-";

/// Which of the headers that this stage acts on are there: found in one pass, so that those that are absent, which most
/// are, cost no lookup each.
#[derive(Default)]
struct Present {
    connection: bool,
    upgrade: bool,
    te: bool,
    expect: bool,
    dropped: bool,
    forwarded_for: bool,
    forwarded_proto: bool,
    request_id: bool,
    cookie: bool,
    internal: bool,
    client_cert: bool,
}

impl Present {
    fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => present.connection = true,
                "upgrade" => present.upgrade = true,
                "te" => present.te = true,
                "expect" => present.expect = true,
                "keep-alive" | "proxy-connection" | "transfer-encoding" | "http2-settings" => {
                    present.dropped = true;
                }
                "x-forwarded-for" => present.forwarded_for = true,
                "x-forwarded-proto" => present.forwarded_proto = true,
                "x-request-id" => present.request_id = true,
                "cookie" => present.cookie = true,
                "x-forwarded-client-cert" => present.client_cert = true,
                other if other.starts_with(INTERNAL) => present.internal = true,
                _ => {}
            }
        }
        present
    }
}

/// What is known of a request's head beside its headers.
pub(super) struct Head {
    /// Host and optional port.
    pub(super) authority: Box<str>,
    /// Canonical path with its query; empty for CONNECT.
    pub(super) target: Box<str>,
    path_length: usize,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// Its id.
    pub(super) id: Box<str>,
    /// Who asks.
    pub(super) client: SocketAddr,
    /// The protocol it wants to switch to.
    pub(super) upgrade: Option<HeaderValue>,
    /// Its client is sent to the canonical form of its path.
    pub(super) redirects: bool,
}

impl Head {
    /// Reads the head and cleans its headers; `peer` is the connection's peer as text. A refused one comes with its failure, and is still fit to be recorded.
    pub(super) fn new(
        parts: &mut Parts,
        manager: &HttpConnectionManager,
        connection: &ConnectionRecord,
        peer: &HeaderValue,
        random: impl Fn() -> u64,
    ) -> (Self, Option<Failure>) {
        let present = Present::of(&parts.headers);
        let client = match present.forwarded_for {
            true => client_address(&parts.headers, manager, connection.remote),
            false => connection.remote,
        };
        let is_external = manager.edge && !manager.keep_request_id && !is_private(connection.remote.ip());
        let scheme = forwarded_scheme(&mut parts.headers, &present, manager, connection);
        if present.internal && manager.edge {
            drop_internal(&mut parts.headers, manager.filters.fault.is_some());
        }
        if present.client_cert {
            drop_client_cert(&mut parts.headers, manager, connection);
        }
        if parts.version == Version::HTTP_2 && present.cookie {
            join_cookies(&mut parts.headers);
        }
        let mut head = Self {
            authority: stripped(authority(parts), parts, manager, connection),
            target: parts.uri.path_and_query().map_or("", |p| p.as_str()).into(),
            path_length: parts.uri.path().len(),
            scheme,
            id: request_id(&mut parts.headers, present.request_id && !is_external, manager, random),
            client,
            upgrade: None,
            redirects: false,
        };
        let refused = head.make_canonical(parts, &present, manager).err();
        if refused.is_none() && manager.edge && !manager.keeps_forwarded_for {
            append_forwarded_for(&mut parts.headers, present.forwarded_for, peer);
        }
        (head, refused)
    }

    fn make_canonical(
        &mut self,
        parts: &mut Parts,
        present: &Present,
        manager: &HttpConnectionManager,
    ) -> Result<(), Failure> {
        self.upgrade = drop_hop_by_hop(&mut parts.headers, present, parts.version)?;
        if manager.underscores != Underscores::Keep {
            judge_underscores(&mut parts.headers, manager.underscores)?;
        }
        if parts.method == Method::CONNECT {
            self.target = "".into();
            self.path_length = 0;
            return Ok(());
        }
        if parts.uri.path() == "*" && parts.method == Method::OPTIONS {
            self.target = "*".into();
            self.path_length = 1;
            return Ok(());
        }
        let canonical = manager.path.canonical(parts.uri.path()).map_err(|_| Failure::BadPath)?;
        self.path_length = canonical.len();
        self.redirects = manager.path.redirects(parts.uri.path());
        if let std::borrow::Cow::Owned(path) = &canonical {
            self.target = match parts.uri.query() {
                None => path.as_str().into(),
                Some(query) => format!("{path}?{query}").into(),
            };
        }
        Ok(())
    }

    /// Takes on an authority and a target that were edited.
    pub(super) fn replace(&mut self, edited: Outbound) {
        self.authority = edited.authority.into();
        self.path_length = edited.target.find('?').unwrap_or(edited.target.len());
        self.target = edited.target.into();
    }

    /// The canonical path without the query.
    pub(super) fn path(&self) -> &str {
        self.target.get(..self.path_length).unwrap_or_default()
    }

    /// The query without its `?`.
    pub(super) fn query(&self) -> Option<&str> {
        self.target.get(self.path_length..)?.strip_prefix('?')
    }

    /// The head as matching and formatting see it.
    pub(super) fn view<'a>(&'a self, parts: &'a Parts) -> RequestHead<'a> {
        RequestHead {
            method: &parts.method,
            scheme: self.scheme,
            authority: &self.authority,
            path: self.path(),
            query: self.query(),
            headers: &parts.headers,
        }
    }
}

/// A redirect of the same request to HTTPS.
pub(super) fn to_https() -> Redirect {
    Redirect { scheme: Some("https".to_owned()), status: 301, ..Redirect::default() }
}

/// The request target's own authority wins over `Host` (RFC 9112, 3.2.2); `Host` leaves the headers either way.
fn authority(parts: &mut Parts) -> Box<str> {
    let host = parts.headers.remove(HOST);
    match parts.uri.authority() {
        Some(authority) => authority.as_str().into(),
        None => host.and_then(|h| h.to_str().map(Into::into).ok()).unwrap_or_default(),
    }
}

/// The authority without what is configured to be taken off.
fn stripped(
    authority: Box<str>,
    parts: &Parts,
    manager: &HttpConnectionManager,
    connection: &ConnectionRecord,
) -> Box<str> {
    match manager.stripping == HostStripping::default() {
        true => authority,
        false => {
            let is_connect = parts.method == Method::CONNECT;
            manager.stripping.strip(&authority, connection.local.port(), is_connect).into()
        }
    }
}

/// Drops what ends here and returns the protocol of a proper upgrade request. A `Connection` that names an end-to-end
/// header could strip what a later hop relies on, and is refused.
fn drop_hop_by_hop(
    headers: &mut HeaderMap,
    present: &Present,
    version: Version,
) -> Result<Option<HeaderValue>, Failure> {
    let wants_upgrade = present.connection && connection_names_upgrade(headers)?;
    if present.connection {
        headers.remove(CONNECTION);
    }
    let upgrade = match present.upgrade {
        true => headers.remove(UPGRADE).filter(|_| wants_upgrade && version == Version::HTTP_11),
        false => None,
    };
    if present.dropped {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, HTTP2_SETTINGS] {
            headers.remove(name);
        }
    }
    if present.expect {
        // It was answered here.
        headers.remove(EXPECT);
    }
    if present.te {
        // gRPC asks for trailers; nothing else that TE can say passes a hop.
        let wants_trailers =
            headers.get_all(TE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
        headers.remove(TE);
        if wants_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    Ok(upgrade)
}

fn connection_names_upgrade(headers: &HeaderMap) -> Result<bool, Failure> {
    let mut wants_upgrade = false;
    for value in headers.get_all(CONNECTION) {
        let tokens = value.to_str().map_err(|_| Failure::BadRequest)?;
        for token in tokens.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            if !HOP_BY_HOP.iter().any(|known| known.eq_ignore_ascii_case(token)) {
                return Err(Failure::BadRequest);
            }
            wants_upgrade |= token.eq_ignore_ascii_case("upgrade");
        }
    }
    Ok(wants_upgrade)
}

/// The client, as trusted hops tell: an edge counts back from its own peer, others believe the last entry.
fn client_address(headers: &HeaderMap, manager: &HttpConnectionManager, remote: SocketAddr) -> SocketAddr {
    if manager.edge && manager.trusted_hops == 0 {
        return remote;
    }
    let nth = manager.trusted_hops.saturating_sub(u32::from(manager.edge)) as usize;
    let all = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
    let entries: Vec<&str> = all.flat_map(|v| v.split(',')).map(str::trim).collect();
    let entry = entries.iter().rev().nth(nth).and_then(|e| e.parse::<IpAddr>().ok());
    entry.map_or(remote, |ip| SocketAddr::new(ip, 0))
}

/// The scheme that the client used, from trusted hops where there are any; written into `x-forwarded-proto`.
fn forwarded_scheme(
    headers: &mut HeaderMap,
    present: &Present,
    manager: &HttpConnectionManager,
    connection: &ConnectionRecord,
) -> &'static str {
    let own = if connection.tls_version.is_some() { "https" } else { "http" };
    let believes = present.forwarded_proto && (!manager.edge || manager.trusted_hops > 0);
    let told = headers.get(FORWARDED_PROTO).filter(|_| believes).and_then(|v| match v.as_bytes() {
        b"https" => Some("https"),
        b"http" => Some("http"),
        _ => None,
    });
    let scheme = told.unwrap_or(own);
    if told.is_none() {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    scheme
}

/// What a client outside says in the mesh's name. It may ask for faults where that is configured.
fn drop_internal(headers: &mut HeaderMap, takes_faults: bool) {
    let says =
        |name: &str| name.starts_with(INTERNAL) && !(takes_faults && name.starts_with("x-envoy-fault-"));
    let names: Vec<HeaderName> = headers.keys().filter(|n| says(n.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Drops what proxies before said of the client's certificate, where they are not to be believed.
fn drop_client_cert(headers: &mut HeaderMap, manager: &HttpConnectionManager, connection: &ConnectionRecord) {
    let passes = match manager.client_cert {
        ClientCert::Sanitize => false,
        ClientCert::ForwardOnly => connection.is_mutual_tls(),
        ClientCert::AlwaysForward => true,
    };
    if !passes {
        headers.remove(CLIENT_CERT);
    }
}

/// What an application may take for the same name with a dash is refused or dropped.
fn judge_underscores(headers: &mut HeaderMap, wanted: Underscores) -> Result<(), Failure> {
    let with_underscore = |name: &&HeaderName| name.as_str().contains('_');
    let names: Vec<HeaderName> = headers.keys().filter(with_underscore).cloned().collect();
    if wanted == Underscores::Reject && !names.is_empty() {
        return Err(Failure::Underscore);
    }
    for name in names {
        headers.remove(name);
    }
    Ok(())
}

/// HTTP/2 sends cookies in crumbs; what comes after it may not know how to put them together (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Adds the peer, whose address is `peer` as text.
fn append_forwarded_for(headers: &mut HeaderMap, is_there: bool, peer: &HeaderValue) {
    let mut all = Vec::new();
    if is_there {
        for value in headers.get_all(FORWARDED_FOR) {
            all.extend_from_slice(value.as_bytes());
            all.push(b',');
        }
    }
    if all.is_empty() {
        headers.insert(FORWARDED_FOR, peer.clone());
        return;
    }
    all.extend_from_slice(peer.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// The id that came with the request where that counts; a new one (UUID version 4) otherwise.
fn request_id(
    headers: &mut HeaderMap,
    keeps: bool,
    manager: &HttpConnectionManager,
    random: impl Fn() -> u64,
) -> Box<str> {
    if keeps {
        let given = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok());
        if let Some(given) = given.filter(|g| !g.is_empty() && g.len() <= 128) {
            return given.into();
        }
    }
    let digits = uuid(random(), random());
    let id = std::str::from_utf8(&digits).unwrap_or_default();
    if let (true, Ok(value)) = (manager.makes_request_id, HeaderValue::from_bytes(&digits)) {
        headers.insert(REQUEST_ID, value);
    }
    id.into()
}

/// RFC 9562, 5.4, from 128 random bits.
fn uuid(high: u64, low: u64) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    /// Where the two digits of each byte go, between the dashes.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    let bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
    let mut text = [b'-'; 36];
    for (byte, at) in bytes.into_iter().zip(PLACES) {
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    text
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_4() {
        let text = String::from_utf8_lossy(&uuid(0x0123_4567_89ab_cdef, u64::MAX)).into_owned();
        assert_eq!(text, "01234567-89ab-4def-bfff-ffffffffffff");
    }
}
