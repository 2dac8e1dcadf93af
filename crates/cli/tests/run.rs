//! `ieum run`: one more process in a running mesh, from its first request to the last, captured and by explicit proxy.
#![allow(clippy::unwrap_used)]

mod mesh;

use mesh::{Mesh, eventually, is_running};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Mutual TLS is required: what is answered came through a sidecar.
const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: ['*']
  gateways: [web]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: ieum.dev/v1alpha1
kind: LocalMesh
metadata: {name: joined}
spec:
  images: [{image: web, command: [ieum, sample, echo]}]
  gateways: [{name: ingress, labels: {istio: ingressgateway}, ports: {'80': 0}}]
";

/// An `ieum run`; dropping it kills it.
struct Joined {
    run: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Joined {
    fn start(mesh: &Mesh, more: &[&str]) -> Self {
        let mut run = Command::new(env!("CARGO_BIN_EXE_ieum"))
            .args(["run", "--state-dir", mesh.state().to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (said.clone(), run.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Joined { run, said }
    }

    /// The echo service at a port that is free, ready.
    async fn echo(mesh: &Mesh, more: &[&str]) -> Self {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let program = ["--", "ieum", "sample", "echo"];
        let flags = ["--service", "web", "--port", &port];
        let joined = Self::start(mesh, &[&flags[..], more, &program].concat());
        joined.until("takes requests").await;
        joined
    }

    async fn until(&self, what: &str) {
        eventually(&format!("`ieum run` says that it {what}"), || {
            self.said.lock().unwrap().iter().any(|line| line.contains(what))
        })
        .await;
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.run.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits for its end: exit code and what it said.
    async fn ended(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        eventually("`ieum run` ends", || {
            status = self.run.try_wait().unwrap();
            status.is_some()
        })
        .await;
        (status.unwrap().code(), self.said.lock().unwrap().join("\n"))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = self.run.kill();
        let _ = self.run.wait();
        if std::thread::panicking() {
            eprintln!("`ieum run` said:\n{}", self.said.lock().unwrap().join("\n"));
        }
    }
}

/// Clients that ask without pause; who answered, and what failed.
struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
    answered: Arc<Mutex<Vec<String>>>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn start(mesh: &Mesh) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (answered, failures) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let clients = (0..4).map(|_| {
            let (stop, answered, failures) = (stop.clone(), answered.clone(), failures.clone());
            let mut client = mesh::Client::new(&mesh.gateway());
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    match client.get("/?delay=20ms", None).await {
                        Ok((200, body)) => {
                            let body: Value = serde_json::from_str(&body).unwrap();
                            answered.lock().unwrap().push(body["instance"].as_str().unwrap().to_owned());
                        }
                        Ok((status, body)) => failures.lock().unwrap().push(format!("{status} {body}")),
                        Err(error) => failures.lock().unwrap().push(error),
                    }
                }
            })
        });
        let clients = clients.collect();
        Load { stop, clients, answered, failures }
    }

    /// Who answers the next requests.
    async fn next(&self, count: usize) -> BTreeSet<String> {
        let before = self.answered.lock().unwrap().len();
        let failed = || self.failures.lock().unwrap().len();
        eventually("requests are answered", || {
            self.answered.lock().unwrap().len() >= before + count || failed() > 0
        })
        .await;
        self.answered.lock().unwrap()[before..].iter().cloned().collect()
    }

    async fn failures(self) -> Vec<String> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.failures.lock().unwrap().clone()
    }
}

/// What takes part in the mesh by `ieum run`.
fn members(mesh: &Mesh) -> Vec<String> {
    let entries = std::fs::read_dir(mesh.state().join("workloads")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("-run-")).collect()
}

/// The processes that a mesh gave such members as sidecars.
fn sidecars(mesh: &Mesh) -> Vec<i32> {
    let folder = mesh.state().join("proxies/default.web-run-").to_str().unwrap().to_owned();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| {
        let text = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_one = String::from_utf8_lossy(&text).contains(&folder);
        entry.file_name().to_string_lossy().parse().ok().filter(|_| is_one)
    });
    pids.collect()
}

async fn processes_come_share_the_load_and_leave_without_a_failed_request(capture: &str) {
    let _one = ONE_AT_A_TIME.lock().await;
    let mesh = Mesh::start_text(MESH, None, &["--capture", capture]);
    let load = Load::start(&mesh);
    let first = load.next(10).await;
    assert_eq!(first.len(), 1, "{first:?}");

    let mut one = Joined::echo(&mesh, &[]).await;
    let mut two = Joined::echo(&mesh, &["--ready", "/health", "--label", "version=v2"]).await;
    assert_eq!(members(&mesh).len(), 2);
    assert_eq!(load.next(200).await.len(), 3, "all of them answer");

    one.signal(Signal::INT);
    let (code, said) = one.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(members(&mesh).len(), 1);
    let left = load.next(200).await;
    assert!(left.len() == 2 && !left.contains("web-run-0"), "{left:?}");
    assert_eq!(load.failures().await, Vec::<String>::new());

    // Who is gone without a word is taken out as well.
    let pids = sidecars(&mesh);
    assert!(!pids.is_empty());
    two.signal(Signal::KILL);
    two.ended().await;
    eventually("its sidecar is gone", || !pids.iter().any(|pid| is_running(*pid))).await;
    assert_eq!(members(&mesh), Vec::<String>::new());
}

#[tokio::test]
async fn by_explicit_proxy_processes_come_share_the_load_and_leave_without_a_failed_request() {
    processes_come_share_the_load_and_leave_without_a_failed_request("proxy").await;
}

#[tokio::test]
async fn captured_processes_come_share_the_load_and_leave_without_a_failed_request() {
    processes_come_share_the_load_and_leave_without_a_failed_request("netns").await;
}

async fn what_cannot_join_is_told_and_who_ends_says_how(capture: &str) {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut mesh = Mesh::start_text(MESH, None, &["--capture", capture]);
    let mut lost = Joined::start(&mesh, &["--service", "wbe", "--port", "3000", "--", "true"]);
    let (code, said) = lost.ended().await;
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no Service `wbe`; there are: web"), "{said}");

    let mut brief = Joined::start(&mesh, &["--service", "web", "--port", "3000", "--", "sh", "-c", "exit 7"]);
    assert_eq!(brief.ended().await.0, Some(7));
    eventually("nothing is kept of it", || sidecars(&mesh).is_empty()).await;

    // The mesh ends: so does what joined it, before its sidecar.
    let mut joined = Joined::echo(&mesh, &[]).await;
    mesh.signal(Signal::TERM);
    let (code, said) = joined.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the mesh ends"), "{said}");
    assert_eq!(mesh.ended().await, Some(0));
}

#[tokio::test]
async fn by_explicit_proxy_what_cannot_join_is_told_and_who_ends_says_how() {
    what_cannot_join_is_told_and_who_ends_says_how("proxy").await;
}

#[tokio::test]
async fn captured_what_cannot_join_is_told_and_who_ends_says_how() {
    what_cannot_join_is_told_and_who_ends_says_how("netns").await;
}

/// A server on this machine that was there before.
#[tokio::test]
async fn what_runs_already_joins_without_a_command() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mesh = Mesh::start_text(MESH, None, &["--capture", "netns"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut server = Command::new(env!("CARGO_BIN_EXE_ieum"))
        .args(["sample", "echo"])
        .envs([("PORT", port.as_str()), ("HOST", "127.0.0.1"), ("HOSTNAME", "outside")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let joined = Joined::start(&mesh, &["--service", "web", "--port", &port]);
    joined.until("takes requests").await;
    let load = Load::start(&mesh);
    let answered = load.next(100).await;
    assert!(answered.len() == 2 && answered.contains("outside"), "{answered:?}");
    joined.signal(Signal::INT);
    let mut joined = joined;
    assert_eq!(joined.ended().await.0, Some(0));
    assert_eq!(load.failures().await, Vec::<String>::new());
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn without_a_mesh_it_is_told_what_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ieum"))
        .args(["run", "--service", "web", "--port", "3000", "--", "true"])
        .current_dir(folder.path())
        .env("XDG_STATE_HOME", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("start `ieum up`"), "{said}");
}
