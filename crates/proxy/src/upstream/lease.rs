//! A connection in the hands of one request: sending it, and giving the connection back.

use super::body::Outgoing;
use super::connect::{Facts, Stream};
use super::endpoint_pool::{EndpointPool, LeaseKind, Open};
use super::rest::said_idle_limit;
use super::sent::Sent;
use crate::snapshot::{EndpointState, Permit};
use crate::stream::Prefixed;
use http::{Request, Version};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A connection in the hands of one request. Dropped without [`Lease::release`], an HTTP/1.1 connection is closed.
pub struct Lease {
    /// There until it is released.
    pub(super) kind: Option<LeaseKind>,
    pub(super) pool: Rc<EndpointPool>,
    pub(super) endpoint: Arc<EndpointState>,
    /// Requests after which the connection is not used again.
    pub(super) max_requests: Option<u32>,
    pub(super) _permit: Option<Permit>,
    /// A connection that is a tunnel's now.
    pub(super) _open: Option<Open>,
    /// It had served a request before.
    pub reused: bool,
}

impl Lease {
    /// Whether the endpoint is spoken to in HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.kind, Some(LeaseKind::Http2(_)))
    }

    /// Our own address towards the endpoint.
    pub fn local(&self) -> Option<SocketAddr> {
        self.facts().and_then(|facts| facts.local)
    }

    /// URI name in the endpoint's verified certificate.
    pub fn peer_uri(&self) -> Option<Arc<str>> {
        self.facts().and_then(|facts| facts.peer_uri.clone())
    }

    fn facts(&self) -> Option<&Facts> {
        Some(match self.kind.as_ref()? {
            LeaseKind::Http1(connection, _) => &connection.facts,
            LeaseKind::Http2(connection) => &connection.facts,
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Outgoing>) -> Sent {
        let sent = match &mut self.kind {
            Some(LeaseKind::Http1(connection, _)) => connection.send(request).await,
            Some(LeaseKind::Http2(connection)) => connection.send(request).await,
            None => return Sent::NotSent(Box::new(request)),
        };
        if let Sent::Answer(answer) = &sent
            && !self.reused
            && answer.version() < Version::HTTP_2
        {
            said_idle_limit(answer.headers(), &self.endpoint.vitals);
        }
        sent
    }

    /// The exchange is complete: the connection may serve another request.
    pub fn release(mut self) {
        match self.kind.take() {
            Some(LeaseKind::Http1(connection, open)) => {
                let is_spent = self.max_requests.is_some_and(|max| connection.served >= max);
                if !is_spent && connection.facts.is_young() && connection.is_reusable() {
                    self.pool.keep(connection, open);
                }
            }
            // A shared connection stays where it is; dropping the lease gives its stream back.
            shared => self.kind = shared,
        }
    }

    /// The bytes of an HTTP/1.1 connection that switched protocols. It stays counted while the lease lives.
    pub fn take_stream(&mut self) -> Option<Prefixed<Stream>> {
        match self.kind.take() {
            Some(LeaseKind::Http1(connection, open)) => {
                self._open = Some(open);
                connection.into_stream()
            }
            shared => {
                self.kind = shared;
                None
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(LeaseKind::Http2(connection)) = &self.kind {
            connection.streams.set(connection.streams.get().saturating_sub(1));
        }
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
    }
}
