//! From the text of a file to its resources: the entrance of this crate.
//!
//! A file is cut into documents, a document read into a tree, a tree into a typed resource, and that is checked. A
//! problem in one resource never reaches another.

mod kinds;

use std::sync::Arc;

pub use self::kinds::fields_of;
use self::kinds::{Found, ReadKind};
use crate::decode::{Decode, Decoder, Problem, Style, closest, message};
use crate::diagnostic::{Diagnostic, Severity};
use crate::object::{Metadata, Object, ObjectKey, Origin};
use crate::validate::validate;
use crate::yaml::{self, Chunk, DuplicateKey, Limits, Node, Value};

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// Resources without errors, in the order they were written.
    pub objects: Vec<Object>,
    /// Resources with errors. They are not among `objects`, so that their last good version can stay in force.
    pub rejected: Vec<Rejected>,
    /// Everything found wrong, sorted.
    pub diagnostics: Vec<Diagnostic>,
}

/// A resource that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which; `None` when the text is too broken to tell, and may have been any resource this file had before.
    pub key: Option<ObjectKey>,
    /// Where it is written.
    pub origin: Origin,
}

/// Reads the resources of a file in YAML or JSON. `file` is how diagnostics name it.
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut reader = Reader { file: Arc::from(file), parsed: Parsed::default() };
    for chunk in yaml::split(text) {
        reader.chunk(chunk);
    }
    let mut parsed = reader.parsed;
    parsed.diagnostics.sort();
    parsed
}

message! {
    /// The part of `metadata` we read.
    struct WrittenMetadata {
        name: String,
        namespace: Option<String>,
        labels: std::collections::BTreeMap<String, String>,
        annotations: std::collections::BTreeMap<String, String>,
    }
}

/// What a typed list says of its items.
#[derive(Default)]
struct Inherited {
    api_version: String,
    kind: String,
}

struct Reader {
    file: Arc<str>,
    parsed: Parsed,
}

impl Reader {
    fn chunk(&mut self, chunk: Chunk<'_>) {
        match yaml::load(chunk, Limits::default()) {
            Ok(loaded) => {
                if let Some(root) = loaded.root {
                    self.document(root, &loaded.duplicates);
                }
            }
            Err(error) => {
                let key = guess_key(chunk.text);
                let help = if chunk.text.contains("{{") {
                    "this looks like a template; render it first, as with `helm template`"
                } else {
                    "this document is not valid YAML; look here and on the lines before"
                };
                let diagnostic =
                    Diagnostic::new(Severity::Error, self.file.clone(), error.line, error.message)
                        .column(error.column)
                        .resource(key.as_ref().map(ToString::to_string).unwrap_or_default())
                        .help(help);
                self.reject(key, chunk.line, diagnostic);
            }
        }
    }

    /// A document: a resource, or a list of them.
    fn document(&mut self, root: Node, duplicates: &[DuplicateKey]) {
        let kind = root.field("kind").and_then(Node::text).unwrap_or_default();
        let Some(item_kind) = kind.strip_suffix("List").filter(|_| root.field("items").is_some()) else {
            return self.resource(root, duplicates, &Inherited::default());
        };
        let inherited = match item_kind {
            "" => Inherited::default(),
            kind => Inherited {
                api_version: root.field("apiVersion").and_then(Node::text).unwrap_or_default().to_owned(),
                kind: kind.to_owned(),
            },
        };
        let Value::Mapping(entries) = root.value else { return };
        let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value.value);
        let Some(Value::Sequence(items)) = items else { return };
        let starts: Vec<u32> = items.iter().map(|item| item.line).collect();
        for (index, item) in items.into_iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(u32::MAX);
            let here = |duplicate: &&DuplicateKey| (item.line..end).contains(&duplicate.line);
            let duplicates: Vec<DuplicateKey> = duplicates.iter().filter(here).cloned().collect();
            self.resource(item, &duplicates, &inherited);
        }
    }

    fn resource(&mut self, root: Node, duplicates: &[DuplicateKey], inherited: &Inherited) {
        if !matches!(root.value, Value::Mapping(_)) {
            let message = format!("expected a resource, found {}", root.describe());
            let diagnostic = Diagnostic::new(Severity::Error, self.file.clone(), root.line, message)
                .column(root.column)
                .help("a resource begins with `apiVersion:` and `kind:`");
            return self.reject(None, root.line, diagnostic);
        }
        let mut decoder = Decoder::new(Style::Kubernetes, "");
        let mut text_at = |name: &str, inherited: &str| match root.field(name) {
            Some(node) if !node.is_null() => decoder.key(name, |decoder| String::decode(node, decoder)),
            _ => Some(inherited.to_owned()),
        };
        let api_version = text_at("apiVersion", &inherited.api_version).unwrap_or_default();
        let kind = text_at("kind", &inherited.kind).unwrap_or_default();
        // Values of charts, compose files and the like lie in the same folders.
        let other_file = (api_version.is_empty() || kind.is_empty()) && root.field("metadata").is_none();
        if other_file && decoder.is_clean() {
            let message = "not a resource: `apiVersion`, `kind` and `metadata` are not all there; ignored";
            let diagnostic = Diagnostic::new(Severity::Warning, self.file.clone(), root.line, message);
            return self.parsed.diagnostics.push(diagnostic);
        }
        let written = match root.field("metadata") {
            Some(node) => decoder.key("metadata", |decoder| WrittenMetadata::decode(node, decoder)),
            None => None,
        };
        let WrittenMetadata { name, namespace, labels, annotations } = written.unwrap_or_default();
        let namespace = namespace.filter(|name| !name.is_empty());
        let meta = Metadata { api_version, kind, name, namespace, labels, annotations };
        self.known_or_not(root, meta, decoder, duplicates);
    }

    /// Reads the resource when its kind is one of ours, and otherwise says that it does not.
    fn known_or_not(&mut self, root: Node, meta: Metadata, decoder: Decoder, duplicates: &[DuplicateKey]) {
        let at_kind = root.position("kind");
        let mut problems = decoder.into_problems();
        let read_kind = match kinds::find(&meta.api_version, &meta.kind) {
            Found::Read(read_kind) => read_kind,
            Found::Wrong { field, message, help } => {
                let (line, column) = root.position(field);
                problems.push(Problem {
                    severity: Severity::Error,
                    field: field.to_owned(),
                    line,
                    column,
                    message,
                    help: Some(help),
                });
                return self.reject_with(&meta, root.line, problems);
            }
            Found::Unsupported { severity, help } => {
                let message =
                    format!("kind {} ({}) is not supported yet; ignored", meta.kind, meta.api_version);
                // Whether the kind has namespaces is not known: say one only where it is written.
                let namespace = meta.namespace.clone().unwrap_or_default();
                let key = ObjectKey { namespace, ..meta.key() };
                let mut diagnostic = Diagnostic::new(severity, self.file.clone(), at_kind.0, message)
                    .column(at_kind.1)
                    .resource(key.to_string());
                diagnostic.help = help;
                return self.parsed.diagnostics.push(diagnostic);
            }
        };
        problems.extend(duplicates.iter().map(twice));
        self.read(root, meta, read_kind, problems);
    }

    fn read(&mut self, root: Node, meta: Metadata, read_kind: &ReadKind, mut problems: Vec<Problem>) {
        if read_kind.style == Style::Protobuf {
            problems.extend(unknown_top_level(&root));
        }
        let absent = Node { value: Value::Mapping(Vec::new()), line: root.line, column: root.column };
        let mut decoder = Decoder::new(read_kind.style, read_kind.body);
        let body = if read_kind.body.is_empty() { Some(&root) } else { root.field(read_kind.body) };
        let spec = (read_kind.read)(body.unwrap_or(&absent), &mut decoder);
        problems.extend(decoder.into_problems());
        let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
        let origin = Origin { file: self.file.clone(), line: root.line };
        let (Some(spec), false) = (spec, failed) else {
            return self.reject_with(&meta, root.line, problems);
        };
        let key = meta.key();
        let object = Object { meta, origin, spec, source: Arc::new(root) };
        let found = validate(&object);
        let valid = !found.iter().any(Diagnostic::is_error);
        self.report(&key.to_string(), problems);
        self.parsed.diagnostics.extend(found);
        if valid {
            self.parsed.objects.push(object);
        } else {
            self.parsed.rejected.push(Rejected { key: Some(key), origin: object.origin });
        }
    }

    fn report(&mut self, resource: &str, problems: Vec<Problem>) {
        let file = &self.file;
        self.parsed.diagnostics.extend(problems.into_iter().map(|problem| Diagnostic {
            file: file.clone(),
            line: problem.line,
            column: problem.column,
            severity: problem.severity,
            resource: resource.to_owned(),
            field: problem.field,
            message: problem.message,
            help: problem.help,
        }));
    }

    fn reject_with(&mut self, meta: &Metadata, line: u32, problems: Vec<Problem>) {
        let key = Some(meta.key()).filter(|key| !key.kind.is_empty() && !key.name.is_empty());
        self.report(&key.as_ref().map(ToString::to_string).unwrap_or_default(), problems);
        self.parsed.rejected.push(Rejected { key, origin: Origin { file: self.file.clone(), line } });
    }

    fn reject(&mut self, key: Option<ObjectKey>, line: u32, diagnostic: Diagnostic) {
        self.parsed.diagnostics.push(diagnostic);
        self.parsed.rejected.push(Rejected { key, origin: Origin { file: self.file.clone(), line } });
    }
}

fn twice(duplicate: &DuplicateKey) -> Problem {
    Problem {
        severity: Severity::Error,
        field: duplicate.key.clone(),
        line: duplicate.line,
        column: duplicate.column,
        message: format!(
            "`{}` is written twice in one mapping, first on line {}",
            duplicate.key, duplicate.first_line
        ),
        help: Some("keep one of them".to_owned()),
    }
}

fn unknown_top_level(root: &Node) -> Vec<Problem> {
    const KNOWN: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    let unknown = root.entries().iter().filter(|entry| !KNOWN.contains(&entry.key.as_str()));
    unknown
        .map(|entry| Problem {
            severity: Severity::Warning,
            field: entry.key.clone(),
            line: entry.line,
            column: entry.column,
            message: format!("unknown field `{}`; it is ignored", entry.key),
            help: Some(match closest(&entry.key, KNOWN) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "the fields of a resource belong below `spec`".to_owned(),
            }),
        })
        .collect()
}

/// Which resource a document that is no YAML was probably meant to be: its last good version can then stay in force.
fn guess_key(text: &str) -> Option<ObjectKey> {
    let value = |line: &str, key: &str| {
        let rest = line.strip_prefix(key)?.strip_prefix(':')?;
        let value = rest.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    let mut meta = Metadata::default();
    let mut in_metadata = false;
    let mut indent = None;
    for line in text.lines() {
        let inner = line.trim_start();
        let depth = line.len() - inner.len();
        if inner.is_empty() || inner.starts_with('#') {
            continue;
        }
        if depth == 0 {
            in_metadata = line.starts_with("metadata:");
            meta.kind = value(line, "kind").unwrap_or(meta.kind);
        } else if in_metadata && *indent.get_or_insert(depth) == depth {
            meta.name = value(inner, "name").unwrap_or(meta.name);
            meta.namespace = value(inner, "namespace").or(meta.namespace);
        }
    }
    let list = meta.kind.ends_with("List");
    Some(meta.key()).filter(|key| !list && !key.kind.is_empty() && !key.name.is_empty())
}

#[cfg(test)]
mod tests;
