//! What a load balancer in front says of a connection before its first byte: the PROXY protocol, versions 1 and 2. The
//! header is bounded; what stands behind the addresses in it is passed over.

use crate::record::{Caller, Note};
use crate::stream::Prefixed;
use model::listener::ProxyHeader;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncRead;

/// Time for the header to come in.
const PATIENCE: Duration = Duration::from_secs(15);
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, its end included.
const LINE: usize = 107;
/// Most bytes behind the fixed part of version 2; what is in it beside addresses takes some hundreds.
const LENGTH: usize = 4096;

/// Where a connection comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// What a header says.
#[derive(Debug)]
pub(super) struct Told {
    ends: Ends,
    notes: Vec<Note>,
}

impl Told {
    /// Lets `caller` be who the header says it is.
    pub(super) fn tell(self, caller: &mut Caller) {
        (caller.remote, caller.local) = (self.ends.source, self.ends.destination);
        caller.is_restored = true;
        if !self.notes.is_empty() {
            caller.notes = Some(self.notes.into());
        }
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// A header of so many bytes, and what it says; `None` is the load balancer's own connection.
    Whole(usize, Option<Ends>),
    /// Perhaps one, when more comes.
    More,
    /// Something else.
    Absent,
    /// One that cannot be read.
    Bad,
}

/// Why a connection is closed.
#[derive(Debug)]
pub(super) enum ProxiedError {
    /// Its header is missing, not proper or did not come in time.
    Bad,
    /// The client went away.
    Gone,
}

/// Takes the header off `stream`; `None` when it says nothing of the connection's ends.
pub(super) async fn ends<IO: AsyncRead + Unpin>(
    stream: &mut Prefixed<IO>,
    wanted: ProxyHeader,
) -> Result<Option<Told>, ProxiedError> {
    let reading = async {
        loop {
            match header(stream.first()) {
                Header::Whole(length, ends) => {
                    let header = stream.first().get(..length).filter(|_| wanted.keeps_tlvs);
                    let notes = header.map_or(Some(Vec::new()), notes).ok_or(ProxiedError::Bad)?;
                    stream.skip(length);
                    return Ok(ends.map(|ends| Told { ends, notes }));
                }
                Header::Absent if wanted.optional => return Ok(None),
                Header::Absent | Header::Bad => return Err(ProxiedError::Bad),
                Header::More => {}
            }
            match stream.read_more().await {
                Ok(0) | Err(_) => return Err(ProxiedError::Gone),
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Err(ProxiedError::Bad))
}

fn header(bytes: &[u8]) -> Header {
    if begins(bytes, SIGNATURE) {
        return if bytes.len() < SIGNATURE.len() { Header::More } else { second(bytes) };
    }
    if begins(bytes, b"PROXY ") {
        return if bytes.len() < 6 { Header::More } else { first(bytes) };
    }
    Header::Absent
}

/// Whether `bytes` are, as far as they go, what `wanted` begins with.
fn begins(bytes: &[u8], wanted: &[u8]) -> bool {
    let length = bytes.len().min(wanted.len());
    bytes.get(..length) == wanted.get(..length)
}

/// Version 1: a line of text.
fn first(bytes: &[u8]) -> Header {
    let line = bytes.get(..LINE.min(bytes.len())).unwrap_or_default();
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE { Header::More } else { Header::Bad };
    };
    let words = line.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    let words: Vec<&str> = words.unwrap_or_default().split(' ').collect();
    let whole = |ends| Header::Whole(end + 2, ends);
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => whole(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().ok()?;
                // A sign or zeros in front are no port.
                let port: u16 = port.parse().ok().filter(|n: &u16| n.to_string() == port)?;
                (ip.is_ipv4() == (*family == "TCP4")).then_some(SocketAddr::new(ip, port))
            };
            match (address(source, from), address(destination, to)) {
                (Some(source), Some(destination)) => whole(Some(Ends { source, destination })),
                _ => Header::Bad,
            }
        }
        _ => Header::Bad,
    }
}

/// Version 2: signature, version and command, family, length, addresses.
fn second(bytes: &[u8]) -> Header {
    let Some(&[command, family, high, low]) = bytes.get(12..16) else { return Header::More };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || length > LENGTH {
        return Header::Bad;
    }
    let Some(rest) = bytes.get(16..16 + length) else { return Header::More };
    let whole = |ends| Header::Whole(16 + length, ends);
    match (command & 0xf, family) {
        (0, _) => whole(None),
        (1, 0x11) => match rest {
            [a, b, c, d, e, f, g, h, ports @ ..] => {
                let ips = [Ipv4Addr::new(*a, *b, *c, *d), Ipv4Addr::new(*e, *f, *g, *h)];
                with_ports(ips.map(IpAddr::V4), ports).map_or(Header::Bad, |ends| whole(Some(ends)))
            }
            _ => Header::Bad,
        },
        (1, 0x21) => {
            let ip = |at: usize| {
                let bytes: [u8; 16] = rest.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(bytes)))
            };
            let ends = ip(0)
                .zip(ip(16))
                .and_then(|(source, destination)| with_ports([source, destination], rest.get(32..)?));
            ends.map_or(Header::Bad, |ends| whole(Some(ends)))
        }
        // Nothing is said of the family.
        (1, 0x00) => whole(None),
        _ => Header::Bad,
    }
}

/// What stands behind the addresses of a header of version 2; `None` where it is not proper.
fn notes(header: &[u8]) -> Option<Vec<Note>> {
    if !header.starts_with(SIGNATURE) {
        return Some(Vec::new());
    }
    let addresses = match header.get(13)? {
        0x11 => 12,
        0x21 => 36,
        _ => return Some(Vec::new()),
    };
    let mut rest = header.get(16 + addresses..)?;
    let mut notes = Vec::new();
    while let Some((kind, behind)) = rest.split_first() {
        let (length, behind) = behind.split_first_chunk::<2>()?;
        let (value, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
        notes.push((*kind, value.into()));
        rest = behind;
    }
    Some(notes)
}

fn with_ports([source, destination]: [IpAddr; 2], ports: &[u8]) -> Option<Ends> {
    let &[a, b, c, d, ..] = ports else { return None };
    Some(Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn ends_of(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_tell_the_ends_in_both_families() {
        let line = b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\nGET";
        assert_eq!(header(line), Header::Whole(38, ends_of("10.0.0.1:1000", "10.0.0.2:80")));
        let line = b"PROXY TCP6 ::1 ::2 1000 80\r\n";
        assert_eq!(header(line), Header::Whole(28, ends_of("[::1]:1000", "[::2]:80")));
        assert_eq!(header(b"PROXY UNKNOWN what ever\r\n"), Header::Whole(25, None));
        let four = [10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, 80, 1, 2, 3];
        let told = Header::Whole(31, ends_of("10.0.0.1:1000", "10.0.0.2:80"));
        assert_eq!(header(&version_2(0x21, 0x11, &four)), told);
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 7, 80);
        assert_eq!(header(&version_2(0x21, 0x21, &six)), Header::Whole(52, ends_of("[::1]:7", "[::2]:80")));
        assert_eq!(header(&version_2(0x20, 0, &[])), Header::Whole(16, None), "its own health check");
    }

    #[test]
    fn every_beginning_asks_for_more_and_what_is_not_proper_is_refused() {
        let line: &[u8] = b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n";
        let binary = version_2(0x21, 0x11, &[1; 12]);
        for whole in [line, &binary] {
            for at in 0..whole.len() {
                assert_eq!(header(&whole[..at]), Header::More, "{at}");
            }
        }
        for bad in [
            &b"PROXY TCP4 ::1 ::2 1 2\r\n"[..],
            b"PROXY TCP4 10.0.0.1 10.0.0.2 +1 80\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 99999\r\n",
            b"PROXY  TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
            b"PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n",
            &[&b"PROXY "[..], &[b'x'; 200]].concat(),
            &version_2(0x31, 0x11, &[1; 12]),
            &version_2(0x21, 0x11, &[1; 11]),
            &version_2(0x21, 0x31, &[1; 216]),
            &version_2(0x21, 0x11, &[1; LENGTH + 1]),
        ] {
            assert_eq!(header(bad), Header::Bad, "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(header(b"GET / HTTP/1.1\r\n"), Header::Absent);
        assert_eq!(header(b"\r\n\r\nX"), Header::Absent);
    }

    #[test]
    fn what_stands_behind_the_addresses_is_read_by_type() {
        let rest = [&[1; 12][..], &[0xea, 0, 3, 1, b'x', b'y', 4, 0, 0]].concat();
        let read = notes(&version_2(0x21, 0x11, &rest)).unwrap();
        assert_eq!(read, [(0xea, Box::from([1, b'x', b'y'])), (4, Box::from([]))]);
        assert_eq!(notes(&version_2(0x21, 0x11, &rest[..14])), None);
        assert_eq!(notes(b"PROXY UNKNOWN\r\n"), Some(vec![]));
    }

    #[tokio::test]
    async fn the_header_is_taken_off_and_its_absence_is_forgiven_where_it_may_be_absent() {
        let read = async |bytes: &[u8], optional| {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(bytes).await.unwrap();
            drop(client);
            let mut stream = Prefixed::new(server);
            let found = ends(&mut stream, ProxyHeader { optional, keeps_tlvs: false }).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            (found.map(|told| told.map(|told| told.ends)).map_err(|e| format!("{e:?}")), rest)
        };
        let line = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nhello";
        let told = ends_of("10.0.0.1:1", "10.0.0.2:2");
        assert_eq!(read(line, false).await, (Ok(told), b"hello".to_vec()));
        assert_eq!(read(b"hello", true).await, (Ok(None), b"hello".to_vec()));
        assert_eq!(read(b"hello", false).await.0, Err("Bad".to_owned()));
        assert_eq!(read(b"PRO", true).await.0, Err("Gone".to_owned()));
    }
}
