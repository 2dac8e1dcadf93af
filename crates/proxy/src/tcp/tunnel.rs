//! A connection inside of an HTTP/1.1 request to its endpoint: CONNECT, and from a 2xx on bytes as they are.

use crate::record::Exchange;
use crate::upstream::{Connected, Stream};
use http::{HeaderMap, Method};
use model::header::RequestHead;
use model::listener::Tunnel;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

/// Time for the endpoint to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of its answer's head.
const LIMIT: u64 = 64 * 1024;

/// Asks for the tunnel; what comes out of the stream then are the bytes inside, or why there are none.
pub(super) async fn open(
    tunnel: &Tunnel,
    exchange: &Exchange,
    connected: Connected,
) -> Result<BufReader<Stream>, String> {
    if tunnel.post_path.is_some() {
        return Err("tunnels by POST are not supported yet".to_owned());
    }
    let head = head(tunnel, exchange);
    let mut stream = BufReader::with_capacity(4096, connected.stream);
    let asking = async {
        let broken = |error: std::io::Error| format!("the tunnel could not be asked for: {error}");
        stream.write_all(&head).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        granted(&mut stream).await
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(outcome) => outcome.map(|()| stream),
        Err(_) => Err(format!("no answer to CONNECT within {} s", PATIENCE.as_secs())),
    }
}

fn head(tunnel: &Tunnel, exchange: &Exchange) -> Vec<u8> {
    let none = HeaderMap::new();
    let request = RequestHead {
        method: &Method::CONNECT,
        scheme: "",
        authority: "",
        path: "",
        query: None,
        headers: &none,
    };
    let facts = exchange.facts(&request, None);
    let mut host = Vec::new();
    tunnel.host.write(&facts, "", &mut host);
    // What a client says must not end the line.
    host.retain(|byte| byte.is_ascii_graphic());
    let mut head = [b"CONNECT ", host.as_slice(), b" HTTP/1.1\r\nhost: ", host.as_slice(), b"\r\n"].concat();
    for edit in &tunnel.headers.add {
        let mut value = Vec::new();
        edit.value.write(&facts, "", &mut value);
        value.retain(|byte| !byte.is_ascii_control());
        if value.is_empty() && !edit.keep_empty {
            continue;
        }
        head.extend_from_slice(edit.name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(&value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Reads the answer's head.
async fn granted<IO: AsyncRead + Unpin>(stream: &mut BufReader<IO>) -> Result<(), String> {
    let mut left = stream.take(LIMIT);
    let mut status = None;
    loop {
        let mut line = Vec::new();
        let read = left.read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) || !line.ends_with(b"\r\n") {
            return Err("the answer to CONNECT is not HTTP/1.1, or broke off".to_owned());
        }
        match status {
            None => status = Some(status_of(&line).ok_or("the answer to CONNECT is not HTTP/1.1")?),
            Some(200..300) if line == b"\r\n" => return Ok(()),
            // An interim answer: the next one counts.
            Some(100..200) if line == b"\r\n" => status = None,
            Some(other) if line == b"\r\n" => return Err(format!("CONNECT was answered {other}")),
            Some(_) => {}
        }
    }
}

fn status_of(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest.get(1) == Some(&b' '))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn bytes_behind_the_answer_are_kept_and_refusals_are_told() {
        let answer = async |text: &str| {
            let mut stream = BufReader::new(std::io::Cursor::new(text.as_bytes().to_vec()));
            let outcome = granted(&mut stream).await;
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            (outcome, rest)
        };
        let first = "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\nhello";
        assert_eq!(answer(first).await, (Ok(()), "hello".to_owned()));
        assert_eq!(answer("HTTP/1.1 503 No\r\n\r\n").await.0, Err("CONNECT was answered 503".to_owned()));
        assert!(answer("SSH-2.0\r\n").await.0.is_err());
        assert!(answer("HTTP/1.1 200 OK\r\n").await.0.is_err());
    }
}
