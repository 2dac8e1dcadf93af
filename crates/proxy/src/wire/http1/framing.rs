//! What a head says of where its message ends and whether another follows (RFC 9112, 6 and 9). Stricter than the RFC
//! allows: what two parties could read in two ways is refused.

use super::rule::Rule;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes.
    Sized(u64),
    /// As its chunks say.
    Chunked,
    /// Until the peer closes.
    UntilClose,
}

/// The fields of one head that decide about framing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Framing {
    pub(super) is_http10: bool,
    pub(super) is_connect: bool,
    pub(super) has_upgrade: bool,
    pub(super) expects_continue: bool,
    has_host: bool,
    is_chunked: bool,
    length: Option<u64>,
    closes: bool,
    keeps_alive: bool,
}

impl Framing {
    /// Takes a field; `value` has no space around it.
    #[inline]
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Rule> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
                Ok(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.has_upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Rule> {
        match self.has_host || !value.iter().all(|b| is_host(*b)) {
            true => Err(Rule::Host),
            false => {
                self.has_host = true;
                Ok(())
            }
        }
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|b| matches!(b, b',' | b' ' | b'\t')) {
            self.closes |= option.eq_ignore_ascii_case(b"close");
            self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Rule> {
        if self.is_chunked {
            return Err(Rule::TwoLengths);
        }
        if self.length.is_some() || value.is_empty() {
            return Err(Rule::ContentLength);
        }
        let mut length = 0u64;
        for digit in value {
            if !digit.is_ascii_digit() {
                return Err(Rule::ContentLength);
            }
            let longer = length.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit - b'0')));
            length = longer.ok_or(Rule::ContentLength)?;
        }
        self.length = Some(length);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Rule> {
        if self.is_http10 {
            return Err(Rule::TransferEncodingVersion);
        }
        if self.length.is_some() {
            return Err(Rule::TwoLengths);
        }
        if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Rule::TransferEncoding);
        }
        self.is_chunked = true;
        Ok(())
    }

    /// The head of a request is complete: what follows it?
    pub(super) fn of_request(&self) -> Result<Length, Rule> {
        if !self.is_http10 && !self.has_host {
            return Err(Rule::HostMissing);
        }
        if self.is_connect && (self.is_chunked || self.length.is_some_and(|n| n > 0)) {
            return Err(Rule::ConnectBody);
        }
        Ok(match self.is_chunked {
            true => Length::Chunked,
            false => Length::Sized(self.length.unwrap_or(0)),
        })
    }

    /// The head of an answer is complete: what follows it, where it may have a body at all?
    pub(super) fn of_answer(&self) -> Length {
        match (self.is_chunked, self.length) {
            (true, _) => Length::Chunked,
            (false, Some(length)) => Length::Sized(length),
            (false, None) => Length::UntilClose,
        }
    }

    /// No message follows it on this connection.
    pub(super) fn is_last(&self) -> bool {
        self.closes || (self.is_http10 && !self.keeps_alive)
    }
}

/// Bytes of `uri-host [":" port]` (RFC 9110, 7.2), without the comma, which would make it a list.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}
