//! The architecture, checked: which crate may depend on which, and that a module names only modules listed after it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Crate → crates of ours it may name, as ARCHITECTURE.md draws it.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("model", &[]),
    ("api", &[]),
    ("identity", &["model"]),
    ("ca", &["identity", "model"]),
    ("capture", &[]),
    ("xds", &["model"]),
    ("control", &["ca", "xds", "identity", "api", "model"]),
    ("proxy", &["xds", "identity", "model"]),
    ("console", &["control", "model", "api"]),
    ("testing", &["api", "ca", "console", "control", "identity", "model", "proxy", "xds"]),
    ("cli", &["api", "ca", "capture", "console", "control", "identity", "model", "proxy", "testing", "xds"]),
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn crates_depend_only_on_those_the_architecture_allows() {
    let allowed: BTreeMap<_, _> = ALLOWED.into();
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(crates()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("");
        let dependencies = dependencies.split("\n[").next().unwrap();
        let Some(may_name) = allowed.get(name.as_str()) else {
            wrong.push(format!("crate `{name}` is not in the architecture"));
            continue;
        };
        for line in dependencies.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap();
            if allowed.contains_key(dependency) && !may_name.contains(&dependency) {
                wrong.push(format!("`{name}` must not depend on `{dependency}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_name_only_modules_listed_after_them() {
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(crates()).unwrap() {
        let source = entry.unwrap().path().join("src");
        let Ok(root) = std::fs::read_to_string(source.join("lib.rs")) else { continue };
        let modules: Vec<&str> = root.lines().filter_map(module_name).collect();
        for (at, module) in modules.iter().enumerate() {
            let earlier = &modules[..at];
            for file in files_of(&source, module) {
                let text = std::fs::read_to_string(&file).unwrap();
                // Tests beside the code may look anywhere.
                let code = text.split("#[cfg(test)]").next().unwrap();
                for other in earlier.iter().filter(|m| names(code, m)) {
                    wrong.push(format!(
                        "{} names `{other}`, which is listed before `{module}`",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn module_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
    line.strip_prefix("mod ")?.strip_suffix(';')
}

/// Whether `code` has a path that begins with `crate::module`.
fn names(code: &str, module: &str) -> bool {
    let path = format!("crate::{module}");
    let goes_on = |after: &str| after.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '!');
    let lines = code.lines().filter(|l| !l.trim_start().starts_with("//"));
    lines
        .flat_map(|l| l.match_indices(&path).map(|(at, _)| &l[at + path.len()..]))
        .any(|after| !goes_on(after))
}

/// `module.rs` and everything below `module/`, without files of tests.
fn files_of(source: &Path, module: &str) -> Vec<PathBuf> {
    let mut files = vec![source.join(format!("{module}.rs"))];
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.retain(|f| f.extension().is_some_and(|e| e == "rs") && f.exists());
    files.retain(|f| !f.file_stem().unwrap().to_str().unwrap().ends_with("tests"));
    files
}
