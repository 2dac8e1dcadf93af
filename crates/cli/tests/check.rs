//! `ieum check`, the built binary, on files as users write them.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn check(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ieum"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rule.yaml"), text).unwrap();
    folder
}

const GOOD: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
      weight: 80
    - destination: {host: reviews, subset: v3}
      weight: 20
";

#[test]
fn clean_files_exit_with_0() {
    let folder = folder(GOOD);
    let output = check(&["."], folder.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("1 file, 1 resource: 0 errors, 0 warnings"));
}

#[test]
fn an_error_exits_with_1_and_names_file_line_field_and_what_would_be_right() {
    let folder = folder(&GOOD.replace("weight: 80", "weight: -1"));
    let output = check(&["rule.yaml", "--json"], folder.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &report["diagnostics"][0];
    assert_eq!((first["file"].as_str(), first["line"].as_u64()), (Some("rule.yaml"), Some(9)));
    assert_eq!(first["field"], "spec.http[0].route[0].weight");
    assert_eq!(first["resource"], "VirtualService default/reviews");

    let drawn = String::from_utf8(check(&["rule.yaml"], folder.path()).stdout).unwrap();
    assert!(drawn.contains("weight: -1") && drawn.contains("rule.yaml:9"), "{drawn}");
}

#[test]
fn an_unknown_field_is_a_warning_that_strict_makes_fatal() {
    let folder = folder(&GOOD.replace("hosts:", "host: x\n  hosts:"));
    assert_eq!(check(&["."], folder.path()).status.code(), Some(0));
    let output = check(&[".", "--strict"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("did you mean `hosts`?"));
}

#[test]
fn a_field_that_does_nothing_yet_is_told_with_its_line() {
    let rule = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer:
      zoneAwareLbSetting: {enabled: true}
  subsets: [{name: v1}, {name: v3}]
";
    let folder = folder(&format!("{GOOD}---\n{rule}"));
    let output = check(&["."], folder.path());
    assert_eq!(output.status.code(), Some(0), "the rest of the rule works");
    let drawn = String::from_utf8(output.stdout).unwrap();
    assert!(
        drawn.contains("`zoneAwareLbSetting` is not supported yet") && drawn.contains("rule.yaml:20"),
        "{drawn}"
    );
}

#[test]
fn usage_errors_and_unreadable_paths_exit_with_2() {
    let folder = folder(GOOD);
    assert_eq!(check(&[], folder.path()).status.code(), Some(2));
    assert_eq!(check(&["absent.yaml"], folder.path()).status.code(), Some(2));
}
