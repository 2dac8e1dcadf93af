//! Sockets that listen: one per thread for an address, shared by the kernel; a busy address is an error even so.

use model::listener::Binding;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// `count` sockets that listen at `address`, or why there are none. Port 0 is the same free port for all of them.
pub(super) fn listen(address: SocketAddr, binding: &Binding, count: usize) -> io::Result<Vec<TcpListener>> {
    if count <= 1 {
        return Ok(vec![bind(address, binding, false)?]);
    }
    // Sockets that share a port also share it with those of another process of the same user. One that does not share
    // finds out whether somebody is there.
    let address = bind(address, binding, false)?.local_addr()?;
    (0..count).map(|_| bind(address, binding, true)).collect()
}

fn bind(address: SocketAddr, binding: &Binding, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Beside an address for IPv4 it is for IPv6 alone.
        socket.set_only_v6(!address.ip().is_unspecified() || !binding.more.is_empty())?;
    }
    match address {
        SocketAddr::V4(_) if binding.transparent => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) if binding.transparent => socket.set_ip_transparent_v6(true)?,
        _ => {}
    }
    match address {
        SocketAddr::V4(_) if binding.freebind => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) if binding.freebind => socket.set_freebind_v6(true)?,
        _ => {}
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
pub(super) fn explain(address: SocketAddr, binding: &Binding, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is in use by another process"),
        io::ErrorKind::AddrNotAvailable => format!("{address} is not an address of this machine"),
        io::ErrorKind::PermissionDenied if binding.transparent => {
            format!("{address}: a transparent listener needs the capability CAP_NET_ADMIN")
        }
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
        let plain = Binding::default();
        let sockets = listen(ANY, &plain, 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|s| s.local_addr().unwrap() == address));
        for count in [1, 3] {
            let error = listen(address, &plain, count).unwrap_err();
            assert_eq!(explain(address, &plain, &error), format!("{address} is in use by another process"));
        }
        drop(sockets);
        listen(address, &plain, 3).unwrap();
    }
}
