//! A small reader of Prometheus text that takes nothing on trust.

use std::collections::{BTreeMap, BTreeSet};

/// Checks text against Prometheus' exposition format: heads before their series, each series once, well-formed labels,
/// histograms whose buckets grow and end at their count.
pub(super) fn check_exposition(text: &str) {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut last_bucket: Option<(String, f64)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name, kind).is_none(), "twice: {line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(seen.insert(series), "twice: {series}");
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
        };
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let kind = family.and_then(|f| kinds.get(f)).filter(|k| **k == "histogram").or(kinds.get(name));
        assert!(kind.is_some(), "no head before {line}");
        let mut rest = labels;
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
            let mut escaped = false;
            let end = after.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = &after[end.unwrap() + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        if name.ends_with("_bucket") {
            let (labels, _) = labels.split_once(",le=").unwrap();
            let id = format!("{name}{labels}");
            let before = last_bucket.take().filter(|(last, _)| *last == id).map_or(0.0, |(_, v)| v);
            assert!(value >= before, "{line}");
            last_bucket = Some((id, value));
        } else if name.ends_with("_count") {
            assert_eq!(last_bucket.take().unwrap().1, value, "{line}");
        }
    }
}
