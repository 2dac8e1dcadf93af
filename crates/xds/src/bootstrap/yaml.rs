//! YAML (and JSON, which is YAML) as a tree that knows its lines.
//! Scalars mean what libyaml's users take them for; what a field makes of them is decided later.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libyaml_safer::{Event, EventData, Mark, Parser, STR_TAG, ScalarStyle};
use serde_json::Value as Json;

/// Longest text that is read.
const MAX_BYTES: usize = 16 << 20;
/// Mappings and lists inside each other.
const MAX_DEPTH: usize = 90;
/// Values that anchors hold and aliases repeat, all together.
const MAX_REPEATED: usize = 100_000;

/// A value and the line it begins on, from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(Json),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its line, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u32,
    pub(super) value: Node,
}

/// Why a text is not YAML: the line, and what is wrong.
pub(super) type SyntaxError = (u32, String);

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        return Err((1, format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len())));
    }
    let mut builder = Builder::default();
    let mut bytes = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    loop {
        // libyaml-safer 0.3 panics on a tag right before a comma (`[!,`). Its state is not used after a panic.
        let event = catch_unwind(AssertUnwindSafe(|| parser.parse()))
            .map_err(|_| (builder.line, "YAML that cannot be read begins at or after this line".to_owned()))?
            .map_err(|error| explain(text, &error))?;
        builder.line = line_of(event.end_mark);
        if event.data == EventData::StreamEnd {
            break;
        }
        builder.take(event)?;
    }
    builder.root.ok_or((1, "the file is empty".to_owned()))
}

/// A mapping or list whose end has not come yet.
struct Open {
    node: Node,
    anchor: Option<String>,
    key: Option<(String, u32)>,
}

#[derive(Default)]
struct Builder {
    line: u32,
    open: Vec<Open>,
    anchors: HashMap<String, Node>,
    repeated: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event) -> Result<(), SyntaxError> {
        let line = line_of(event.start_mark);
        match event.data {
            EventData::Scalar { anchor, tag, value, style, .. } => {
                let text = style != ScalarStyle::Plain || matches!(tag.as_deref(), Some(STR_TAG | "!"));
                let is_key = self
                    .open
                    .last()
                    .is_some_and(|o| matches!(o.node.value, Value::Map(_)) && o.key.is_none());
                let scalar = if text || is_key { Json::String(value) } else { plain(value) };
                self.complete(Node { line, value: Value::Scalar(scalar) }, anchor)
            }
            EventData::SequenceStart { anchor, .. } => self.begin(line, Value::List(Vec::new()), anchor),
            EventData::MappingStart { anchor, .. } => self.begin(line, Value::Map(Vec::new()), anchor),
            EventData::SequenceEnd | EventData::MappingEnd => match self.open.pop() {
                Some(open) => self.complete(open.node, open.anchor),
                None => Ok(()),
            },
            EventData::Alias { anchor } => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| (line, format!("nothing before is named `&{anchor}`")))?;
                if self.open.len() + depth(&node) > MAX_DEPTH {
                    return Err((
                        line,
                        format!("more than {MAX_DEPTH} mappings and lists inside each other"),
                    ));
                }
                self.repeat(&node)?;
                self.complete(node, None)
            }
            EventData::DocumentStart { .. } if self.root.is_some() => {
                Err((line, "a second document begins here; a bootstrap is one document".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, line: u32, value: Value, anchor: Option<String>) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err((line, format!("more than {MAX_DEPTH} mappings and lists inside each other")));
        }
        self.open.push(Open { node: Node { line, value }, anchor, key: None });
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: Option<String>) -> Result<(), SyntaxError> {
        if let Some(anchor) = anchor {
            self.repeat(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, line))) => {
                if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                    return Err((
                        line,
                        format!("`{key}` stands here a second time; first on line {}", first.line),
                    ));
                }
                entries.push(Entry { key, line, value: node });
            }
            (Value::Map(_), None) => match node.value {
                Value::Scalar(Json::String(key)) => parent.key = Some((key, node.line)),
                _ => return Err((node.line, "a mapping or list cannot be a key".to_owned())),
            },
            (Value::Scalar(_), _) => {}
        }
        Ok(())
    }

    fn repeat(&mut self, node: &Node) -> Result<(), SyntaxError> {
        self.repeated += weight(node);
        match self.repeated > MAX_REPEATED {
            true => Err((node.line, "anchors and aliases repeat too many values".to_owned())),
            false => Ok(()),
        }
    }
}

impl Node {
    /// Whether it has fields.
    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// The value as JSON. `@type` comes first, because readers of `Any` must know it before the rest.
    pub(super) fn json(&self) -> Json {
        match &self.value {
            Value::Scalar(scalar) => scalar.clone(),
            Value::List(items) => items.iter().map(Node::json).collect(),
            Value::Map(entries) => {
                let (types, rest): (Vec<&Entry>, Vec<&Entry>) =
                    entries.iter().partition(|e| e.key == "@type");
                let entries = types.into_iter().chain(rest);
                Json::Object(entries.map(|entry| (entry.key.clone(), entry.value.json())).collect())
            }
        }
    }

    /// The line of `field`, such as `admin.address` or `clusters[0].name`, or of its nearest ancestor that is written.
    pub(super) fn line_of(&self, field: &str) -> u32 {
        let (mut node, mut line) = (self, self.line);
        for segment in field.split(['.', '[']) {
            let next = match (&node.value, segment.strip_suffix(']')) {
                (Value::List(items), Some(index)) => {
                    index.parse::<usize>().ok().and_then(|at| items.get(at)).map(|item| (item, item.line))
                }
                (Value::Map(entries), None) => {
                    let entry = entries.iter().find(|e| e.key == segment || snake_case(&e.key) == segment);
                    entry.map(|entry| (&entry.value, entry.line))
                }
                _ => None,
            };
            let Some(found) = next else { return line };
            (node, line) = found;
        }
        line
    }
}

/// The proto name of a JSON name: `typedConfig` is `typed_config`.
fn snake_case(key: &str) -> String {
    let raise = |c: char| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] };
    key.chars().flat_map(raise).collect()
}

/// What a scalar without quotes stands for.
fn plain(text: String) -> Json {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Json::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Json::Bool(false),
        _ => {}
    }
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let hex = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let integer = text.parse::<u64>().map(Json::from).or_else(|_| text.parse::<i64>().map(Json::from));
    match (hex, integer) {
        (Some(number), _) => number.into(),
        (None, Ok(number)) => number,
        (None, Err(_)) => {
            let float = is_number.then(|| text.parse::<f64>().ok()).flatten();
            float.and_then(serde_json::Number::from_f64).map_or(Json::String(text), Json::Number)
        }
    }
}

fn weight(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 1,
        Value::List(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| weight(&entry.value)).sum::<usize>(),
    }
}

fn depth(node: &Node) -> usize {
    let below = match &node.value {
        Value::Scalar(_) => return 0,
        Value::List(items) => items.iter().map(depth).max(),
        Value::Map(entries) => entries.iter().map(|entry| depth(&entry.value)).max(),
    };
    1 + below.unwrap_or(0)
}

fn line_of(mark: Mark) -> u32 {
    u32::try_from(mark.line).unwrap_or(u32::MAX).saturating_add(1)
}

fn explain(text: &str, error: &libyaml_safer::Error) -> SyntaxError {
    let Some(mark) = error.problem_mark() else {
        // The reader's own errors come without a mark: a character that YAML does not allow.
        let is_bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
        let before = text.split(is_bad).next().unwrap_or_default();
        let line = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX);
        return (line.saturating_add(1), error.problem().to_owned());
    };
    let message = match (error.context(), error.context_mark()) {
        (Some(context), Some(start)) if start.line != mark.line => {
            format!("{}, {context} that begins on line {}", error.problem(), line_of(start))
        }
        (Some(context), _) => format!("{}, {context}", error.problem()),
        _ => error.problem().to_owned(),
    };
    (line_of(mark), message)
}
