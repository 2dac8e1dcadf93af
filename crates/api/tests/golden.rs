//! Reads `testdata/<case>/in.yaml` and compares all that is read and said with `out.golden` beside it.
//! `UPDATE_GOLDEN=1 cargo test -p ieum-api --test golden` writes the latter anew; look at the difference before committing.

use std::fmt::Write;
use std::path::Path;

use ieum_api::{Parsed, parse};

#[test]
fn what_is_read_and_said_is_as_before() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases: Vec<_> = std::fs::read_dir(&root)
        .expect("testdata is there")
        .map(|entry| entry.expect("testdata can be listed").path())
        .collect();
    cases.sort();
    let mut changed = Vec::new();
    for case in &cases {
        let text = std::fs::read_to_string(case.join("in.yaml")).expect("each case has an in.yaml");
        let seen = describe(&parse("in.yaml", &text));
        let golden = case.join("out.golden");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &seen).expect("testdata can be written");
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != seen {
            changed.push(format!("{}:\n{seen}", case.display()));
        }
    }
    assert!(!cases.is_empty());
    assert!(changed.is_empty(), "changed:\n{}", changed.join("\n"));
}

fn describe(parsed: &Parsed) -> String {
    let mut text = String::new();
    let mut line =
        |written: std::fmt::Arguments<'_>| writeln!(text, "{written}").expect("a string can be written");
    for diagnostic in &parsed.diagnostics {
        line(format_args!("{diagnostic}"));
    }
    for rejected in &parsed.rejected {
        let key = rejected.key.as_ref().map_or_else(|| "something".to_owned(), ToString::to_string);
        line(format_args!("rejected: {key} at line {}", rejected.origin.line));
    }
    for object in &parsed.objects {
        line(format_args!("\n{} at line {}", object.id(), object.origin.line));
        line(format_args!("{:#?}", object.spec));
    }
    text
}
