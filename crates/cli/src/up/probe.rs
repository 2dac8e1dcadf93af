//! Looking whether something is up: does it accept connections, what does its admin page say.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest wait for one look.
const PATIENCE: Duration = Duration::from_secs(1);
/// No page that is looked at is longer.
const LONGEST_PAGE: usize = 16 << 20;

/// Whether somebody accepts connections at `address`.
pub(super) async fn accepts(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// The status that `address` answers to a request without body, if it answers.
pub(super) async fn status(address: SocketAddr, method: &str, path: &str) -> Option<u16> {
    page(address, method, path).await.map(|(status, _)| status)
}

/// Status and body that `address` answers to a request without body, if it answers.
pub(super) async fn page(address: SocketAddr, method: &str, path: &str) -> Option<(u16, Bytes)> {
    // Why there is no answer is for who looks again and again; nobody is told each time.
    tokio::time::timeout(PATIENCE, ask(address, method, path)).await.ok()?.ok()
}

/// The status that is answered over a connection.
pub(super) async fn status_over(stream: std::net::TcpStream, method: &str, path: &str) -> Option<u16> {
    stream.set_nonblocking(true).ok()?;
    let exchange = exchange(TcpStream::from_std(stream).ok()?, method, path);
    Some(tokio::time::timeout(PATIENCE, exchange).await.ok()?.ok()?.0)
}

type Answered = Result<(u16, Bytes), Box<dyn Error + Send + Sync>>;

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answered {
    exchange(TcpStream::connect(address).await?, method, path).await
}

async fn exchange(stream: TcpStream, method: &str, path: &str) -> Answered {
    let address = stream.peer_addr()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with its sender; what goes wrong with it reaches the request.
    tokio::spawn(async { drop(connection.await) });
    let request = hyper::Request::builder().method(method).uri(path).header(HOST, address.to_string());
    let request = request.header(CONTENT_LENGTH, 0).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), LONGEST_PAGE).collect().await?;
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn status_and_body_are_read_and_silence_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(accepts(address).await);
        let answering = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                if stream.read(&mut request).await.unwrap() > 0 {
                    stream.write_all(b"HTTP/1.1 503 Not Ready\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
                    return;
                }
            }
        });
        assert_eq!(page(address, "GET", "/ready").await, Some((503, Bytes::from_static(b"no"))));
        answering.await.unwrap();
        assert_eq!(status(address, "GET", "/ready").await, None);
    }
}
