//! Envoy Gateway's published configurations, each loaded by `ieum proxy` or refused with the field that stands in the
//! way. Its repository is not ours: `IEUM_ENVOY_GATEWAY` names a copy of it (`make envoy-gateway` fetches one); without
//! it nothing is tested here.
//!
//! Of each configuration listeners, routes, clusters, endpoints and secrets are put into one static bootstrap. Keys and
//! certificates, which are none there, are replaced by real ones, and ports by free ones.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime};

use testing::process::{BOUND, Process, free_port, status};

const FOLDER: &str = "internal/xds/translator/testdata/out/xds-ir";

#[test]
fn envoy_gateways_configurations_load_or_are_refused_by_field() {
    let Ok(repository) = std::env::var("IEUM_ENVOY_GATEWAY") else {
        println!("IEUM_ENVOY_GATEWAY is not set: nothing to load");
        return;
    };
    let folder = Path::new(&repository).join(FOLDER);
    let scratch = tempfile::tempdir().unwrap();
    let pems = pems(scratch.path());
    let (mut loaded, mut refused) = (0, BTreeMap::<String, Vec<String>>::new());
    let mut unnamed = Vec::new();
    let names = names(&folder);
    for name in &names {
        let admin = free_port();
        let file = scratch.path().join("bootstrap.yaml");
        std::fs::write(&file, bootstrap(&folder, name, admin, &pems)).unwrap();
        match problem(&file, admin) {
            None => loaded += 1,
            Some(said) => {
                let reasons = reasons(&said);
                if reasons.is_empty() {
                    unnamed.push(format!("{name}: {said}"));
                }
                reasons.into_iter().for_each(|reason| refused.entry(reason).or_default().push(name.clone()));
            }
        }
    }
    println!("{loaded} of {} load", names.len());
    let mut ranking: Vec<_> = refused.into_iter().collect();
    ranking.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    for (reason, names) in ranking {
        println!("{:4} {reason}, such as {}", names.len(), names[0]);
    }
    assert!(!names.is_empty(), "no configurations in {}", folder.display());
    assert!(unnamed.is_empty(), "refused without a field:\n{}", unnamed.join("\n"));
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let names: BTreeSet<String> =
        files.filter_map(|file| file.strip_suffix(".listeners.yaml").map(str::to_owned)).collect();
    names.into_iter().collect()
}

/// What the proxy said when it did not load; `None` when it did.
fn problem(file: &Path, admin: u16) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieum"));
    command.args(["proxy", "--concurrency", "1", "--bootstrap", file.to_str().unwrap()]);
    let mut process = Process::start("ieum", &mut command);
    let start = Instant::now();
    while start.elapsed() < BOUND {
        if process.ended().is_some() {
            // What it said last may still be on its way.
            std::thread::sleep(std::time::Duration::from_millis(20));
            return Some(process.printed());
        }
        if status(([127, 0, 0, 1], admin).into(), "/ready") == Some(200) {
            return None;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Some(format!("not ready in {BOUND:?}: {}", process.printed()))
}

/// What stands in the way, by field and without what is only one configuration's.
fn reasons(said: &str) -> BTreeSet<String> {
    let lines = said.lines().filter_map(|line| line.split_once("bootstrap.yaml")?.1.split_once('`'));
    lines.map(|(_, rest)| generalized(rest)).collect()
}

fn generalized(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('[') {
        out.push_str(before);
        rest = match tail.split_once(']') {
            Some((inside, tail)) if inside.bytes().all(|b| b.is_ascii_digit()) => tail,
            _ => {
                out.push('[');
                tail
            }
        };
    }
    out.push_str(rest);
    out.chars().take(220).collect()
}

/// A certificate and its key, as JSON strings.
fn pems(folder: &Path) -> [String; 2] {
    let folder = folder.join("ca");
    ca::authority::Authority::open(&folder, "cluster.local", SystemTime::now()).unwrap();
    let mut pems = [String::new(), String::new()];
    for entry in std::fs::read_dir(&folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        for (pem, label) in pems.iter_mut().zip(["CERTIFICATE", "PRIVATE KEY"]) {
            let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
            if let (Some(from), Some(to)) = (text.find(&begin), text.find(&end)) {
                *pem = format!("\"{}\\n\"", text[from..to + end.len()].replace('\n', "\\n"));
            }
        }
    }
    assert!(pems.iter().all(|pem| !pem.is_empty()), "no certificate and key in {}", folder.display());
    pems
}

/// The items of a file that is a list.
fn items(folder: &Path, name: &str, kind: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(folder.join(format!("{name}.{kind}.yaml"))).unwrap_or_default();
    let mut items: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("- "), items.last_mut()) {
            (Some(rest), _) => items.push(vec![format!("  {rest}")]),
            (None, Some(item)) => item.push(line.to_owned()),
            (None, None) => {}
        }
    }
    items
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The value of a field of an item.
fn field(item: &[String], name: &str) -> Option<String> {
    let start = format!("  {name}: ");
    item.iter().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
}

/// Rewrites each field `name`, wherever it stands, given its lines, its own first. A field in a list's item counts.
fn rewrite(lines: &[String], name: &str, change: impl Fn(&[String]) -> Option<Vec<String>>) -> Vec<String> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let bare = line.trim_start_matches(['-', ' ']);
        let mut end = at + 1;
        let depth = line.len() - bare.len();
        if bare.starts_with(name) && bare.get(name.len()..=name.len()) == Some(":") {
            while lines.get(end).is_some_and(|next| indent_of(next) > depth || next.is_empty()) {
                end += 1;
            }
            if let Some(changed) = change(&lines[at..end]) {
                out.extend(changed);
                at = end;
                continue;
            }
        }
        out.push(line.clone());
        at += 1;
    }
    out
}

/// `item` behind a key, at the place of `line`, whose list mark is kept.
fn under(line: &str, key: &str, item: &[String]) -> Vec<String> {
    let bare = line.trim_start_matches(['-', ' ']);
    let start = &line[..line.len() - bare.len()];
    let mut out = vec![format!("{start}{key}:")];
    let shift = " ".repeat(start.len());
    out.extend(item.iter().map(|line| format!("{shift}{line}")));
    out
}

fn bootstrap(folder: &Path, name: &str, admin: u16, pems: &[String; 2]) -> String {
    let routes = items(folder, name, "routes");
    let route = |name: &str| routes.iter().find(|item| field(item, "name").as_deref() == Some(name));
    let mut seen = BTreeSet::new();
    let mut secrets = items(folder, name, "secrets");
    secrets.retain(|item| seen.insert(field(item, "name")));
    let is_here = |name: &str| seen.contains(&Some(name.trim_matches('"').to_owned()));
    let listeners = items(folder, name, "listeners").into_iter().map(|item| {
        let item = rewrite(&item, "rds", |lines| {
            let name = lines.iter().find_map(|line| line.trim().strip_prefix("routeConfigName: "))?;
            Some(under(&lines[0], "routeConfig", route(name)?))
        });
        let item = rewrite(&item, "address", |lines| {
            let is_own = lines[0] == "  address:" && !lines.iter().any(|line| line.contains("UDP"));
            let port = free_port();
            is_own.then(|| {
                vec![format!("  address: {{socketAddress: {{address: 127.0.0.1, portValue: {port}}}}}")]
            })
        });
        without_sds(item, &is_here)
    });
    let endpoints = items(folder, name, "endpoints");
    let clusters = items(folder, name, "clusters").into_iter().map(|item| {
        let own = field(&item, "name").unwrap_or_default();
        let named = item.iter().find_map(|line| line.strip_prefix("    serviceName: "));
        let named = named.map_or(own.clone(), str::to_owned);
        let is_eds = item.iter().any(|line| line == "  type: EDS");
        let item = match is_eds {
            false => item,
            true => {
                let found = endpoints.iter().find(|e| field(e, "clusterName").as_deref() == Some(&*named));
                let item = rewrite(&item, "edsClusterConfig", |_| Some(Vec::new()));
                let mut item = rewrite(&item, "type", |lines| {
                    (lines[0] == "  type: EDS").then(|| vec!["  type: STATIC".to_owned()])
                });
                let none = vec![format!("  clusterName: {own}")];
                item.extend(under("  x", "loadAssignment", found.unwrap_or(&none)));
                rewrite(&item, "clusterName", |lines| {
                    let is_its = lines[0].starts_with("    clusterName: ");
                    is_its.then(|| vec![format!("    clusterName: {own}")])
                })
            }
        };
        without_sds(item, &is_here)
    });
    let mut out = format!(
        "node: {{id: x, cluster: x}}\nadmin: {{address: {{socketAddress: {{address: 127.0.0.1, portValue: {admin}}}}}}}\n\
         staticResources:\n"
    );
    write_items(&mut out, "listeners", listeners, pems);
    write_items(&mut out, "clusters", clusters, pems);
    write_items(&mut out, "secrets", secrets.clone().into_iter(), pems);
    out
}

/// Secrets that are in the bootstrap are not asked for.
fn without_sds(item: Vec<String>, is_here: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut skipping = None;
    for line in item {
        if skipping.is_some_and(|depth| indent_of(&line) > depth) {
            continue;
        }
        skipping = None;
        let last = out.last().map(|last| last.trim_start_matches(['-', ' ']).to_owned());
        let name = last.as_deref().and_then(|last| last.strip_prefix("name: "));
        if line.trim() == "sdsConfig:" && name.is_some_and(is_here) {
            skipping = Some(indent_of(&line));
            continue;
        }
        out.push(line);
    }
    out
}

fn write_items(out: &mut String, key: &str, items: impl Iterator<Item = Vec<String>>, pems: &[String; 2]) {
    let mut written = format!("  {key}:\n");
    let mut is_empty = true;
    for item in items {
        is_empty = false;
        let item = rewrite(&item, "certificateChain", |lines| real(lines, &pems[0]));
        let item = rewrite(&item, "trustedCa", |lines| real(lines, &pems[0]));
        let item = rewrite(&item, "privateKey", |lines| real(lines, &pems[1]));
        for (at, line) in item.iter().enumerate() {
            let mark = if at == 0 { format!("  - {}", line.trim_start()) } else { format!("  {line}") };
            written.push_str(&mark);
            written.push('\n');
        }
    }
    if !is_empty {
        out.push_str(&written);
    }
}

/// Real keys and certificates for those that are none.
fn real(lines: &[String], pem: &str) -> Option<Vec<String>> {
    let first = &lines[0];
    Some(vec![format!("{first} {{inlineString: {pem}}}")])
}
