#![allow(clippy::unwrap_used)]

use super::*;

fn tree(text: &str) -> Node {
    let chunks = split(text);
    load(chunks[0], Limits::default()).unwrap().root.unwrap()
}

fn kind(text: &str) -> Kind {
    match tree(text).value {
        Value::Scalar(scalar) => scalar.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_scalars_mean_what_kubernetes_takes_them_for() {
    assert_eq!(kind("80"), Kind::Integer(80));
    assert_eq!(kind("-1"), Kind::Integer(-1));
    assert_eq!(kind("0x1F"), Kind::Integer(31));
    assert_eq!(kind("0644"), Kind::Integer(0o644));
    assert_eq!(kind("1.10"), Kind::Float(1.1));
    assert_eq!(kind("12e4"), Kind::Float(120_000.0));
    assert_eq!(kind("yes"), Kind::Bool(true));
    assert_eq!(kind("off"), Kind::Bool(false));
    for text in [
        "\"80\"",
        "'true'",
        "y",
        "v1",
        "1.2.3",
        "10s",
        "!!str 80",
        "1.0.0-rc1",
        "+",
        "0x",
        "inf",
        "nan",
        "2024-01-01",
    ] {
        assert_eq!(kind(text), Kind::Text, "{text}");
    }
}

#[test]
fn a_stream_is_cut_at_its_markers_and_lines_stay_true() {
    let text = "\u{feff}# intro\n---\na: 1\n---\n# nothing\n---\nb: |\n  text\n   ---\n...\n%YAML 1.2\n---\nc: 3\n--- {d: 4}\n";
    let chunks = split(text);
    let keys: Vec<(String, u32)> = chunks
        .iter()
        .map(|chunk| load(*chunk, Limits::default()).unwrap().root.unwrap())
        .map(|root| (root.entries()[0].key.clone(), root.entries()[0].line))
        .collect();
    assert_eq!(keys, [("a".into(), 3), ("b".into(), 7), ("c".into(), 13), ("d".into(), 14)]);
}

#[test]
fn the_place_of_a_field_is_its_own_or_that_of_its_nearest_ancestor() {
    let root = tree("spec:\n  http:\n  - name: a\n    per_try_timeout: 1s\n  - name: b\n  \"a.b/c\": 1\n");
    assert_eq!(root.position("spec.http[0].name"), (3, 5));
    assert_eq!(root.position("spec.http[0].perTryTimeout"), (4, 5));
    assert_eq!(root.position("spec.http[1].timeout"), (5, 5));
    assert_eq!(root.position("spec.http[7].timeout"), (2, 3));
    assert_eq!(root.position("spec[\"a.b/c\"]"), (6, 3));
    assert_eq!(root.position("nothing.of[the].sort"), (1, 1));
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let root = tree("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nlist: [*b]\n");
    let used = root.field("use").unwrap();
    assert_eq!(used.field("y").unwrap().describe(), "the number `3`");
    assert_eq!(used.field("x").unwrap().describe(), "the number `1`");
    assert_eq!(root.position("list[0]"), (5, 8));
}

#[test]
fn a_key_that_stands_twice_is_reported_with_both_lines() {
    let loaded = load(split("a: 1\nb: 2\na: 3\n")[0], Limits::default()).unwrap();
    assert_eq!(loaded.duplicates, [DuplicateKey { key: "a".into(), line: 3, column: 1, first_line: 1 }]);
}

#[test]
fn hostile_documents_end_in_an_error_and_not_in_an_exhausted_machine() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let cyclic = "a: &a [*a]\n";
    let deep_flow = "[".repeat(200_000);
    let deep_block = "- ".repeat(100_000);
    let nested: String = (0..5_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let big = format!("a: {}", "x".repeat(9 << 20));
    for text in [bomb, cyclic, &deep_flow, &deep_block, &nested, &big] {
        let chunk = split(text)[0];
        let error = load(chunk, Limits::default()).unwrap_err();
        assert!(!error.message.is_empty());
    }
}

#[test]
fn json_is_yaml_tabs_included() {
    let root = tree("{\n\t\"kind\": \"Service\",\n\t\"spec\": {\"ports\": [{\"port\": 80}]}\n}\n");
    assert_eq!(root.position("spec.ports[0].port").0, 3);
    assert_eq!(root.field("kind").and_then(Node::text), Some("Service"));
}

#[test]
fn a_reader_that_gives_up_is_an_error_with_a_line() {
    for chunk in split("a: 1\nb: [!,\n") {
        assert_eq!(load(chunk, Limits::default()).map_err(|e| e.line), Err(2));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[ \\-a:\\[\\]{}&*\"'|>\n#,.%!<\t]{0,60}") {
        for chunk in split(&text) {
            let _ = load(chunk, Limits::default());
        }
    }
}
