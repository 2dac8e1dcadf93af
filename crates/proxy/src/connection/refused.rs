//! Connections that are closed before anything was said on them: why, counted and told.

use super::inspect::InspectError;
use super::proxied::ProxiedError;
use crate::notice;
use crate::record::Telemetry;
use identity::handshake::HandshakeError;
use model::listener::ConnectionFacts;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a connection was closed.
#[derive(Debug)]
pub(super) enum Refused {
    /// The client went away by itself.
    Gone,
    /// So many are open already on this thread.
    TooMany(usize),
    /// The listener has just been removed.
    NoListener,
    /// No filter chain takes it; what is known of it.
    NoChain(String),
    /// What a load balancer in front has to say of it is missing, not proper or late.
    BadProxyHeader,
    /// It began TLS and did not go on.
    Stalled,
    /// Its ClientHello is too large.
    HelloTooLarge,
    /// The listener's TLS cannot be spoken yet: why.
    TlsNotReady(Arc<str>),
    /// The handshake took too long.
    HandshakeTime,
    /// The handshake failed.
    Handshake(HandshakeError),
}

impl Refused {
    pub(super) fn no_chain(facts: &ConnectionFacts<'_>) -> Self {
        let transport = if facts.is_tls { "TLS" } else { "plaintext" };
        let mut known = format!("{transport} to {}", facts.destination);
        if let Some(name) = facts.server_name {
            known += &format!(", server name `{name}`");
        }
        if !facts.application_protocols.is_empty() {
            known += &format!(", protocols {}", facts.application_protocols.join(", "));
        }
        Self::NoChain(known)
    }

    /// Nobody needs to hear of clients that leave by themselves.
    pub(super) fn is_worth_telling(&self) -> bool {
        !matches!(self, Self::Gone)
    }

    fn token(&self) -> &'static str {
        match self {
            Self::Gone => "client_gone",
            Self::TooMany(_) => "too_many_connections",
            Self::NoListener => "listener_removed",
            Self::NoChain(_) => "no_filter_chain",
            Self::BadProxyHeader => "bad_proxy_protocol",
            Self::Stalled => "client_hello_timeout",
            Self::HelloTooLarge => "client_hello_too_large",
            Self::TlsNotReady(_) => "tls_not_ready",
            Self::HandshakeTime => "tls_handshake_timeout",
            Self::Handshake(_) => "tls_handshake_failed",
        }
    }

    pub(super) fn count(&self, telemetry: &Telemetry, listener: &str) {
        let help = "Connections closed before anything was said on them.";
        let labels = [("listener", listener), ("reason", self.token())];
        telemetry.counter("ieum_connections_refused_total", help, &labels).increment();
    }
}

impl From<ProxiedError> for Refused {
    fn from(error: ProxiedError) -> Self {
        match error {
            ProxiedError::Bad => Self::BadProxyHeader,
            ProxiedError::Gone => Self::Gone,
        }
    }
}

impl From<InspectError> for Refused {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Gone => Self::Gone,
            InspectError::Stalled => Self::Stalled,
            InspectError::TooLarge => Self::HelloTooLarge,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => write!(f, "the client went away"),
            Self::TooMany(limit) => {
                write!(f, "{limit} connections are open on this thread: raise the limit on open files")
            }
            Self::NoListener => write!(f, "the listener has been removed"),
            Self::NoChain(known) => write!(f, "no filter chain takes it ({known})"),
            Self::BadProxyHeader => {
                write!(f, "its PROXY protocol header is missing, not proper or did not come in time")
            }
            Self::Stalled => write!(f, "its ClientHello did not come in time"),
            Self::HelloTooLarge => write!(f, "its ClientHello is larger than 16 KiB"),
            Self::TlsNotReady(why) => write!(f, "TLS is not ready: {why}"),
            Self::HandshakeTime => write!(f, "the TLS handshake took too long"),
            Self::Handshake(error) => write!(f, "TLS handshake failed: {error}"),
        }
    }
}

/// Lines of one kind, at most so many a second: a flood of bad clients must not become a flood of lines.
#[derive(Debug, Default)]
pub(super) struct Sparingly {
    window: Cell<Option<Instant>>,
    lines: Cell<u32>,
    silent: Cell<u32>,
}

impl Sparingly {
    const LINES: u32 = 20;

    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.window.get().is_none_or(|since| now - since >= Duration::from_secs(1)) {
            self.window.set(Some(now));
            self.lines.set(0);
            match self.silent.take() {
                0 => {}
                n => notice::tell(format_args!("{n} more connections were closed (not shown)")),
            }
        }
        if self.lines.get() < Self::LINES {
            self.lines.set(self.lines.get() + 1);
            notice::tell(line());
        } else {
            self.silent.set(self.silent.get() + 1);
        }
    }
}
