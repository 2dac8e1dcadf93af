//! Two processes that talk over a socket: one JSON value a line, each way.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// One end of it.
pub(super) struct Link {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Link {
    /// This end of `stream`.
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self { lines: BufReader::new(read).lines(), write }
    }

    /// The next that the other says; `None` when it is gone, or says what nobody understands. Can be given up.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> Option<T> {
        serde_json::from_str(&self.lines.next_line().await.ok()??).ok()
    }

    /// Says something.
    pub(super) async fn say(&mut self, what: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(what) else { return };
        line.push(b'\n');
        // That the other is gone is heard.
        let _ = self.write.write_all(&line).await;
    }

    /// Says no more, and waits so long for the other to do likewise.
    pub(super) async fn close(&mut self, patience: Duration) {
        let _ = self.write.shutdown().await;
        let forgotten = async { while let Ok(Some(_)) = self.lines.next_line().await {} };
        let _ = tokio::time::timeout(patience, forgotten).await;
    }
}
