//! Heads and trailers, read from the bytes where they lie. A head that is not there as a whole is looked at again from its
//! beginning when more came; so the verdict on a stream does not depend on how it is cut, and nothing is kept meanwhile.

use super::bytes::{run_above, run_of_token, run_of_value};
use super::case::Names;
use super::framing::{Framing, Length};
use super::rule::Rule;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use smallvec::SmallVec;

/// Largest head of a request, and of trailers.
const HEAD_SIZE: usize = 60 * 1024;
/// Most fields in a request's head, and in trailers.
const HEAD_FIELDS: usize = 100;
/// The same of an answer.
const ANSWER_FIELDS: usize = 200;

/// A request's head, and how its connection goes on.
pub(crate) struct RequestHead {
    /// The head.
    pub(crate) parts: http::request::Parts,
    /// Its body.
    pub(crate) length: Length,
    /// No request follows it.
    pub(crate) is_last: bool,
    /// What follows it may be a tunnel's.
    pub(crate) asks_for_tunnel: bool,
    /// The client waits for leave to send the body.
    pub(crate) expects_continue: bool,
}

/// An answer's head, and how its connection goes on.
pub(crate) struct ResponseHead {
    /// The head.
    pub(crate) parts: http::response::Parts,
    /// Its body, where it may have one.
    pub(crate) length: Length,
    /// No answer follows it.
    pub(crate) is_last: bool,
}

/// Where a field lies.
#[derive(Clone, Copy, Default)]
struct Span {
    name: (u32, u32),
    value: (u32, u32),
}

type Spans = SmallVec<[Span; 24]>;

/// Takes a request's head from the front of `inbox`, and empty lines before it; `None` while it is not complete.
/// `keeps_names` is for those who write names as they came.
pub(crate) fn parse_request(inbox: &mut BytesMut, keeps_names: bool) -> Result<Option<RequestHead>, Rule> {
    while inbox.starts_with(b"\r\n") {
        drop(inbox.split_to(2));
    }
    match (inbox.first(), inbox.get(1)) {
        (Some(b'\r'), None) => return Ok(None),
        (Some(b'\r'), Some(_)) => return Err(Rule::BareLineBreak),
        _ => {}
    }
    let seen = inbox.get(..HEAD_SIZE).unwrap_or(inbox);
    let mut framing = Framing::default();
    let mut spans = Spans::new();
    let Some((line, end)) = request(seen, &mut framing, &mut spans)? else {
        return if inbox.len() > HEAD_SIZE { Err(Rule::HeadSize) } else { Ok(None) };
    };
    let length = framing.of_request()?;
    let bytes = take(inbox, end);
    let mut request = http::Request::new(());
    *request.method_mut() =
        Method::from_bytes(bytes.get(..line.method).unwrap_or_default()).map_err(|_| Rule::RequestLine)?;
    let target = bytes.slice(line.method + 1..line.target);
    *request.uri_mut() = Uri::from_maybe_shared(target).map_err(|_| Rule::Target)?;
    *request.version_mut() = if framing.is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = fields(&bytes, &spans)?;
    if let Some(names) = names(keeps_names, &bytes, &spans) {
        request.extensions_mut().insert(names);
    }
    let (parts, ()) = request.into_parts();
    Ok(Some(RequestHead {
        parts,
        length,
        is_last: framing.is_last(),
        asks_for_tunnel: framing.is_connect || (framing.has_upgrade && !framing.is_http10),
        expects_continue: framing.expects_continue && !framing.is_http10,
    }))
}

/// Takes an answer's head from the front of `inbox`; `None` while it is not complete. Answers may end their lines with a
/// bare LF (RFC 9112, 2.2): what comes from an endpoint is read by nobody before us.
pub(crate) fn parse_response(inbox: &mut BytesMut, keeps_names: bool) -> Result<Option<ResponseHead>, Rule> {
    let seen = inbox.get(..HEAD_SIZE).unwrap_or(inbox);
    let mut framing = Framing::default();
    let mut spans = Spans::new();
    let Some((status, end)) = response(seen, &mut framing, &mut spans)? else {
        return if inbox.len() > HEAD_SIZE { Err(Rule::HeadSize) } else { Ok(None) };
    };
    let bytes = take(inbox, end);
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if framing.is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = fields(&bytes, &spans)?;
    if let Some(names) = names(keeps_names, &bytes, &spans) {
        response.extensions_mut().insert(names);
    }
    let (parts, ()) = response.into_parts();
    Ok(Some(ResponseHead { parts, length: framing.of_answer(), is_last: framing.is_last() }))
}

/// Takes trailers from the front of `inbox`; `None` while they are not complete.
pub(super) fn parse_trailers(inbox: &mut BytesMut) -> Result<Option<HeaderMap>, Rule> {
    let seen = inbox.get(..HEAD_SIZE).unwrap_or(inbox);
    let mut spans = Spans::new();
    let limits = Limits { fields: HEAD_FIELDS, bare_line_feeds: false };
    let Some(end) = field_lines(seen, 0, limits, |_, _| Ok(()), &mut spans)? else {
        return if inbox.len() > HEAD_SIZE { Err(Rule::HeadSize) } else { Ok(None) };
    };
    let bytes = take(inbox, end);
    fields(&bytes, &spans).map(Some)
}

/// The first `end` bytes. What is left over, if anything, stays.
fn take(inbox: &mut BytesMut, end: usize) -> Bytes {
    match inbox.len() == end {
        true => std::mem::take(inbox).freeze(),
        false => inbox.split_to(end).freeze(),
    }
}

fn names(keeps: bool, bytes: &Bytes, spans: &Spans) -> Option<Names> {
    match keeps {
        true => Names::of(spans.iter().map(|span| bytes.slice(span.name.0 as usize..span.name.1 as usize))),
        false => None,
    }
}

fn fields(bytes: &Bytes, spans: &Spans) -> Result<HeaderMap, Rule> {
    let mut headers = HeaderMap::with_capacity(spans.len() + 4);
    for span in spans {
        let name = bytes.get(span.name.0 as usize..span.name.1 as usize).unwrap_or_default();
        let name = HeaderName::from_bytes(name).map_err(|_| Rule::HeaderName)?;
        let value = bytes.slice(span.value.0 as usize..span.value.1 as usize);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Rule::ControlByte)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Ends of a request line's first two words.
struct RequestLine {
    method: usize,
    target: usize,
}

fn request(
    bytes: &[u8],
    framing: &mut Framing,
    spans: &mut Spans,
) -> Result<Option<(RequestLine, usize)>, Rule> {
    let method = run_of_token(bytes);
    match bytes.get(method) {
        None => return Ok(None),
        Some(b' ') if method > 0 => {}
        Some(&other) => return Err(break_or(other, Rule::RequestLine)),
    }
    framing.is_connect = bytes.get(..method) == Some(b"CONNECT");
    let rest = bytes.get(method + 1..).unwrap_or_default();
    let length = run_above(rest, b' ');
    // A fragment has no place in a request: the URI parser would drop it, and another party may not.
    if rest.get(..length).unwrap_or_default().contains(&b'#') {
        return Err(Rule::Target);
    }
    match rest.get(length) {
        None => return Ok(None),
        Some(b' ') if length > 0 => {}
        Some(&other) => return Err(break_or(other, Rule::RequestLine)),
    }
    let target = method + 1 + length;
    let Some(is_http10) = version(rest.get(length + 1..).unwrap_or_default())? else { return Ok(None) };
    framing.is_http10 = is_http10;
    let limits = Limits { fields: HEAD_FIELDS, bare_line_feeds: false };
    let from = target + 1 + b"HTTP/1.1\r\n".len();
    let end = field_lines(bytes, from, limits, |name, value| framing.field(name, value), spans)?;
    Ok(end.map(|end| (RequestLine { method, target }, end)))
}

/// Whether the version at the end of a request line is 1.0.
#[inline]
fn version(bytes: &[u8]) -> Result<Option<bool>, Rule> {
    if bytes.starts_with(b"HTTP/1.1\r\n") {
        return Ok(Some(false));
    }
    let mut is_http10 = false;
    for at in 0..10 {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        match (at, b"HTTP/1.".get(at)) {
            (_, Some(&wanted)) if byte == wanted => {}
            // A digit in another place is another version, anything else no version at all.
            (_, Some(b'1')) if byte.is_ascii_digit() => return Err(Rule::Version),
            (7, _) if matches!(byte, b'0' | b'1') => is_http10 = byte == b'0',
            (7, _) if byte.is_ascii_digit() => return Err(Rule::Version),
            (8, _) if byte == b'\r' => {}
            (9, _) if byte == b'\n' => {}
            (9, _) => return Err(Rule::BareLineBreak),
            _ => return Err(break_or(byte, Rule::RequestLine)),
        }
    }
    Ok(Some(is_http10))
}

fn response(
    bytes: &[u8],
    framing: &mut Framing,
    spans: &mut Spans,
) -> Result<Option<(StatusCode, usize)>, Rule> {
    let Some(line) = bytes.iter().position(|b| *b == b'\n') else {
        let is_begun = bytes.iter().zip(b"HTTP/1.").all(|(a, b)| a == b);
        return if is_begun { Ok(None) } else { Err(Rule::Version) };
    };
    let text = bytes.get(..line).unwrap_or_default();
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let rest = match text {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', rest @ ..] => {
            framing.is_http10 = *minor == b'0';
            rest
        }
        _ => return Err(Rule::Version),
    };
    let (code, reason) = rest.split_at_checked(3).ok_or(Rule::RequestLine)?;
    if !matches!(reason.first(), None | Some(b' ')) || run_of_value(reason) < reason.len() {
        return Err(Rule::RequestLine);
    }
    let status = StatusCode::from_bytes(code).map_err(|_| Rule::RequestLine)?;
    let limits = Limits { fields: ANSWER_FIELDS, bare_line_feeds: true };
    // `Host` means nothing in an answer.
    let judge = |name: &[u8], value: &[u8]| match name.len() {
        4 => Ok(()),
        _ => framing.field(name, value),
    };
    let end = field_lines(bytes, line + 1, limits, judge, spans)?;
    Ok(end.map(|end| (status, end)))
}

/// What field lines may be.
#[derive(Clone, Copy)]
struct Limits {
    fields: usize,
    bare_line_feeds: bool,
}

/// Reads field lines and the empty line behind them, `from` on. Returns where they end, `None` while they do not.
fn field_lines(
    bytes: &[u8],
    from: usize,
    limits: Limits,
    mut judge: impl FnMut(&[u8], &[u8]) -> Result<(), Rule>,
    spans: &mut Spans,
) -> Result<Option<usize>, Rule> {
    let mut at = from;
    loop {
        let line = bytes.get(at..).unwrap_or_default();
        match line.first() {
            None => return Ok(None),
            Some(b'\r') => {
                return match line.get(1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(at + 2)),
                    Some(_) => Err(Rule::BareLineBreak),
                };
            }
            Some(b'\n') if limits.bare_line_feeds => return Ok(Some(at + 1)),
            Some(b' ' | b'\t') => return Err(Rule::FoldedHeader),
            Some(_) if spans.len() == limits.fields => return Err(Rule::HeadFields),
            Some(_) => {}
        }
        let name = run_of_token(line);
        match line.get(name) {
            None => return Ok(None),
            Some(b':') if name > 0 => {}
            Some(&other) => return Err(break_or(other, Rule::HeaderName)),
        }
        let rest = line.get(name + 1..).unwrap_or_default();
        let length = run_of_value(rest);
        let ending = match (rest.get(length), rest.get(length + 1)) {
            (Some(b'\r'), Some(b'\n')) => 2,
            (Some(b'\n'), _) if limits.bare_line_feeds => 1,
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            (Some(b'\r'), Some(_)) => return Err(Rule::BareLineBreak),
            (Some(&other), _) => return Err(break_or(other, Rule::ControlByte)),
        };
        let value = rest.get(..length).unwrap_or_default();
        let lead = value.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let value = value.get(lead..).unwrap_or_default();
        let trail = value.iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let value = value.get(..value.len() - trail).unwrap_or_default();
        judge(line.get(..name).unwrap_or_default(), value)?;
        let begin = at + name + 1 + lead;
        spans.push(Span {
            name: (at as u32, (at + name) as u32),
            value: (begin as u32, (begin + value.len()) as u32),
        });
        at += name + 1 + length + ending;
    }
}

/// What breaks a line where `byte` is not expected.
pub(super) fn break_or(byte: u8, rule: Rule) -> Rule {
    match byte {
        b'\n' => Rule::BareLineBreak,
        b'\r' | b'\t' => rule,
        0..=0x1f | 0x7f => Rule::ControlByte,
        _ => rule,
    }
}
