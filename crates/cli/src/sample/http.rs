//! HTTP for the samples: a server that speaks HTTP/1.1 and HTTP/2 on one port, and the small things every service needs
//! to answer. What is answered is for the services.

use super::{Instance, listen, tls};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(super) type Request = hyper::Request<Incoming>;
pub(super) type Response = hyper::Response<Body>;

/// A service closes the connection (HTTP/2: resets the stream) instead of answering.
#[derive(Debug)]
pub(super) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed on request")
    }
}

impl Error for Closed {}

/// What answers requests.
pub(super) trait Service: Send + Sync + 'static {
    fn answer(
        &self,
        request: Request,
        peer: SocketAddr,
    ) -> impl Future<Output = Result<Response, Closed>> + Send;
}

/// Serves until SIGTERM or SIGINT, then lets requests in flight finish. With `tls`, in TLS.
///
/// Errors: the signals cannot be listened for.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: Arc<impl Service>,
) -> std::io::Result<()> {
    listen::serve(listener, move |stream, peer, stop| {
        let (tls, service) = (tls.clone(), service.clone());
        async move {
            let Some(tls) = tls else { return connection(stream, peer, None, service, stop).await };
            // Who fails the handshake learns why by TLS's own alert.
            if let Ok(stream) = tls.accept(stream).await {
                let facts = Some(tls::Facts::of(stream.get_ref().1));
                connection(stream, peer, facts, service, stop).await;
            }
        }
    })
    .await
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    facts: Option<tls::Facts>,
    service: Arc<impl Service>,
    stop: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // No timeout for idle connections: one that we close just as a proxy reuses it would look like a fault of the mesh.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(64 * 1024)
        .max_concurrent_streams(100)
        .enable_connect_protocol();
    let answer = service_fn(move |mut request: Request| {
        let service = service.clone();
        if let Some(facts) = &facts {
            request.extensions_mut().insert(facts.clone());
        }
        async move { service.answer(request, peer).await }
    });
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), answer));
    tokio::select! {
        // Errors are the peer's: it went away or did not speak HTTP. There is nobody to tell.
        _ = served.as_mut() => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(super) fn empty() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// An answer with a body of the given content type.
pub(super) fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    respond(status, "application/json", full(value.to_string()))
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    respond(status, "text/plain; charset=utf-8", full(text.into()))
}

/// 404 or 405 in the form all samples use.
pub(super) fn not_served(method: &Method, path: &str) -> Response {
    let (status, error) = match *method {
        Method::GET | Method::HEAD => (StatusCode::NOT_FOUND, format!("nothing is at {path}")),
        _ => (StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not served at {path}")),
    };
    json(status, &json!({ "error": error }))
}

/// 302 to a path of our own.
pub(super) fn see(path: &'static str) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(path));
    response
}

/// Header that names the process that answered.
pub(super) const INSTANCE: &str = "x-sample-instance";
/// Header that names its version.
pub(super) const VERSION: &str = "x-sample-version";

/// Puts on an answer who gave it.
pub(super) fn signed(mut response: Response, instance: &Instance) -> Response {
    for (name, value) in [(INSTANCE, &instance.name), (VERSION, &instance.version)] {
        // A name that cannot be a header value is left out: the answer matters more.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The whole body, when it has at most `limit` bytes.
pub(super) async fn read<B>(body: B, limit: usize) -> Result<Bytes, BoxError>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    Ok(Limited::new(body, limit).collect().await?.to_bytes())
}

/// The pairs of a query or a form (`application/x-www-form-urlencoded`), decoded.
pub(super) fn pairs(encoded: &str) -> impl Iterator<Item = (String, String)> {
    encoded.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
    })
}

/// Percent-decodes; what is no valid escape stays as it is, what is no UTF-8 becomes U+FFFD.
pub(super) fn decode(encoded: &str) -> String {
    let hex = |digit: u8| char::from(digit).to_digit(16);
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (*first, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push((high * 16 + low) as u8);
            rest = after;
        } else {
            decoded.push(*first);
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Percent-encodes all but letters, digits and `-._~`.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_broken_escapes_kept() {
        let found: Vec<_> = pairs("a=1+2&b=%C3%A9&&c&d=%zz%4").collect();
        let expected = [("a", "1 2"), ("b", "é"), ("c", ""), ("d", "%zz%4")];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["jason", "a b;c=d", "이음", "100%", "\r\n"] {
            assert_eq!(decode(&encode(text)), text);
            assert!(encode(text).bytes().all(|b| b.is_ascii_graphic() && b != b';'));
        }
    }
}
