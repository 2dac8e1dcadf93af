//! Sockets that listen: one per thread for an address, shared by the kernel; a busy address is an error even so.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// `count` sockets that listen at `address`, or why there are none. Port 0 is the same free port for all of them.
pub(super) fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if count <= 1 {
        return Ok(vec![bind(address, false)?]);
    }
    // Sockets that share a port also share it with those of another process of the same user. One that does not share
    // finds out whether somebody is there.
    let address = bind(address, false)?.local_addr()?;
    (0..count).map(|_| bind(address, true)).collect()
}

fn bind(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of a process that ended must not keep the next from listening.
    socket.set_reuse_address(true)?;
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What is wrong, for people: the operating system's text says neither who nor what to do.
pub(super) fn explain(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is in use by another process"),
        io::ErrorKind::AddrNotAvailable => format!("{address} is not an address of this machine"),
        io::ErrorKind::PermissionDenied => {
            format!("{address}: no permission to listen at port {}", address.port())
        }
        _ => format!("{address}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn all_threads_get_the_same_port_and_another_process_would_not() {
        let sockets = listen(ANY, 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|s| s.local_addr().unwrap() == address));
        for count in [1, 3] {
            let error = listen(address, count).unwrap_err();
            assert_eq!(explain(address, &error), format!("{address} is in use by another process"));
        }
        drop(sockets);
        listen(address, 3).unwrap();
    }
}
