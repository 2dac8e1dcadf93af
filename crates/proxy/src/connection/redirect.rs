//! Where a connection wanted to go before the kernel redirected it here, and the listener that takes it because of that.

use crate::record::Caller;
use crate::snapshot::{ListenerState, Snapshot};
use socket2::SockRef;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Both ends as the socket knows them.
pub(super) fn caller(socket: &TcpStream, remote: SocketAddr) -> Option<Caller> {
    Some(Caller::new(canonical(remote), canonical(socket.local_addr().ok()?)))
}

/// The listener that takes a connection which came in at `listener`, where that one asks; `caller` then knows where it
/// wanted to go.
pub(super) fn place<'s>(
    snapshot: &'s Snapshot,
    listener: Rc<str>,
    socket: &TcpStream,
    caller: &mut Caller,
) -> Option<(Rc<str>, &'s Arc<ListenerState>)> {
    let state = snapshot.listeners.get(&*listener)?;
    if !state.config.inspect.original_destination {
        return Some((listener, state));
    }
    let Some(wanted) = original(socket, caller.local) else { return Some((listener, state)) };
    (caller.local, caller.is_restored) = (wanted, true);
    if state.config.binding.hands_over
        && let Some(other) = snapshot.listener_at(wanted)
        && !Arc::ptr_eq(other, state)
    {
        // It is not handed on from there.
        return Some((other.config.name.as_str().into(), other));
    }
    Some((listener, state))
}

/// Where a connection wanted to go; `None` where the kernel does not know.
fn original(socket: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(socket);
    let (told, is_transparent) = match local {
        SocketAddr::V4(_) => (socket.original_dst_v4(), socket.ip_transparent_v4()),
        SocketAddr::V6(_) => (socket.original_dst_v6(), socket.ip_transparent_v6()),
    };
    match told {
        Ok(address) => address.as_socket().map(canonical),
        // Taken as it came, its own end is where it wanted to go.
        Err(_) => is_transparent.unwrap_or(false).then_some(local),
    }
}

/// An IPv4 address as such, also on a socket for both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => SocketAddr::new(ip.to_canonical(), address.port()),
        IpAddr::V4(_) => address,
    }
}
