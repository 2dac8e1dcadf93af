//! What a connection's first bytes tell before anything is decided: a TLS ClientHello with its server name and
//! protocols, HTTP/2's preface, an HTTP/1 request line. It reads bytes it is given and keeps none; which chain takes
//! the connection is `model::listener`'s.

/// A client's first TLS message (RFC 8446, 4.1.2), as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hello {
    /// SNI, lower case.
    pub(super) server_name: Option<String>,
    /// Protocols by ALPN, preferred first.
    pub(super) protocols: Vec<String>,
}

/// What is known after some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look<T> {
    /// It is one.
    Found(T),
    /// It is not.
    Other,
    /// More bytes are needed.
    More,
}

/// HTTP/2's client preface (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// Longest ClientHello that is put together from records.
const HELLO_SIZE: usize = 16 * 1024;

/// Looks for a ClientHello.
pub(super) fn client_hello(bytes: &[u8]) -> Look<Hello> {
    if matches!(bytes.first(), Some(first) if *first != HANDSHAKE_RECORD)
        || matches!(bytes.get(1), Some(major) if *major != 3)
    {
        return Look::Other;
    }
    let mut message = Vec::new();
    let mut records = Reader(bytes);
    loop {
        match hello_length(&message) {
            Some(Err(())) => return Look::Other,
            Some(Ok(length)) if message.len() >= length => break,
            _ => {}
        }
        let Some(kind) = records.byte() else { return Look::More };
        if kind != HANDSHAKE_RECORD {
            return Look::Other;
        }
        let header = records.take(2).and_then(|_| records.number());
        let Some(length) = header else { return Look::More };
        if length == 0 || length > 16384 {
            return Look::Other;
        }
        match records.take(usize::from(length)) {
            Some(part) => message.extend_from_slice(part),
            None => {
                // A record that is not complete says already how long the message is.
                message.extend_from_slice(records.0);
                return match hello_length(&message) {
                    Some(Err(())) => Look::Other,
                    _ => Look::More,
                };
            }
        }
    }
    match read_hello(message.get(4..).unwrap_or_default()) {
        Some(hello) => Look::Found(hello),
        None => Look::Other,
    }
}

/// Length of the handshake message with its header; an error when it is no ClientHello, or too long for one.
fn hello_length(message: &[u8]) -> Option<Result<usize, ()>> {
    let mut header = Reader(message);
    if header.byte()? != CLIENT_HELLO {
        return Some(Err(()));
    }
    let length = usize::from(header.byte()?) << 16 | usize::from(header.number()?);
    Some(if length > HELLO_SIZE { Err(()) } else { Ok(length + 4) })
}

fn read_hello(body: &[u8]) -> Option<Hello> {
    let mut body = Reader(body);
    let mut hello = Hello::default();
    body.take(2 + 32)?; // version, random
    body.short_vector()?; // session
    body.vector()?; // cipher suites
    body.short_vector()?; // compression
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vector()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = Reader(extensions.vector()?);
        match kind {
            SERVER_NAME => hello.server_name = server_name(content),
            ALPN => hello.protocols = protocols(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// The first host name (RFC 6066, 3).
fn server_name(mut content: Reader<'_>) -> Option<String> {
    let mut names = Reader(content.vector()?);
    while !names.0.is_empty() {
        let kind = names.byte()?;
        let name = names.vector()?;
        if kind == 0 {
            let name = std::str::from_utf8(name).ok().filter(|n| !n.is_empty() && n.is_ascii())?;
            return Some(name.trim_end_matches('.').to_ascii_lowercase());
        }
    }
    None
}

fn protocols(mut content: Reader<'_>) -> Option<Vec<String>> {
    let mut list = Reader(content.vector()?);
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.short_vector()?;
        found.extend(std::str::from_utf8(protocol).ok().map(str::to_owned));
    }
    Some(found)
}

/// Bytes that are taken from the front.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    /// Bytes after their length in one byte.
    fn short_vector(&mut self) -> Option<&'b [u8]> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    /// Bytes after their length in two bytes.
    fn vector(&mut self) -> Option<&'b [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}

/// Whether the bytes are HTTP/2's preface. Its first line decides.
pub(super) fn preface(bytes: &[u8]) -> Look<()> {
    const LINE: usize = 16;
    let line = PREFACE.get(..LINE).unwrap_or_default();
    if bytes.len() >= LINE {
        return if bytes.starts_with(line) { Look::Found(()) } else { Look::Other };
    }
    if line.starts_with(bytes) { Look::More } else { Look::Other }
}

/// The version of HTTP that the bytes begin, as Envoy's `http_inspector` names it.
pub(super) fn http_version(bytes: &[u8]) -> Look<&'static str> {
    match preface(bytes) {
        Look::Found(()) => return Look::Found("h2c"),
        Look::More => return Look::More,
        Look::Other => {}
    }
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let method = bytes.iter().position(|b| *b == b' ');
    let seen = bytes.get(..method.unwrap_or(bytes.len())).unwrap_or_default();
    if !seen.iter().all(is_token) || seen.len() > 64 || method == Some(0) {
        return Look::Other;
    }
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        return if bytes.len() > 8 * 1024 { Look::Other } else { Look::More };
    };
    let line = bytes.get(..end).unwrap_or_default();
    match line.strip_suffix(b"\r").unwrap_or(line) {
        line if line.ends_with(b" HTTP/1.1") => Look::Found("http/1.1"),
        line if line.ends_with(b" HTTP/1.0") => Look::Found("http/1.0"),
        _ => Look::Other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// The first bytes of a client that asks for `name` and offers `protocols`.
    fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same handshake message in records of at most `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let pieces = hello[5..].chunks(size);
        pieces.flat_map(|p| [&[22, 3, 1], &(p.len() as u16).to_be_bytes()[..], p].concat()).collect()
    }

    #[test]
    fn a_real_client_is_understood_at_every_cut() {
        let bytes = hello("A.Example", &["istio", "h2"]);
        let found =
            Hello { server_name: Some("a.example".into()), protocols: vec!["istio".into(), "h2".into()] };
        assert_eq!(client_hello(&bytes), Look::Found(found.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..cut]), Look::More, "{cut}");
        }
        assert_eq!(client_hello(&in_records(&bytes, 50)), Look::Found(found));
        assert_eq!(client_hello(&hello("127.0.0.1", &[])), Look::Found(Hello::default()));
    }

    #[test]
    fn what_is_no_client_hello_is_known_at_once() {
        assert_eq!(client_hello(b"G"), Look::Other);
        assert_eq!(client_hello(&[22, 1]), Look::Other);
        assert_eq!(client_hello(&[22, 3, 1, 0, 5, 2]), Look::Other, "a ServerHello");
        assert_eq!(client_hello(&[22, 3, 1, 0, 5, 1, 1, 0, 0]), Look::Other, "too long");
        assert_eq!(client_hello(&[22, 3, 1, 0, 0]), Look::Other);
        assert_eq!(client_hello(&[]), Look::More);
    }

    #[test]
    fn http_is_told_apart_by_its_first_line() {
        assert_eq!(http_version(b"PRI * HTTP/2.0\r\n\r\nSM"), Look::Found("h2c"));
        assert_eq!(http_version(b"PRI * HT"), Look::More);
        assert_eq!(http_version(b"POST / HTTP/1.1\r\n"), Look::Found("http/1.1"));
        assert_eq!(http_version(b"PRINT /a HTTP/1.0\r\n"), Look::Found("http/1.0"));
        assert_eq!(http_version(b"GET / HTTP/1"), Look::More);
        assert_eq!(http_version(b"GET /\r\n"), Look::Other);
        assert_eq!(http_version(b"\x00\x01"), Look::Other);
        assert_eq!(preface(b"P"), Look::More);
        assert_eq!(preface(b"PO"), Look::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(mut bytes in prop::collection::vec(any::<u8>(), 0..300), tls: bool) {
            if tls && bytes.len() > 5 {
                bytes[..5].copy_from_slice(&[22, 3, 1, 0, 200]);
                bytes[5] = 1;
            }
            let _ = (client_hello(&bytes), http_version(&bytes));
        }

        #[test]
        fn a_hello_with_broken_bytes_is_found_or_not(at in 0usize..250, byte: u8) {
            let mut bytes = hello("a.example", &["h2"]);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = client_hello(&bytes);
        }
    }
}
