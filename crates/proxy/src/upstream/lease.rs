//! A connection in the hands of one request: sending it, and giving the connection back.

use super::body::Outgoing;
use super::pool::{EndpointPool, Facts, Http1, Http2};
use super::rest::said_idle_limit;
use crate::snapshot::{EndpointState, Permit};
use http::{Request, Response, Version};
use hyper::body::Incoming;
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
    /// It had served a request before.
    pub reused: bool,
}

pub(super) enum LeaseKind {
    Http1(Http1),
    Http2(Rc<Http2>),
}

/// How sending a request ended.
pub enum Sent {
    /// The head of an answer.
    Answer(Response<Incoming>),
    /// The connection could not take it; no byte of it was sent. The request is handed back.
    NotSent(Box<Request<Outgoing>>),
    /// It failed after some of it may have been sent.
    Failed(hyper::Error),
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
            LeaseKind::Http1(connection) => &connection.facts,
            LeaseKind::Http2(connection) => &connection.facts,
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Outgoing>) -> Sent {
        let outcome = match &mut self.kind {
            Some(LeaseKind::Http1(connection)) => connection.sender.try_send_request(request).await,
            Some(LeaseKind::Http2(connection)) => {
                let mut sender = connection.sender.clone();
                sender.try_send_request(request).await
            }
            None => return Sent::NotSent(Box::new(request)),
        };
        match outcome {
            Ok(answer) => {
                if !self.reused && answer.version() < Version::HTTP_2 {
                    said_idle_limit(answer.headers(), &self.endpoint.vitals);
                }
                Sent::Answer(answer)
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Sent::NotSent(Box::new(request)),
                None => Sent::Failed(error.into_error()),
            },
        }
    }

    /// The exchange is complete: the connection may serve another request.
    pub fn release(mut self) {
        let mut connection = match self.kind.take() {
            Some(LeaseKind::Http1(connection)) => connection,
            // A shared connection stays where it is; dropping the lease gives its stream back.
            shared => {
                self.kind = shared;
                return;
            }
        };
        if self.max_requests.is_some_and(|max| connection.served >= max) {
            return;
        }
        if connection.sender.is_ready() {
            self.pool.keep(connection);
        } else if !connection.sender.is_closed() {
            // The connection has still something to finish, such as the request's last bytes.
            let pool = self.pool.clone();
            tokio::task::spawn_local(async move {
                if connection.sender.ready().await.is_ok() {
                    pool.keep(connection);
                }
            });
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
