//! The networks of a mesh in a world of its own: a bridge to which the namespace of every workload and gateway is
//! connected, and relays at its end, the gate, for what goes to the control plane and out of the mesh.
//!
//! A namespace lives as long as a process is in it or [`Place`] holds it; nothing has a name outside of this world, so that
//! nothing can be left behind.

use super::door::{Door, Opened, read_message, write_message};
use super::ports::ControlPorts;
use crate::namespaces;
use ::capture::Rules;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Our own end of the bridge: the way to the control plane, to name servers and out.
pub(super) const GATE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// First bytes of all addresses of a mesh.
pub(super) const BLOCK: [u8; 2] = [10, 77];
/// Where the admin pages of proxies are; nobody but ourselves reaches them.
pub(super) const ADMIN_PORT: u16 = 15000;

const BRIDGE: &str = "mesh0";
const EGRESS_PORT: u16 = 15900;
const NAME_PORT: u16 = 53;
/// A message over UDP is never longer where the asker does not say so.
const SHORT_MESSAGE: usize = 512;
const LARGEST_MESSAGE: usize = 65535;

/// The networks of a mesh.
#[derive(Debug)]
pub(super) struct Network {
    /// The way out.
    pub(super) door: Arc<Door>,
    resolvers: PathBuf,
    /// The control plane's ports, outside.
    _control: Vec<Opened>,
}

/// The network of one workload or gateway.
#[derive(Debug)]
pub(super) struct Place {
    namespace: File,
    /// Files that say where names are asked for.
    pub(super) resolver: PathBuf,
}

impl Place {
    /// Does something in it. Blocks as long as that takes.
    pub(super) fn inside<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let path = self.path();
        // A thread that left for another network does not come back.
        let inside = || namespaces::enter_network(&path).and_then(|()| act());
        std::thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| io::Error::other("it was not done"))
            .flatten()
    }

    /// Where others find it, as long as it is held.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()))
    }
}

fn second(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
}

impl Network {
    /// Sets up the bridge and what stands at its end.
    pub(super) async fn start(state: &Path, ports: ControlPorts) -> Result<Arc<Self>, String> {
        let told = |error: io::Error| format!("the network of the mesh cannot be set up: {error}");
        let door = Arc::new(Door::new(state).map_err(told)?);
        tokio::spawn(door.clone().serve_inside().map_err(told)?);
        let commands = format!(
            "link set lo up\nlink add {BRIDGE} type bridge\naddr add {GATE}/16 dev {BRIDGE}\n\
             addr add {}/64 dev {BRIDGE} nodad\nlink set {BRIDGE} up\n",
            second(GATE)
        );
        ip(&commands)?;
        let out = |family: &str, ours: &str| {
            format!(
                "iifname \"{BRIDGE}\" {family} daddr != {ours} meta l4proto tcp redirect to :{EGRESS_PORT}"
            )
        };
        let rules = format!(
            "{}table {} {{\n chain egress {{\n  type nat hook prerouting priority dstnat; policy accept;\n  {}\n  {}\n }}\n}}\n",
            ::capture::script::cleaning(),
            ::capture::script::TABLE,
            out("ip", "10.77.0.0/16"),
            out("ip6", "fd77::/64"),
        );
        ::capture::force::run(&rules).map_err(|error| error.to_string())?;
        allow_low_ports().map_err(told)?;
        for port in [ports.xds.port(), ports.xds_tls.port()] {
            let listener = TcpListener::bind((GATE, port)).await.map_err(told)?;
            tokio::spawn(relay(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
        // People reach the control plane where they do without capture.
        let mut control = Vec::new();
        for address in [ports.xds, ports.xds_tls, ports.admin] {
            let opened = door.open(address.port(), address).await;
            control.push(opened.map_err(|error| format!("port {} of 127.0.0.1: {error}", address.port()))?);
        }
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, EGRESS_PORT));
        let egress = TcpListener::bind(everywhere).await.map_err(told)?;
        tokio::spawn(let_out(egress, door.clone()));
        let socket = UdpSocket::bind((GATE, NAME_PORT)).await.map_err(told)?;
        tokio::spawn(answer_datagrams(socket, door.clone()));
        let listener = TcpListener::bind((GATE, NAME_PORT)).await.map_err(told)?;
        tokio::spawn(answer_streams(listener, door.clone()));
        Ok(Arc::new(Self { door, resolvers: state.join("resolver"), _control: control }))
    }

    /// Makes a network for a workload or gateway of `namespace`, with `rules` in force. Blocks for some milliseconds.
    pub(super) fn join(&self, address: Ipv4Addr, namespace: &str, rules: Rules) -> Result<Place, String> {
        let resolver = write_resolver(&self.resolvers, Some(namespace))?;
        let (made, namespace_of) = mpsc::channel();
        let (linked, link) = mpsc::channel();
        // A thread of its own, because a thread that left for another network does not come back.
        let thread = std::thread::spawn(move || {
            let outcome = namespaces::enter_new_network();
            let is_made = outcome.is_ok();
            if made.send(outcome).is_err() || !is_made || link.recv().is_err() {
                return Ok(());
            }
            furnish(address, &rules)
        });
        let namespace = namespace_of
            .recv()
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| format!("no network for it can be made: {error}"))?;
        let place = Place { namespace, resolver };
        let [.., c, d] = address.octets();
        let name = format!("ve{c:02x}{d:02x}");
        let commands = format!(
            "link add {name} type veth peer name eth0 netns {}\nlink set {name} master {BRIDGE} up\n",
            place.path().display()
        );
        if ip(&commands).is_err() {
            // The kernel takes its time with the link of who had this address before.
            let _ = ip(&format!("link del {name}\n"));
            ip(&commands)?;
        }
        // It waits for this and nothing else.
        let _ = linked.send(());
        thread.join().map_err(|_| "its network was not set up".to_owned()).flatten()?;
        Ok(place)
    }
}

/// Whether this kernel, and the programs that are installed, make what a mesh needs. Meant for a world that is thrown away.
pub(super) fn try_out() -> Result<(), String> {
    ip(&format!("link add {BRIDGE} type bridge\nlink add ve0 type veth peer name ve1\n"))?;
    ::capture::apply(&Rules::all(::capture::Own::MARK)).map_err(|error| error.to_string())
}

/// Sets up the network of this thread.
fn furnish(address: Ipv4Addr, rules: &Rules) -> Result<(), String> {
    // Before there is a way out.
    ::capture::apply(rules).map_err(|error| error.to_string())?;
    allow_low_ports().map_err(|error| format!("low ports cannot be allowed: {error}"))?;
    ip(&format!(
        "link set lo up\naddr add {address}/16 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n\
         route add default via {GATE}\nroute add default via {}\n",
        second(address),
        second(GATE)
    ))
}

/// Whoever is here may listen on any port, as in a container.
fn allow_low_ports() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
}

/// Hands commands to `ip` in the network namespace of this thread.
fn ip(commands: &str) -> Result<(), String> {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            "`--capture netns` needs the program `ip`, which is not installed; install iproute2, or \
                                    choose `--capture proxy`"
                .to_owned()
        }
        _ => format!("ip cannot be run: {error}"),
    };
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(path) = std::env::var_os("PATH") {
        // Where it is in other distributions; ordinary users do not look there.
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
    }
    let mut child = command.spawn().map_err(told)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes()).map_err(told)?;
    }
    let output = child.wait_with_output().map_err(told)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
    Err(format!("ip refused: {first}"))
}

/// Writes the files that say where names are asked for: the gate, which nobody in the mesh but sidecars reaches.
pub(super) fn write_resolver(folder: &Path, namespace: Option<&str>) -> Result<PathBuf, String> {
    let folder = folder.join(namespace.unwrap_or("_"));
    let search = namespace
        .map(|namespace| format!("search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n"))
        .unwrap_or_default();
    let ndots = if namespace.is_some() { "options ndots:5\n" } else { "" };
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write("resolv.conf", format!("nameserver {GATE}\n{search}{ndots}"))?;
    let lookups = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let others = lookups.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    write("nsswitch.conf", others.chain(["hosts: files dns"]).map(|line| format!("{line}\n")).collect())?;
    Ok(folder)
}

async fn accepted(listener: &TcpListener) -> TcpStream {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            return stream;
        }
        // Out of descriptors, most likely: others have to finish first.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn relay(listener: TcpListener, to: SocketAddr) {
    loop {
        let mut client = accepted(&listener).await;
        tokio::spawn(async move {
            let mut target = TcpStream::connect(to).await?;
            client.set_nodelay(true)?;
            target.set_nodelay(true)?;
            copy_bidirectional(&mut client, &mut target).await
        });
    }
}

/// Passes connections to anywhere else on to the machine outside.
async fn let_out(listener: TcpListener, door: Arc<Door>) {
    loop {
        let mut client = accepted(&listener).await;
        let door = door.clone();
        tokio::spawn(async move {
            let to = original_destination(&client)?;
            client.set_nodelay(true)?;
            let mut target = door.connect(to).await?;
            copy_bidirectional(&mut client, &mut target).await
        });
    }
}

fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let is_v4 = match stream.local_addr()?.ip() {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    Ok(match is_v4 {
        true => rustix::net::sockopt::ip_original_dst(stream)?.into(),
        false => rustix::net::sockopt::ipv6_original_dst(stream)?.into(),
    })
}

async fn answer_datagrams(socket: UdpSocket, door: Arc<Door>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LARGEST_MESSAGE];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let message = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, door) = (socket.clone(), door.clone());
        tokio::spawn(async move {
            // Without an answer it is asked again.
            if let Ok(answer) = door.query(&message).await {
                let answer = if answer.len() > SHORT_MESSAGE { cut(&answer) } else { answer };
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

/// What is too long for a datagram, without what makes it long: it is asked for again over TCP.
fn cut(answer: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    // The question stays: whoever asked looks whether it is theirs.
    let mut end = HEADER;
    while let Some(length) = answer.get(end).filter(|length| **length != 0) {
        end += 1 + usize::from(*length);
    }
    let mut short: Vec<u8> = answer.iter().copied().take(end + 5).collect();
    if let Some(flags) = short.get_mut(2) {
        *flags |= 2;
    }
    short.iter_mut().take(HEADER).skip(6).for_each(|count| *count = 0);
    short
}

async fn answer_streams(listener: TcpListener, door: Arc<Door>) {
    loop {
        let mut client = accepted(&listener).await;
        let door = door.clone();
        tokio::spawn(async move {
            loop {
                let message = read_message(&mut client).await?;
                let answer = door.query(&message).await?;
                write_message(&mut client, &answer).await?;
            }
            #[allow(unreachable_code)] // Says what kind of error there may be.
            io::Result::Ok(())
        });
    }
}

/// Whether anybody listens on `port` in the network of process `pid`.
pub(super) fn is_listening(pid: u32, port: u16) -> bool {
    const LISTENING: &str = "0A";
    let listens = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next(), fields.nth(1));
        let local = local.and_then(|local| local.rsplit_once(':'));
        state == Some(LISTENING) && local.is_some_and(|(_, p)| u16::from_str_radix(p, 16) == Ok(port))
    };
    ["tcp", "tcp6"].into_iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(listens)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_listens_is_seen_without_calling() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_listening(std::process::id(), port));
        drop(listener);
        assert!(!is_listening(std::process::id(), port));
    }

    #[test]
    fn each_address_has_a_second_one_of_its_own() {
        assert_eq!(second(Ipv4Addr::new(10, 77, 3, 9)).to_string(), "fd77::a4d:309");
    }

    #[test]
    fn an_answer_that_is_cut_says_so_and_keeps_the_question() {
        let head = [1, 2, 0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 1];
        let question = [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1];
        let answer = [&head[..], &question, &[0xc0, 12, 7, 7, 7]].concat();
        let short = [&[1, 2, 0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0][..], &question].concat();
        assert_eq!(cut(&answer), short);
        assert_eq!(cut(&[0; 3]).len(), 3, "what is no message does no harm");
    }
}
