//! Field paths, `spec.http[0].match` or `metadata.labels["app.kubernetes.io/name"]`: written and taken apart.

use std::fmt::Write;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// How a key is written at the end of a path: `.name`, or `["a.b/c"]` when it holds what a path could misread.
pub fn key_segment(key: &str) -> String {
    let mut segment = String::with_capacity(key.len() + 1);
    push_key(&mut segment, key);
    segment
}

/// Writes a key at the end of `path`.
pub fn push_key(path: &mut String, key: &str) {
    let plain =
        !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '$');
    let (before, after) = if plain { (".", "") } else { ("[\"", "\"]") };
    path.extend([before, key, after]);
}

/// Writes a position in a list at the end of `path`.
pub fn push_index(path: &mut String, index: usize) {
    // A string takes everything.
    let _ = write!(path, "[{index}]");
}

/// Takes a path apart. What cannot be understood ends it: a path is only ever used to find the nearest place.
pub fn segments(path: &str) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[\"") {
            let Some((key, after)) = after.split_once("\"]") else { break };
            found.push(Segment::Key(key.to_owned()));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let Some((index, after)) = after.split_once(']') else { break };
            let Ok(index) = index.parse() else { break };
            found.push(Segment::Index(index));
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            if key.is_empty() {
                break;
            }
            found.push(Segment::Key(key.to_owned()));
            rest = after;
        }
    }
    found
}
