//! What one request's head says about framing, gathered while its bytes pass. Nothing of it is kept beyond a few
//! small counters, however the bytes are cut.

use super::rule::Rule;

/// Longest name that matters: `transfer-encoding`.
const NAME_LENGTH: usize = 17;

/// A header field as far as framing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Other,
    Host,
    Connection,
    Upgrade,
    ContentLength,
    TransferEncoding,
}

impl Field {
    fn named(name: &[u8]) -> Self {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => Self::Host,
            7 if name.eq_ignore_ascii_case(b"upgrade") => Self::Upgrade,
            10 if name.eq_ignore_ascii_case(b"connection") => Self::Connection,
            14 if name.eq_ignore_ascii_case(b"content-length") => Self::ContentLength,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }
}

/// What comes after a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Sized(u64),
    Chunked,
}

/// A word that is gathered as its bytes come in.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    bytes: [u8; NAME_LENGTH],
    /// One more than fits means that it is too long to matter.
    length: u8,
}

impl Word {
    fn push(&mut self, part: &[u8]) {
        let from = usize::from(self.length);
        match self.bytes.get_mut(from..from + part.len()) {
            Some(room) => {
                room.copy_from_slice(part);
                self.length += part.len() as u8;
            }
            None => self.length = NAME_LENGTH as u8 + 1,
        }
    }

    fn is(&self, word: &[u8]) -> bool {
        self.text().eq_ignore_ascii_case(word)
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// How far a number or word in a value has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Before,
    Inside,
    After,
}

/// The head of the request that is coming in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    word: Word,
    place: Place,
    is_http10: bool,
    is_connect: bool,
    has_host: bool,
    has_upgrade: bool,
    is_chunked: bool,
    length: Option<u64>,
    closes: bool,
    keeps_alive: bool,
    pub(super) fields: u8,
}

impl Head {
    /// More of the method, or of a field's name, which goes on in the next read.
    pub(super) fn part(&mut self, part: &[u8]) {
        self.word.push(part);
    }

    /// The method is complete, `last` being its last part; whether it was there at all.
    pub(super) fn end_method(&mut self, last: &[u8]) -> bool {
        self.word.push(last);
        // Methods, unlike the other words here, are case-sensitive.
        self.is_connect = self.word.text() == b"CONNECT";
        std::mem::take(&mut self.word.length) > 0
    }

    pub(super) fn version(&mut self, is_http10: bool) {
        self.is_http10 = is_http10;
    }

    /// The name is complete, `last` being its last part: which field is it?
    #[inline]
    pub(super) fn end_name(&mut self, last: &[u8]) -> Result<Field, Rule> {
        let field = match self.word.length {
            0 => Field::named(last),
            _ => {
                self.word.push(last);
                Field::named(self.word.text())
            }
        };
        self.word.length = 0;
        self.place = Place::Before;
        match field {
            Field::Host if self.has_host => return Err(Rule::Host),
            Field::Host => self.has_host = true,
            Field::Upgrade => self.has_upgrade = true,
            Field::ContentLength if self.is_chunked => return Err(Rule::TwoLengths),
            Field::ContentLength if self.length.is_some() => return Err(Rule::ContentLength),
            Field::TransferEncoding if self.is_http10 => return Err(Rule::TransferEncodingVersion),
            Field::TransferEncoding if self.length.is_some() => return Err(Rule::TwoLengths),
            Field::TransferEncoding if self.is_chunked => return Err(Rule::TransferEncoding),
            _ => {}
        }
        Ok(field)
    }

    /// More of a field's value.
    pub(super) fn value(&mut self, field: Field, part: &[u8]) -> Result<(), Rule> {
        match field {
            Field::Other | Field::Upgrade => Ok(()),
            Field::Host => self.host(part),
            Field::Connection => {
                self.connection(part);
                Ok(())
            }
            Field::ContentLength => self.content_length(part),
            Field::TransferEncoding => self.transfer_encoding(part),
        }
    }

    /// The value is complete.
    pub(super) fn end_value(&mut self, field: Field) -> Result<(), Rule> {
        match field {
            Field::ContentLength if self.length.is_none() => return Err(Rule::ContentLength),
            Field::TransferEncoding if !self.word.is(b"chunked") => return Err(Rule::TransferEncoding),
            Field::TransferEncoding => self.is_chunked = true,
            Field::Connection => self.end_option(),
            _ => {}
        }
        self.word.length = 0;
        Ok(())
    }

    fn host(&mut self, part: &[u8]) -> Result<(), Rule> {
        for &byte in part {
            self.place = match (self.place, byte) {
                (Place::Before, b' ' | b'\t') => Place::Before,
                (Place::Inside | Place::After, b' ' | b'\t') => Place::After,
                (Place::Before | Place::Inside, _) if is_host(byte) => Place::Inside,
                _ => return Err(Rule::Host),
            };
        }
        Ok(())
    }

    fn connection(&mut self, part: &[u8]) {
        for option in part.split_inclusive(|b| matches!(b, b',' | b' ' | b'\t')) {
            match option.split_last() {
                Some((b',' | b' ' | b'\t', option)) => {
                    self.word.push(option);
                    self.end_option();
                }
                _ => self.word.push(option),
            }
        }
    }

    fn end_option(&mut self) {
        self.closes |= self.word.is(b"close");
        self.keeps_alive |= self.word.is(b"keep-alive");
        self.word.length = 0;
    }

    fn content_length(&mut self, part: &[u8]) -> Result<(), Rule> {
        for &byte in part {
            match (self.place, byte) {
                (Place::Before, b' ' | b'\t') => {}
                (Place::Inside | Place::After, b' ' | b'\t') => self.place = Place::After,
                (Place::Before | Place::Inside, b'0'..=b'9') => {
                    self.place = Place::Inside;
                    let so_far = self.length.unwrap_or(0).checked_mul(10);
                    let length = so_far.and_then(|n| n.checked_add(u64::from(byte - b'0')));
                    // The two highest numbers mean something else to hyper.
                    let length = length.filter(|n| *n < u64::MAX - 2);
                    self.length = Some(length.ok_or(Rule::ContentLength)?);
                }
                _ => return Err(Rule::ContentLength),
            }
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, part: &[u8]) -> Result<(), Rule> {
        for byte in part {
            match (self.place, byte) {
                (Place::Before, b' ' | b'\t') => {}
                (Place::Inside | Place::After, b' ' | b'\t') => self.place = Place::After,
                (Place::After, _) => return Err(Rule::TransferEncoding),
                _ => {
                    self.place = Place::Inside;
                    self.word.push(std::slice::from_ref(byte));
                }
            }
        }
        Ok(())
    }

    /// The head is complete: what follows it?
    pub(super) fn end(&self) -> Result<Body, Rule> {
        if !self.is_http10 && !self.has_host {
            return Err(Rule::HostMissing);
        }
        if self.is_connect && (self.is_chunked || self.length.is_some_and(|n| n > 0)) {
            return Err(Rule::ConnectBody);
        }
        Ok(match self.is_chunked {
            true => Body::Chunked,
            false => Body::Sized(self.length.unwrap_or(0)),
        })
    }

    /// It asks for a tunnel, as hyper sees it.
    pub(super) fn asks_for_tunnel(&self) -> bool {
        self.is_connect || (self.has_upgrade && !self.is_http10)
    }

    pub(super) fn is_connect(&self) -> bool {
        self.is_connect
    }

    /// No request follows it on this connection.
    pub(super) fn is_last(&self) -> bool {
        self.closes || (self.is_http10 && !self.keeps_alive)
    }
}

/// Bytes of `uri-host [":" port]` (RFC 9110, 7.2), without the comma, which would make it a list.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}
