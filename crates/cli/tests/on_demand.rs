//! A mesh of many services, and sidecars that are sent only what they call: `ieum proxy` and real Envoy.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::exchange::exchange;
use testing::process::{Process, free_port, free_ports};
use testing::upstream::Upstream;

const PATIENCE: Duration = Duration::from_secs(20);
const SERVICES: usize = 300;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Services `s0.test` and so on, all of them this one upstream.
fn services(port: u16, numbers: impl Iterator<Item = usize>) -> String {
    let mut text = String::new();
    for number in numbers {
        write!(
            text,
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s{number}}}\nspec:\n  \
             hosts: [s{number}.test]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
             ports: [{{number: 80, name: http, protocol: HTTP}}]\n  \
             endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]\n---\n"
        )
        .unwrap();
    }
    text
}

/// The control plane of a folder of files.
struct Plane {
    folder: tempfile::TempDir,
    xds: u16,
    process: Option<Process>,
}

impl Plane {
    fn start() -> Self {
        let mut plane = Self { folder: tempfile::tempdir().unwrap(), xds: free_port(), process: None };
        std::fs::create_dir(plane.folder.path().join("mesh")).unwrap();
        plane.resume();
        plane
    }

    fn resume(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ieum"));
        command.args(["control", "--config", "mesh", "--state-dir", "state", "--json"]);
        command.args(["--xds", &at(self.xds).to_string()]);
        command.args(["--xds-tls", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut process = Process::start("control", command.current_dir(self.folder.path()));
        process.wait_for_port(at(self.xds));
        self.process = Some(process);
    }

    fn write(&self, file: &str, text: &str) {
        // Whole or not at all, as editors do it.
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.folder.path().join("mesh").join(file)).unwrap();
    }
}

/// A sidecar.
struct Sidecar {
    name: &'static str,
    outbound: u16,
    admin: u16,
    file: std::path::PathBuf,
    folder: tempfile::TempDir,
    process: Option<Process>,
}

impl Sidecar {
    fn start(name: &'static str, xds: u16, metadata: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [outbound, admin] = free_ports();
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap(xds, outbound, admin, metadata).to_string()).unwrap();
        let mut sidecar = Self { name, outbound, admin, file, folder, process: None };
        sidecar.resume();
        sidecar
    }

    fn resume(&mut self) {
        let file = self.file.to_str().unwrap();
        let mut command = match self.name {
            "envoy" => testing::peers::envoy_with(file),
            _ => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_ieum"));
                command.args(["proxy", "--bootstrap", file, "--concurrency", "1", "--state-dir"]);
                command.arg(self.folder.path().join("state"));
                command
            }
        };
        let mut process = Process::start(self.name, &mut command);
        process.wait_for_ok(at(self.admin), "/ready");
        process.wait_for_port(at(self.outbound));
        self.process = Some(process);
    }

    fn call(&self, host: &str) -> u16 {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(at(self.outbound), request.as_bytes()).status
    }

    /// Calls until the status is this.
    fn until(&self, host: &str, status: u16) {
        let begun = Instant::now();
        loop {
            let answered = self.call(host);
            if answered == status {
                return;
            }
            let said = || self.process.as_ref().map(Process::printed).unwrap_or_default();
            assert!(
                begun.elapsed() < PATIENCE,
                "{}: {host} answers {answered} instead of {status}; it said:\n{}",
                self.name,
                said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn admin_page(&self, path: &str) -> String {
        let admin = at(self.admin);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        String::from_utf8_lossy(&exchange(admin, request.as_bytes()).body).into_owned()
    }

    /// Names of the clusters of services that it has.
    fn clusters(&self) -> Vec<String> {
        let text = self.admin_page("/clusters");
        let names = text.lines().filter_map(|line| Some(line.split_once("::")?.0.to_owned()));
        let mut names: Vec<String> = names.filter(|name| name.starts_with("outbound|")).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn bootstrap(xds: u16, outbound: u16, admin: u16, metadata: Value) -> Value {
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let mut metadata = metadata;
    metadata["OUTBOUND"] = json!(at(outbound).to_string());
    json!({
        "node": {"id": "sidecar~127.0.0.1~client.default~default.svc.cluster.local", "cluster": "client", "metadata": metadata},
        "admin": {"address": address(admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "lds_config": ads, "cds_config": ads,
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(xds)}}]}]},
        }]},
    })
}

fn on_demand() -> Value {
    json!({"ON_DEMAND": "true"})
}

const TEAPOT: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s7}\nspec:\n  \
    hosts: [s7.test]\n  http:\n  - directResponse: {status: 418}\n";

fn called_services_are_all_that_is_had(name: &'static str) {
    let upstream = Upstream::start("s");
    let plane = Plane::start();
    plane.write("services.yaml", &services(upstream.address.port(), 0..SERVICES));
    let all = Sidecar::start(name, plane.xds, json!({}));
    all.until("s299.test", 200);
    assert_eq!(all.clusters().len(), SERVICES, "{name}: everything is sent by default");

    let lean = Sidecar::start(name, plane.xds, on_demand());
    assert_eq!(lean.clusters(), Vec::<String>::new(), "{name}");
    assert_eq!(
        [lean.call("s7.test"), lean.call("s250.test:80"), lean.call("nobody.test")],
        [200, 200, 404],
        "{name}"
    );
    assert_eq!(lean.clusters(), ["outbound|80||s250.test", "outbound|80||s7.test"], "{name}");

    if name == "ieum" {
        let dump = lean.admin_page("/config_dump");
        assert!(dump.contains("http_proxy/s250.test:80") && !dump.contains("s251.test"), "{dump}");
    }

    // What was fetched is followed.
    plane.write("rule.yaml", TEAPOT);
    lean.until("s7.test", 418);
    plane.write("services.yaml", &services(upstream.address.port(), (0..SERVICES).filter(|n| *n != 250)));
    lean.until("s250.test:80", 404);
    plane.write("more.yaml", &services(upstream.address.port(), SERVICES..SERVICES + 1));
    lean.until("s300.test", 200);
    plane.write("services.yaml", &services(upstream.address.port(), 0..SERVICES));
    lean.until("s250.test:80", 200);
}

#[test]
fn a_sidecar_that_is_sent_what_it_calls_calls_as_any_other() {
    called_services_are_all_that_is_had("ieum");
}

#[test]
fn stock_envoy_can_be_sent_what_it_calls() {
    called_services_are_all_that_is_had("envoy");
}

#[test]
fn a_control_plane_that_comes_back_is_asked_again_for_what_is_called() {
    let upstream = Upstream::start("s");
    for name in ["ieum", "envoy"] {
        let mut plane = Plane::start();
        plane.write("services.yaml", &services(upstream.address.port(), 0..SERVICES));
        let lean = Sidecar::start(name, plane.xds, on_demand());
        lean.until("s7.test", 200);
        plane.process = None;
        assert_eq!(lean.call("s7.test"), 200, "{name}: what was fetched stays");
        plane.write("rule.yaml", TEAPOT);
        plane.resume();
        lean.until("s7.test", 418);
        lean.until("s8.test", 200);
        assert_eq!(lean.clusters(), ["outbound|80||s7.test", "outbound|80||s8.test"], "{name}");
    }
}

#[test]
fn what_was_fetched_is_there_after_a_restart_without_a_control_plane() {
    let upstream = Upstream::start("s");
    let mut plane = Plane::start();
    plane.write("services.yaml", &services(upstream.address.port(), 0..SERVICES));
    let mut lean = Sidecar::start("ieum", plane.xds, on_demand());
    lean.until("s7.test", 200);
    let saved = lean.folder.path().join("state/last-good-config.bin");
    wait_for(&saved, b"outbound|80||s7.test");
    plane.process = None;
    lean.process = None;
    lean.resume();
    assert_eq!(lean.call("s7.test"), 200);
    plane.write("rule.yaml", TEAPOT);
    plane.resume();
    lean.until("s7.test", 418);
    assert_eq!(lean.clusters(), ["outbound|80||s7.test"]);
}

/// Waits until a file holds this.
fn wait_for(file: &Path, part: &[u8]) {
    let begun = Instant::now();
    let holds = || std::fs::read(file).is_ok_and(|all| all.windows(part.len()).any(|window| window == part));
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{} does not hold it", file.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The setting for the whole mesh, as Istio's users write it.
#[test]
fn all_sidecars_of_a_mesh_can_be_sent_what_they_call() {
    let upstream = Upstream::start("s");
    let plane = Plane::start();
    plane.write("services.yaml", &services(upstream.address.port(), 0..20));
    let lean = Sidecar::start("ieum", plane.xds, json!({}));
    lean.until("s7.test", 200);
    assert_eq!(lean.clusters().len(), 20);
    // It is switched on while the mesh runs.
    plane.write(
        "mesh.yaml",
        "apiVersion: ieum.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: mesh}\nspec:\n  meshConfig:\n    \
         defaultConfig: {proxyMetadata: {ISTIO_META_ON_DEMAND: 'true'}}\n",
    );
    let begun = Instant::now();
    while lean.clusters().len() > 1 {
        assert_eq!(lean.call("s7.test"), 200);
        assert!(begun.elapsed() < PATIENCE, "{:?}", lean.clusters());
    }
    assert_eq!([lean.call("s7.test"), lean.call("s8.test")], [200, 200]);
    assert_eq!(lean.clusters(), ["outbound|80||s7.test", "outbound|80||s8.test"]);
}
