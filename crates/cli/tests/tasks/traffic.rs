//! Clients that never rest: they ask over HTTP/1.1, HTTP/2 and gRPC until they are stopped, and remember what failed.

use crate::mesh::BOUND;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What some clients did so far.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    asked: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// Clients that keep asking.
#[derive(Default)]
pub(crate) struct Traffic {
    kinds: Vec<(&'static str, Arc<Tally>)>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Adds a client that does `exchange` without pause.
    pub(crate) fn add<F>(&mut self, kind: &'static str, mut exchange: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let tally = Arc::new(Tally::default());
        self.kinds.push((kind, tally.clone()));
        self.clients.push(tokio::spawn(async move {
            while !tally.stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                let outcome = tokio::time::timeout(BOUND, exchange()).await;
                if let Err(failure) = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                    let told = format!("{kind}, after {:?}: {failure}", start.elapsed());
                    tally.failures.lock().unwrap().push(told);
                }
                tally.asked.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// Waits until every client has asked `count` times more.
    pub(crate) async fn go_on(&self, count: usize) {
        let asked = |tally: &Tally| tally.asked.load(Ordering::Relaxed);
        let goals: Vec<usize> = self.kinds.iter().map(|(_, tally)| asked(tally) + count).collect();
        let end = Instant::now() + BOUND;
        while self.kinds.iter().zip(&goals).any(|((_, tally), goal)| asked(tally) < *goal) {
            assert!(Instant::now() < end, "{count} more of each in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops, and tells what failed.
    pub(crate) async fn failures(self) -> Vec<String> {
        for (_, tally) in &self.kinds {
            tally.stop.store(true, Ordering::Relaxed);
        }
        for client in self.clients {
            client.await.unwrap();
        }
        self.kinds.iter().flat_map(|(_, tally)| tally.failures.lock().unwrap().clone()).collect()
    }
}

/// A body of `size` bytes.
pub(crate) fn bytes(size: usize) -> Body {
    Full::new(Bytes::from(vec![b'x'; size])).boxed_unsync()
}

async fn connect(address: &str) -> Result<TokioIo<TcpStream>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?;
    Ok(TokioIo::new(stream))
}

async fn is_fine(response: Response<Incoming>, length: Option<usize>) -> Result<(), String> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("{} and then {error:?}", head.status))?;
    let (trailers, body) = (body.trailers().cloned(), body.to_bytes());
    if head.status != 200 {
        return Err(format!("{} {:?} {}", head.status, head.headers, String::from_utf8_lossy(&body)));
    }
    if head.headers.get("content-type").is_some_and(|kind| kind == "application/grpc") {
        let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
        if status.is_none_or(|status| status != "0") {
            return Err(format!("gRPC ends with {:?} {trailers:?}", head.headers));
        }
    }
    match length {
        Some(length) if body.len() != length => Err(format!("{} of {length} bytes", body.len())),
        _ => Ok(()),
    }
}

/// A client with one HTTP/1.1 connection.
pub(crate) struct Http1 {
    address: String,
    sender: Option<http1::SendRequest<Body>>,
}

impl Http1 {
    pub(crate) fn new(address: &str) -> Self {
        Http1 { address: address.to_owned(), sender: None }
    }

    /// Sends what `request` makes and reads the answer, which is to have `length` bytes.
    pub(crate) async fn exchange(
        &mut self,
        request: impl Fn() -> Request<Body>,
        length: Option<usize>,
    ) -> Result<(), String> {
        loop {
            let mut sender = match self.sender.take() {
                Some(sender) => sender,
                None => {
                    let made = http1::handshake(connect(&self.address).await?).await;
                    let (sender, connection) = made.map_err(|error| format!("{error:?}"))?;
                    tokio::spawn(async move { drop(connection.await) });
                    sender
                }
            };
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(request()).await {
                Ok(response) => {
                    self.sender = Some(sender);
                    return is_fine(response, length).await;
                }
                // The server said goodbye before the request was on its way.
                Err(error) if error.is_canceled() => continue,
                Err(error) => return Err(format!("{error:?}")),
            }
        }
    }
}

/// A client with one HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Http2(http2::SendRequest<Body>);

impl Http2 {
    pub(crate) async fn new(address: &str) -> Self {
        let made = http2::handshake(TokioExecutor::new(), connect(address).await.unwrap()).await;
        let (sender, connection) = made.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Http2(sender)
    }

    pub(crate) async fn exchange(
        &mut self,
        request: Request<Body>,
        length: Option<usize>,
    ) -> Result<(), String> {
        let response = self.0.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        is_fine(response, length).await
    }
}

/// A call of the echo sample's `EchoStream`: three messages, 60 ms apart, each of which is answered twice.
pub(crate) fn stream_call(authority: &str) -> Request<Body> {
    // EchoRequest {message: "hi", count: 2}
    let message = [0x0a, 2, b'h', b'i', 0x20, 2];
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let framed = framed.freeze();
    let messages = stream::unfold(0, move |at| {
        let framed = framed.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(60)).await;
            (at < 3).then(|| (Ok::<_, Infallible>(Frame::data(framed)), at + 1))
        }
    });
    Request::post(format!("http://{authority}/ieum.sample.v1.Echo/EchoStream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(messages).boxed_unsync())
        .unwrap()
}
