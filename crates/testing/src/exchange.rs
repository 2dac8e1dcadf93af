//! A client that sends exactly the bytes it is told to and takes the answer as it stands on the wire; and the same
//! over HTTP/2 with prior knowledge.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;

/// Longest wait for the next byte.
const PATIENCE: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Status; 0 when the connection closed, or the stream was reset, without one.
    pub status: u16,
    /// `HTTP/1.1`...; empty without an answer.
    pub version: String,
    /// Header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, chunks put together.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<(String, String)>,
    /// Statuses of interim answers before it.
    pub interim: Vec<u16>,
    /// It broke off before its end.
    pub broken: bool,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A client's HTTP/1 connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    ended: bool,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new(), ended: false }
    }

    /// Connects from an address of this machine.
    pub fn open_from(source: SocketAddr, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connecting = async {
            let socket = match source {
                SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4().unwrap(),
                SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6().unwrap(),
            };
            socket.set_reuseaddr(true).unwrap();
            socket.bind(source).unwrap_or_else(|error| panic!("from {source}: {error}"));
            let stream = socket.connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
            stream.into_std().unwrap()
        };
        let stream = runtime.block_on(connecting);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new(), ended: false }
    }

    /// This end's address.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends bytes. The other side may have closed already; its answer tells.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until `count` bytes are there that no answer used, or the end.
    pub fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count && self.fill() {}
        let count = count.min(self.read.len());
        self.read.drain(..count).collect()
    }

    /// Whether the other side closes without another byte.
    pub fn is_closed(&mut self) -> bool {
        !self.fill() && self.read.is_empty()
    }

    /// Reads one interim or final head: its status, if there is one.
    pub fn read_interim(&mut self) -> Option<u16> {
        let head = self.read_head()?;
        head.split(' ').nth(1)?.parse().ok()
    }

    /// Reads one answer, interim ones before it included. `to_head`: the request was a HEAD.
    pub fn read_answer(&mut self, to_head: bool) -> Answer {
        let mut answer = Answer::default();
        loop {
            let Some(head) = self.read_head() else { return answer };
            let mut lines = head.split("\r\n");
            let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
            let version = first.next().unwrap_or_default().to_owned();
            let status = first.next().and_then(|code| code.parse().ok()).unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                answer.interim.push(status);
                continue;
            }
            (answer.version, answer.status) = (version, status);
            answer.headers = lines.filter_map(header_line).collect();
            break;
        }
        if !to_head && !matches!(answer.status, 101 | 204 | 304) {
            self.read_body(&mut answer);
        }
        answer
    }

    fn read_body(&mut self, answer: &mut Answer) {
        if answer.header("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
            self.read_chunks(answer);
        } else if let Some(length) = answer.header("content-length").and_then(|text| text.parse().ok()) {
            answer.body = self.read_bytes(length);
            answer.broken = answer.body.len() < length;
        } else {
            while self.fill() {}
            answer.body = std::mem::take(&mut self.read);
        }
    }

    fn read_chunks(&mut self, answer: &mut Answer) {
        loop {
            let size = self
                .read_line()
                .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
            let Some(size) = size else {
                answer.broken = true;
                return;
            };
            if size == 0 {
                break;
            }
            let chunk = self.read_bytes(size);
            answer.broken = chunk.len() < size;
            answer.body.extend(chunk);
            if self.read_line().is_none() {
                answer.broken = true;
                return;
            }
        }
        while let Some(line) = self.read_line() {
            match header_line(&line) {
                Some(trailer) => answer.trailers.push(trailer),
                None => return,
            }
        }
        answer.broken = true;
    }

    fn read_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head[..end]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads more; `false` at the end. Waiting in vain is a failure of its own, not an end.
    fn fill(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let mut buffer = [0; 16_384];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.read.extend(&buffer[..count]),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                let so_far = String::from_utf8_lossy(&self.read);
                panic!("no byte in {PATIENCE:?}; left over: `{so_far}`")
            }
            Err(_) => self.ended = true,
        }
        !self.ended
    }
}

fn header_line(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// Sends one request on a connection of its own and reads the answer.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(request);
    connection.read_answer(request.starts_with(b"HEAD "))
}

/// What is sent over HTTP/2.
#[derive(Debug, Clone)]
pub struct Request2 {
    /// Method, authority, path and headers.
    pub head: http::Request<()>,
    /// Body.
    pub body: Vec<u8>,
    /// Trailers, if any.
    pub trailers: Option<http::HeaderMap>,
}

/// Sends one request over an HTTP/2 connection of its own and reads the answer.
pub fn exchange2(address: SocketAddr, request: Request2) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut answer = Answer::default();
        answer.broken = stream2(client, request, &mut answer).await.is_err();
        answer
    };
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer over HTTP/2 in time")
    })
}

async fn stream2(
    client: h2::client::SendRequest<Bytes>,
    request: Request2,
    answer: &mut Answer,
) -> Result<(), h2::Error> {
    let mut client = client.ready().await?;
    let Request2 { head, body, trailers } = request;
    let ends = body.is_empty() && trailers.is_none();
    let (response, mut stream) = client.send_request(head, ends)?;
    if !body.is_empty() {
        stream.send_data(body.into(), trailers.is_none())?;
    }
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers)?;
    }
    let (head, mut body) = response.await?.into_parts();
    answer.status = head.status.as_u16();
    answer.version = "HTTP/2".to_owned();
    answer.headers = lines(&head.headers);
    while let Some(data) = body.data().await {
        let data = data?;
        answer.body.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    answer.trailers = body.trailers().await?.as_ref().map(lines).unwrap_or_default();
    Ok(())
}

fn lines(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
