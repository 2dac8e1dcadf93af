//! Framing held against a naive splitter, and against itself under every way of cutting a stream.
#![allow(clippy::unwrap_used)]

use super::{Decoder, Rule, parse_request};
use bytes::BytesMut;
use proptest::prelude::*;

/// Where a stream stands when all of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Between requests.
    Idle,
    /// In a head.
    Head,
    /// In a body.
    Body,
    /// Behind the last request, or one that asks for a tunnel.
    Finished,
    /// A rule was broken.
    Refused(Rule),
}

/// Reads a stream as a connection does. Returns the bytes that were taken, the complete heads and where it stands.
fn read(parts: &[&[u8]]) -> (usize, u64, Standing) {
    let mut inbox = BytesMut::new();
    let (mut came, mut requests) = (0, 0);
    let mut decoder = Decoder::OVER;
    let mut is_finished = false;
    for part in parts {
        inbox.extend_from_slice(part);
        came += part.len();
        loop {
            if decoder.is_over() {
                if is_finished {
                    return (came - inbox.len(), requests, Standing::Finished);
                }
                match parse_request(&mut inbox, false) {
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        requests += 1;
                        decoder = Decoder::new(head.length);
                        is_finished = head.is_last || head.asks_for_tunnel;
                    }
                    Err(rule) => return (came - inbox.len(), requests, Standing::Refused(rule)),
                }
            } else {
                match decoder.take(&mut inbox) {
                    Ok(Some(_)) => {}
                    Ok(None) if decoder.is_over() => {}
                    Ok(None) => break,
                    Err(rule) => return (came - inbox.len(), requests, Standing::Refused(rule)),
                }
            }
        }
    }
    let standing = match (decoder.is_over(), inbox.is_empty()) {
        (true, true) => Standing::Idle,
        (true, false) => Standing::Head,
        (false, _) => Standing::Body,
    };
    (came - inbox.len(), requests, standing)
}

fn verdict(text: &str) -> Standing {
    read(&[text.as_bytes()]).2
}

fn refused(text: &str) -> Option<Rule> {
    match verdict(text) {
        Standing::Refused(rule) => Some(rule),
        _ => None,
    }
}

fn with(lines: &str) -> Option<Rule> {
    refused(&format!("POST /a HTTP/1.1\r\nhost: a\r\n{lines}\r\n"))
}

#[test]
fn proper_requests_pass() {
    for text in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost:\t[::1]:80 \r\nx:\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHOST:a\r\nx: \u{fc}\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3 \r\n\r\nabcGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n00\r\nt: u\r\n\r\n",
    ] {
        assert_eq!(verdict(text), Standing::Idle, "{text:?}");
        assert_eq!(read(&[text.as_bytes()]).0, text.len());
    }
}

#[test]
fn what_is_in_the_middle_is_known() {
    assert_eq!(verdict("GET / HT"), Standing::Head);
    assert_eq!(verdict("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab"), Standing::Body);
    assert_eq!(verdict("GET / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\n\r\nrest"), Standing::Finished);
    assert_eq!(verdict("GET / HTTP/1.0\r\n\r\n"), Standing::Finished);
    assert_eq!(verdict("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nGET"), Standing::Finished);
    assert_eq!(verdict("GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\n\r\n\x01"), Standing::Finished);
    assert_eq!(verdict("GET / HTTP/1.0\r\nconnection: keep-alive\r\nupgrade: x\r\n\r\n"), Standing::Idle);
}

#[test]
fn lengths_that_can_be_read_in_two_ways_are_refused() {
    assert_eq!(with("content-length: 3\r\ntransfer-encoding: chunked\r\n"), Some(Rule::TwoLengths));
    assert_eq!(with("transfer-encoding: chunked\r\ncontent-length: 3\r\n"), Some(Rule::TwoLengths));
    assert_eq!(with("content-length: 3\r\ncontent-length: 3\r\n"), Some(Rule::ContentLength));
    for value in ["3, 3", "3,3", "+3", "-3", "3 3", "0x3", "", " ", "3a", "18446744073709551616", "3.0"] {
        assert_eq!(with(&format!("content-length: {value}\r\n")), Some(Rule::ContentLength), "{value:?}");
    }
    for value in
        ["gzip", "chunked, chunked", "gzip, chunked", "xchunked", "chunked;a", "\"chunked\"", "", "chunked x"]
    {
        assert_eq!(
            with(&format!("transfer-encoding: {value}\r\n")),
            Some(Rule::TransferEncoding),
            "{value:?}"
        );
    }
    assert_eq!(
        with("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        Some(Rule::TransferEncoding)
    );
    assert_eq!(
        refused("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"),
        Some(Rule::TransferEncodingVersion)
    );
    assert_eq!(
        refused("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 1\r\n\r\n"),
        Some(Rule::ConnectBody)
    );
}

#[test]
fn lines_that_are_none_are_refused() {
    assert_eq!(refused("GET / HTTP/1.1\nhost: a\n\n"), Some(Rule::BareLineBreak));
    assert_eq!(refused("\nGET / HTTP/1.1\r\n"), Some(Rule::BareLineBreak));
    assert_eq!(refused("GET /a#b HTTP/1.1\r\n"), Some(Rule::Target), "the URI parser would drop it unsaid");
    assert_eq!(with("x: a\rb\r\n"), Some(Rule::BareLineBreak));
    assert_eq!(with("x: a\ny: b\r\n"), Some(Rule::BareLineBreak));
    assert_eq!(with("x: a\r\n b\r\n"), Some(Rule::FoldedHeader));
    assert_eq!(refused("GET / HTTP/1.1\r\n host: a\r\n\r\n"), Some(Rule::FoldedHeader));
    assert_eq!(with("x: a\0b\r\n"), Some(Rule::ControlByte));
    assert_eq!(with("x: a\x7f\r\n"), Some(Rule::ControlByte));
    assert_eq!(with("x : a\r\n"), Some(Rule::HeaderName));
    assert_eq!(with(": a\r\n"), Some(Rule::HeaderName));
    assert_eq!(with("x\r\n"), Some(Rule::HeaderName));
    assert_eq!(with("x(: a\r\n"), Some(Rule::HeaderName));
    assert_eq!(refused("\x16\x03\x01"), Some(Rule::ControlByte));
}

#[test]
fn request_lines_and_hosts_are_checked() {
    for line in ["GET /", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET /a b HTTP/1.1", " GET / HTTP/1.1", "GET"]
    {
        assert_eq!(refused(&format!("{line}\r\nhost: a\r\n\r\n")), Some(Rule::RequestLine), "{line:?}");
    }
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9"] {
        assert_eq!(refused(&format!("GET / {version}\r\n\r\n")), Some(Rule::Version), "{version}");
    }
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Some(Rule::HostMissing));
    assert_eq!(refused("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"), Some(Rule::Host));
    for host in ["a, b", "a b", "a/b", "u@a", "a#"] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")), Some(Rule::Host), "{host}");
    }
}

#[test]
fn chunks_are_checked_and_the_rest_of_the_body_is_not_taken() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for (body, rule) in [
        ("\r\n", Rule::ChunkSize),
        ("x\r\n", Rule::ChunkSize),
        ("-1\r\n", Rule::ChunkSize),
        ("0x1\r\n", Rule::ChunkSize),
        ("1 \r\n", Rule::ChunkSize),
        ("1\n", Rule::BareLineBreak),
        ("1;a\n", Rule::BareLineBreak),
        ("1\ra\n", Rule::BareLineBreak),
        ("00000000000000001\r\n", Rule::ChunkSize),
        ("1\r\nab\r\n", Rule::ChunkEnd),
        ("1\r\na\n", Rule::ChunkEnd),
        ("0\r\nx: y\n\r\n", Rule::BareLineBreak),
        ("0\r\n x: y\r\n\r\n", Rule::FoldedHeader),
        ("0\r\nx\r\n\r\n", Rule::HeaderName),
    ] {
        let text = format!("{head}{body}");
        assert_eq!(refused(&text), Some(rule), "{body:?}");
        assert!(read(&[text.as_bytes()]).0 < text.len());
    }
    let long = format!("{head}1;{}\r\na\r\n", "x".repeat(2000));
    assert_eq!(refused(&long), Some(Rule::ChunkSize));
}

#[test]
fn heads_are_bounded() {
    assert_eq!(with(&format!("x: {}\r\n", "a".repeat(70_000))), Some(Rule::HeadSize));
    assert_eq!(with(&"x: a\r\n".repeat(99)), None);
    assert_eq!(with(&"x: a\r\n".repeat(100)), Some(Rule::HeadFields));
    assert_eq!(refused(&"A".repeat(70_000)), Some(Rule::HeadSize));
    assert_eq!(refused(&"\r\n".repeat(70_000)), None, "empty lines are forgotten, not gathered");
    let trailers = format!("0\r\n{}\r\n", "x: a\r\n".repeat(101));
    assert_eq!(
        refused(&format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{trailers}")),
        Some(Rule::HeadFields)
    );
}

/// A splitter that is easy to believe: it looks at whole heads as text and knows nothing of partial ones.
/// Ends of the complete requests, and whether what follows them can be refused by its complete head or body.
fn split_naively(stream: &[u8]) -> (Vec<usize>, bool) {
    let find = |from: usize, what: &[u8]| {
        let rest = stream.get(from..)?;
        rest.windows(what.len()).position(|w| w == what).map(|at| from + at)
    };
    let mut ends = Vec::new();
    let mut at = 0;
    loop {
        while stream[at..].starts_with(b"\r\n") {
            at += 2;
        }
        let Some(head_end) = find(at, b"\r\n\r\n") else { return (ends, false) };
        let head = String::from_utf8_lossy(&stream[at..head_end]).into_owned();
        at = head_end + 4;
        let lines: Vec<&str> = head.split("\r\n").collect();
        let fields: Option<Vec<(String, &str)>> = lines[1..].iter().map(|l| naive_field(l)).collect();
        let Some(fields) = fields else { return (ends, true) };
        let of = |name: &str| {
            fields
                .iter()
                .filter(|(n, _)| n == name)
                .map(|(_, v)| v.trim_matches([' ', '\t']))
                .collect::<Vec<_>>()
        };
        let method = lines[0].strip_suffix(" /p HTTP/1.1").unwrap_or_default();
        let is_method = !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_method || of("host").len() != 1 {
            return (ends, true);
        }
        match (of("content-length").as_slice(), of("transfer-encoding").as_slice()) {
            ([], []) => {}
            ([length], []) => {
                match length.bytes().all(|b| b.is_ascii_digit()).then(|| length.parse::<usize>()) {
                    Some(Ok(length)) if length <= stream.len() - at => at += length,
                    Some(Ok(_)) => return (ends, false),
                    _ => return (ends, true),
                }
            }
            ([], ["chunked"]) => loop {
                let Some(line_end) = find(at, b"\r\n") else { return (ends, false) };
                let line = String::from_utf8_lossy(&stream[at..line_end]).into_owned();
                if line.is_empty() || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return (ends, true);
                }
                let size = usize::from_str_radix(&line, 16).unwrap();
                at = line_end + 2;
                if stream.len() < at + size + 2 {
                    return (ends, false);
                }
                if &stream[at + size..at + size + 2] != b"\r\n" {
                    return (ends, true);
                }
                at += size + 2;
                if size == 0 {
                    break;
                }
            },
            _ => return (ends, true),
        }
        ends.push(at);
    }
}

fn naive_field(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_proper = !name.is_empty() && name.bytes().all(is_token) && !value.contains(['\r', '\n', '\0']);
    is_proper.then(|| (name.to_ascii_lowercase(), value))
}

/// Pieces that make nearly proper streams when put together.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "POST /p HTTP/1.1\r\n",
        "POST /p HTTP/1.1\r\nHost: a\r\n",
        "POST /p HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n",
        "host: a\r\n",
        "x: y\r\n",
        "Content-Length: 4\r\n",
        "content-length: 4, 4\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "\r",
        "\n",
        "\0",
        "abcd",
        "4\r\nabcd\r\n",
        "0\r\n\r\n",
        " ",
        ":",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn requests_end_where_a_naive_splitter_ends_them(pieces in prop::collection::vec(piece(), 0..12)) {
        let stream = pieces.concat().into_bytes();
        let (ends, is_bad) = split_naively(&stream);
        let (shown, requests, standing) = read(&[&stream]);
        let is_refused = matches!(standing, Standing::Refused(_));
        prop_assert!(is_refused || !is_bad, "{standing:?} but the splitter found a fault");
        if !is_refused {
            prop_assert!(requests as usize == ends.len() || requests as usize == ends.len() + 1);
        }
        prop_assert!(shown >= ends.last().copied().unwrap_or(0));
        for (count, end) in ends.iter().enumerate() {
            let (shown, requests, standing) = read(&[&stream[..*end]]);
            prop_assert_eq!((shown, requests, standing), (*end, count as u64 + 1, Standing::Idle));
        }
    }

    #[test]
    fn a_stream_gets_the_same_verdict_however_it_is_cut(
        pieces in prop::collection::vec(piece(), 0..12), cuts in prop::collection::vec(0usize..200, 0..20),
    ) {
        same_for_cuts(pieces.concat().as_bytes(), cuts)?;
    }

    #[test]
    fn arbitrary_bytes_get_the_same_verdict_however_they_are_cut(
        start in piece(), bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0usize..200, 0..20),
    ) {
        same_for_cuts(&bytes, cuts.clone())?;
        same_for_cuts(&[start.as_bytes(), &bytes].concat(), cuts)?;
    }
}

fn same_for_cuts(stream: &[u8], mut cuts: Vec<usize>) -> Result<(), TestCaseError> {
    let whole = read(&[stream]);
    let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
    prop_assert_eq!(read(&bytewise), whole);
    cuts.retain(|cut| *cut < stream.len());
    cuts.sort_unstable();
    let mut parts = Vec::new();
    let mut from = 0;
    for cut in cuts {
        parts.push(&stream[from..cut]);
        from = cut;
    }
    parts.push(&stream[from..]);
    prop_assert_eq!(read(&parts), whole);
    Ok(())
}
