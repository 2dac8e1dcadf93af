//! Names that are resolved, what endpoints are told of clients, tunnels, chains by where clients come from, and endpoints
//! picked by hashes, keys and headers.

use super::bench::{Server, both, get_on, shown};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testing::exchange::Connection;

/// A DNS server in this process. Names, in lower case and without the dot at the end, have the addresses it is told; a name
/// that is not known does not exist; `None` is answered with SERVFAIL.
struct NameServer {
    address: SocketAddr,
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    known: BTreeMap<String, Option<Vec<IpAddr>>>,
    ttl: u32,
    asked: usize,
}

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let names = Arc::new(Mutex::new(Names { ttl: 300, ..Names::default() }));
        let memory = names.clone();
        std::thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut room) {
                let answer = answer_of(&room[..count], &mut memory.lock().unwrap());
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { address, names }
    }

    fn tell(&self, name: &str, addresses: Option<&[&str]>) {
        let addresses = addresses.map(|all| all.iter().map(|ip| ip.parse().unwrap()).collect());
        self.names.lock().unwrap().known.insert(name.to_owned(), addresses);
    }

    fn forget(&self, name: &str) {
        self.names.lock().unwrap().known.remove(name);
    }

    fn asked(&self) -> usize {
        self.names.lock().unwrap().asked
    }
}

fn answer_of(query: &[u8], names: &mut Names) -> Vec<u8> {
    names.asked += 1;
    let mut at = 12;
    let mut labels = Vec::new();
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + length]).to_lowercase());
        at += 1 + length;
    }
    let kind = query[at + 2];
    let question = &query[12..at + 5];
    let (code, found): (u8, Vec<IpAddr>) = match names.known.get(&labels.join(".")) {
        None => (3, Vec::new()),
        Some(None) => (2, Vec::new()),
        Some(Some(all)) => (0, all.iter().copied().filter(|ip| ip.is_ipv4() == (kind == 1)).collect()),
    };
    let mut answer = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, found.len() as u8, 0, 0, 0, 0];
    answer.extend_from_slice(question);
    for ip in found {
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        answer.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1]);
        answer.extend_from_slice(&names.ttl.to_be_bytes());
        answer.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        answer.extend_from_slice(&bytes);
    }
    answer
}

/// What `look` sees once it is `wanted`, or in the end.
fn eventually(wanted: &str, look: impl Fn() -> String) -> String {
    let start = Instant::now();
    loop {
        let seen = look();
        if seen == wanted || start.elapsed() > Duration::from_secs(10) {
            return seen;
        }
        std::thread::yield_now();
    }
}

#[test]
fn names_are_resolved_as_in_envoy() {
    let port = testing::process::free_port();
    let at = |ip: [u8; 4]| SocketAddr::from((ip, port));
    let _servers = [
        Server::start_at("one", at([127, 0, 0, 1])),
        Server::start_at("two", at([127, 0, 0, 2])),
        Server::start_at("three", at([127, 0, 0, 3])),
    ];
    let dns = NameServer::start();
    let given = [("DNS", dns.address.port()), ("PORT", port)];
    both(
        include_str!("network_dns.yaml"),
        &given,
        |bench| {
            dns.names.lock().unwrap().ttl = 300;
            dns.tell("strict.test", Some(&["127.0.0.1"]));
            dns.tell("logical.test", Some(&["127.0.0.1", "127.0.0.2"]));
            let get = |path: &str| shown(&bench.get("IN", path, &[]));
            let mut seen = vec![eventually("one", || get("/strict")), eventually("one", || get("/logical"))];
            // Another address: taken at the next refresh, whatever the answer said of its age.
            dns.tell("strict.test", Some(&["127.0.0.2"]));
            seen.push(eventually("two", || get("/strict")));
            // Nobody can tell: what was known stays. Every refresh asks.
            dns.tell("strict.test", None);
            let before = dns.asked();
            let start = Instant::now();
            while dns.asked() < before + 4 && start.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            seen.push(get("/strict"));
            // It does not exist any more.
            dns.forget("strict.test");
            seen.push(eventually("503", || get("/strict")));
            // A logical host: what is under way stays where it is, what is new goes elsewhere.
            let mut kept = Connection::open(bench.at("IN"));
            seen.push(shown(&get_on(&mut kept, "/logical", &[])));
            dns.tell("logical.test", Some(&["127.0.0.3"]));
            seen.push(eventually("three", || get("/logical-fresh")));
            seen.push(shown(&get_on(&mut kept, "/logical", &[])));
            dns.forget("logical.test");
            let before = dns.asked();
            let start = Instant::now();
            while dns.asked() < before + 4 && start.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            seen.push(get("/logical-fresh"));
            // How long an answer is good.
            dns.tell("lasting.test", Some(&["127.0.0.1"]));
            seen.push(eventually("one", || get("/lasting")));
            seen
        },
        &["one", "one", "two", "two", "503", "one", "three", "three", "three", "one"],
    );
}

#[test]
fn endpoints_are_told_of_clients_as_by_envoy() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let given = [("ONE", one.port()), ("TWO", two.port())];
    both(
        include_str!("network_told.yaml"),
        &given,
        |bench| {
            one.take_first();
            two.take_first();
            one.take_connections();
            let mut seen = Vec::new();
            // What an endpoint was told, with the client's own port and the listener's put into words.
            let told = |server: &Server, client: SocketAddr, listener: SocketAddr| -> String {
                let first = server.take_first();
                let Some(first) = first.first() else { return "nothing".to_owned() };
                let bytes =
                    |port: u16| port.to_be_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>();
                if first.starts_with(b"\r\n\r\n\0") {
                    let length = 16 + usize::from(u16::from_be_bytes([first[14], first[15]]));
                    let hex: String = first[12..length].iter().map(|b| format!("{b:02x}")).collect();
                    return hex
                        .replace(&bytes(client.port()), "CLIENT")
                        .replace(&bytes(listener.port()), "LISTENER");
                }
                let text = String::from_utf8_lossy(first);
                let line = text.lines().next().unwrap_or_default();
                line.replace(&client.port().to_string(), "CLIENT")
                    .replace(&listener.port().to_string(), "LISTENER")
            };
            for (port, server) in [("IN_TEXT", &one), ("IN_BINARY", &two), ("TCP", &one)] {
                let mut connection = Connection::open(bench.at(port));
                let answers = [get_on(&mut connection, "/", &[]), get_on(&mut connection, "/", &[])];
                seen.push(answers.iter().map(shown).collect::<Vec<_>>().join(" "));
                seen.push(told(server, connection.local(), bench.at(port)));
                let mut other = Connection::open(bench.at(port));
                get_on(&mut other, "/", &[]);
                // Each client has connections of its own.
                seen.push(told(server, other.local(), bench.at(port)));
            }
            seen
        },
        &[
            "one one",
            "PROXY TCP4 127.0.0.1 127.0.0.1 CLIENT LISTENER",
            "PROXY TCP4 127.0.0.1 127.0.0.1 CLIENT LISTENER",
            "two two",
            "2111000c7f0000017f000001CLIENTLISTENER",
            "2111000c7f0000017f000001CLIENTLISTENER",
            "one one",
            "PROXY TCP4 127.0.0.1 127.0.0.1 CLIENT LISTENER",
            "PROXY TCP4 127.0.0.1 127.0.0.1 CLIENT LISTENER",
        ],
    );
}

/// A proxy that makes tunnels: remembers what it was asked, and answers as an echo from then on.
fn tunnel_maker(answer: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let memory = asked.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let memory = memory.clone();
            std::thread::spawn(move || {
                let (mut read, mut room) = (Vec::new(), [0; 1024]);
                while !read.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut room) {
                        Ok(count @ 1..) => read.extend_from_slice(&room[..count]),
                        _ => return,
                    }
                }
                let text = String::from_utf8_lossy(&read).to_lowercase();
                let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
                lines[1..].sort_unstable();
                memory.lock().unwrap().push(lines.join(" | "));
                stream.write_all(answer.as_bytes()).unwrap();
                while let Ok(count @ 1..) = stream.read(&mut room) {
                    if stream.write_all(&room[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, asked)
}

#[test]
fn bytes_go_through_tunnels_and_to_subsets_as_in_envoy() {
    let (maker, asked) = tunnel_maker("HTTP/1.1 200 OK\r\nx-a: b\r\n\r\nfirst ");
    let (refusing, _) = tunnel_maker("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    let (one, two) = (Server::start("one"), Server::start("two"));
    let given = [("MAKER", maker), ("REFUSING", refusing), ("ONE", one.port()), ("TWO", two.port())];
    both(
        include_str!("network_tcp.yaml"),
        &given,
        |bench| {
            asked.lock().unwrap().clear();
            let mut through = Connection::open(bench.at("TUNNEL"));
            through.send(b"hello");
            let mut seen = vec![String::from_utf8_lossy(&through.read_bytes(11)).into_owned()];
            seen.push(asked.lock().unwrap().join("; "));
            let mut refused = Connection::open(bench.at("REFUSED"));
            refused.send(b"hello");
            seen.push(String::from_utf8_lossy(&refused.read_bytes(5)).into_owned());
            let many = |port: &str| -> String {
                let mut names: Vec<String> = (0..8).map(|_| shown(&bench.get(port, "/", &[]))).collect();
                names.sort();
                names.dedup();
                names.join(" ")
            };
            seen.extend([many("SUBSET"), many("WEIGHTED"), many("HASHED").split(' ').count().to_string()]);
            seen.push(many("LOCAL"));
            seen
        },
        &[
            "first hello",
            "connect far.test:443 http/1.1 | host: far.test:443 | x-from: 127.0.0.1",
            "",
            "two",
            "one",
            "1",
            "two",
        ],
    );
}

#[test]
fn endpoints_are_named_and_found_by_fewer_keys_as_in_envoy() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let given = [("ONE", one.port()), ("TWO", two.port())];
    both(
        include_str!("network_picks.yaml"),
        &given,
        |bench| {
            let many = |path: &str, lines: &[&str]| -> String {
                let mut names: Vec<String> = (0..12).map(|_| shown(&bench.get("IN", path, lines))).collect();
                names.sort();
                names.dedup();
                names.join(" ")
            };
            let named = format!("x-to: 127.0.0.1:{}", two.port());
            vec![
                many("/named", &[&named]),
                many("/named", &["x-to: 127.0.0.1:1"]),
                many("/named", &[]),
                many("/keys-exact", &[]),
                many("/keys-fewer", &[]),
                many("/keys-none", &[]),
                many("/bounded", &["x-user: me"]).split(' ').count().to_string(),
                many("/biased", &[]),
            ]
        },
        &["two", "one two", "one two", "two", "one two", "503", "1", "one two"],
    );
}
