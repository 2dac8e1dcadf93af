//! Fields that do nothing: each is told once, where it is written, and the rest of its resource works. The table here is
//! the one place that says so; `docs/istio-api.md` is made of it.

use super::on_demand::VARIABLE;
use crate::support::{Standing, WORDS, Word, standing};
use crate::world::World;
use api::yaml::{Node, Value, push_index, push_key};
use api::{Diagnostic, Object};

/// What the mesh's settings ask for in vain.
pub(super) fn settings(world: &World, found: &mut Vec<Diagnostic>) {
    for (object, _) in world.local_meshes().skip(1) {
        let message = "another LocalMesh comes before this one, which is not used";
        found.push(object.warning("metadata.name", message).help("keep one LocalMesh"));
    }
    if let Some(object) = world.local_mesh_object()
        && let Some(written) = object.source().field("spec").and_then(|spec| spec.field("meshConfig"))
    {
        Walk::new(object, "MeshConfig", "spec.meshConfig", found).look_at(written);
    }
}

/// What resources ask for in vain.
pub(super) fn fields(world: &World, found: &mut Vec<Diagnostic>) {
    for object in world.objects().iter().filter(|o| WORDS.iter().any(|word| word.kind == o.meta.kind)) {
        if let Some(spec) = object.source().field("spec") {
            Walk::new(object, &object.meta.kind, "spec", found).look_at(spec);
        }
    }
}

struct Walk<'w> {
    object: &'w Object,
    /// What is said of fields of its kind.
    words: Vec<&'static Word>,
    /// Where it is.
    path: String,
    /// The same without positions.
    general: String,
    found: &'w mut Vec<Diagnostic>,
}

impl<'w> Walk<'w> {
    fn new(object: &'w Object, kind: &str, path: &str, found: &'w mut Vec<Diagnostic>) -> Self {
        let words = WORDS.iter().filter(|word| word.kind == kind).collect();
        Self { object, words, path: path.to_owned(), general: "spec".to_owned(), found }
    }

    /// Looks at the value where it is.
    fn look_at(&mut self, node: &Node) {
        let (path, general) = (self.path.as_str(), self.general.as_str());
        let text = match &node.value {
            Value::Scalar(scalar) => Some(scalar.text.as_str()),
            _ => None,
        };
        if let Some(word) = standing(self.words.iter().copied(), general, text)
            && says_something(node)
        {
            let name = general.rsplit('.').next().unwrap_or(general).trim_end_matches("[]");
            let diagnostic = match (word.standing, word.value) {
                (Standing::NotYet, None) => {
                    let message =
                        format!("`{name}` is not supported yet and does nothing; the rest of the rule works");
                    self.object.warning(path, message)
                }
                (Standing::NotYet, Some(value)) => {
                    self.object.warning(path, format!("`{name}: {value}` is not supported yet"))
                }
                (Standing::AtGateways, _) => self
                    .object
                    .info(path, format!("`{name}` takes effect at gateways, and not yet in sidecars")),
                (Standing::NotHere, _) => self.object.info(path, format!("`{name}` has no meaning here")),
            };
            self.found.push(diagnostic.help(word.instead));
            return;
        }
        match &node.value {
            Value::Scalar(_) => {}
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.below(item, |path| push_index(path, index), |general| general.push_str("[]"));
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    let add_name = |general: &mut String| {
                        general.push('.');
                        match entry.key.contains('_') {
                            true => general.push_str(&camel_case(&entry.key)),
                            false => general.push_str(&entry.key),
                        }
                    };
                    self.below(&entry.value, |path| push_key(path, &entry.key), add_name);
                }
            }
        }
    }

    /// Looks at a value one step below.
    fn below(&mut self, node: &Node, step: impl FnOnce(&mut String), general: impl FnOnce(&mut String)) {
        let lengths = (self.path.len(), self.general.len());
        step(&mut self.path);
        general(&mut self.general);
        self.look_at(node);
        self.path.truncate(lengths.0);
        self.general.truncate(lengths.1);
    }
}

/// Whether a value is more than what absence means.
fn says_something(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => !node.is_null() && !matches!(scalar.text.as_str(), "" | "0" | "false"),
        Value::Sequence(items) => !items.is_empty(),
        // Of what Istio hands to a proxy as variables, one means something here.
        Value::Mapping(entries) => entries.is_empty() || entries.iter().any(|entry| entry.key != VARIABLE),
    }
}

fn camel_case(key: &str) -> String {
    let mut parts = key.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut all, part| {
        let mut letters = part.chars();
        all.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        all.push_str(letters.as_str());
        all
    })
}
