//! Child processes with what they print, ended by their id when the test ends, however it ends; and free ports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a condition may take unless said otherwise.
pub const BOUND: Duration = Duration::from_secs(20);

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it; `name` is what failures call it.
    pub fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let printed = Arc::new(Mutex::new(String::new()));
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let printed = Arc::clone(&printed);
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream);
                let mut line = Vec::new();
                while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
                    printed.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            });
        }
        Self { name: name.to_owned(), child, printed }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far, standard output and error together.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `condition` holds; fails with what was printed when that takes too long or the process ends first.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            let name = &self.name;
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{name} ended ({status}) before {what}; it said:\n{}", self.printed());
            }
            assert!(start.elapsed() < BOUND, "{name}: no {what} in {BOUND:?}; it said:\n{}", self.printed());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until something listens at `address`.
    pub fn wait_for_port(&mut self, address: SocketAddr) {
        self.wait_until(&format!("listener at {address}"), || TcpStream::connect(address).is_ok());
    }

    /// Waits until `GET path` at `address` answers 200.
    pub fn wait_for_ok(&mut self, address: SocketAddr, path: &str) {
        self.wait_until(&format!("200 from http://{address}{path}"), || status(address, path) == Some(200));
    }

    /// Waits until it printed `text`.
    pub fn wait_for_line(&mut self, text: &str) {
        let printed = Arc::clone(&self.printed);
        self.wait_until(&format!("line with `{text}`"), || printed.lock().unwrap().contains(text));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status of `GET path`, if there is an answer.
pub fn status(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.split(' ').nth(1)?.parse().ok()
}

/// Ports on which nobody listens. They lie below those the system gives to outgoing connections, so that none of
/// these takes one before its owner does.
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

/// One such port.
pub fn free_port() -> u16 {
    const FIRST: u16 = 18_000;
    const COUNT: u16 = 14_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs run side by side: each begins elsewhere.
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free from {FIRST} on")
}
