//! Follows requests through a byte stream: head, body, next head. It keeps no bytes, so that a stream gets the same
//! verdict however it is cut into reads; the property tests hold it to that.
//!
//! It is stricter than the parser behind it and reads only what decides where a request ends.

mod body;

use super::bytes::{run_above, run_of_token, run_of_value};
use super::head::{Body, Field, Head};
use super::rule::Rule;

/// Largest head, leading empty lines and trailers included.
const HEAD_SIZE: u32 = 60 * 1024;
/// Most fields in a head or a trailer section: hyper's own default.
const HEAD_FIELDS: u8 = 100;

/// How far a stream was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Bytes from the start that may be shown to the parser: all but the beginning of a head that is not complete, and
    /// what follows a refusal or a request for a tunnel.
    pub(super) shown: usize,
    /// Bytes that were looked at.
    pub(super) used: usize,
    /// A head that asks for a tunnel was completed.
    pub(super) asked: bool,
}

/// Where in a request the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a request; empty lines are skipped.
    Start,
    StartLf,
    Method,
    Target {
        empty: bool,
    },
    Version(u8),
    RequestLineLf,
    LineStart,
    Name {
        empty: bool,
    },
    Value(Field),
    ValueLf(Field),
    HeadLf,
    /// So many bytes of the body are to come.
    Sized(u64),
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkExtension {
        size: u64,
        length: u32,
    },
    ChunkSizeLf(u64),
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    TrailerStart,
    TrailerName {
        empty: bool,
    },
    TrailerValue,
    TrailerLf,
    TrailersLf,
    /// After a request for a tunnel that is not decided.
    Undecided,
    /// After the last request: nothing counts any more.
    Finished,
    Refused(Rule),
}

/// Where a stream stands between two reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Between requests.
    Idle,
    /// In a head.
    Head,
    /// In a body.
    Body,
    /// After a request for a tunnel, [`Scanner::tunnel_refused`] or nobody says how it goes on.
    Undecided,
    /// After the last request.
    Finished,
    /// A rule was broken.
    Refused(Rule),
}

/// The follower of one connection's requests.
#[derive(Debug)]
pub(super) struct Scanner {
    at: At,
    head: Head,
    /// Bytes of the head, or of the trailers, so far.
    size: u32,
    /// Heads that were complete.
    requests: u64,
    /// The rule was broken within a body.
    in_body: bool,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { at: At::Start, head: Head::default(), size: 0, requests: 0, in_body: false }
    }

    /// Heads that were complete.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// A rule was broken within a body: the head before it was shown.
    pub(super) fn refused_in_body(&self) -> bool {
        self.in_body
    }

    pub(super) fn standing(&self) -> Standing {
        match self.at {
            At::Start => Standing::Idle,
            At::Undecided => Standing::Undecided,
            At::Finished => Standing::Finished,
            At::Refused(rule) => Standing::Refused(rule),
            at if at.is_head() => Standing::Head,
            _ => Standing::Body,
        }
    }

    /// The request for a tunnel was answered otherwise.
    pub(super) fn tunnel_refused(&mut self) {
        if self.at == At::Undecided {
            // What follows a CONNECT was meant for the other end.
            self.at = if self.head.is_connect() || self.head.is_last() { At::Finished } else { At::Start };
            self.size = 0;
        }
    }

    /// Breaks `rule` from outside.
    pub(super) fn refuse(&mut self, rule: Rule) {
        if !matches!(self.at, At::Refused(_)) {
            self.at = At::Refused(rule);
        }
    }

    /// Looks at the bytes that came in.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut used = 0;
        let mut shown = 0;
        let mut asked = false;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            if matches!(self.at, At::Undecided | At::Finished | At::Refused(_)) {
                break;
            }
            let (was_head, is_limited) = (self.at.is_head(), self.at.is_limited());
            let room = if is_limited { (HEAD_SIZE - self.size) as usize } else { rest.len() };
            let outcome = match rest.get(..room.min(rest.len())) {
                Some([]) => Err(Rule::HeadSize),
                Some(rest) if was_head => self.pass_head(rest),
                Some(rest) => self.step_body(rest),
                None => Ok(0),
            };
            match outcome {
                Ok(taken) => {
                    used += taken;
                    if is_limited {
                        self.size += taken as u32;
                    }
                    if self.at == At::Start {
                        self.size = 0;
                    } else if was_head && !self.at.is_in_head() {
                        self.size = 0;
                        asked |= self.head.asks_for_tunnel();
                    }
                    if !self.at.is_in_head() {
                        shown = used;
                    }
                }
                Err(rule) => {
                    self.in_body = !was_head;
                    self.at = At::Refused(rule);
                }
            }
        }
        Scanned { shown, used, asked }
    }

    /// Takes `bytes` up to the end of the head, of an empty line before it, or of what there is.
    fn pass_head(&mut self, bytes: &[u8]) -> Result<usize, Rule> {
        let mut taken = 0;
        while let Some((rest, first)) = bytes.get(taken..).and_then(|rest| Some((rest, *rest.first()?))) {
            taken += match self.at {
                At::LineStart | At::Name { .. } | At::Value(_) | At::ValueLf(_) | At::HeadLf => {
                    self.step_field(rest, first)?
                }
                _ => self.step_request_line(rest, first)?,
            };
            if !self.at.is_in_head() {
                break;
            }
        }
        Ok(taken)
    }

    fn step_request_line(&mut self, bytes: &[u8], first: u8) -> Result<usize, Rule> {
        match self.at {
            At::Start if first == b'\r' => self.go(At::StartLf, 1),
            At::Start if first == b'\n' => Err(Rule::BareLineBreak),
            At::Start => {
                self.head = Head::default();
                self.go(At::Method, 0)
            }
            At::StartLf => self.line_feed(first, At::Start),
            At::Method => {
                let taken = run_of_token(bytes);
                let part = bytes.get(..taken).unwrap_or_default();
                match bytes.get(taken) {
                    None => {
                        self.head.part(part);
                        Ok(taken)
                    }
                    Some(b' ') if self.head.end_method(part) => {
                        self.go(At::Target { empty: true }, taken + 1)
                    }
                    Some(&other) => Err(break_or(other, Rule::RequestLine)),
                }
            }
            At::Target { empty } => {
                let taken = run_above(bytes, b' ');
                let empty = empty && taken == 0;
                // A fragment has no place in a request: the URI parser would drop it, and another party may not.
                if bytes.get(..taken).unwrap_or_default().contains(&b'#') {
                    return Err(Rule::Target);
                }
                match bytes.get(taken) {
                    None => self.go(At::Target { empty }, taken),
                    Some(b' ') if !empty => self.go(At::Version(0), taken + 1),
                    Some(&other) => Err(break_or(other, Rule::RequestLine)),
                }
            }
            At::Version(0) if bytes.starts_with(b"HTTP/1.1\r") => self.go(At::RequestLineLf, 9),
            At::Version(at) => self.step_version(first, at),
            _ => self.line_feed(first, At::LineStart),
        }
    }

    fn step_version(&mut self, first: u8, at: u8) -> Result<usize, Rule> {
        match b"HTTP/1.".get(usize::from(at)) {
            Some(&wanted) if first == wanted => self.go(At::Version(at + 1), 1),
            // A digit in another place is another version, anything else no version at all.
            Some(b'1') if first.is_ascii_digit() => Err(Rule::Version),
            Some(_) => Err(break_or(first, Rule::RequestLine)),
            None if at == 7 => match first {
                b'0' | b'1' => {
                    self.head.version(first == b'0');
                    self.go(At::Version(8), 1)
                }
                b'2'..=b'9' => Err(Rule::Version),
                _ => Err(break_or(first, Rule::RequestLine)),
            },
            None if first == b'\r' => self.go(At::RequestLineLf, 1),
            None => Err(break_or(first, Rule::RequestLine)),
        }
    }

    fn step_field(&mut self, bytes: &[u8], first: u8) -> Result<usize, Rule> {
        match self.at {
            At::LineStart => match first {
                b'\r' => self.go(At::HeadLf, 1),
                b' ' | b'\t' => Err(Rule::FoldedHeader),
                _ if self.head.fields == HEAD_FIELDS => Err(Rule::HeadFields),
                _ => {
                    self.head.fields += 1;
                    match self.whole_field(bytes)? {
                        Some(taken) => Ok(taken),
                        None => self.go(At::Name { empty: true }, 0),
                    }
                }
            },
            At::Name { empty } => {
                let taken = run_of_token(bytes);
                let empty = empty && taken == 0;
                let part = bytes.get(..taken).unwrap_or_default();
                match bytes.get(taken) {
                    None => {
                        self.head.part(part);
                        self.go(At::Name { empty }, taken)
                    }
                    Some(b':') if !empty => {
                        let field = self.head.end_name(part)?;
                        self.go(At::Value(field), taken + 1)
                    }
                    Some(&other) => Err(break_or(other, Rule::HeaderName)),
                }
            }
            At::Value(field) => {
                let taken = run_of_value(bytes);
                if field != Field::Other {
                    self.head.value(field, bytes.get(..taken).unwrap_or_default())?;
                }
                match bytes.get(taken) {
                    None => Ok(taken),
                    Some(b'\r') => self.go(At::ValueLf(field), taken + 1),
                    Some(&other) => Err(break_or(other, Rule::ControlByte)),
                }
            }
            At::ValueLf(field) => {
                if first == b'\n' && field != Field::Other {
                    self.head.end_value(field)?;
                }
                self.line_feed(first, At::LineStart)
            }
            _ => {
                let taken = self.line_feed(first, At::HeadLf)?;
                let body = self.head.end()?;
                self.requests += 1;
                match body {
                    Body::Sized(0) => self.end_request(),
                    Body::Sized(length) => self.at = At::Sized(length),
                    Body::Chunked => self.at = At::ChunkSize { size: 0, digits: 0 },
                }
                Ok(taken)
            }
        }
    }

    /// Takes a line that is here whole and proper, as nearly all are; others are left to the steps.
    #[inline]
    fn whole_field(&mut self, bytes: &[u8]) -> Result<Option<usize>, Rule> {
        let (name, rest) = bytes.split_at(run_of_token(bytes));
        let Some(rest) = rest.strip_prefix(b":").filter(|_| !name.is_empty()) else { return Ok(None) };
        let (value, end) = rest.split_at(run_of_value(rest));
        if !end.starts_with(b"\r\n") {
            return Ok(None);
        }
        let field = self.head.end_name(name)?;
        if field != Field::Other {
            self.head.value(field, value)?;
            self.head.end_value(field)?;
        }
        Ok(Some(name.len() + 1 + value.len() + 2))
    }

    fn go(&mut self, at: At, taken: usize) -> Result<usize, Rule> {
        self.at = at;
        Ok(taken)
    }

    fn line_feed(&mut self, first: u8, then: At) -> Result<usize, Rule> {
        match first {
            b'\n' => self.go(then, 1),
            _ => Err(Rule::BareLineBreak),
        }
    }

    fn end_request(&mut self) {
        self.size = 0;
        self.at = if self.head.asks_for_tunnel() {
            At::Undecided
        } else if self.head.is_last() {
            At::Finished
        } else {
            At::Start
        };
    }
}

impl At {
    /// A head began and is not complete.
    fn is_in_head(self) -> bool {
        self != At::Start && self.is_head()
    }

    fn is_head(self) -> bool {
        matches!(
            self,
            At::Start
                | At::StartLf
                | At::Method
                | At::Target { .. }
                | At::Version(_)
                | At::RequestLineLf
                | At::LineStart
                | At::Name { .. }
                | At::Value(_)
                | At::ValueLf(_)
                | At::HeadLf
        )
    }

    /// Its bytes are limited in sum.
    fn is_limited(self) -> bool {
        self.is_head()
            || matches!(
                self,
                At::TrailerStart | At::TrailerName { .. } | At::TrailerValue | At::TrailerLf | At::TrailersLf
            )
    }
}

/// What breaks a line where `byte` is not expected.
fn break_or(byte: u8, rule: Rule) -> Rule {
    match byte {
        b'\n' => Rule::BareLineBreak,
        b'\r' | b'\t' => rule,
        0..=0x1f | 0x7f => Rule::ControlByte,
        _ => rule,
    }
}
