//! From the YAML tree to typed resources: the `message!` and `choice!` macros and what they are built on.
//!
//! Reading never stops at the first problem: each is recorded with its field path and place, the field keeps its default,
//! and the rest is read. Whether the resource is then usable is decided by `document`.

mod choice;
mod message;
mod values;

pub(crate) use choice::{Choice, choice, decode_choice};
pub(crate) use message::{Message, decode_message, field_path, message};
pub(crate) use values::Bytes;
pub use values::IntOrString;

use crate::diagnostic::Severity;
use crate::yaml::{Node, push_index, push_key};

/// Whose rules a resource is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Protobuf's JSON: snake_case names and quoted numbers are fine, unknown fields are worth a warning.
    Protobuf,
    /// Kubernetes: names and types exactly as documented; there are many fields we have no use for.
    Kubernetes,
}

/// Unknown fields reported of one resource; then a generated or hostile file has made its point.
const MOST_WARNINGS: usize = 200;
/// Problems kept of one resource. Above `MOST_WARNINGS` all are errors, so that dropping one never hides that there are any.
const MOST_PROBLEMS: usize = 1000;

/// A value that can be read from YAML.
pub(crate) trait Decode: Sized {
    /// Reads `node`; on failure records the problem and returns nothing.
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self>;

    /// Adds the paths of the fields that can be written below `path`; a value without fields is `path` itself.
    fn list_fields(path: &str, all: &mut Vec<String>) {
        all.push(path.to_owned());
    }
}

/// Something wrong at one place of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) field: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// Where reading is, and what it found wrong so far.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) style: Style,
    path: String,
    problems: Vec<Problem>,
}

impl Decoder {
    /// A decoder that stands at `path`.
    pub(crate) fn new(style: Style, path: &str) -> Self {
        Self { style, path: path.to_owned(), problems: Vec::new() }
    }

    /// Reads `node` as what stands at the field `name` below the current path.
    pub(crate) fn key<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        push_key(&mut self.path, name);
        if length == 0 && self.path.starts_with('.') {
            self.path.remove(0);
        }
        self.above(length, read)
    }

    /// Reads item `index` of the list at the current path.
    pub(crate) fn index<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        push_index(&mut self.path, index);
        self.above(length, read)
    }

    /// Reads at the current path, and goes back up to the one of that length.
    fn above<T>(&mut self, length: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(self);
        self.path.truncate(length);
        value
    }

    /// Records that `node` cannot be used.
    pub(crate) fn error(&mut self, node: &Node, message: impl Into<String>) -> &mut Problem {
        self.report(Severity::Error, (node.line, node.column), message.into())
    }

    /// Records that `node` is not what is needed: ``expected a list, found the number `80` ``.
    pub(crate) fn mismatch(&mut self, node: &Node, expected: &str) -> &mut Problem {
        self.error(node, format!("expected {expected}, found {}", node.describe()))
    }

    /// Records a problem at the current path and the given place.
    pub(crate) fn report(&mut self, severity: Severity, place: (u32, u32), message: String) -> &mut Problem {
        self.problems.truncate(MOST_PROBLEMS - 1);
        self.problems.push(Problem {
            severity,
            field: self.path.clone(),
            line: place.0,
            column: place.1,
            message,
            help: None,
        });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Whether there are enough problems to stop warning.
    pub(crate) fn has_warned_enough(&self) -> bool {
        self.problems.len() >= MOST_WARNINGS
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Everything found wrong.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

impl Problem {
    pub(crate) fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }
}

/// The name among `known` that `written` was probably meant to be.
pub(crate) fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let allowed = (written.len() / 3).max(1);
    known
        .into_iter()
        .map(|name| (edit_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, which gives up on texts too long to be a misspelt name.
fn edit_distance(left: &str, right: &str) -> usize {
    const LONGEST: usize = 64;
    let right: Vec<char> = right.chars().collect();
    if left.len() > LONGEST || right.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (slot, b) in row.iter_mut().skip(1).zip(&right) {
            let cost = diagonal + usize::from(a != *b);
            diagonal = *slot;
            *slot = cost.min(diagonal + 1).min(before + 1);
            before = *slot;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
