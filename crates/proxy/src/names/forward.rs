//! Asking the name servers of the system, past the rules that would send the question back to us.

use super::wire::{self, SERVER_FAILURE};
use crate::mark;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

const CONFIGURATION: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// How long a name server may think.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often all are asked.
const ROUNDS: usize = 2;
const MOST_SERVERS: usize = 3;
const CUT: u8 = 2;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What the name servers say to `message`, or that none does.
pub(super) async fn ask(message: &[u8], transport: Transport) -> Vec<u8> {
    let servers = servers();
    for server in std::iter::repeat_n(&servers, ROUNDS).flatten() {
        let asking = async {
            match transport {
                Transport::Udp => ask_datagram(*server, message).await,
                Transport::Tcp => ask_stream(*server, message).await,
            }
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asking).await {
            return answer;
        }
    }
    wire::failure(message, SERVER_FAILURE)
}

fn servers() -> Vec<SocketAddr> {
    // Read each time: it changes with the network, and is in memory.
    let text = std::fs::read_to_string(CONFIGURATION).unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok());
    servers.take(MOST_SERVERS).map(|server| SocketAddr::new(server, PORT)).collect()
}

async fn ask_datagram(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    mark::put(&socket)?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        let answer = answer.get(..length).unwrap_or_default();
        // What answers something else was not meant for us.
        if wire::is_answer(answer, message) {
            return Ok(answer.to_vec());
        }
    }
}

async fn ask_stream(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = mark::connect(server, None).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The addresses of `name`, IPv4 first. Where nothing is marked the system is asked, as ever.
pub async fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    if !mark::is_set() || name.parse::<IpAddr>().is_ok() || name == "localhost" {
        return Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect());
    }
    let (v4, v6) = tokio::join!(lookup_kind(name, false), lookup_kind(name, true));
    match (v4, v6) {
        (None, None) => Err(io::Error::other("no name server knows it")),
        (v4, v6) => Ok(v4.into_iter().chain(v6).flatten().collect()),
    }
}

async fn lookup_kind(name: &str, is_v6: bool) -> Option<Vec<IpAddr>> {
    let id = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name) as u16;
    let message = wire::query(id, name, is_v6)?;
    let mut answer = ask(&message, Transport::Udp).await;
    if answer.get(2).is_some_and(|flags| flags & CUT != 0) {
        answer = ask(&message, Transport::Tcp).await;
    }
    wire::addresses(&answer)
}
