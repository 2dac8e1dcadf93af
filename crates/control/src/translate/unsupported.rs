//! Fields that do nothing: each is told once, where it is written, and the rest of its resource works. The table here is
//! the one place that says so; `docs/istio-api.md` is made of it.

use crate::support::{Standing, WORDS, standing};
use crate::world::World;
use api::yaml::{Node, Value, key_segment};
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
        Walk { object, kind: "MeshConfig", found }.look_at(written, "spec.meshConfig", "spec");
    }
}

/// What resources ask for in vain.
pub(super) fn fields(world: &World, found: &mut Vec<Diagnostic>) {
    for object in world.objects().iter().filter(|o| WORDS.iter().any(|word| word.kind == o.meta.kind)) {
        if let Some(spec) = object.source().field("spec") {
            Walk { object, kind: &object.meta.kind, found }.look_at(spec, "spec", "spec");
        }
    }
}

struct Walk<'w> {
    object: &'w Object,
    kind: &'w str,
    found: &'w mut Vec<Diagnostic>,
}

impl Walk<'_> {
    /// Looks at the value at `path`; `general` is the path without positions.
    fn look_at(&mut self, node: &Node, path: &str, general: &str) {
        let text = match &node.value {
            Value::Scalar(scalar) => Some(scalar.text.as_str()),
            _ => None,
        };
        if let Some(word) = standing(self.kind, general, text)
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
                (Standing::InEnvoy, _) => {
                    let message =
                        format!("`{name}` takes effect in stock Envoy, and not yet in `ieum proxy`");
                    self.object.warning(path, message)
                }
                (Standing::NotHere, _) => self.object.info(path, format!("`{name}` has no meaning here")),
            };
            self.found.push(diagnostic.help(word.instead));
            return;
        }
        match &node.value {
            Value::Scalar(_) => {}
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.look_at(item, &format!("{path}[{index}]"), &format!("{general}[]"));
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    let key = camel_case(&entry.key);
                    let path = format!("{path}{}", key_segment(&entry.key));
                    self.look_at(&entry.value, &path, &format!("{general}.{key}"));
                }
            }
        }
    }
}

/// Whether a value is more than what absence means.
fn says_something(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => !node.is_null() && !matches!(scalar.text.as_str(), "" | "0" | "false"),
        Value::Sequence(items) => !items.is_empty(),
        Value::Mapping(_) => true,
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
