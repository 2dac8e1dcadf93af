//! Accepts connections until a signal, then lets those that are open finish. What is said on them is for others.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long what is in flight may take once a signal asked us to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT. `connection` gets each stream and its peer, and is told by the token to come to an end.
///
/// Errors: the signals cannot be listened for.
pub(super) async fn serve<F>(
    listener: TcpListener,
    connection: impl Fn(TcpStream, SocketAddr, CancellationToken) -> F,
) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A socket that refuses the option is served all the same.
                let _ = stream.set_nodelay(true);
                connections.spawn(connection(stream, peer, stop.clone()));
            }
            // Out of file descriptors, most likely: others have to close before accepting can succeed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    drop(listener);
    stop.cancel();
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
    Ok(())
}
