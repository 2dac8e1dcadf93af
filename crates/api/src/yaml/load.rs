//! From text to the tree, without recursion and within bounds.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libyaml_safer::{Event, EventData, Mark, Parser, STR_TAG, ScalarStyle};

use super::split::Chunk;
use super::{Entry, Kind, Node, Scalar, Value};

/// What one document may cost. The defaults are far above what a cluster's API server takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of text.
    pub text_bytes: usize,
    /// Mappings and lists inside each other.
    pub depth: usize,
    /// Values that aliases and merge keys may repeat, all together.
    pub repeated_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { text_bytes: 8 << 20, depth: 64, repeated_nodes: 100_000 }
    }
}

/// Entries of a mapping that are compared with each other instead of being hashed.
const SMALL: usize = 16;

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line in the file, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.message, self.line, self.column)
    }
}

impl std::error::Error for SyntaxError {}

/// A key that stands twice in one mapping. The second is left out of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateKey {
    /// The key.
    pub key: String,
    /// Line of the second, from 1.
    pub line: u32,
    /// Column of the second, from 1.
    pub column: u32,
    /// Line of the first.
    pub first_line: u32,
}

/// A document read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The tree; `None` when the document is empty.
    pub root: Option<Node>,
    /// Keys that stand twice.
    pub duplicates: Vec<DuplicateKey>,
}

/// Reads one document.
pub fn load(chunk: Chunk<'_>, limits: Limits) -> Result<Loaded, SyntaxError> {
    if chunk.text.len() > limits.text_bytes {
        return Err(SyntaxError {
            line: chunk.line,
            column: 1,
            message: format!(
                "the document has {} bytes; at most {} are read",
                chunk.text.len(),
                limits.text_bytes
            ),
        });
    }
    let mut builder = Builder {
        first_line: chunk.line,
        limits,
        repeated: 0,
        open: Vec::new(),
        anchors: HashMap::new(),
        duplicates: Vec::new(),
        root: None,
    };
    let mut bytes = chunk.text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    let mut read_up_to = chunk.line;
    loop {
        // libyaml-safer 0.3 panics on a tag right before a comma (`[!,`). Its state is not used after a panic.
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse()));
        let event = parsed
            .map_err(|_| SyntaxError {
                line: read_up_to,
                column: 1,
                message: "YAML that cannot be read begins at or after this line".to_owned(),
            })?
            .map_err(|error| builder.syntax_error(chunk.text, &error))?;
        read_up_to = builder.place(event.end_mark).0;
        if event.data == EventData::StreamEnd {
            break;
        }
        builder.take(event)?;
    }
    Ok(Loaded { root: builder.root.filter(|root| !root.is_null()), duplicates: builder.duplicates })
}

/// A mapping or list whose end has not come yet.
struct Open {
    node: Node,
    anchor: Option<String>,
    /// The key waiting for its value, and where it stands.
    key: Option<(String, u32, u32)>,
    /// Values in it so far, itself included.
    weight: usize,
}

struct Builder {
    first_line: u32,
    limits: Limits,
    repeated: usize,
    open: Vec<Open>,
    /// Anchored values with their weight.
    anchors: HashMap<String, (Node, usize)>,
    duplicates: Vec<DuplicateKey>,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event) -> Result<(), SyntaxError> {
        let (line, column) = self.place(event.start_mark);
        match event.data {
            EventData::Scalar { anchor, tag, value, style, .. } => {
                let node = Node { value: Value::Scalar(scalar(value, style, tag.as_deref())), line, column };
                self.complete(node, anchor, 1)
            }
            EventData::SequenceStart { anchor, .. } => {
                self.begin(Value::Sequence(Vec::new()), anchor, (line, column))
            }
            EventData::MappingStart { anchor, .. } => {
                self.begin(Value::Mapping(Vec::new()), anchor, (line, column))
            }
            EventData::SequenceEnd | EventData::MappingEnd => self.end(),
            EventData::Alias { anchor } => self.alias(&anchor, (line, column)),
            EventData::StreamStart { .. }
            | EventData::StreamEnd
            | EventData::DocumentStart { .. }
            | EventData::DocumentEnd { .. } => Ok(()),
        }
    }

    fn alias(&mut self, anchor: &str, (line, column): (u32, u32)) -> Result<(), SyntaxError> {
        let Some((node, weight)) = self.anchors.get(anchor) else {
            return Err(self.error((line, column), &format!("nothing before is named `&{anchor}`")));
        };
        let (weight, depth) = (*weight, depth_of(node));
        self.repeated += weight;
        if self.repeated > self.limits.repeated_nodes {
            return Err(self.error((line, column), "aliases repeat too many values"));
        }
        if self.open.len() + depth > self.limits.depth {
            return Err(self.too_deep((line, column)));
        }
        let mut node = node.clone();
        (node.line, node.column) = (line, column);
        self.complete(node, None, weight)
    }

    fn begin(
        &mut self,
        value: Value,
        anchor: Option<String>,
        (line, column): (u32, u32),
    ) -> Result<(), SyntaxError> {
        if self.open.len() >= self.limits.depth {
            return Err(self.too_deep((line, column)));
        }
        let is_key =
            self.open.last().is_some_and(|o| matches!(o.node.value, Value::Mapping(_)) && o.key.is_none());
        if is_key {
            return Err(self.error((line, column), "a mapping or list cannot be a key"));
        }
        self.open.push(Open { node: Node { value, line, column }, anchor, key: None, weight: 1 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        if let Value::Mapping(entries) = &mut open.node.value {
            let written = std::mem::take(entries);
            let unique = self.without_duplicates(written);
            *entries = self.merged(unique)?;
        }
        self.complete(open.node, open.anchor, open.weight)
    }

    /// Puts a finished value where it belongs.
    fn complete(&mut self, node: Node, anchor: Option<String>, weight: usize) -> Result<(), SyntaxError> {
        if let Some(anchor) = anchor {
            self.repeated += weight;
            if self.repeated > self.limits.repeated_nodes {
                return Err(self.error((node.line, node.column), "anchors hold too many values"));
            }
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return Ok(());
        };
        parent.weight += weight;
        match (&mut parent.node.value, parent.key.take()) {
            (Value::Sequence(items), _) => items.push(node),
            (Value::Mapping(entries), Some((key, line, column))) => {
                entries.push(Entry { key, line, column, value: node });
            }
            (Value::Mapping(_), None) => match node.value {
                Value::Scalar(scalar) => parent.key = Some((scalar.text, node.line, node.column)),
                _ => return Err(self.error((node.line, node.column), "a mapping or list cannot be a key")),
            },
            (Value::Scalar(_), _) => {}
        }
        Ok(())
    }

    fn without_duplicates(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        // Most mappings are small, and have no key twice.
        let is_new =
            |(at, entry): (usize, &Entry)| entries.iter().take(at).all(|other| other.key != entry.key);
        if entries.len() <= SMALL && entries.iter().enumerate().all(is_new) {
            return entries;
        }
        let mut lines: HashMap<String, u32> = HashMap::with_capacity(entries.len());
        let mut unique = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(first_line) = lines.get(&entry.key).filter(|_| entry.key != "<<") {
                self.duplicates.push(DuplicateKey {
                    first_line: *first_line,
                    key: entry.key,
                    line: entry.line,
                    column: entry.column,
                });
                continue;
            }
            lines.insert(entry.key.clone(), entry.line);
            unique.push(entry);
        }
        unique
    }

    /// Resolves `<<: *base`: the fields of the base that are not written here.
    fn merged(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>, SyntaxError> {
        if entries.iter().all(|entry| entry.key != "<<") {
            return Ok(entries);
        }
        let (bases, mut own): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.key == "<<");
        for base in bases {
            let place = (base.line, base.column);
            let sources = match base.value.value {
                Value::Sequence(items) => items,
                _ => vec![base.value],
            };
            for source in sources {
                let Value::Mapping(fields) = source.value else {
                    return Err(self.error(place, "`<<` takes a mapping or a list of mappings"));
                };
                for field in fields {
                    self.repeated += 1 + own.len() / 64;
                    if self.repeated > self.limits.repeated_nodes {
                        return Err(self.error(place, "merge keys repeat too many values"));
                    }
                    if own.iter().all(|entry| entry.key != field.key) {
                        own.push(field);
                    }
                }
            }
        }
        Ok(own)
    }

    fn place(&self, mark: Mark) -> (u32, u32) {
        let line = u32::try_from(mark.line).unwrap_or(u32::MAX);
        let column = u32::try_from(mark.column).unwrap_or(u32::MAX);
        (self.first_line.saturating_add(line), column.saturating_add(1))
    }

    fn syntax_error(&self, text: &str, error: &libyaml_safer::Error) -> SyntaxError {
        let Some(mark) = error.problem_mark() else {
            // The reader's own errors come without a mark: a character that YAML does not allow.
            let is_bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
            let before = text.split(is_bad).next().unwrap_or_default();
            let line = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX);
            return self.error((self.first_line.saturating_add(line), 1), error.problem());
        };
        let message = match (error.context(), error.context_mark()) {
            (Some(context), Some(start)) if start.line != mark.line => {
                format!("{}, {context} that begins on line {}", error.problem(), self.place(start).0)
            }
            (Some(context), _) => format!("{}, {context}", error.problem()),
            _ => error.problem().to_owned(),
        };
        self.error(self.place(mark), &message)
    }

    fn too_deep(&self, place: (u32, u32)) -> SyntaxError {
        self.error(place, &format!("more than {} mappings and lists inside each other", self.limits.depth))
    }

    fn error(&self, (line, column): (u32, u32), message: &str) -> SyntaxError {
        SyntaxError { line, column, message: message.to_owned() }
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&str>) -> Scalar {
    match (tag, style) {
        (Some(STR_TAG | "!"), _) => Scalar { kind: Kind::Text, text },
        (Some(_), _) | (None, ScalarStyle::Plain) => Scalar::plain(text),
        (None, _) => Scalar::quoted(text),
    }
}

fn depth_of(node: &Node) -> usize {
    let below = match &node.value {
        Value::Scalar(_) => return 0,
        Value::Sequence(items) => items.iter().map(depth_of).max(),
        Value::Mapping(entries) => entries.iter().map(|entry| depth_of(&entry.value)).max(),
    };
    1 + below.unwrap_or(0)
}
