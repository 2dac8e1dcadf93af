//! Looking at a connection's first bytes, as far and as long as its listener's chains need it, before one is chosen.

use super::hello::{self, Hello, Look};
use crate::record::Caller;
use crate::stream::Prefixed;
use model::listener::{ChainMatch, ConnectionFacts, Listener, Network};
use std::io;
use std::time::Duration;
use tokio::io::AsyncRead;

/// Time for a client to say what it speaks.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same where silence is taken for a protocol in which the server speaks first.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes that are read for it: a ClientHello and its record headers.
const LIMIT: usize = 17 * 1024;

/// What was found out about a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// It began with this.
    pub(super) hello: Option<Hello>,
    /// The HTTP version it began with, when it was looked for.
    http: Option<&'static str>,
}

impl Findings {
    /// Calls `choose` with these findings as facts.
    pub(super) fn with_facts<T>(&self, caller: &Caller, choose: impl FnOnce(&ConnectionFacts<'_>) -> T) -> T {
        let offered = self.hello.iter().flat_map(|h| &h.protocols).map(String::as_str);
        let protocols: Vec<&str> = offered.chain(self.http).collect();
        choose(&ConnectionFacts {
            destination: caller.local,
            source: caller.remote,
            direct_source: caller.direct.ip(),
            server_name: self.hello.as_ref().and_then(|h| h.server_name.as_deref()),
            is_tls: self.hello.is_some(),
            application_protocols: &protocols,
        })
    }
}

/// What a listener wants to know before it chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Needs {
    tls: bool,
    http: bool,
}

fn needs(listener: &Listener) -> Needs {
    let asks = |m: &ChainMatch| {
        !m.server_names.is_empty()
            || !m.application_protocols.is_empty()
            || m.transport_protocol.as_ref().is_some_and(|t| !t.is_empty())
    };
    Needs {
        tls: listener.inspect.tls || listener.chains.iter().any(|c| asks(&c.condition)),
        http: listener.inspect.http,
    }
}

/// Why nothing was found out.
#[derive(Debug)]
pub(super) enum InspectError {
    /// The client closed, or its connection broke, before it said anything.
    Gone,
    /// It began TLS and did not go on.
    Stalled,
    /// Its ClientHello is too large.
    TooLarge,
}

/// Reads as much of `stream` as `listener` needs; the bytes stay in it.
pub(super) async fn inspect<IO: AsyncRead + Unpin>(
    stream: &mut Prefixed<IO>,
    listener: &Listener,
    caller: &Caller,
) -> Result<Findings, InspectError> {
    let needs = needs(listener);
    if !needs.tls && !needs.http {
        return Ok(Findings::default());
    }
    let silent = Findings::default().with_facts(caller, |facts| {
        listener.chain_for(facts).is_some_and(|c| matches!(c.network, Network::Tcp(_)))
    });
    let patience = if silent { SHORT_PATIENCE } else { PATIENCE };
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match look(needs, stream.first()) {
            Look::Found(findings) => return Ok(findings),
            Look::Other => return Ok(Findings::default()),
            Look::More if stream.first().len() > LIMIT => return Err(InspectError::TooLarge),
            Look::More => {}
        }
        match tokio::time::timeout_at(deadline, stream.read_more()).await {
            Ok(Ok(0)) if stream.first().is_empty() => return Err(InspectError::Gone),
            Ok(Ok(0)) => return Ok(Findings::default()),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(InspectError::Gone),
            // A half ClientHello is never passed on as if it were something else.
            Err(_) if needs.tls && stream.first().first() == Some(&22) => return Err(InspectError::Stalled),
            Err(_) => return Ok(Findings::default()),
        }
    }
}

fn look(needs: Needs, bytes: &[u8]) -> Look<Findings> {
    if needs.tls {
        match hello::client_hello(bytes) {
            Look::Found(hello) => return Look::Found(Findings { hello: Some(hello), http: None }),
            Look::More => return Look::More,
            Look::Other => {}
        }
    }
    if !needs.http {
        return Look::Other;
    }
    match hello::http_version(bytes) {
        Look::Found(version) => Look::Found(Findings { hello: None, http: Some(version) }),
        Look::More => Look::More,
        Look::Other => Look::Other,
    }
}

/// Whether what comes first is HTTP/2's preface. Waits for bytes without holding memory.
pub(super) async fn is_http2<IO: AsyncRead + Unpin>(stream: &mut Prefixed<IO>) -> io::Result<bool> {
    loop {
        match hello::preface(stream.first()) {
            Look::Found(()) => return Ok(true),
            Look::Other => return Ok(false),
            Look::More => {}
        }
        if stream.read_more().await? == 0 {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use model::listener::{FilterChain, Inspection, TcpProxy};
    use std::net::SocketAddr;
    use tokio::io::AsyncWriteExt;

    fn listener(inspect: Inspection, chains: Vec<ChainMatch>) -> Listener {
        let proxy = TcpProxy::default();
        let chain = |condition| FilterChain {
            name: String::new(),
            condition,
            tls: None,
            network: Network::Tcp(Box::new(proxy.clone())),
        };
        Listener {
            name: "l".into(),
            address: None,
            binding: Default::default(),
            inspect,
            chains: chains.into_iter().map(chain).collect(),
            default_chain: None,
            direction: Default::default(),
            metadata: Default::default(),
            provenance: None,
        }
    }

    async fn inspected(listener: &Listener, bytes: &[u8]) -> (Result<Findings, InspectError>, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(64);
        let mut stream = Prefixed::new(server);
        let write = async {
            let _ = client.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        let end = SocketAddr::from(([127, 0, 0, 1], 80));
        let caller = Caller::new(end, end);
        let found = tokio::select! {
            found = inspect(&mut stream, listener, &caller) => found,
            () = write => unreachable!(),
        };
        (found, stream.into_parts().0)
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_where_nothing_is_asked() {
        let (found, read) =
            inspected(&listener(Inspection::default(), vec![ChainMatch::default()]), b"abc").await;
        assert_eq!(found.unwrap(), Findings::default());
        assert!(read.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn http_is_found_and_its_bytes_stay() {
        let both = Inspection { tls: true, http: true, ..Inspection::default() };
        let (found, read) = inspected(&listener(both, vec![]), b"GET / HTTP/1.1\r\nhost").await;
        assert_eq!(found.unwrap().http, Some("http/1.1"));
        assert!(read.starts_with(b"GET / HTTP/1.1\r\n"));
        let (found, _) = inspected(&listener(both, vec![]), b"\x00\x00").await;
        assert_eq!(found.unwrap(), Findings::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for_long_and_half_a_hello_is_refused() {
        let asks = ChainMatch { transport_protocol: Some("raw_buffer".into()), ..Default::default() };
        let listener = listener(Inspection::default(), vec![asks]);
        let start = tokio::time::Instant::now();
        let (found, _) = inspected(&listener, b"").await;
        assert_eq!(found.unwrap(), Findings::default());
        assert!(start.elapsed() < Duration::from_secs(2));
        let (found, _) = inspected(&listener, &[22, 3, 1, 2, 0, 1, 0]).await;
        assert!(matches!(found, Err(InspectError::Stalled)));
    }
}
