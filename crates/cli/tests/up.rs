//! The whole mesh as a user runs it: `ieum up` on the bookstore, real processes, real mutual TLS, edits and deaths under
//! load. One mesh at a time: a dozen processes each.
#![allow(clippy::unwrap_used)]

mod mesh;

use mesh::{BOUND, Client, Load, Mesh, REVIEWS, eventually, is_running, kill, version};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const RULE: &str = "virtual-service-reviews.yaml";

fn everyone_to(subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts: [reviews]\n  \
         http:\n  - route:\n    - destination: {{host: reviews, subset: {subset}}}\n"
    )
}

/// Asks until the answer comes from `wanted`.
async fn until_version(client: &mut Client, wanted: u8) -> Duration {
    let start = Instant::now();
    loop {
        if let Ok((200, body)) = client.get(REVIEWS, None).await
            && version(&body) == Some(wanted)
        {
            return start.elapsed();
        }
        assert!(start.elapsed() < BOUND, "v{wanted} answers in time");
    }
}

/// Calls others and listens nowhere, though a Service names a port of it: so are the clients in Istio's samples.
const CLIENT: &str = "
apiVersion: v1
kind: Service
metadata: {name: client}
spec: {selector: {app: client}, ports: [{name: http, port: 8001}]}
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
apiVersion: ieum.dev/v1alpha1
kind: LocalMesh
metadata: {name: client}
spec: {images: [{image: client, command: [sleep, infinity]}]}
";

#[tokio::test]
async fn the_page_is_there_and_traffic_follows_the_rules() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut mesh = Mesh::start_changed(|folder| {
        std::fs::write(folder.join("client.yaml"), CLIENT).unwrap();
    });
    let mut client = Client::new(&mesh.gateway());
    let (status, page) = client.get("/productpage", None).await.unwrap();
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("What readers say") && page.contains("<blockquote>"), "{page}");
    assert!(page.contains("Noor Halvorsen"), "details are on the page");

    let mut counts = [0; 4];
    for _ in 0..1000 {
        let (status, body) = client.get(REVIEWS, None).await.unwrap();
        assert_eq!(status, 200, "{body}");
        counts[usize::from(version(&body).unwrap())] += 1;
    }
    assert!((170..=230).contains(&counts[3]) && counts[2] == 0, "80/20 between v1 and v3: {counts:?}");
    for _ in 0..100 {
        let (status, body) = client.get(REVIEWS, Some("jason")).await.unwrap();
        assert_eq!((status, version(&body)), (200, Some(2)), "jason always sees v2: {body}");
    }
    let (status, body) = client.get("/elsewhere", None).await.unwrap();
    assert_eq!(status, 404, "{body}");

    let children = mesh.children();
    assert!(children.len() >= 14, "control, gateway, and two for each of six replicas: {children:?}");
    mesh.signal(Signal::INT);
    assert_eq!(mesh.ended().await, Some(0));
    let left: Vec<i32> = children.into_iter().filter(|pid| is_running(*pid)).collect();
    assert_eq!(left, Vec::<i32>::new(), "Ctrl-C leaves nothing behind");
}

#[tokio::test]
async fn an_edit_applies_within_a_second_and_no_request_fails() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mesh = Mesh::start();
    let mut client = Client::new(&mesh.gateway());
    let load = Load::start(&mesh.gateway(), None);
    for (subset, number) in [("v3", 3), ("v2", 2), ("v1", 1)] {
        load.go_on(20).await;
        mesh.save(RULE, &everyone_to(subset));
        // The split sends v3 some requests before the edit counts.
        let took = until_version(&mut client, number).await;
        assert!(took < Duration::from_secs(1), "{subset} after {took:?}");
    }
    for _ in 0..50 {
        let (_, body) = client.get(REVIEWS, None).await.unwrap();
        assert_eq!(version(&body), Some(1));
    }

    mesh.save(
        RULE,
        &everyone_to("v1").replace("hosts: [reviews]", "hosts: [reviews]\n  htttp: []\n  http: 7"),
    );
    eventually("a wrong edit is told with file and line", || {
        mesh.said().iter().any(|line| line.contains(&format!("{RULE}:8")) && line.contains("http"))
    })
    .await;
    load.go_on(50).await;
    let (_, body) = client.get(REVIEWS, None).await.unwrap();
    assert_eq!(version(&body), Some(1), "the last good version stays in force");
    mesh.save(RULE, &everyone_to("v3"));
    until_version(&mut client, 3).await;
    assert_eq!(load.failures().await, Vec::<String>::new());
}

#[tokio::test]
async fn replicas_come_go_and_are_replaced_without_a_failed_request() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mesh = Mesh::start();
    mesh.save(RULE, &everyone_to("v1"));
    let mut client = Client::new(&mesh.gateway());
    until_version(&mut client, 1).await;
    let load = Load::start(&mesh.gateway(), None);
    let entries = || {
        let folder = mesh.folder.parent().unwrap().join("state/workloads");
        let names = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("default.reviews-v1-") && name.ends_with(".yaml")).collect()
    };
    let before: Vec<String> = entries();
    let text = mesh.text("bookinfo.yaml");
    let at = text.find("name: reviews-v1").unwrap();
    let scaled = |replicas: &str| {
        let (head, tail) = text.split_at(at);
        head.to_owned() + &tail.replacen("replicas: 1", replicas, 1)
    };
    mesh.save("bookinfo.yaml", &scaled("replicas: 3"));
    eventually("three replicas are ready", || entries().len() == 3).await;
    load.go_on(50).await;
    let changed = scaled("replicas: 2").replacen(
        "        image: ieum/sample-reviews:v1\n",
        "        image: ieum/sample-reviews:v1\n        env: [{name: CLUSTER_NAME, value: second}]\n",
        1,
    );
    mesh.save("bookinfo.yaml", &changed);
    eventually("two new replicas have replaced three old ones", || {
        let now: Vec<String> = entries();
        now.len() == 2 && !now.iter().any(|name| before.contains(name))
    })
    .await;
    load.go_on(100).await;
    let (_, body) = client.get(REVIEWS, None).await.unwrap();
    assert!(body.contains("\"clustername\":\"second\""), "{body}");
    assert_eq!(load.failures().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_process_takes_only_its_own_requests_along_and_comes_back() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut mesh = Mesh::start();
    let gateway = mesh.gateway();

    let load = Load::start(&gateway, None);
    load.go_on(50).await;
    let admin = mesh.ready["admin"].as_str().unwrap().to_owned();
    kill(&mesh.ready["control"]["pid"]);
    load.go_on(100).await;
    let mut control = Client::new(&admin);
    let start = Instant::now();
    while !matches!(control.get("/ready", None).await, Ok((200, _))) {
        assert!(start.elapsed() < BOUND, "the control plane comes back");
    }
    load.go_on(200).await;
    assert_eq!(
        load.failures().await,
        Vec::<String>::new(),
        "the control plane is not in the path of requests"
    );

    for victim in ["sidecar_pid", "pids"] {
        // Jason's requests go to v2, which lives on.
        let others = Load::start(&gateway, Some("jason"));
        others.go_on(20).await;
        let pid = &mesh.workload("reviews-v1")[victim];
        kill(if pid.is_array() { &pid[0] } else { pid });
        let died = Instant::now();
        let mut client = Client::new(&gateway);
        // v3 gets a fifth: only many answers in a row say that v1 is back.
        let mut in_a_row = 0;
        while in_a_row < 30 {
            assert!(
                died.elapsed() < Duration::from_secs(15),
                "back within seconds after the death of its {victim}"
            );
            in_a_row = match client.get(REVIEWS, None).await {
                Ok((200, _)) => in_a_row + 1,
                _ => 0,
            };
        }
        assert_eq!(others.failures().await, Vec::<String>::new(), "{victim}");
    }

    let children = mesh.children();
    mesh.signal(Signal::KILL);
    assert_eq!(mesh.ended().await, None);
    eventually("nothing outlives ieum up", || !children.iter().any(|pid| is_running(*pid))).await;
}

/// What `openssl s_client` prints after connecting, and whether it was content.
fn openssl(arguments: &[&str]) -> (bool, String) {
    let mut child = Command::new("openssl")
        .arg("s_client")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A request, so that in TLS 1.3 the server's verdict on our certificate comes back.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let output = child.wait_with_output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// What `openssl x509` says of the certificate that a server showed.
fn certificate(shown: &str, what: &[&str]) -> String {
    let begin =
        shown.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("no certificate: {shown}"));
    let mut x509 = Command::new("openssl")
        .args(["x509", "-noout"])
        .args(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    x509.stdin.take().unwrap().write_all(&shown.as_bytes()[begin..]).unwrap();
    String::from_utf8(x509.wait_with_output().unwrap().stdout).unwrap()
}

#[tokio::test]
async fn certificates_are_renewed_without_a_failed_request() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mesh = Mesh::start_changed(|folder| {
        let path = folder.join("ieum.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace("spec:\n", "spec:\n  certificates: {lifetime: 10s}\n")).unwrap();
    });
    let address = mesh.workload("reviews-v1")["address"].as_str().unwrap().to_owned() + ":9080";
    let serial = || certificate(&openssl(&["-connect", &address, "-ign_eof"]).1, &["-serial"]);
    let load = Load::start(&mesh.gateway(), None);
    let start = Instant::now();
    let mut serials = vec![serial()];
    while serials.len() < 4 {
        load.go_on(20).await;
        let now = serial();
        if serials.last() != Some(&now) {
            serials.push(now);
        }
        assert!(start.elapsed() < BOUND, "renewed at half of 10 s: {serials:?}");
    }
    assert_eq!(load.failures().await, Vec::<String>::new());
}

#[tokio::test]
async fn workloads_show_their_identity_and_refuse_strangers() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mesh = Mesh::start();
    let address = mesh.workload("details-v1")["address"].as_str().unwrap().to_owned() + ":9080";

    let (_, shown) = openssl(&["-connect", &address, "-showcerts", "-ign_eof"]);
    assert!(shown.contains("TLSv1.3"), "{shown}");
    let begin =
        shown.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("no certificate: {shown}"));
    let mut x509 = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    x509.stdin.take().unwrap().write_all(&shown.as_bytes()[begin..]).unwrap();
    let names = String::from_utf8(x509.wait_with_output().unwrap().stdout).unwrap();
    assert!(names.contains("URI:spiffe://cluster.local/ns/default/sa/bookstore-details"), "{names}");
    assert!(!shown.contains("HTTP/1.1 200"), "without a certificate there is no answer: {shown}");

    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let san = "subjectAltName=URI:spiffe://cluster.local/ns/default/sa/bookstore-productpage";
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=stranger", "-addext", san, "-keyout", key, "-out", certificate])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let (_, refused) = openssl(&["-connect", &address, "-cert", certificate, "-key", key, "-ign_eof"]);
    assert!(refused.contains("alert"), "another CA's certificate is refused: {refused}");
    assert!(!refused.contains("HTTP/1.1 200"), "{refused}");

    let mut plain = std::net::TcpStream::connect(&address).unwrap();
    plain.set_read_timeout(Some(BOUND)).unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: details\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("healthy"), "plaintext to a STRICT workload is refused: {answer}");
}

#[test]
fn a_busy_port_is_named_with_what_to_do() {
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = used.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/bookinfo");
    let output = Command::new(env!("CARGO_BIN_EXE_ieum"))
        .args(["up", example, "--port-base", "0", "--gateway-port", &format!("80={port}")])
        .args(["--state-dir", folder.path().to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("port {port} of 127.0.0.1 is in use")), "{said}");
    assert!(said.contains("--gateway-port ingress:80=PORT"), "{said}");
}

#[test]
fn a_folder_without_anything_to_run_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.yaml"),
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n",
    )
    .unwrap();
    let mut up = Command::new(env!("CARGO_BIN_EXE_ieum"));
    // Its state, if it comes to that, is there as well.
    let output = up.arg("up").arg(folder.path()).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing to run in") && said.contains("LocalMesh"), "{said}");
}

#[tokio::test]
async fn stock_envoy_as_gateway_and_as_a_sidecar_gives_the_same_answers() {
    let _one = ONE_AT_A_TIME.lock().await;
    let envoy = testing::peers::envoy();
    let mesh = Mesh::start_changed(|folder| {
        let path = folder.join("ieum.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let command = format!("[{}, -c, $(BOOTSTRAP), --disable-hot-restart, -l, error]", envoy.display());
        let proxies =
            ["ingress", "reviews-v1"].map(|name| format!("  - {{match: {name}, command: {command}}}\n"));
        std::fs::write(path, text.replace("spec:\n", &format!("spec:\n  proxies:\n{}", proxies.concat())))
            .unwrap();
    });
    let mut client = Client::new(&mesh.gateway());
    let mut counts = [0; 4];
    for _ in 0..300 {
        let (status, body) = client.get(REVIEWS, None).await.unwrap();
        assert_eq!(status, 200, "{body}");
        counts[usize::from(version(&body).unwrap())] += 1;
    }
    assert!((30..=90).contains(&counts[3]) && counts[2] == 0, "80/20 between v1 and v3: {counts:?}");
    for _ in 0..50 {
        let (status, body) = client.get(REVIEWS, Some("jason")).await.unwrap();
        assert_eq!((status, version(&body)), (200, Some(2)), "{body}");
    }
    let (status, _) = client.get("/elsewhere", None).await.unwrap();
    assert_eq!(status, 404);
    let load = Load::start(&mesh.gateway(), None);
    mesh.save(RULE, &everyone_to("v1"));
    until_version(&mut client, 1).await;
    load.go_on(200).await;
    assert_eq!(load.failures().await, Vec::<String>::new());
}
