//! YAML as a tree that remembers where everything stands. JSON is read as the YAML it is.
//!
//! Scalars are understood as Kubernetes' own reader understands them (YAML 1.1: `yes` is a boolean, `1.10` a number),
//! because that is the reader the text was written for. Aliases and merge keys are resolved, within bounds. What the
//! tree means is left to `decode`.

mod load;
mod path;
mod scalar;
mod split;

pub use load::{DuplicateKey, Limits, Loaded, SyntaxError, load};
pub use path::{Segment, key_segment, push_index, push_key, segments};
pub use scalar::{Kind, Scalar};
pub use split::{Chunk, split};

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What stands there.
    pub value: Value,
    /// Line in the file, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// The three shapes a value can have.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, number, boolean or null.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Fields in the order they were written.
    Mapping(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Line of the key, from 1.
    pub line: u32,
    /// Column of the key, from 1.
    pub column: u32,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The value under `key`, when this is a mapping that has it.
    pub fn field(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry under `key`, in camelCase or snake_case, when this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let entries = self.entries();
        let exact = entries.iter().find(|entry| entry.key == key);
        exact
            .or_else(|| entries.iter().find(|entry| entry.key.contains('_') && camel_case(&entry.key) == key))
    }

    /// The entries of a mapping; none for every other value.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for every other value.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar that is a string.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Scalar { kind: Kind::Text, text }) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing is written here, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(Scalar { kind: Kind::Null, .. }))
    }

    /// Line and column of the field at `path` (`spec.http[0].timeout`), or of its nearest ancestor that is written.
    pub fn position(&self, path: &str) -> (u32, u32) {
        let mut node = self;
        let mut place = (self.line, self.column);
        for segment in segments(path) {
            match segment {
                Segment::Key(key) => match node.entry(&key) {
                    Some(entry) => {
                        place = (entry.line, entry.column);
                        node = &entry.value;
                    }
                    None => break,
                },
                Segment::Index(index) => match node.items().get(index) {
                    Some(item) => {
                        place = (item.line, item.column);
                        node = item;
                    }
                    None => break,
                },
            }
        }
        place
    }

    /// What it is, for a message: ``the number `80` ``, `a list`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Null => "nothing".to_owned(),
                Kind::Bool(_) => format!("the boolean `{}`", scalar.text),
                Kind::Integer(_) | Kind::Float(_) => format!("the number `{}`", scalar.text),
                Kind::Text => format!("the text `{}`", shortened(&scalar.text)),
            },
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// Protobuf's JSON name of a snake_case field: underscores go, the letter after each is raised.
pub(crate) fn camel_case(snake: &str) -> String {
    let mut name = String::with_capacity(snake.len());
    let mut raise = false;
    for letter in snake.chars() {
        match letter {
            '_' => raise = true,
            _ if raise => {
                name.extend(letter.to_uppercase());
                raise = false;
            }
            _ => name.push(letter),
        }
    }
    name
}

/// Whether `name` is what [`camel_case`] makes of `snake`, a name in ASCII.
pub(crate) fn is_camel_case_of(name: &str, snake: &str) -> bool {
    let mut letters = name.bytes();
    let mut raise = false;
    let same = |letter: u8| match letter {
        b'_' => {
            raise = true;
            true
        }
        _ => {
            let wanted = if std::mem::take(&mut raise) { letter.to_ascii_uppercase() } else { letter };
            letters.next() == Some(wanted)
        }
    };
    snake.bytes().all(same) && letters.next().is_none()
}

/// `text`, cut so that a message stays one line.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    if line.len() == text.len() && line.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let mut cut: String = line.chars().take(LONGEST).collect();
    cut.push_str("...");
    cut
}

#[cfg(test)]
mod tests;
