//! What each command of a substitution string stands for, read from an exchange: by header edits while it is under way,
//! by access logs when it is over.

use super::clock::write_time;
use super::exchange::Exchange;
use super::kept::{Kept, Wanted};
use super::trace::{Trace, id_text};
use http::{HeaderMap, Version};
use model::field::FieldName;
use model::format::{Command, Facts, MetadataScope, Simple};
use model::header::{RequestHead, joined};
use model::metadata::{Metadata, Value};
use model::provenance::{NAMESPACE, Provenance};
use std::borrow::Cow;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

/// An exchange as a template sees it.
pub(super) struct View<'a> {
    pub(super) exchange: &'a Exchange,
    /// When it ended; while it is under way, now.
    pub(super) end: Instant,
    /// The messages as they are now; `None` for a log line, which has what was kept for it.
    pub(super) messages: Option<Messages<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct Messages<'a> {
    pub(super) request: &'a RequestHead<'a>,
    pub(super) response: Option<&'a HeaderMap>,
}

impl Facts for View<'_> {
    fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool {
        let text = |value: Option<Cow<'_, [u8]>>, out: &mut Vec<u8>| match value {
            Some(value) => out.write_all(&value).is_ok(),
            None => false,
        };
        match command {
            Command::RequestHeader(name, other) => {
                text(self.request(name).or_else(|| self.request(other.as_ref()?)), out)
            }
            Command::RequestHeaderWithoutQuery(name, other) => {
                let value = self.request(name).or_else(|| self.request(other.as_ref()?));
                let end = value.as_ref().and_then(|v| v.iter().position(|b| *b == b'?'));
                text(value.map(|v| v.get(..end.unwrap_or(v.len())).unwrap_or_default().to_vec().into()), out)
            }
            Command::QueryParameter(name) => {
                let path = self.request(&FieldName::Path);
                let path = path.as_deref().and_then(|path| std::str::from_utf8(path).ok());
                let query = path.and_then(|path| path.split_once('?')).map(|(_, query)| query);
                let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
                let found = pairs.find(|(other, _)| other == name).map(|(_, value)| value.as_bytes());
                text(found.map(Cow::Borrowed), out)
            }
            Command::Environment(name) => {
                // As in Envoy, one that is not set is a value, too.
                let value = std::env::var(name).unwrap_or_else(|_| "-".to_owned());
                text(Some(value.into_bytes().into()), out)
            }
            Command::ResponseHeader(name, other) => {
                text(self.response(name).or_else(|| self.response(other.as_ref()?)), out)
                    || self.service_time(name).is_some_and(|millis| write!(out, "{millis}").is_ok())
            }
            Command::ResponseTrailer(name) => text(
                self.kept().and_then(|(kept, wanted)| kept.trailer(wanted, name)).map(Cow::Borrowed),
                out,
            ),
            Command::Metadata { scope, namespace, key } => match self.metadata(*scope, namespace, key) {
                None | Some(Value::Null) => false,
                Some(value) => {
                    match value.as_text() {
                        Some(text) => out.extend_from_slice(text.as_bytes()),
                        None => write_json_value(&value, out),
                    }
                    true
                }
            },
            Command::StartTime(format) => {
                write_time(self.exchange.start_time, format, out);
                true
            }
            Command::Simple(simple) => self.simple(*simple, out),
        }
    }
}

impl View<'_> {
    fn kept(&self) -> Option<(&Kept, &Wanted)> {
        Some((self.exchange.kept.as_ref()?, &self.exchange.recorder().logs.as_ref()?.wanted))
    }

    pub(super) fn request(&self, name: &FieldName) -> Option<Cow<'_, [u8]>> {
        match self.messages {
            Some(messages) => messages.request.value(name),
            None => self.kept().and_then(|(kept, wanted)| kept.request(wanted, name)).map(Cow::Borrowed),
        }
    }

    fn response(&self, name: &FieldName) -> Option<Cow<'_, [u8]>> {
        match (self.messages, name) {
            (Some(messages), FieldName::Field(name)) => joined(messages.response?, name),
            (Some(_), _) => None,
            (None, name) => {
                self.kept().and_then(|(kept, wanted)| kept.response(wanted, name)).map(Cow::Borrowed)
            }
        }
    }

    /// What Envoy says in a header of the answer, which we do not add: how long the upstream took, in milliseconds.
    fn service_time(&self, name: &FieldName) -> Option<u128> {
        let FieldName::Field(name) = name else { return None };
        let exchange = self.exchange;
        if name != "x-envoy-upstream-service-time" || exchange.upstream.is_none() {
            return None;
        }
        let since = exchange.request_end.unwrap_or(exchange.start);
        Some(exchange.response_start?.saturating_duration_since(since).as_millis())
    }

    /// The value a metadata command reads; provenance is found under its own namespace.
    pub(super) fn metadata(&self, scope: MetadataScope, namespace: &str, key: &str) -> Option<Value> {
        let exchange = self.exchange;
        let (metadata, provenance): (&Metadata, Option<&Provenance>) = match scope {
            MetadataScope::Route => {
                let route = exchange.route.as_ref()?.route()?;
                (&route.metadata, route.provenance.as_ref())
            }
            MetadataScope::Cluster => {
                let cluster = exchange.cluster.as_ref()?;
                (&cluster.metadata, cluster.provenance.as_ref())
            }
            MetadataScope::Endpoint => (&exchange.upstream.as_ref()?.endpoint.metadata, None),
            MetadataScope::Listener => {
                (&exchange.recorder().listener_metadata, exchange.recorder().provenance.as_ref())
            }
            MetadataScope::Dynamic => (&exchange.noted, None),
        };
        if let Some(value) = metadata.value(namespace, key) {
            return Some(value.clone());
        }
        let provenance = provenance.filter(|_| namespace == NAMESPACE)?;
        match key {
            "resource" => Some((&*provenance.resource).into()),
            "file" if !provenance.file.is_empty() => Some((&*provenance.file).into()),
            "line" if provenance.line > 0 => Some(f64::from(provenance.line).into()),
            _ => None,
        }
    }

    fn simple(&self, simple: Simple, out: &mut Vec<u8>) -> bool {
        if let Some(number) = self.number(simple) {
            return write!(out, "{number}").is_ok();
        }
        let exchange = self.exchange;
        let connection = exchange.connection();
        let upstream = exchange.upstream.as_ref();
        let text = |value: Option<&str>, out: &mut Vec<u8>| match value {
            Some(value) if !value.is_empty() => out.write_all(value.as_bytes()).is_ok(),
            _ => false,
        };
        match simple {
            Simple::Protocol => text(exchange.version.map(version_text), out),
            Simple::ResponseCodeDetails => text(Some(exchange.details).filter(|d| *d != "-"), out),
            Simple::ResponseFlags => text(Some(exchange.flags), out),
            Simple::UpstreamTransportFailureReason => {
                let reason = exchange.transport_failure.as_deref();
                text(reason.map(|r| r.replace(|c: char| c.is_control(), " ")).as_deref(), out)
            }
            Simple::ResponseFlagsLong => text(long_flags(exchange.flags).as_deref(), out),
            Simple::UpstreamHostName => match upstream.map(|u| (u, u.endpoint.hostname.as_str())) {
                None => false,
                Some((upstream, "")) => write!(out, "{}", upstream.address).is_ok(),
                Some((_, name)) => text(Some(name), out),
            },
            Simple::UpstreamHostNameWithoutPort => {
                match upstream.map(|u| (u, u.endpoint.hostname.as_str())) {
                    None => false,
                    Some((upstream, "")) => write!(out, "{}", upstream.address.ip()).is_ok(),
                    Some((_, name)) => text(Some(model::rewrite::split_authority(name).0), out),
                }
            }
            Simple::UpstreamRemoteAddress => upstream.is_some_and(|u| write!(out, "{}", u.address).is_ok()),
            Simple::UpstreamRemoteAddressWithoutPort => {
                upstream.is_some_and(|u| write!(out, "{}", u.address.ip()).is_ok())
            }
            Simple::UpstreamLocalAddressWithoutPort => {
                upstream.and_then(|u| u.local).is_some_and(|a| write!(out, "{}", a.ip()).is_ok())
            }
            Simple::UpstreamHost => upstream.is_some_and(|u| write!(out, "{}", u.address).is_ok()),
            Simple::UpstreamCluster | Simple::UpstreamClusterRaw => {
                text(exchange.cluster.as_ref().map(|c| c.name.as_str()), out)
            }
            Simple::UpstreamLocalAddress => {
                upstream.and_then(|u| u.local).is_some_and(|a| write!(out, "{a}").is_ok())
            }
            Simple::DownstreamDirectLocalAddress => write!(out, "{}", connection.local).is_ok(),
            Simple::DownstreamDirectLocalAddressWithoutPort => {
                write!(out, "{}", connection.local.ip()).is_ok()
            }
            Simple::DownstreamLocalUriSan => text(connection.own_uri.as_deref(), out),
            Simple::DownstreamLocalAddress => write!(out, "{}", connection.local).is_ok(),
            Simple::DownstreamLocalAddressWithoutPort => write!(out, "{}", connection.local.ip()).is_ok(),
            Simple::DownstreamRemoteAddress => write!(out, "{}", exchange.client).is_ok(),
            Simple::DownstreamRemoteAddressWithoutPort => write!(out, "{}", exchange.client.ip()).is_ok(),
            Simple::DownstreamDirectRemoteAddress => write!(out, "{}", connection.direct).is_ok(),
            Simple::DownstreamDirectRemoteAddressWithoutPort => {
                write!(out, "{}", connection.direct.ip()).is_ok()
            }
            Simple::DownstreamPeerUriSan => text(connection.peer_uri.as_deref(), out),
            Simple::UpstreamPeerUriSan => text(upstream.and_then(|u| u.peer_uri.as_deref()), out),
            Simple::DownstreamTlsVersion => text(connection.tls_version, out),
            Simple::RequestedServerName => text(connection.server_name.as_deref(), out),
            Simple::RouteName => {
                text(exchange.route.as_ref().and_then(|r| r.route()).map(|r| r.name.as_str()), out)
            }
            Simple::Hostname => text(Some(hostname()), out),
            Simple::StreamId => match self.messages {
                None => text(exchange.kept.as_ref().and_then(Kept::id), out),
                Some(messages) => match messages.request.headers.get("x-request-id") {
                    Some(id) => out.write_all(id.as_bytes()).is_ok(),
                    None => false,
                },
            },
            Simple::GrpcStatus => text(exchange.grpc_status.map(grpc_status_name), out),
            Simple::TraceId => {
                let passed_on = || Trace::id_of(self.messages?.request.headers);
                let id = exchange.trace_id.or_else(passed_on);
                id.is_some_and(|id| out.write_all(&id_text(id)).is_ok())
            }
            Simple::FilterChainName => text(Some(&connection.chain), out),
            // There are no virtual clusters, bodies of local answers are not kept, and reasons are in the details.
            _ => false,
        }
    }

    /// The value of a command that is a number.
    pub(super) fn number(&self, simple: Simple) -> Option<u64> {
        let exchange = self.exchange;
        let since_start = |at: Instant| at.saturating_duration_since(exchange.start).as_millis() as u64;
        match simple {
            Simple::ResponseCode => Some(u64::from(exchange.status)),
            Simple::BytesReceived => Some(exchange.bytes_received),
            Simple::BytesSent => Some(exchange.bytes_sent),
            Simple::Duration => Some(since_start(self.end)),
            Simple::ResponseDuration => exchange.response_start.map(since_start),
            Simple::RequestDuration => exchange.request_end.map(since_start),
            Simple::UpstreamRequestAttemptCount => Some(u64::from(exchange.attempts)),
            Simple::ResponseTxDuration => {
                let from = exchange.response_start?;
                Some(self.end.saturating_duration_since(from).as_millis() as u64)
            }
            Simple::UpstreamRemotePort => exchange.upstream.as_ref().map(|u| u64::from(u.address.port())),
            Simple::UpstreamLocalPort => Some(u64::from(exchange.upstream.as_ref()?.local?.port())),
            Simple::DownstreamDirectLocalPort => Some(u64::from(exchange.connection().local.port())),
            Simple::DownstreamRemotePort => Some(u64::from(exchange.client.port())),
            Simple::DownstreamDirectRemotePort => Some(u64::from(exchange.connection().remote.port())),
            Simple::DownstreamLocalPort => Some(u64::from(exchange.connection().local.port())),
            Simple::ConnectionId => Some(exchange.connection().id),
            Simple::GrpcStatusNumber => exchange.grpc_status.map(u64::from),
            _ => None,
        }
    }
}

/// Envoy's names for flags; `None` where there are none.
fn long_flags(flags: &str) -> Option<String> {
    const NAMES: [(&str, &str); 14] = [
        ("UH", "NoHealthyUpstream"),
        ("UT", "UpstreamRequestTimeout"),
        ("UF", "UpstreamConnectionFailure"),
        ("UC", "UpstreamConnectionTermination"),
        ("UO", "UpstreamOverflow"),
        ("NR", "NoRouteFound"),
        ("DI", "DelayInjected"),
        ("FI", "FaultInjected"),
        ("DC", "DownstreamConnectionTermination"),
        ("URX", "UpstreamRetryLimitExceeded"),
        ("SI", "StreamIdleTimeout"),
        ("DT", "DurationTimeout"),
        ("UPE", "UpstreamProtocolError"),
        ("NC", "NoClusterFound"),
    ];
    let long = |flag: &str| match NAMES.iter().find(|(short, _)| *short == flag) {
        Some((_, long)) => (*long).to_owned(),
        None if flag == "DPE" => "DownstreamProtocolError".to_owned(),
        None => flag.to_owned(),
    };
    match flags {
        "-" | "" => None,
        flags => Some(flags.split(',').map(long).collect::<Vec<_>>().join(",")),
    }
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn grpc_status_name(status: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    usize::try_from(status).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("InvalidCode")
}

fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name =
            std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
        name.map(|n| n.trim().to_owned()).unwrap_or_default()
    })
}

/// Appends `value` as JSON.
pub(super) fn write_json_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Number(n) if n.is_finite() => drop(write!(out, "{n}")),
        Value::Number(_) => out.extend_from_slice(b"null"),
        Value::String(s) => write_json_text(s.as_bytes(), out),
        Value::List(values) => {
            out.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_json_value(value, out);
            }
            out.push(b']');
        }
        Value::Struct(fields) => {
            out.push(b'{');
            for (at, (key, value)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_json_text(key.as_bytes(), out);
                out.push(b':');
                write_json_value(value, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends `text` as a JSON string; bytes that are no UTF-8 become replacement characters.
pub(super) fn write_json_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for c in String::from_utf8_lossy(text).chars() {
        let written = match c {
            '"' => out.write_all(b"\\\""),
            '\\' => out.write_all(b"\\\\"),
            '\n' => out.write_all(b"\\n"),
            '\r' => out.write_all(b"\\r"),
            '\t' => out.write_all(b"\\t"),
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)),
            c => out.write_all(c.encode_utf8(&mut [0; 4]).as_bytes()),
        };
        debug_assert!(written.is_ok(), "a Vec takes everything");
    }
    out.push(b'"');
}
