//! Istio's traffic tasks, each as a user would do it: `ieum up` on its folder of examples/, then real requests. Every task
//! runs twice, with our proxy and with stock Envoy as every sidecar and gateway under our control plane.
#![allow(clippy::unwrap_used)]

#[path = "../mesh/mod.rs"]
mod mesh;

mod asking;
mod task;
mod traffic;

mod announced;
mod circuit_breaking;
mod egress;
mod egress_gateway;
mod egress_tls_origination;
mod fault_injection;
mod ingress;
mod locality_distribute;
mod locality_failover;
mod mirroring;
mod on_demand;
mod request_routing;
mod request_timeouts;
mod rolling_restart;
mod secure_ingress;
mod sni_passthrough;
mod tcp_traffic_shifting;
mod traffic_shifting;

use std::path::Path;
use std::process::Command;

/// The folders of examples/ that are tasks.
const TASKS: [&str; 15] = [
    "circuit-breaking",
    "egress",
    "egress-gateway",
    "egress-tls-origination",
    "fault-injection",
    "ingress",
    "locality-distribute",
    "locality-failover",
    "mirroring",
    "request-routing",
    "request-timeouts",
    "secure-ingress",
    "sni-passthrough",
    "tcp-traffic-shifting",
    "traffic-shifting",
];

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

#[test]
fn every_example_has_a_readme_and_is_run_here_or_is_the_bookstore() {
    let entries = std::fs::read_dir(examples()).unwrap().flatten();
    let folders = entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned());
    let mut tasks: Vec<String> = folders.filter(|name| name != "bookinfo").collect();
    tasks.sort();
    assert_eq!(tasks, TASKS);
    for task in TASKS {
        let readme = std::fs::read_to_string(examples().join(task).join("README.md")).unwrap_or_default();
        assert!(readme.contains(&format!("ieum up examples/{task}")), "{task}/README.md says how to run it");
    }
}

#[test]
fn examples_are_without_errors() {
    for task in TASKS {
        let output = Command::new(env!("CARGO_BIN_EXE_ieum"))
            .arg("check")
            .arg(examples().join(task))
            .output()
            .unwrap();
        assert!(output.status.success(), "{task}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
