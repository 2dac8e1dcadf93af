//! How one sample calls another: by name, through the proxy of the environment, on connections that are kept.
//! No retries and no balancing: that is what the mesh is for.

use super::Environment;
use super::http::{INSTANCE, VERSION, read};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// No answer of a sample is longer.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// More idle connections than this are closed.
const IDLE_CONNECTIONS: usize = 64;

/// Headers an application passes from the request it serves to the requests it makes: trace context in its several
/// dialects, and who the user is.
const FORWARDED: [&str; 21] = [
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "grpc-trace-bin",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
];

/// Those headers of a request that go on to the next service.
pub(super) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in FORWARDED {
        let name = HeaderName::from_static(name);
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

type Sender = SendRequest<Empty<Bytes>>;

/// Another service.
pub(super) struct Upstream {
    /// `host:port` as the mesh knows it.
    authority: String,
    /// `host:port` of the HTTP proxy in between.
    proxy: Option<String>,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outcome: Result<Reply, CallError>,
    pub(super) elapsed: Duration,
}

/// What the other service (or a proxy on the way) answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// Who says to have answered: instance and version.
    pub(super) fn signature(&self) -> (Option<&str>, Option<&str>) {
        let text = |name: &str| self.headers.get(name).and_then(|v| v.to_str().ok());
        (text(INSTANCE), text(VERSION))
    }
}

impl Answer {
    /// The JSON of a 200, else why there is none.
    pub(super) fn json(&self) -> Result<Value, String> {
        let reply = self.outcome.as_ref().map_err(CallError::to_string)?;
        if reply.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&reply.body);
            let line: String = text.lines().next().unwrap_or("").chars().take(200).collect();
            return Err(match line.trim() {
                "" => format!("it answered {}", reply.status),
                line => format!("it answered {}: {line}", reply.status),
            });
        }
        serde_json::from_slice(&reply.body).map_err(|e| format!("its answer is no JSON: {e}"))
    }
}

/// Why a call got no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// No connection to the address.
    Connect(String, std::io::Error),
    /// Nothing within the time.
    TimedOut(Duration),
    /// The connection broke, or what came was not HTTP.
    Broken(hyper::Error),
    /// The answer ended early or is too long.
    Body(super::http::BoxError),
    /// The name of the service makes no URI.
    Name(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Connect(to, _) => write!(f, "no connection to {to}"),
            CallError::TimedOut(after) => write!(f, "no answer within {} s", after.as_secs_f32()),
            CallError::Broken(_) => write!(f, "the connection broke before the answer"),
            CallError::Body(_) => write!(f, "the answer did not come through whole"),
            CallError::Name(name) => write!(f, "{name} is not a host name"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Connect(_, error) => Some(error),
            CallError::Broken(error) => Some(error),
            CallError::Body(error) => Some(error.as_ref()),
            CallError::TimedOut(_) | CallError::Name(_) => None,
        }
    }
}

impl Upstream {
    /// `name` is the service's and, in capitals, the beginning of the variables that move it elsewhere.
    pub(super) fn new(name: &str, timeout: Duration, environment: Environment) -> Self {
        let prefix = name.to_ascii_uppercase();
        let mut host = environment(&format!("{prefix}_HOSTNAME")).unwrap_or_else(|| name.to_owned());
        if let Some(domain) = environment("SERVICES_DOMAIN") {
            host = format!("{host}.{domain}");
        }
        let port = environment(&format!("{prefix}_SERVICE_PORT")).unwrap_or_else(|| "9080".to_owned());
        let either = |lower: &str| environment(lower).or_else(|| environment(&lower.to_ascii_uppercase()));
        let spared = either("no_proxy").is_some_and(|list| is_spared(&host, &list));
        let proxy = either("http_proxy").filter(|_| !spared).map(|proxy| proxy_address(&proxy));
        Upstream { authority: format!("{host}:{port}"), proxy, timeout, idle: Mutex::default() }
    }

    /// GETs a path with the given headers.
    pub(super) async fn get(&self, path: &str, headers: HeaderMap) -> Answer {
        let begun = Instant::now();
        let outcome = match tokio::time::timeout(self.timeout, self.exchange(path, headers)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::TimedOut(self.timeout)),
        };
        Answer { outcome, elapsed: begun.elapsed() }
    }

    async fn exchange(&self, path: &str, mut headers: HeaderMap) -> Result<Reply, CallError> {
        let unusable = || CallError::Name(self.authority.clone());
        headers.insert(HOST, HeaderValue::from_str(&self.authority).map_err(|_| unusable())?);
        // A proxy is told the whole URI (RFC 9112, 3.2.2), a server the path.
        let uri = match self.proxy {
            Some(_) => format!("http://{}{path}", self.authority),
            None => path.to_owned(),
        };
        let mut request = Request::builder().uri(uri).body(Empty::new()).map_err(|_| unusable())?;
        *request.headers_mut() = headers;

        while let Some(mut sender) = self.kept() {
            if sender.ready().await.is_err() {
                continue;
            }
            // The other side may close a kept connection just now; a GET may then be asked again (RFC 9112, 9.3.1).
            if let Ok(response) = sender.send_request(request.clone()).await {
                return self.reply(sender, response).await;
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(CallError::Broken)?;
        self.reply(sender, response).await
    }

    async fn connect(&self) -> Result<Sender, CallError> {
        let to = self.proxy.as_ref().unwrap_or(&self.authority);
        let stream = TcpStream::connect(to).await.map_err(|e| CallError::Connect(to.clone(), e))?;
        // A socket that refuses the option works all the same.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Broken)?;
        // Its errors reach whoever waits for an answer on it.
        tokio::spawn(async { drop(connection.await) });
        Ok(sender)
    }

    async fn reply(
        &self,
        sender: Sender,
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Result<Reply, CallError> {
        let (head, body) = response.into_parts();
        let body = read(body, LONGEST_ANSWER).await.map_err(CallError::Body)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(sender);
        }
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    fn kept(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// `host:port` of a proxy that is given as URL or as `host:port`.
fn proxy_address(proxy: &str) -> String {
    let rest = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let port = authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => authority.to_owned(),
        _ => format!("{authority}:80"),
    }
}

/// Whether `no_proxy` names the host, a domain above it, or everything.
fn is_spared(host: &str, list: &str) -> bool {
    list.split(',').map(|entry| entry.trim().trim_start_matches('.')).any(|entry| {
        entry == "*" || (!entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(variables: &[(&str, &str)]) -> Upstream {
        let environment =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Upstream::new("details", Duration::from_secs(1), &environment)
    }

    #[test]
    fn the_environment_moves_a_service_elsewhere() {
        assert_eq!(upstream(&[]).authority, "details:9080");
        let moved = [("DETAILS_HOSTNAME", "d"), ("DETAILS_SERVICE_PORT", "1"), ("SERVICES_DOMAIN", "b.svc")];
        assert_eq!(upstream(&moved).authority, "d.b.svc:1");
    }

    #[test]
    fn the_proxy_is_taken_from_either_spelling_and_spared_by_no_proxy() {
        assert_eq!(upstream(&[]).proxy, None);
        let lower = upstream(&[("http_proxy", "http://127.0.0.1:15001/"), ("HTTP_PROXY", "other:1")]);
        assert_eq!(lower.proxy.as_deref(), Some("127.0.0.1:15001"));
        assert_eq!(upstream(&[("HTTP_PROXY", "p")]).proxy.as_deref(), Some("p:80"));
        for spared in ["details", "*", "x, details"] {
            assert_eq!(upstream(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", spared)]).proxy, None);
        }
        assert!(upstream(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", "tails")]).proxy.is_some());
    }

    #[test]
    fn trace_headers_go_on_and_others_stay() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static("00-a-b-01"));
        headers.append("baggage", HeaderValue::from_static("a=1"));
        headers.append("baggage", HeaderValue::from_static("b=2"));
        headers.insert("x-forwarded-for", HeaderValue::from_static("1.2.3.4"));
        let kept = forwarded(&headers);
        assert_eq!(kept.len(), 3);
        assert!(kept.contains_key("traceparent") && !kept.contains_key("x-forwarded-for"));
    }
}
