//! Answers to a workload's questions for names: those of the mesh from what the control plane sends, anything else from
//! the name servers of the system. Over UDP and TCP; a resolver of our own is needed where the system's would be sent back
//! to us.
//!
//! The names are metadata of a listener that has no socket: each with its addresses, short names as the workload's
//! namespace knows them, and `*.suffix` for all that end so.

mod forward;
mod wire;

pub use forward::lookup;

use crate::notice::tell;
use crate::snapshot::{Live, Snapshot};
use forward::{Transport, ask};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local};
use wire::{Answer, Question};

/// The listener whose metadata hold names, and where in them.
const LISTENER: &str = "names";
const KEY: &str = "ieum.dev/names";
/// Below this nobody else knows anything.
const DOMAIN: &str = ".cluster.local";
/// Questions that may wait for a name server at one time; more are not heard, and asked again.
const MAX_WAITING: usize = 512;
const MAX_STREAMS: usize = 64;
/// A connection may be silent for so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time before a socket that cannot be had is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Answers as long as there are names. Never returns.
pub async fn follow(live: Arc<Live>) {
    let mut changes = live.changes();
    let mut serving: Option<(SocketAddr, Vec<JoinHandle<()>>)> = None;
    loop {
        changes.borrow_and_update();
        let wanted = address(&live.current());
        let mut is_lacking = false;
        if serving.as_ref().map(|(at, _)| *at) != wanted {
            for task in serving.take().into_iter().flat_map(|(_, tasks)| tasks) {
                task.abort();
            }
            if let Some(at) = wanted {
                match serve(at, &live) {
                    Ok(tasks) => serving = Some((at, tasks)),
                    Err(error) => {
                        tell(format_args!("names cannot be answered at {at}: {error}"));
                        is_lacking = true;
                    }
                }
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = tokio::time::sleep(RETRY), if is_lacking => {}
        }
    }
}

/// Where questions come.
fn address(snapshot: &Snapshot) -> Option<SocketAddr> {
    snapshot.listeners.get(LISTENER)?.config.address
}

fn serve(at: SocketAddr, live: &Arc<Live>) -> io::Result<Vec<JoinHandle<()>>> {
    let waiting = Arc::new(Semaphore::new(MAX_WAITING));
    let mut tasks = Vec::new();
    let second = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), at.port());
    for (at, is_needed) in [(at, true), (second, false)] {
        match (datagrams(at), streams(at)) {
            (Ok(socket), Ok(listener)) => {
                tasks.push(spawn_local(hear_datagrams(socket, live.clone(), waiting.clone())));
                tasks.push(spawn_local(hear_streams(listener, live.clone())));
            }
            // A system without IPv6 asks nothing over it.
            (Err(error), _) | (_, Err(error)) if is_needed => return Err(error),
            _ => {}
        }
    }
    Ok(tasks)
}

fn datagrams(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(at))?;
    UdpSocket::from_std(socket.into())
}

fn streams(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(at))?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

async fn hear_datagrams(socket: UdpSocket, live: Arc<Live>, waiting: Arc<Semaphore>) {
    let socket = Rc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        // An error is of an answer that did not arrive; the next question may be from anybody.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let message = buffer.get(..length).unwrap_or_default();
        let room = wire::room(message);
        if let Some(answer) = answer(&live.current(), message) {
            let _ = socket.send_to(&wire::fit(answer, room), from).await;
            continue;
        }
        let Ok(place) = waiting.clone().try_acquire_owned() else { continue };
        let (socket, message) = (socket.clone(), message.to_vec());
        spawn_local(async move {
            let answer = ask(&message, Transport::Udp).await;
            let _ = socket.send_to(&wire::fit(answer, room), from).await;
            drop(place);
        });
    }
}

async fn hear_streams(listener: TcpListener, live: Arc<Live>) {
    let places = Arc::new(Semaphore::new(MAX_STREAMS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others have to finish first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let live = live.clone();
        spawn_local(async move {
            // Whoever asked sees that it is over.
            let _ = converse(stream, &live).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, live: &Live) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(PATIENCE, stream.read_u16()).await??;
        let mut message = vec![0; usize::from(length)];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut message)).await??;
        let known = answer(&live.current(), &message);
        let answer = match known {
            Some(answer) => answer,
            None => ask(&message, Transport::Tcp).await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

/// The answer that we know ourselves; `None` when somebody else has to be asked.
fn answer(snapshot: &Snapshot, message: &[u8]) -> Option<Vec<u8>> {
    let question = match Question::read(message) {
        Ok(question) => question,
        Err(code) => return Some(wire::failure(message, code)),
    };
    let names = snapshot.listeners.get(LISTENER)?.config.metadata.0.get(KEY)?;
    let find = |name: &str| names.get(name).and_then(model::metadata::Value::as_str);
    match resolve(&question.name, find) {
        Known::Addresses(addresses) => Some(question.answer(message, &Answer::Addresses(addresses))),
        Known::Nothing => Some(question.answer(message, &Answer::NoSuchName)),
        Known::Unknown => None,
    }
}

/// What we know of a name.
#[derive(Debug, PartialEq)]
enum Known {
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    Nothing,
    /// Others may know.
    Unknown,
}

fn resolve<'n>(name: &str, find: impl Fn(&str) -> Option<&'n str>) -> Known {
    let parents = std::iter::successors(Some(name), |name| Some(name.split_once('.')?.1)).skip(1);
    let mut wildcards = parents.map(|parent| format!("*.{parent}"));
    match find(name).or_else(|| wildcards.find_map(|wildcard| find(&wildcard))) {
        Some(list) => Known::Addresses(list.split(',').filter_map(|one| one.parse().ok()).collect()),
        None if name.ends_with(DOMAIN) || name == DOMAIN.trim_start_matches('.') => Known::Nothing,
        None => Known::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_exactly_then_by_the_longest_suffix() {
        let find = |name: &str| match name {
            "reviews" | "reviews.default.svc.cluster.local" => Some("240.240.0.5"),
            "*.example.com" => Some("240.240.0.6"),
            "*.b.example.com" => Some("240.240.0.7"),
            "db.default.svc.cluster.local" => Some("10.77.0.5,10.77.0.6"),
            _ => None,
        };
        let one = |last| Known::Addresses(vec![IpAddr::from([240, 240, 0, last])]);
        assert_eq!(resolve("reviews", find), one(5));
        assert_eq!(resolve("a.example.com", find), one(6));
        assert_eq!(resolve("x.y.example.com", find), one(6));
        assert_eq!(resolve("a.b.example.com", find), one(7));
        assert_eq!(resolve("example.com", find), Known::Unknown, "a wildcard does not stand for its suffix");
        let both = vec![IpAddr::from([10, 77, 0, 5]), IpAddr::from([10, 77, 0, 6])];
        assert_eq!(resolve("db.default.svc.cluster.local", find), Known::Addresses(both));
    }

    #[test]
    fn what_nobody_else_can_know_is_not_asked_elsewhere() {
        let none = |_: &str| None;
        assert_eq!(resolve("api.example.com.default.svc.cluster.local", none), Known::Nothing);
        assert_eq!(resolve("api.example.com", none), Known::Unknown);
        assert_eq!(resolve("", none), Known::Unknown);
    }
}
