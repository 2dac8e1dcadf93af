//! The mark of all packets that this proxy sends to endpoints and name servers (`SO_MARK`), by which the rules of a
//! network tell them from its workload's own. Of the process, as those rules are: set once, before anything is sent.

use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use tokio::net::{TcpSocket, TcpStream};

static MARK: OnceLock<u32> = OnceLock::new();

/// Marks all packets from now on.
pub fn set(mark: u32) {
    // A process runs one proxy; what the first one says stays.
    let _ = MARK.set(mark);
}

/// Whether packets are marked.
pub fn is_set() -> bool {
    MARK.get().is_some()
}

/// Marks what `socket` will send.
pub(crate) fn put(socket: &impl AsFd) -> io::Result<()> {
    MARK.get().map_or(Ok(()), |mark| SockRef::from(socket).set_mark(*mark))
}

/// Connects, with the mark, and from `source` where it is of the same family.
pub(crate) async fn connect(address: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let source = source.filter(|source| source.is_ipv4() == address.is_ipv4());
    if !is_set() && source.is_none() {
        return TcpStream::connect(address).await;
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    put(&socket)?;
    if let Some(source) = source {
        socket.bind(source)?;
    }
    socket.connect(address).await
}
