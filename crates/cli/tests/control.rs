//! `ieum control`, the built binary: says where it listens, answers there, stops on a signal, and names a taken port.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn control(folder: &Path, admin: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieum"));
    command.args(["control", "--config", ".", "--state-dir", "state", "--json"]).current_dir(folder);
    command.args(["--xds", "127.0.0.1:0", "--xds-tls", "127.0.0.1:0", "--admin", admin]);
    command
}

/// A running process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_says_where_it_listens_answers_there_and_stops_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.yaml"),
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n",
    )
    .unwrap();
    let mut running = Running(control(folder.path(), "127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["ready"], true);
    for port in ["xds", "xds_tls"] {
        TcpStream::connect(ready[port].as_str().unwrap()).unwrap();
    }
    let admin = ready["admin"].as_str().unwrap();
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET /status HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"resources\": 1"), "{answer}");
    assert!(folder.path().join(ready["roots"].as_str().unwrap()).exists());

    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_chooses_another() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = control(folder.path(), &address.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!("port {} is taken", address.port())) && text.contains("--admin"),
        "{text}"
    );
}
