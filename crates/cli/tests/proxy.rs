//! `ieum proxy` as a process: it serves what a static bootstrap says, tells what is wrong with one, and ends when told.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

fn bootstrap(directory: &Path, backend: SocketAddr, filter: &str) -> std::path::PathBuf {
    let text = format!(
        r#"
node: {{id: n, cluster: c}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: backend}}}}]}}]
          http_filters:
          - name: {filter}
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.{filter}}}
  clusters:
  - name: backend
    type: STRICT_DNS
    # As in Envoy, localhost is ::1 first where the machine says so.
    dns_lookup_family: V4_ONLY
    connect_timeout: 1s
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: localhost, port_value: {}}}}}}}}}]
"#,
        backend.port()
    );
    let path = directory.join("boot.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A backend that answers every connection's first request with `hello`.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
        }
    });
    address
}

/// A proxy that is killed when the test is over.
struct Proxy {
    child: Child,
    admin: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(bootstrap: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieum"));
    command.arg("proxy").arg("--bootstrap").arg(bootstrap).args(["--concurrency", "1"]);
    command
}

impl Proxy {
    fn start(bootstrap: &Path) -> Self {
        let mut child = command(bootstrap).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the proxy ended").unwrap();
            if let Some((_, address)) = line.split_once("admin interface at http://") {
                break address.parse().unwrap();
            }
        };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, admin: address }
    }

    fn wait_until_ready(&self) {
        let start = Instant::now();
        while !ask(self.admin, "GET /ready").ends_with("LIVE\n") {
            assert!(start.elapsed() < PATIENCE, "not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where its listener is.
    fn web(&self) -> SocketAddr {
        let answer = ask(self.admin, "GET /listeners");
        let (_, address) = answer.trim_end().rsplit_once("web::").unwrap();
        address.parse().unwrap()
    }

    fn wait_for_end(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "still running");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sends a request of its own connection and returns the whole answer.
fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_static_bootstrap_is_served_until_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let mut proxy = Proxy::start(&bootstrap(directory.path(), backend(), "router.v3.Router"));
    proxy.wait_until_ready();
    let answer = ask(proxy.web(), "GET /");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    assert!(ask(proxy.admin, "GET /clusters").contains("::hostname::localhost\n"));
    assert!(ask(proxy.admin, "GET /quitquitquit").starts_with("HTTP/1.1 405 "));
    let id = rustix::process::Pid::from_child(&proxy.child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(proxy.wait_for_end(), 0);
}

#[test]
fn it_ends_when_the_admin_interface_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut proxy = Proxy::start(&bootstrap(directory.path(), backend(), "router.v3.Router"));
    assert!(ask(proxy.admin, "POST /quitquitquit").starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(proxy.wait_for_end(), 0);
}

#[test]
fn a_bootstrap_that_cannot_be_obeyed_is_an_error_with_its_line_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let path = bootstrap(directory.path(), backend(), "lua.v3.Lua");
    let output = command(&path).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let place = format!(
        "error: {}:17: `static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0]`: ",
        path.display()
    );
    assert!(error.contains(&place) && error.contains("lua.v3.Lua"), "{error}");
}
