//! `ieum up` on a copy of a folder of examples/, as a user would run it, and a client that keeps asking. For the tests that
//! use it; what is asserted is theirs.
#![allow(dead_code)]

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Longer than anything should take on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Environment variable with a command to run as every proxy of the mesh instead of our own: the same tests then say
/// how stock Envoy does under our control plane.
const PROXY_PROGRAM: &str = "IEUM_TEST_PROXY";

/// Environment variable with another `--capture`, to see which of the same tests pass.
const CAPTURE: &str = "IEUM_TEST_CAPTURE";

/// A running mesh; dropping it stops it.
pub(crate) struct Mesh {
    up: Child,
    /// What `--json` printed.
    pub(crate) ready: Value,
    /// The copied configuration.
    pub(crate) folder: PathBuf,
    errors: Arc<Mutex<Vec<String>>>,
    _place: TempDir,
}

impl Mesh {
    /// Starts the bookstore.
    pub(crate) fn start() -> Self {
        Self::start_changed(|_| ())
    }

    /// Starts the bookstore after a change of its folder.
    pub(crate) fn start_changed(change: impl FnOnce(&Path)) -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = copy_of_example("bookinfo", &place);
        change(&folder);
        let program = std::env::var(PROXY_PROGRAM).ok();
        Self::start_in(place, folder, program.as_deref(), &[])
    }

    /// Starts an example after a change of its folder, with `program` as every proxy if there is one.
    pub(crate) fn start_example(name: &str, program: Option<&str>, change: impl FnOnce(&Path)) -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = copy_of_example(name, &place);
        change(&folder);
        Self::start_in(place, folder, program, &[])
    }

    /// Starts a folder of nothing but one file, with `more` on the command line.
    pub(crate) fn start_text(text: &str, program: Option<&str>, more: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("mesh");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("mesh.yaml"), text).unwrap();
        Self::start_in(place, folder, program, more)
    }

    fn start_in(place: TempDir, folder: PathBuf, program: Option<&str>, more: &[&str]) -> Self {
        // What is tested of capture says so; the others count on ports of this machine.
        let capture = std::env::var(CAPTURE).unwrap_or_else(|_| "proxy".to_owned());
        let is_said = more.contains(&"--capture");
        let mut up = Command::new(env!("CARGO_BIN_EXE_ieum"))
            .args(["up", folder.to_str().unwrap(), "--json", "--port-base", "0"])
            .args(["--state-dir", place.path().join("state").to_str().unwrap()])
            .args(more)
            .args(["--capture", &capture].iter().filter(|_| !is_said))
            .args(program.iter().flat_map(|p| ["--proxy-program".to_owned(), format!("*={p}")]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (errors.clone(), up.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let (sender, printed) = channel();
        let stdout = up.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut mesh = Mesh { up, ready: Value::Null, folder, errors, _place: place };
        match printed.recv_timeout(BOUND) {
            Ok(line) => mesh.ready = serde_json::from_str(&line).unwrap(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let said = mesh.said().join("\n");
                panic!("the mesh did not become ready; it said:\n{said}");
            }
        }
        mesh
    }

    /// `http://127.0.0.1:PORT` of the gateway.
    pub(crate) fn gateway(&self) -> String {
        self.ready["gateways"]["ingress"]["80"].as_str().unwrap().to_owned()
    }

    /// `127.0.0.1:PORT`, where the gateway listens for a port of its Gateways.
    pub(crate) fn gateway_address(&self, port: u16) -> String {
        let url = self.ready["gateways"]["ingress"][port.to_string()].as_str().unwrap();
        url.split_once("://").unwrap().1.to_owned()
    }

    /// Where the first replica of a workload sends what it asks of others: its sidecar's outbound listener.
    pub(crate) fn way_out(&self, workload: &str) -> String {
        format!("{}:15001", self.workload(workload)["address"].as_str().unwrap())
    }

    /// The folder of what it keeps.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.parent().unwrap().join("state")
    }

    /// The first replica of a workload, as `--json` told it.
    pub(crate) fn workload(&self, name: &str) -> &Value {
        &self.ready["workloads"][name][0]
    }

    /// What it has said so far on standard error.
    pub(crate) fn said(&self) -> Vec<String> {
        self.errors.lock().unwrap().clone()
    }

    /// Process ids of everything it runs.
    pub(crate) fn children(&self) -> Vec<i32> {
        let up = self.up.id().to_string();
        let mut children = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The parent is the second field after the name, which is in parentheses.
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
            if parent == Some(up.as_str()) {
                children.push(pid);
            }
        }
        children
    }

    /// Saves a configuration file as editors do: beside, then in its place.
    pub(crate) fn save(&self, file: &str, text: &str) {
        let new = self.folder.join(format!(".{file}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.join(file)).unwrap();
    }

    /// The text of a configuration file.
    pub(crate) fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap()
    }

    /// Sends a signal to `ieum up` itself.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.up.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits until `ieum up` has ended, however long that takes.
    pub(crate) fn wait(&mut self) {
        let _ = self.up.wait();
    }

    /// Waits until `ieum up` has ended; its exit code, if it was not killed.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("ieum up ends", || {
            status = self.up.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }
}

/// A copy of a folder of examples/, links followed.
fn copy_of_example(name: &str, place: &TempDir) -> PathBuf {
    let folder = place.path().join(name);
    std::fs::create_dir(&folder).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    for file in std::fs::read_dir(example).unwrap() {
        let file = file.unwrap();
        // What certificates.sh made for somebody else is a folder.
        if std::fs::metadata(file.path()).unwrap().is_file() && file.file_name() != "secrets.yaml" {
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
    folder
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if self.up.try_wait().is_ok_and(|status| status.is_none()) {
            if std::thread::panicking() {
                eprintln!("the mesh said:\n{}", self.said().join("\n"));
            }
            self.signal(Signal::TERM);
            let end = Instant::now() + Duration::from_secs(20);
            while self.up.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < end {
                std::thread::yield_now();
            }
            let _ = self.up.kill();
            let _ = self.up.wait();
        }
    }
}

/// Kills a process given by its id.
pub(crate) fn kill(pid: &Value) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Whether a process runs; one that ended and waits to be buried does not.
pub(crate) fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// Waits for a condition, within [`BOUND`].
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < end, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One client connection, kept between requests as browsers do.
pub(crate) struct Client {
    authority: String,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    /// A client of `http://HOST:PORT`.
    pub(crate) fn new(base: &str) -> Self {
        Client { authority: base.trim_start_matches("http://").to_owned(), sender: None }
    }

    /// Status and body, or why there are none.
    pub(crate) async fn get(&mut self, path: &str, user: Option<&str>) -> Result<(u16, String), String> {
        let asked = tokio::time::timeout(BOUND, self.ask(path, user));
        asked.await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    async fn ask(&mut self, path: &str, user: Option<&str>) -> Result<(u16, String), String> {
        loop {
            let mut sender = match self.sender.take() {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            if sender.ready().await.is_err() {
                continue;
            }
            let mut request = hyper::Request::get(path).header("host", &self.authority);
            if let Some(user) = user {
                request = request.header("cookie", format!("user={user}"));
            }
            match sender.send_request(request.body(Empty::new()).unwrap()).await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
                    self.sender = Some(sender);
                    return Ok((status, String::from_utf8_lossy(&body).into_owned()));
                }
                // The server said goodbye before the request was on its way.
                Err(error) if error.is_canceled() => continue,
                Err(error) => return Err(format!("{error:?}")),
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|e| format!("connecting: {e}"))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("{e:?}"))?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Path of the reviews as JSON, through gateway and productpage.
pub(crate) const REVIEWS: &str = "/api/v1/products/0/reviews";

/// The version of reviews that wrote `body`.
pub(crate) fn version(body: &str) -> Option<u8> {
    let json: Value = serde_json::from_str(body).ok()?;
    json["version"].as_str()?.strip_prefix('v')?.parse().ok()
}

/// Clients that keep asking.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Some clients ask for the reviews without pause.
    pub(crate) fn start(base: &str, user: Option<&'static str>) -> Self {
        let load = Load {
            stop: Arc::default(),
            asked: Arc::default(),
            failures: Arc::default(),
            clients: Vec::new(),
        };
        let clients = (0..4).map(|_| {
            let (stop, asked, failures) = (load.stop.clone(), load.asked.clone(), load.failures.clone());
            let mut client = Client::new(base);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let failure = match client.get(REVIEWS, user).await {
                        Ok((200, _)) => None,
                        Ok((status, body)) => Some(format!("{status} {body}")),
                        Err(error) => Some(error),
                    };
                    failures.lock().unwrap().extend(failure);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let clients = clients.collect();
        Load { clients, ..load }
    }

    /// How many requests were answered so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits until `count` more requests were made.
    pub(crate) async fn go_on(&self, count: usize) {
        let (goal, end) = (self.asked() + count, Instant::now() + BOUND);
        while self.asked() < goal {
            assert!(Instant::now() < end, "{count} requests in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops, and tells what failed.
    pub(crate) async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        Arc::try_unwrap(self.failures).unwrap().into_inner().unwrap()
    }
}
