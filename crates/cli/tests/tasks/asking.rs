//! One request, one answer: over HTTP/1.1, TLS or plain TCP, at a gateway or through a workload's sidecar.

use crate::mesh::BOUND;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Answer {
    /// A header's value, empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    /// The version that says to have answered.
    pub(crate) fn version(&self) -> String {
        self.json()["version"].as_str().unwrap_or_else(|| panic!("a version: {self:?}")).to_owned()
    }
}

/// GETs a path of `address`.
pub(crate) async fn get(address: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(address, path, address, headers).await
}

/// GETs a URL through an HTTP proxy: a sidecar.
pub(crate) async fn get_through(proxy: &str, url: &str) -> Answer {
    let rest = url.strip_prefix("http://").unwrap();
    ask(proxy, url, rest.split(['/', '?']).next().unwrap(), &[]).await
}

async fn ask(address: &str, target: &str, host: &str, headers: &[(&str, &str)]) -> Answer {
    let start = Instant::now();
    let exchange = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::get(target);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", host);
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head, String::from_utf8_lossy(&body).into_owned())
    };
    let (head, body) = tokio::time::timeout(BOUND, exchange).await.unwrap();
    Answer { status: head.status.as_u16(), headers: head.headers, body, took: start.elapsed() }
}

/// Asks until the answer is as wished; that one.
pub(crate) async fn until<F>(
    what: &str,
    mut ask: impl FnMut() -> F,
    wished: impl Fn(&Answer) -> bool,
) -> Answer
where
    F: Future<Output = Answer>,
{
    let end = Instant::now() + BOUND;
    loop {
        let answer = ask().await;
        if wished(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "in time: {what}; the last answer was {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says `hello` on a connection of its own and returns what is said back. With a proxy, `address` is reached by CONNECT.
pub(crate) async fn hello(proxy: Option<&str>, address: &str) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(proxy.unwrap_or(address)).await.unwrap();
        if proxy.is_some() {
            let head = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = line(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            while !line(&mut stream).await.trim().is_empty() {}
        }
        stream.write_all(b"hello\n").await.unwrap();
        line(&mut stream).await.trim().to_owned()
    };
    tokio::time::timeout(BOUND, talk).await.unwrap()
}

async fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

/// GETs `/` over TLS with server name `host`, trusting `certificates/example.pem` only, with a client certificate if one is
/// named; what `openssl s_client` says.
pub(crate) fn get_tls(address: &str, host: &str, folder: &Path, client: Option<&str>) -> String {
    let file = |name: String| folder.join("certificates").join(name).display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", address, "-servername", host, "-verify_hostname", host]);
    openssl.args(["-verify_return_error", "-ign_eof", "-CAfile", &file("example.pem".to_owned())]);
    if let Some(name) = client {
        openssl.args(["-cert", &file(format!("{name}.pem")), "-key", &file(format!("{name}.key"))]);
    }
    let mut child =
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // Who is refused may be gone already.
    let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
