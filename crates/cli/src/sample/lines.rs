//! `tcp-echo`: says every line back with its version before it, over plain TCP. What shows which version a connection
//! came to where nobody can look into it.

use super::{Instance, listen};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A longer line is said back in pieces.
const LONGEST_LINE: u64 = 64 * 1024;

/// Serves until a signal.
pub(super) async fn serve(listener: TcpListener, instance: Instance) -> std::io::Result<()> {
    let prefix = format!("{} ", instance.version);
    listen::serve(listener, move |stream, _, stop| {
        let prefix = prefix.clone();
        async move {
            tokio::select! {
                // An error is the peer's: it went away.
                _ = converse(stream, &prefix) => {}
                () = stop.cancelled() => {}
            }
        }
    })
    .await
}

async fn converse(mut stream: TcpStream, prefix: &str) -> std::io::Result<()> {
    let (from, mut to) = stream.split();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        line.extend_from_slice(prefix.as_bytes());
        if (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(&line).await?;
    }
}
