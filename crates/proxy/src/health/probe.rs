//! Asking an endpoint whether it is healthy: over HTTP, gRPC (`grpc.health.v1.Health`) or plain TCP, through the transport
//! that its requests take.

use crate::snapshot::EndpointState;
use crate::upstream::{Connected, Stream, connect};
use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, HOST, HeaderName, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::cluster::Cluster;
use model::health::{CheckOutcome, HealthCheck, HttpProbe, Probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest answer that is read.
const LIMIT: usize = 64 * 1024;
const AGENT: HeaderValue = HeaderValue::from_static("Ieum/HC");
const SERVICE: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// How a check failed, and why.
pub(super) type Failed = (CheckOutcome, String);

/// A connection that is kept between checks.
#[derive(Default)]
pub(super) struct Kept(Option<Sender>);

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct GrpcRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct GrpcResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING`.
const SERVING: i32 = 1;

/// Asks once. The limit in time is the caller's.
pub(super) async fn ask(
    cluster: &Cluster,
    endpoint: &EndpointState,
    rule: &HealthCheck,
    kept: &mut Kept,
) -> Result<(), Failed> {
    match &rule.probe {
        Probe::Tcp { send, receive } => {
            let Connected { mut stream, .. } = connect(cluster, endpoint).await.map_err(failed)?;
            ask_tcp(&mut stream, send, receive).await
        }
        Probe::Http(probe) => {
            let mut sender = sender(cluster, endpoint, probe.http2, rule, kept).await?;
            let host = host(&probe.host, cluster, endpoint);
            let mut request = request(&sender, probe.method.clone(), host, &probe.path, Bytes::new())?;
            for (name, value) in &probe.headers {
                request.headers_mut().append(name, value.clone());
            }
            let answer = sender.send(request).await?;
            let verdict = judge(probe, &answer);
            if read(answer).await.is_ok() && rule.reuse_connection {
                kept.0 = Some(sender);
            }
            verdict
        }
        Probe::Grpc { service, authority } => {
            let mut sender = sender(cluster, endpoint, true, rule, kept).await?;
            let host = host(authority, cluster, endpoint);
            let message = prost::Message::encode_to_vec(&GrpcRequest { service: service.clone() });
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
            let body = [&[0], length.as_slice(), &message].concat();
            let path = "/grpc.health.v1.Health/Check";
            let mut request = request(&sender, Method::POST, host, path, body.into())?;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
            let answer = sender.send(request).await?;
            let verdict = judge_grpc(answer).await;
            if verdict.is_ok() && rule.reuse_connection {
                kept.0 = Some(sender);
            }
            verdict
        }
    }
}

fn failed(why: impl std::fmt::Display) -> Failed {
    (CheckOutcome::Failed, why.to_string())
}

fn refused(why: String) -> Failed {
    (CheckOutcome::Refused, why)
}

fn host<'h>(said: &'h str, cluster: &'h Cluster, endpoint: &'h EndpointState) -> &'h str {
    [said, &endpoint.endpoint.hostname, &cluster.name].into_iter().find(|host| !host.is_empty()).unwrap_or("")
}

async fn sender(
    cluster: &Cluster,
    endpoint: &EndpointState,
    http2: bool,
    rule: &HealthCheck,
    kept: &mut Kept,
) -> Result<Sender, Failed> {
    if let Some(sender) = kept.0.take().filter(|sender| rule.reuse_connection && sender.is_ready()) {
        return Ok(sender);
    }
    let Connected { stream, .. } = connect(cluster, endpoint).await.map_err(failed)?;
    let stream = TokioIo::new(stream);
    if http2 {
        let mut builder = http2::Builder::new(LocalExecutor);
        builder.timer(TokioTimer::new()).max_header_list_size(LIMIT as u32);
        let (sender, connection) = builder.handshake(stream).await.map_err(failed)?;
        // Its end is seen when it is used again.
        tokio::task::spawn_local(async move { drop(connection.await) });
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) =
        http1::Builder::new().max_buf_size(LIMIT).handshake(stream).await.map_err(failed)?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(Sender::Http1(sender))
}

impl Sender {
    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await.map_err(failed),
            Self::Http2(sender) => sender.send_request(request).await.map_err(failed),
        }
    }
}

fn request(
    sender: &Sender,
    method: Method,
    host: &str,
    path: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Failed> {
    let target = PathAndQuery::try_from(path).map_err(failed)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    match sender {
        Sender::Http1(_) => {
            *request.uri_mut() = Uri::from(target);
            request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(failed)?);
        }
        Sender::Http2(_) => {
            let mut uri = http::uri::Parts::default();
            uri.scheme = Some(Scheme::HTTP);
            // Names of clusters need not be host names.
            uri.authority = Some(Authority::try_from(host).unwrap_or(Authority::from_static("health-check")));
            uri.path_and_query = Some(target);
            *request.uri_mut() = Uri::from_parts(uri).map_err(failed)?;
        }
    }
    request.headers_mut().insert(USER_AGENT, AGENT);
    Ok(request)
}

async fn read(answer: Response<Incoming>) -> Result<(), Failed> {
    Limited::new(answer.into_body(), LIMIT).collect().await.map(drop).map_err(failed)
}

fn judge(probe: &HttpProbe, answer: &Response<Incoming>) -> Result<(), Failed> {
    let status = answer.status().as_u16();
    let is_in = |ranges: &[(u16, u16)]| ranges.iter().any(|(start, end)| (*start..*end).contains(&status));
    if answer.headers().contains_key(IMMEDIATE) {
        return Err(refused("it says that it fails".to_owned()));
    }
    if !is_in(&probe.expected) {
        let outcome = if is_in(&probe.retriable) { CheckOutcome::Failed } else { CheckOutcome::Refused };
        return Err((outcome, format!("it answers {status}")));
    }
    let Some(wanted) = &probe.service else { return Ok(()) };
    let named = answer.headers().get(SERVICE).map(HeaderValue::as_bytes).unwrap_or_default();
    match wanted.matches(named) {
        true => Ok(()),
        false => Err(refused(format!("it is another service: `{}`", String::from_utf8_lossy(named)))),
    }
}

async fn judge_grpc(answer: Response<Incoming>) -> Result<(), Failed> {
    let (head, body) = answer.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(refused(format!("it answers {}", head.status.as_u16())));
    }
    let body = Limited::new(body, LIMIT).collect().await.map_err(failed)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get(GRPC_STATUS).or(head.headers.get(GRPC_STATUS));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        status => {
            let status = String::from_utf8_lossy(status.unwrap_or(b"none")).into_owned();
            return Err(refused(format!("its gRPC status is {status}")));
        }
    }
    let mut bytes = body.to_bytes();
    if bytes.len() < 5 || bytes.get_u8() != 0 || bytes.get_u32() as usize != bytes.len() {
        return Err(refused("its answer is not a gRPC message".to_owned()));
    }
    let found: GrpcResponse = prost::Message::decode(bytes).map_err(failed)?;
    match found.status {
        SERVING => Ok(()),
        other => Err(refused(format!("it is not serving (status {other})"))),
    }
}

async fn ask_tcp(stream: &mut Stream, send: &[u8], receive: &[Vec<u8>]) -> Result<(), Failed> {
    if !send.is_empty() {
        stream.write_all(send).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
    }
    let mut got = Vec::new();
    while !has_all(&got, receive) {
        if got.len() >= LIMIT {
            return Err(failed("it sends something else"));
        }
        if stream.read_buf(&mut got).await.map_err(failed)? == 0 {
            return Err(failed("it closes before it has answered"));
        }
    }
    Ok(())
}

/// Whether all parts are there, in this order.
fn has_all(mut got: &[u8], parts: &[Vec<u8>]) -> bool {
    parts.iter().filter(|part| !part.is_empty()).all(|part| {
        let found = got.windows(part.len()).position(|window| window == part);
        got = found.and_then(|at| got.get(at + part.len()..)).unwrap_or_default();
        found.is_some()
    })
}

/// Runs HTTP/2's own tasks on this thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_has_to_come_in_order() {
        let parts = [b"ab".to_vec(), b"c".to_vec()];
        assert!(has_all(b"xabxcx", &parts));
        assert!(!has_all(b"cab", &parts));
        assert!(has_all(b"", &[]));
    }
}
