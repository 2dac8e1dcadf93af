//! A bootstrap of its own for each topic of the network: started in real Envoy and in `ieum proxy`, each with the same
//! expectations. And servers that say who they are and whom they see.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testing::exchange::{Answer, Connection};
use testing::process::{Process, free_port};

/// A running proxy.
pub(crate) struct Bench {
    ports: HashMap<String, u16>,
    pub(crate) process: Process,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// Where the port `name` of the bootstrap is.
    pub(crate) fn at(&self, name: &str) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[name]))
    }

    /// Sends a GET of `path` to `port` on a connection of its own.
    pub(crate) fn get(&self, port: &str, path: &str, lines: &[&str]) -> Answer {
        let mut connection = Connection::open(self.at(port));
        get_on(&mut connection, path, lines)
    }
}

/// Sends a GET on this connection.
pub(crate) fn get_on(connection: &mut Connection, path: &str, lines: &[&str]) -> Answer {
    let host = match lines.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        true => "",
        false => "Host: main.test\r\n",
    };
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    connection.send(format!("GET {path} HTTP/1.1\r\n{host}{lines}\r\n").as_bytes());
    connection.read_answer(false)
}

/// Status and body of an answer.
pub(crate) fn shown(answer: &Answer) -> String {
    match answer.status {
        200 => String::from_utf8_lossy(&answer.body).trim_end().to_owned(),
        0 => "closed".to_owned(),
        status => status.to_string(),
    }
}

/// Starts both proxies, one after the other, with `bootstrap`, in which `@NAME@` stands for a port: one of `given`, or a
/// free one. What `play` sees has to be `expected` at both.
pub(crate) fn both(
    bootstrap: &str,
    given: &[(&str, u16)],
    play: impl Fn(&Bench) -> Vec<String>,
    expected: &[&str],
) {
    let mut wrong = String::new();
    for name in ["envoy", "ieum"] {
        let bench = start(name, bootstrap, given);
        let seen = play(&bench);
        if seen != expected {
            let said = bench.process.printed();
            wrong += &format!("{name}: {seen:#?}\ninstead of {expected:#?}\n{name} said:\n{said}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Starts one of the proxies.
pub(crate) fn start(name: &'static str, bootstrap: &str, given: &[(&str, u16)]) -> Bench {
    let mut ports: HashMap<String, u16> =
        given.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
    let mut text = bootstrap.to_owned();
    for part in bootstrap.split('@') {
        // `@type` is none of ours.
        let is_port = !part.is_empty()
            && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if is_port && text.contains(&format!("@{part}@")) {
            let port = *ports.entry(part.to_owned()).or_insert_with(free_port);
            text = text.replace(&format!("@{part}@"), &port.to_string());
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.yaml");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let mut command = match name {
        "envoy" => testing::peers::envoy_with(file),
        _ => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ieum"));
            command.args(["proxy", "--bootstrap", file, "--concurrency", "1"]);
            command
        }
    };
    let mut process = Process::start(name, &mut command);
    process.wait_for_ok(SocketAddr::from(([127, 0, 0, 1], ports["ADMIN"])), "/ready");
    for (port, number) in &ports {
        if port.starts_with("IN") {
            process.wait_for_port(SocketAddr::from(([127, 0, 0, 1], *number)));
        }
    }
    Bench { ports, process, _folder: folder }
}

/// A server that answers every request, HTTP or not, with its name as an HTTP answer, and remembers the first bytes of each
/// connection. Ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    first: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Server {
    pub(crate) fn start(name: &'static str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let first = Arc::new(Mutex::new(Vec::new()));
        let (count, memory) = (connections.clone(), first.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                count.fetch_add(1, Ordering::SeqCst);
                let memory = memory.clone();
                std::thread::spawn(move || answer(name, stream, &memory));
            }
        });
        Self { address, connections, first }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections made to it since the last call.
    pub(crate) fn take_connections(&self) -> usize {
        self.connections.swap(0, Ordering::SeqCst)
    }

    /// The first bytes of each connection since the last call.
    pub(crate) fn take_first(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.first.lock().unwrap())
    }
}

fn answer(name: &str, mut stream: TcpStream, first: &Mutex<Vec<Vec<u8>>>) {
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
    stream.set_nodelay(true).unwrap();
    let mut is_first = true;
    let mut room = [0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut room) {
        if std::mem::take(&mut is_first) {
            first.lock().unwrap().push(room[..count].to_vec());
        }
        if room[..count].ends_with(b"\r\n\r\n") && stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// Runs the test of this name in a network of its own; `true` inside of it, once it has a loopback device.
pub(crate) fn in_own_network(test: &str) -> bool {
    const INSIDE: &str = "IEUM_TEST_IN_OWN_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        run("ip", "link set lo up");
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["-Urn", "--kill-child", "--"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = command.output().expect("`unshare` (util-linux) is needed for this test");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
    false
}

/// Runs a program; it has to succeed.
pub(crate) fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is needed for this test: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}");
}
