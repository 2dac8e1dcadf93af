//! The way between a mesh in a world of its own and the machine around it: two sockets in the state folder, one on which
//! the process outside serves, one on which the one inside does. Each call is a line that says what is wanted, and then
//! bytes. Nothing else gets in or out.
//!
//! Outside one asks for connections to `HOST:PORT`, for answers of the machine's name servers, and for ports of 127.0.0.1
//! to be listened on; inside, for connections to an address of the mesh.

use super::sockets::Sockets;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};

/// A line that says what is wanted is never longer.
const LONGEST_LINE: u64 = 256;
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a name server may think.
const NAME_PATIENCE: Duration = Duration::from_secs(3);
const LARGEST_MESSAGE: usize = 65535;

/// The folder with the sockets.
#[derive(Debug)]
pub(super) struct Door {
    sockets: Sockets,
}

/// A port of the machine that leads into the mesh, as long as this lives.
#[derive(Debug)]
pub(super) struct Opened {
    /// The port.
    pub(super) port: u16,
    _held: BufStream<UnixStream>,
}

impl Door {
    /// The door in `folder`.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self { sockets: Sockets::new(folder)? })
    }

    /// Begins to serve outside; what is returned never ends.
    pub(super) fn serve_outside(self: Arc<Self>) -> io::Result<impl Future<Output = ()>> {
        let listener = self.sockets.listen("outside")?;
        Ok(serve(listener, move |stream| self.clone().outside(stream)))
    }

    /// Begins to serve inside; what is returned never ends.
    pub(super) fn serve_inside(self: Arc<Self>) -> io::Result<impl Future<Output = ()>> {
        let listener = self.sockets.listen("inside")?;
        Ok(serve(listener, |stream| async {
            // Whoever called sees that it is over.
            let _ = inside(stream).await;
        }))
    }

    async fn outside(self: Arc<Self>, stream: UnixStream) {
        let mut stream = BufStream::new(stream);
        let Ok(wanted) = line(&mut stream).await else { return };
        let outcome = match wanted.split_once(' ') {
            Some(("connect", to)) => connect(&mut stream, to).await,
            Some(("listen", what)) => self.listen_for(&mut stream, what).await,
            _ if wanted == "query" => query(&mut stream).await,
            _ => Err(io::Error::other("it is not known what is wanted")),
        };
        if let Err(error) = outcome {
            // Whoever called may be gone.
            let _ = stream.write_all(format!("no {error}\n").as_bytes()).await;
            let _ = stream.flush().await;
        }
    }

    /// Listens on a port of this machine and passes what comes in on into the mesh, until the caller goes.
    async fn listen_for(self: &Arc<Self>, stream: &mut BufStream<UnixStream>, what: &str) -> io::Result<()> {
        let (port, to) = what.split_once(' ').ok_or_else(|| io::Error::other("no address is given"))?;
        let port: u16 = port.parse().map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let said = format!("ok {}\n", listener.local_addr()?.port());
        stream.write_all(said.as_bytes()).await?;
        stream.flush().await?;
        let mut nothing = [0];
        loop {
            tokio::select! {
                _ = stream.read(&mut nothing) => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => {
                        let (door, to) = (self.clone(), to.to_owned());
                        tokio::spawn(async move {
                            // Either side sees for itself that the other is gone.
                            let _ = door.enter(client, &to).await;
                        });
                    }
                    // Out of descriptors, most likely: others have to finish first.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }

    async fn enter(&self, mut client: TcpStream, to: &str) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut inside = self.sockets.connect("inside").await?;
        inside.write_all(format!("{to}\n").as_bytes()).await?;
        copy_bidirectional(&mut client, &mut inside).await.map(drop)
    }

    /// Makes `port` of the machine outside, any for 0, lead to `to` in the mesh.
    pub(super) async fn open(&self, port: u16, to: SocketAddr) -> io::Result<Opened> {
        let (stream, said) = self.ask(&format!("listen {port} {to}")).await?;
        let port = said.parse().map_err(io::Error::other)?;
        Ok(Opened { port, _held: stream })
    }

    /// A connection from outside to `to`.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<BufStream<UnixStream>> {
        Ok(self.ask(&format!("connect {to}")).await?.0)
    }

    /// What the machine's name servers answer to a message.
    pub(super) async fn query(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let (mut stream, _) = self.ask("query").await?;
        write_message(&mut stream, message).await?;
        read_message(&mut stream).await
    }

    async fn ask(&self, wanted: &str) -> io::Result<(BufStream<UnixStream>, String)> {
        let mut stream = BufStream::new(self.sockets.connect("outside").await?);
        stream.write_all(format!("{wanted}\n").as_bytes()).await?;
        stream.flush().await?;
        let said = line(&mut stream).await?;
        match said.split_once(' ').unwrap_or((&said, "")) {
            ("ok", rest) => Ok((stream, rest.to_owned())),
            (_, why) => Err(io::Error::other(why.to_owned())),
        }
    }
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    listener: UnixListener,
    take: impl Fn(UnixStream) -> F,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(take(stream));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn line(stream: &mut BufStream<UnixStream>) -> io::Result<String> {
    let mut text = String::new();
    (&mut *stream).take(LONGEST_LINE).read_line(&mut text).await?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn inside(stream: UnixStream) -> io::Result<()> {
    let mut stream = BufStream::new(stream);
    let to = line(&mut stream).await?;
    let mut target = dial(&to).await?;
    copy_bidirectional(&mut stream, &mut target).await.map(drop)
}

async fn dial(to: &str) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().map_err(io::Error::other)?;
    let target = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(to)).await??;
    target.set_nodelay(true)?;
    Ok(target)
}

async fn connect(stream: &mut BufStream<UnixStream>, to: &str) -> io::Result<()> {
    let mut target = dial(to).await?;
    stream.write_all(b"ok\n").await?;
    stream.flush().await?;
    // It has been answered by now: an end is an end.
    let _ = copy_bidirectional(stream, &mut target).await;
    Ok(())
}

async fn query(stream: &mut BufStream<UnixStream>) -> io::Result<()> {
    stream.write_all(b"ok\n").await?;
    stream.flush().await?;
    let message = read_message(stream).await?;
    let mut last = io::Error::other("no name server is known");
    for server in name_servers() {
        match tokio::time::timeout(NAME_PATIENCE, ask_server(server, &message)).await {
            Ok(Ok(answer)) => return write_message(stream, &answer).await,
            Ok(Err(error)) => last = error,
            Err(late) => last = late.into(),
        }
    }
    Err(last)
}

/// The name servers of this machine.
fn name_servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers: Vec<SocketAddr> = servers
        .filter_map(|server| server.trim().parse::<IpAddr>().ok())
        .map(|server| SocketAddr::new(server, 53))
        .collect();
    if servers.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))] } else { servers }
}

async fn ask_server(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    /// The bit of a message's third byte that says that it was cut.
    const CUT: u8 = 2;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut answer = vec![0; LARGEST_MESSAGE];
    loop {
        let length = socket.recv(&mut answer).await?;
        let answer = answer.get(..length).unwrap_or_default();
        // What answers something else was meant for somebody else.
        if length < 12 || answer.get(..2) != message.get(..2) {
            continue;
        }
        if answer.get(2).is_some_and(|flags| flags & CUT != 0) {
            let mut stream = BufStream::new(TcpStream::connect(server).await?);
            write_message(&mut stream, message).await?;
            return read_message(&mut stream).await;
        }
        return Ok(answer.to_vec());
    }
}

/// Writes a message as DNS over TCP does.
pub(super) async fn write_message<S: AsyncWriteExt + Unpin>(
    stream: &mut S,
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

/// Reads a message as DNS over TCP does.
pub(super) async fn read_message<S: AsyncReadExt + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn bytes_go_in_and_out_and_a_busy_port_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let door = Arc::new(Door::new(folder.path()).unwrap());
        tokio::spawn(door.clone().serve_outside().unwrap());
        tokio::spawn(door.clone().serve_inside().unwrap());
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = echo.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            }
        });
        let opened = door.open(0, address).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", opened.port)).await.unwrap();
        client.write_all(b"in").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "in");

        let error = door.open(opened.port, address).await.unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");

        let mut out = door.connect(address).await.unwrap();
        out.write_all(b"out").await.unwrap();
        out.shutdown().await.unwrap();
        text.clear();
        out.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "out");
    }
}
