//! The rules of HTTP/1 framing, and how a client is told which one it broke.

use http::StatusCode;

/// A rule that a request broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A line ends in CR LF, and neither stands alone.
    BareLineBreak,
    /// A header line does not go on in the next.
    FoldedHeader,
    /// No NUL or other control byte in a head.
    ControlByte,
    /// `method SP target SP HTTP/1.x`.
    RequestLine,
    /// The version is 1.0 or 1.1.
    Version,
    /// `name: value`, the name a token, no space before the colon.
    HeaderName,
    /// One Content-Length, and in it one decimal number.
    ContentLength,
    /// One Transfer-Encoding, and in it nothing but `chunked`.
    TransferEncoding,
    /// No Transfer-Encoding in HTTP/1.0.
    TransferEncodingVersion,
    /// Content-Length or Transfer-Encoding, not both.
    TwoLengths,
    /// CONNECT has no body.
    ConnectBody,
    /// HTTP/1.1 needs a Host.
    HostMissing,
    /// One Host, and in it nothing but a host and a port.
    Host,
    /// A chunk begins with its size in hexadecimal digits.
    ChunkSize,
    /// A chunk ends with CR LF.
    ChunkEnd,
    /// A head is at most so large.
    HeadSize,
    /// A head has at most so many fields.
    HeadFields,
    /// The target is a path, an absolute URI, an authority or `*`.
    Target,
    /// A head, once begun, comes in time.
    HeadTime,
}

impl Rule {
    /// Reason token; it never changes.
    pub fn token(self) -> &'static str {
        match self {
            Self::BareLineBreak => "framing.bare_line_break",
            Self::FoldedHeader => "framing.folded_header",
            Self::ControlByte => "framing.control_byte",
            Self::RequestLine => "framing.request_line",
            Self::Version => "framing.version",
            Self::HeaderName => "framing.header_name",
            Self::ContentLength => "framing.content_length",
            Self::TransferEncoding => "framing.transfer_encoding",
            Self::TransferEncodingVersion => "framing.transfer_encoding_http10",
            Self::TwoLengths => "framing.content_length_with_transfer_encoding",
            Self::ConnectBody => "framing.connect_with_body",
            Self::HostMissing => "framing.host_missing",
            Self::Host => "framing.host",
            Self::ChunkSize => "framing.chunk_size",
            Self::ChunkEnd => "framing.chunk_end",
            Self::HeadSize => "request_headers_too_large",
            Self::HeadFields => "request_headers_too_many",
            Self::Target => "framing.target",
            Self::HeadTime => "request_header_timeout",
        }
    }

    /// What is wrong, for the client.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::BareLineBreak => "a line break in the request is not CR LF",
            Self::FoldedHeader => "a header line begins with a space: folded headers are not accepted",
            Self::ControlByte => "the request's head contains a control byte",
            Self::RequestLine => "the request line is not `method target HTTP/1.1`",
            Self::Version => "the request's version is neither HTTP/1.1 nor HTTP/1.0",
            Self::HeaderName => "a header line is not `name: value`",
            Self::ContentLength => "Content-Length is not one decimal number, or is there twice",
            Self::TransferEncoding => "Transfer-Encoding is not exactly `chunked`, or is there twice",
            Self::TransferEncodingVersion => "Transfer-Encoding is not part of HTTP/1.0",
            Self::TwoLengths => "the request has both Content-Length and Transfer-Encoding",
            Self::ConnectBody => "a CONNECT request cannot have a body",
            Self::HostMissing => "an HTTP/1.1 request needs a Host header",
            Self::Host => "Host is not one host and port, or is there twice",
            Self::ChunkSize => "a chunk does not begin with its size",
            Self::ChunkEnd => "a chunk does not end with CR LF",
            Self::HeadSize => "the request's head is larger than 60 KiB",
            Self::HeadFields => "the request has more than 100 header fields",
            Self::Target => "the request's target is not a URI",
            Self::HeadTime => "the request's head did not come in time",
        }
    }

    /// Status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::HeadSize | Self::HeadFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTime => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer as it is sent: the last thing on its connection.
    pub fn answer(self) -> Vec<u8> {
        let body = format!("{}\n", self.sentence());
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\nx-ieum-reason: {}\r\n\r\n",
            self.status(),
            body.len(),
            self.token(),
        );
        (head + &body).into_bytes()
    }
}
