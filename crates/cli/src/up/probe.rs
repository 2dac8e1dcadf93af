//! Looking whether something is up: does it accept connections, does its admin page say so.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for one look.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether somebody accepts connections at `address`.
pub(super) async fn accepts(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// The status that `address` answers to a request without body, if it answers.
pub(super) async fn status(address: SocketAddr, method: &str, path: &str) -> Option<u16> {
    tokio::time::timeout(PATIENCE, ask(address, method, path)).await.ok()?
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    let mut limited = stream.take(64 * 1024);
    limited.read_to_end(&mut head).await.ok()?;
    let line = head.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_status_is_read_and_silence_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(accepts(address).await);
        let answering = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                if stream.read(&mut request).await.unwrap() > 0 {
                    stream.write_all(b"HTTP/1.1 503 Not Ready\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    return;
                }
            }
        });
        assert_eq!(status(address, "GET", "/ready").await, Some(503));
        answering.await.unwrap();
        assert_eq!(status(address, "GET", "/ready").await, None);
    }
}
