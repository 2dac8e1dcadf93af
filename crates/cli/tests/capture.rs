//! `ieum up --capture netns`: programs that know nothing of a mesh are in it, with mutual TLS required everywhere, and
//! nothing of it is left when it ends, whatever way. Needs `nft`, `ip` and a kernel that lets ordinary users make
//! namespaces; without, the tests say so and are skipped.
#![allow(clippy::unwrap_used)]

mod mesh;

use mesh::{BOUND, Mesh};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Instant;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: lines}
spec: {selector: {app: lines}, ports: [{name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: cache}
spec: {selector: {app: cache}, ports: [{name: tcp-redis, port: 6379}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {selector: {app: cache}, ports: [{name: tcp-redis, port: 9000, targetPort: 6379}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: lines}
spec:
  selector: {matchLabels: {app: lines}}
  template:
    metadata: {labels: {app: lines}}
    spec: {containers: [{name: lines, image: lines, ports: [{containerPort: 9000}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec: {containers: [{name: client, image: client}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: ieum.dev/v1alpha1
kind: LocalMesh
metadata: {name: captured}
spec:
  images:
  - {image: web, command: [ieum, sample, echo]}
  - {image: lines, command: [ieum, sample, tcp-echo]}
  - {image: client, command: [sleep, infinity]}
  - {image: cache, command: [redis-server, --save, '', --port, '6379']}
";

const CACHE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache}
spec:
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec: {containers: [{name: cache, image: cache, ports: [{containerPort: 6379}]}]}
";

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped in part: `{program}` is not installed");
    }
    there
}

/// Why capture is not possible here, if it is not.
fn hindrance() -> Option<String> {
    let probe = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c"])
        .arg("PATH=$PATH:/usr/sbin:/sbin; ip link add name probe type bridge && nft add table inet t")
        .output();
    match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The network namespaces that any process is in.
fn networks() -> BTreeSet<PathBuf> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| std::fs::read_link(entry.path().join("ns/net")).ok()).collect()
}

fn start(text: &str) -> Mesh {
    Mesh::start_text(text, None, &["--capture", "netns"])
}

/// Runs a program as if it were the client.
fn run(mesh: &Mesh, command: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ieum"))
        .args(["exec", "client", "--state-dir", mesh.state().to_str().unwrap(), "--"])
        .args(command)
        .output()
        .unwrap()
}

/// What a program prints that is run as if it were the client; it must succeed.
fn printed(mesh: &Mesh, command: &[&str]) -> String {
    let output = run(mesh, command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}\n{err}\n{}", mesh.said().join("\n"));
    out.into_owned()
}

/// Waits until no process has the folder of this mesh in its command line any more, and no network is left.
fn is_gone(mesh: &mut Mesh, before: &BTreeSet<PathBuf>) {
    let start = Instant::now();
    mesh.wait();
    let folder = mesh.folder.parent().unwrap().to_str().unwrap().to_owned();
    loop {
        let mine: Vec<String> = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let mut text = Vec::new();
                std::fs::File::open(entry.path().join("cmdline")).ok()?.read_to_end(&mut text).ok()?;
                Some(String::from_utf8_lossy(&text).replace('\0', " "))
            })
            .filter(|command| command.contains(&folder))
            .collect();
        let networks: Vec<PathBuf> = networks().difference(before).cloned().collect();
        if mine.is_empty() && networks.is_empty() {
            return;
        }
        assert!(start.elapsed() < BOUND, "still there: {mine:?}, {networks:?}");
        std::thread::yield_now();
    }
}

/// Whether the tests can run here, which is told when not.
fn is_possible() -> bool {
    let hindrance = hindrance();
    if let Some(why) = &hindrance {
        eprintln!("skipped: this kernel, or what is installed, does not let us capture: {why}");
    }
    hindrance.is_none()
}

#[test]
fn unmodified_programs_are_in_the_mesh() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_possible() {
        return;
    }
    let has_redis = has("redis-server");
    let text = if has_redis { format!("{MESH}---{CACHE}") } else { MESH.to_owned() };
    let mesh = start(&text);

    // People reach the control plane as they do without capture.
    let status = format!("{}/status", mesh.ready["admin"].as_str().unwrap());
    let asked = Command::new("curl").args(["-sS", "--fail", "--max-time", "20", &status]).output().unwrap();
    assert!(asked.status.success(), "{status}: {}", String::from_utf8_lossy(&asked.stderr));

    // Every name that a service has, and no address but its virtual one. Mutual TLS is required: what is answered came
    // through both sidecars.
    for host in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"] {
        let told = printed(&mesh, &["curl", "-sS", "--fail", "--max-time", "20", &format!("http://{host}/")]);
        assert!(!told.is_empty(), "{host}");
    }
    let script = "import urllib.request as r; print(r.urlopen('http://web/', timeout=20).status)";
    assert_eq!(printed(&mesh, &["python3", "-c", script]).trim(), "200");

    // Two services on one port, told apart by their addresses alone.
    let echo = "import socket; s = socket.create_connection(('lines', 9000), 20); s.sendall(b'a line\\n'); \
                print(s.recv(100).decode())";
    assert!(printed(&mesh, &["python3", "-c", echo]).contains("a line"));
    if has_redis {
        for (host, port) in [("cache", "6379"), ("other", "9000")] {
            let told = printed(&mesh, &["redis-cli", "-h", host, "-p", port, "ping"]);
            assert_eq!(told.trim(), "PONG", "{host}");
        }
    }

    // What is not there is told at once.
    let script = "import socket\ntry: socket.getaddrinfo('nobody.default.svc.cluster.local', 80)\n\
                  except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)";
    assert_eq!(printed(&mesh, &["python3", "-c", script]).trim(), "True");
}

/// Clients of other languages, with nothing set for them, and older and larger HTTP.
#[test]
fn clients_of_other_languages_need_no_change() {
    const JAVA: &str = "import java.net.URI; import java.net.http.*; class Ask { public static void main(String[] a) throws Exception { \
        var client = HttpClient.newHttpClient(); var request = HttpRequest.newBuilder(URI.create(\"http://web/\")).build(); \
        System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode()); } }";
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_possible() {
        return;
    }
    let mesh = start(MESH);
    if has("node") {
        let script = "fetch('http://web/').then(answer => console.log(answer.status))";
        assert_eq!(printed(&mesh, &["node", "-e", script]).trim(), "200");
    }
    if has("java") {
        let file = mesh.folder.parent().unwrap().join("Ask.java");
        std::fs::write(&file, JAVA).unwrap();
        assert_eq!(printed(&mesh, &["java", file.to_str().unwrap()]).trim(), "200");
    }
    let code = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", "--max-time", "50"];
    let old = printed(&mesh, &[&code[..], &["--http1.0", "http://web/"]].concat());
    assert!(old.starts_with("200 "), "{old}");
    let large = printed(&mesh, &[&code[..], &["http://web/?size=100000000"]].concat());
    assert_eq!(large, "200 100000000");
}

/// Each asks for a name and calls at once.
#[test]
fn a_thousand_programs_that_call_as_they_start_are_all_answered() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_possible() {
        return;
    }
    let mesh = start(MESH);
    let script = "failed=0; for i in $(seq 1000); do curl -sf -o /dev/null --max-time 20 http://web/ || \
                  failed=$((failed + 1)); done; echo $failed";
    assert_eq!(printed(&mesh, &["sh", "-c", script]).trim(), "0", "failed");
}

/// What `ieum up` does of itself: captured where that is possible, and told in one line where it is not.
#[test]
fn capture_is_what_a_mesh_does_where_it_can() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut up = Command::new(env!("CARGO_BIN_EXE_ieum"));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("mesh");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("mesh.yaml"), MESH).unwrap();
    up.arg("up").arg(&folder).args(["--json", "--port-base", "0", "--state-dir"]);
    let mut up = up
        .arg(place.path().join("state"))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(std::fs::File::create(place.path().join("said")).unwrap()))
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ready["workloads"]["web"][0]["address"].as_str().unwrap().to_owned();
    rustix::process::kill_process(rustix::process::Pid::from_raw(up.id() as i32).unwrap(), Signal::TERM)
        .unwrap();
    up.wait().unwrap();
    let said = std::fs::read_to_string(place.path().join("said")).unwrap();
    if hindrance().is_none() {
        assert!(address.starts_with("10.77."), "{address}\n{said}");
    } else {
        assert!(address.starts_with("127.") && said.contains("note: traffic is not captured"), "{said}");
    }
}

#[test]
fn who_has_no_sidecar_is_called_as_the_rules_say() {
    if !is_possible() || !has("curl") {
        return;
    }
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let example = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/egress"));
    let files = std::fs::read_dir(&example).unwrap().flatten().map(|entry| entry.path());
    let yaml = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let texts: Vec<String> = yaml.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mesh = start(&texts.join("\n---\n"));
    let status = |arguments: &[&str]| {
        let ask = ["curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"];
        printed(&mesh, &[&ask, arguments].concat())
    };
    assert_eq!(status(&["http://api.example.com/"]), "200");
    assert_eq!(status(&["http://api.example.com/?delay=3s"]), "504");
    let undeclared = ["--resolve", "other.example.com:80:192.0.2.1", "http://other.example.com/"];
    assert_eq!(status(&undeclared), "502");
}

#[test]
fn without_its_sidecar_a_workload_reaches_nobody() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_possible() {
        return;
    }
    let mesh = start(MESH);
    let address = mesh.ready["workloads"]["web"][0]["address"].as_str().unwrap().to_owned();
    // Gone when it is reaped: until then threads of it may hold its sockets. It starts again a tenth of a second later.
    let script = format!(
        "import os, signal, socket\nos.kill({pid}, signal.SIGKILL)\nwhile os.path.exists('/proc/{pid}'): pass\n\
         try: socket.create_connection(('{address}', 8080), 20); print('open')\n\
         except ConnectionRefusedError: print('closed')",
        pid = mesh.ready["workloads"]["client"][0]["sidecar_pid"],
    );
    assert_eq!(printed(&mesh, &["python3", "-c", &script]).trim(), "closed");
}

#[test]
fn nothing_is_left_behind_whatever_way_it_ends() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !is_possible() {
        return;
    }
    for signal in [Signal::INT, Signal::KILL] {
        let before = networks();
        let mut mesh = start(MESH);
        assert!(networks().difference(&before).count() >= 4, "the mesh, and each of its workloads");
        mesh.signal(signal);
        is_gone(&mut mesh, &before);
    }
}
