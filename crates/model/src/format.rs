//! Envoy's `%COMMAND(ARGS):LENGTH%` substitution strings, parsed once, for header values and access logs.
//! What a command's value is, the one who asks says through [`Facts`].

use crate::field::FieldName;
use std::fmt;

/// A parsed substitution string.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(String),
    Command { command: Command, max_length: Option<usize> },
}

/// A command between percent signs. Names are Envoy's, without the percent signs.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `REQ(name?alternative)`: a request header.
    RequestHeader(FieldName, Option<FieldName>),
    /// `RESP(name?alternative)`: a response header.
    ResponseHeader(FieldName, Option<FieldName>),
    /// `REQ_WITHOUT_QUERY(name?alternative)`: a request header, cut where a query begins.
    RequestHeaderWithoutQuery(FieldName, Option<FieldName>),
    /// `QUERY_PARAM(name)`: the first value of a query parameter.
    QueryParameter(String),
    /// `ENVIRONMENT(name)`: a variable of the proxy's environment.
    Environment(String),
    /// `TRAILER(name)`: a response trailer.
    ResponseTrailer(FieldName),
    /// `METADATA(ROUTE|CLUSTER|UPSTREAM_HOST|LISTENER:namespace:key)`; also `DYNAMIC_METADATA` as scope `DYNAMIC`.
    Metadata {
        /// Whose metadata.
        scope: MetadataScope,
        /// Metadata namespace.
        namespace: String,
        /// Key in it.
        key: String,
    },
    /// `START_TIME(format)`; the format is `strftime`-like, empty for ISO 8601 with milliseconds, UTC.
    StartTime(String),
    /// A command that takes no argument.
    Simple(Simple),
}

/// Whose metadata a [`Command::Metadata`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataScope {
    /// The route that was chosen.
    Route,
    /// The cluster that was chosen.
    Cluster,
    /// The endpoint that was chosen.
    Endpoint,
    /// The listener.
    Listener,
    /// What filters left.
    Dynamic,
}

macro_rules! simple_commands {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Commands without arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Simple { $($(#[$doc])* $variant,)* }
        impl Simple {
            fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
            /// The name as it is written between percent signs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

simple_commands! {
    /// `HTTP/1.1`, `HTTP/2`, …
    Protocol = "PROTOCOL",
    /// Status sent to the client.
    ResponseCode = "RESPONSE_CODE",
    /// Why that status: `via_upstream` or a reason token.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// Envoy's short flags, such as `UF,URX`.
    ResponseFlags = "RESPONSE_FLAGS",
    /// The same in words, such as `UpstreamConnectionFailure`.
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    /// Why the connection was ended.
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    /// Why the upstream's TLS or connection failed.
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    /// Request body bytes.
    BytesReceived = "BYTES_RECEIVED",
    /// Response body bytes.
    BytesSent = "BYTES_SENT",
    /// Milliseconds from first byte in to last byte out.
    Duration = "DURATION",
    /// Milliseconds from first byte in to the upstream's first byte.
    ResponseDuration = "RESPONSE_DURATION",
    /// Milliseconds from the upstream's first byte to the last byte out.
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    /// Milliseconds until the whole request was received.
    RequestDuration = "REQUEST_DURATION",
    /// The endpoint's address.
    UpstreamHost = "UPSTREAM_HOST",
    /// The cluster, by alternative name if it has one.
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// The cluster.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// Our own address towards the endpoint.
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    /// The same without its port.
    UpstreamLocalAddressWithoutPort = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    /// The endpoint's host name, or else its address.
    UpstreamHostName = "UPSTREAM_HOST_NAME",
    /// The same without its port.
    UpstreamHostNameWithoutPort = "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    /// The address that was connected to.
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// The same without its port.
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Its port.
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    /// How many times it was tried, the first not counted.
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// The address the client connected to.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// The same without its port.
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// The address the client connected to, whatever was told of it.
    DownstreamDirectLocalAddress = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    /// The same without its port.
    DownstreamDirectLocalAddressWithoutPort = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamDirectLocalPort = "DOWNSTREAM_DIRECT_LOCAL_PORT",
    /// The client, as trusted forwarding headers tell.
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// The same without its port.
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    /// The port of the connection's peer.
    DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    /// The peer of the connection.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// The same without its port.
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// URI names in our own certificate.
    DownstreamLocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN",
    /// URI names in the client's certificate.
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// URI names in the server's certificate.
    UpstreamPeerUriSan = "UPSTREAM_PEER_URI_SAN",
    /// The client's TLS version.
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    /// SNI.
    RequestedServerName = "REQUESTED_SERVER_NAME",
    /// Name of the route.
    RouteName = "ROUTE_NAME",
    /// Name of the virtual host.
    VirtualClusterName = "VIRTUAL_CLUSTER_NAME",
    /// The body of a local answer.
    LocalReplyBody = "LOCAL_REPLY_BODY",
    /// This machine's name.
    Hostname = "HOSTNAME",
    /// An id for the request.
    StreamId = "STREAM_ID",
    /// Number of this connection.
    ConnectionId = "CONNECTION_ID",
    /// gRPC status by name.
    GrpcStatus = "GRPC_STATUS",
    /// gRPC status by number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    /// Trace id.
    TraceId = "TRACE_ID",
    /// Name of the filter chain.
    FilterChainName = "FILTER_CHAIN_NAME",
}

/// Gives the values a template asks for.
pub trait Facts {
    /// Appends the value of `command` to `out` and returns true, or returns false when there is none.
    fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool;
}

/// No facts at all: every command is empty.
pub struct NoFacts;

impl Facts for NoFacts {
    fn write(&self, _: &Command, _: &mut Vec<u8>) -> bool {
        false
    }
}

/// A substitution string that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatError {
    /// A percent sign without its partner.
    Unterminated {
        /// The whole string.
        source: String,
    },
    /// A command nobody knows, or with arguments it does not take.
    UnknownCommand {
        /// What stood between the percent signs.
        command: String,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unterminated { source } => {
                write!(f, "`{source}` has a `%` without its partner (write `%%` for a percent sign)")
            }
            Self::UnknownCommand { command } => write!(f, "command `%{command}%` is not known"),
        }
    }
}

impl std::error::Error for FormatError {}

impl Template {
    /// Reads a substitution string.
    pub fn parse(source: &str) -> Result<Self, FormatError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(escaped) = after.strip_prefix('%') {
                literal.push('%');
                rest = escaped;
                continue;
            }
            let end =
                command_end(after).ok_or_else(|| FormatError::Unterminated { source: source.to_owned() })?;
            let (text, tail) = after.split_at(end);
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(parse_command(text)?);
            rest = tail.get(1..).unwrap_or_default();
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { source: source.to_owned(), parts })
    }

    /// A template that is its own text, percent signs included.
    pub fn literal(text: &str) -> Self {
        let parts = if text.is_empty() { Vec::new() } else { vec![Part::Literal(text.to_owned())] };
        Self { source: text.replace('%', "%%"), parts }
    }

    /// The string it was read from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its text, when it holds no command: nothing has to be filled in per request.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Its commands, in order.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.parts.iter().filter_map(|part| match part {
            Part::Command { command, .. } => Some(command),
            Part::Literal(_) => None,
        })
    }

    /// The command and its greatest length, when the template is nothing but one command.
    pub fn as_command(&self) -> Option<(&Command, Option<usize>)> {
        match self.parts.as_slice() {
            [Part::Command { command, max_length }] => Some((command, *max_length)),
            _ => None,
        }
    }

    /// Appends the text with every command filled in; one without a value leaves `missing`.
    pub fn write(&self, facts: &dyn Facts, missing: &str, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Command { command, max_length } => {
                    let start = out.len();
                    if !facts.write(command, out) {
                        out.extend_from_slice(missing.as_bytes());
                    } else if let Some(max) = max_length {
                        out.truncate(out.len().min(start + max));
                    }
                }
            }
        }
    }
}

/// Where the command that `text` begins with ends, at its closing percent sign. Arguments may hold percent signs
/// (`START_TIME(%Y)`), so parentheses are minded.
fn command_end(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '%' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn parse_command(text: &str) -> Result<Part, FormatError> {
    let unknown = || FormatError::UnknownCommand { command: text.to_owned() };
    let (name, arguments, tail) = match text.split_once('(') {
        None => {
            let (name, tail) = text.split_once(':').map_or((text, ""), |(n, t)| (n, t));
            (name, "", tail)
        }
        Some((name, rest)) => {
            let (arguments, tail) = rest.rsplit_once(')').ok_or_else(unknown)?;
            (name, arguments, tail.strip_prefix(':').unwrap_or(tail))
        }
    };
    let max_length = match tail {
        "" => None,
        digits => Some(digits.parse().map_err(|_| unknown())?),
    };
    let header = || {
        let (main, other) = match arguments.split_once('?') {
            None => (arguments, None),
            Some((main, other)) => (main, Some(other)),
        };
        let main = FieldName::parse(main)?;
        match other {
            None => Some((main, None)),
            Some(other) => Some((main, Some(FieldName::parse(other)?))),
        }
    };
    let metadata = |scope, spec: &str| {
        let (namespace, key) = spec.split_once(':')?;
        Some(Command::Metadata { scope, namespace: namespace.to_owned(), key: key.to_owned() })
    };
    let command = match name {
        "REQ" | "REQUEST_HEADER" => header().map(|(a, b)| Command::RequestHeader(a, b)),
        "RESP" | "RESPONSE_HEADER" => header().map(|(a, b)| Command::ResponseHeader(a, b)),
        "REQ_WITHOUT_QUERY" => header().map(|(a, b)| Command::RequestHeaderWithoutQuery(a, b)),
        "QUERY_PARAM" if !arguments.is_empty() => Some(Command::QueryParameter(arguments.to_owned())),
        "ENVIRONMENT" if !arguments.is_empty() => Some(Command::Environment(arguments.to_owned())),
        "TRAILER" | "RESPONSE_TRAILER" => FieldName::parse(arguments).map(Command::ResponseTrailer),
        "START_TIME" => Some(Command::StartTime(arguments.to_owned())),
        "DYNAMIC_METADATA" => metadata(MetadataScope::Dynamic, arguments),
        "CLUSTER_METADATA" => metadata(MetadataScope::Cluster, arguments),
        "UPSTREAM_METADATA" => metadata(MetadataScope::Endpoint, arguments),
        "METADATA" => arguments.split_once(':').and_then(|(scope, spec)| {
            let scope = match scope {
                "ROUTE" => MetadataScope::Route,
                "CLUSTER" => MetadataScope::Cluster,
                "UPSTREAM_HOST" => MetadataScope::Endpoint,
                "LISTENER" => MetadataScope::Listener,
                "DYNAMIC" => MetadataScope::Dynamic,
                _ => return None,
            };
            metadata(scope, spec)
        }),
        // Takes an argument that has only one sensible value here.
        "GRPC_STATUS" if !arguments.is_empty() => Some(Command::Simple(match arguments {
            "NUMBER" => Simple::GrpcStatusNumber,
            _ => Simple::GrpcStatus,
        })),
        simple if arguments.is_empty() => Simple::parse(simple).map(Command::Simple),
        _ => None,
    };
    Ok(Part::Command { command: command.ok_or_else(unknown)?, max_length })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Names;
    impl Facts for Names {
        fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool {
            match command {
                Command::Simple(Simple::Protocol) => out.extend_from_slice(b"HTTP/1.1"),
                Command::RequestHeader(name, _) => out.extend_from_slice(name.as_str().as_bytes()),
                _ => return false,
            }
            true
        }
    }

    fn show(source: &str) -> String {
        let mut out = Vec::new();
        Template::parse(source).unwrap().write(&Names, "-", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn literals_commands_lengths_and_missing_values_come_out_in_order() {
        assert_eq!(show("100%% %PROTOCOL% %REQ(X-Id?:path):3% %UPSTREAM_HOST%."), "100% HTTP/1.1 x-i -.");
    }

    #[test]
    fn a_percent_sign_inside_arguments_does_not_end_the_command() {
        let t = Template::parse("%START_TIME(%Y/%m)%").unwrap();
        assert_eq!(
            t.parts,
            [Part::Command { command: Command::StartTime("%Y/%m".into()), max_length: None }]
        );
    }

    #[test]
    fn an_unknown_command_is_named() {
        let e = Template::parse("a %NOPE(1)% b").unwrap_err();
        assert_eq!(e.to_string(), "command `%NOPE(1)%` is not known");
        assert!(matches!(Template::parse("50%"), Err(FormatError::Unterminated { .. })));
    }

    #[test]
    fn a_literal_survives_its_own_source() {
        let t = Template::literal("50%");
        assert_eq!(Template::parse(t.source()).unwrap(), t);
    }
}
