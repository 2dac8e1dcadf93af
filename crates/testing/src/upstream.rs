//! An HTTP server in the test's own process that remembers what it saw and answers as the request tells it to.
//!
//! `x-answer` says how, one answer per attempt separated by `;`, the last one for all further attempts; attempts are
//! told apart by `x-case`. Words: `status=503`, `delay=200` (ms), `length=100000`, `chunked`, `header=name:value`,
//! `trailer=name:value`, `echo` (the request's body), `reset` (no answer), `partial` (a body that breaks off),
//! `early` (before the request's body is read), `upgrade` (101, then every byte comes back).

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Name of the upstream.
    pub upstream: String,
    /// Method.
    pub method: String,
    /// Request target as it stood on the wire; for HTTP/2 `:path`.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Header lines in order, names in lower case; for HTTP/2 `host` is `:authority`.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Memory {
    seen: Vec<Seen>,
    attempts: HashMap<String, usize>,
}

/// The server. Speaks HTTP/1.1 and HTTP/2 with prior knowledge; ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    _end: oneshot::Sender<()>,
}

impl Upstream {
    /// Starts one.
    pub fn start(name: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let memory = Arc::new(Mutex::new(Memory::default()));
        let (end, ended) = oneshot::channel();
        let accept = accept(listener, name, Arc::clone(&memory));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! { () = accept => {}, _ = ended => {} }
            });
        });
        Self { address, memory, _end: end }
    }

    /// What was seen since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.memory.lock().unwrap().seen)
    }
}

async fn accept(listener: std::net::TcpListener, name: &'static str, memory: Arc<Mutex<Memory>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let memory = Arc::clone(&memory);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(name, Arc::clone(&memory), request));
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().half_close(true);
            // A broken connection is what some cases are about.
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

/// How one request is to be answered.
#[derive(Debug, Default)]
struct Plan {
    words: Vec<String>,
}

impl Plan {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.values(key).next()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.parse().ok()
    }

    fn values<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        let start = format!("{key}=");
        self.words.iter().filter_map(move |word| word.strip_prefix(&start))
    }

    /// `name:value` pairs.
    fn pairs<'a>(&'a self, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values(key).filter_map(|pair| pair.split_once(':'))
    }
}

async fn answer(
    name: &'static str,
    memory: Arc<Mutex<Memory>>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, std::io::Error> {
    let plan = plan(&memory, request.headers());
    let upgrade = plan.has("upgrade").then(|| hyper::upgrade::on(&mut request));
    let mut seen = seen(name, &request);
    if upgrade.is_none() && !plan.has("early") {
        // A request that breaks off is not remembered: when it is noticed is chance.
        let collected = request.into_body().collect().await.map_err(std::io::Error::other)?;
        seen.trailers = collected.trailers().map(lines).unwrap_or_default();
        seen.body = collected.to_bytes().to_vec();
    }
    let echoed = seen.body.clone();
    memory.lock().unwrap().seen.push(seen);
    if let Some(delay) = plan.number("delay") {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if plan.has("reset") {
        return Err(std::io::Error::other("told to"));
    }
    let mut response = Response::new(body(name, &plan, echoed));
    let status = plan.number("status").and_then(|code| u16::try_from(code).ok()).unwrap_or(200);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in plan.pairs("header") {
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    if let Some(upgrade) = upgrade {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response
            .headers_mut()
            .insert("upgrade", plan.value("protocol").unwrap_or("websocket").parse().unwrap());
        *response.body_mut() = Answer::default();
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
    }
    Ok(response)
}

fn plan(memory: &Mutex<Memory>, headers: &HeaderMap) -> Plan {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let mut memory = memory.lock().unwrap();
    let attempt = memory.attempts.entry(text("x-case")).or_default();
    let script = text("x-answer");
    let answers: Vec<&str> = script.split(';').collect();
    let chosen = answers.get(*attempt).or(answers.last()).copied().unwrap_or_default();
    *attempt += 1;
    Plan { words: chosen.split_whitespace().map(str::to_owned).collect() }
}

fn seen(name: &str, request: &Request<Incoming>) -> Seen {
    let is_http2 = request.version() == hyper::Version::HTTP_2;
    let mut headers = lines(request.headers());
    let target = match request.uri().path_and_query() {
        Some(path) if is_http2 => path.to_string(),
        _ => request.uri().to_string(),
    };
    if let (true, Some(authority)) = (is_http2, request.uri().authority()) {
        headers.insert(0, ("host".to_owned(), authority.to_string()));
    }
    Seen {
        upstream: name.to_owned(),
        method: request.method().to_string(),
        target,
        version: format!("{:?}", request.version()),
        headers,
        body: Vec::new(),
        trailers: Vec::new(),
    }
}

fn lines(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// A body of prepared frames that may break off after them.
#[derive(Debug, Default)]
struct Answer {
    frames: std::collections::VecDeque<Frame<Bytes>>,
    length: Option<u64>,
    /// Time after the last frame, before it breaks off.
    breaks: Option<Pin<Box<tokio::time::Sleep>>>,
}

fn body(name: &str, plan: &Plan, echoed: Vec<u8>) -> Answer {
    let content = match plan.number("length") {
        Some(length) => (0..length).map(|at| b'a' + (at % 26) as u8).collect(),
        None if plan.has("echo") => echoed,
        None if matches!(plan.number("status"), Some(204 | 304)) => Vec::new(),
        None => format!("{name}\n").into_bytes(),
    };
    let trailers: HeaderMap = plan
        .pairs("trailer")
        .map(|(name, value)| {
            (hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap())
        })
        .collect();
    let streams = plan.has("chunked") || plan.has("partial") || !trailers.is_empty();
    let mut answer = Answer { length: (!streams).then_some(content.len() as u64), ..Answer::default() };
    answer.frames.extend(content.chunks(16_384).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk))));
    if plan.has("partial") {
        // What stands before it must have left by then.
        answer.breaks = Some(Box::pin(tokio::time::sleep(Duration::from_millis(100))));
    }
    if !trailers.is_empty() {
        answer.frames.push_back(Frame::trailers(trailers));
    }
    answer
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.breaks {
            None => Poll::Ready(None),
            Some(time) => time.as_mut().poll(context).map(|()| Some(Err(std::io::Error::other("told to")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.breaks.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.length.map(http_body::SizeHint::with_exact).unwrap_or_default()
    }
}
