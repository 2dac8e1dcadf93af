//! The resources in force. A resource whose newest text is wrong keeps its last good version; one that is gone from the
//! files is gone from here. Where two files declare one resource, the first in file order counts.
//! What resources mean together is not decided here.

use crate::source::SourceFile;
use api::{Diagnostic, Object, ObjectKey, Rejected};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Resources by key, in force.
#[derive(Debug, Default)]
pub struct Store {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// By file name, what its text said, so that a file that did not change is not read twice.
    parsed: HashMap<Arc<str>, ParsedFile>,
    revision: u64,
}

/// What a file's text says.
#[derive(Debug)]
struct ParsedFile {
    text: Arc<str>,
    objects: Vec<Arc<Object>>,
    rejected: Vec<Rejected>,
    diagnostics: Vec<Diagnostic>,
}

impl ParsedFile {
    fn new(file: &SourceFile) -> Self {
        let parsed = api::parse(&file.name, &file.text);
        Self {
            text: file.text.clone(),
            objects: parsed.objects.into_iter().map(Arc::new).collect(),
            rejected: parsed.rejected,
            diagnostics: parsed.diagnostics,
        }
    }
}

/// What an update did.
#[derive(Debug, Default, PartialEq)]
pub struct Update {
    /// Resources that are new or different now.
    pub changed: Vec<ObjectKey>,
    /// Resources that are no longer there.
    pub removed: Vec<ObjectKey>,
    /// Resources whose newest text is wrong and whose last good version stays in force.
    pub kept: Vec<ObjectKey>,
    /// Everything found wrong, sorted by file and line.
    pub diagnostics: Vec<Diagnostic>,
}

impl Store {
    /// The resources in force.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Number of updates that changed anything.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes `files`, which are all there are, the resources in force.
    pub fn update(&mut self, files: &[SourceFile]) -> Update {
        let mut update = Update::default();
        let mut next: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        let mut rejected = HashSet::new();
        let mut broken_files = HashSet::new();
        let mut before = std::mem::take(&mut self.parsed);
        for file in files {
            let unchanged = before.remove(&file.name).filter(|parsed| parsed.text == file.text);
            let parsed = unchanged.unwrap_or_else(|| ParsedFile::new(file));
            update.diagnostics.extend_from_slice(&parsed.diagnostics);
            for object in &parsed.objects {
                match next.get(&object.id()) {
                    Some(first) => update.diagnostics.push(duplicate(object, first)),
                    None => {
                        next.insert(object.id(), object.clone());
                    }
                }
            }
            for reject in &parsed.rejected {
                match &reject.key {
                    Some(key) => rejected.insert(key.clone()),
                    // Too broken to tell which resource it was: none of this file's may vanish because of it.
                    None => broken_files.insert(reject.origin.file.clone()),
                };
            }
            self.parsed.insert(file.name.clone(), parsed);
        }
        for (key, old) in &self.objects {
            let wrong_now = rejected.contains(key) || broken_files.contains(&old.origin.file);
            if wrong_now && !next.contains_key(key) {
                next.insert(key.clone(), old.clone());
                update.kept.push(key.clone());
            }
        }
        self.compare(&next, &mut update);
        self.objects = next;
        update.diagnostics.sort();
        update
    }

    fn compare(&mut self, next: &BTreeMap<ObjectKey, Arc<Object>>, update: &mut Update) {
        let differs = |(key, new): &(&ObjectKey, &Arc<Object>)| {
            self.objects.get(*key).is_none_or(|old| !Arc::ptr_eq(old, new) && old != *new)
        };
        update.changed = next.iter().filter(differs).map(|(key, _)| key.clone()).collect();
        update.removed = self.objects.keys().filter(|key| !next.contains_key(*key)).cloned().collect();
        if !update.changed.is_empty() || !update.removed.is_empty() {
            self.revision += 1;
        }
    }
}

fn duplicate(second: &Object, first: &Object) -> Diagnostic {
    let place = format!("{}:{}", first.origin.file, first.origin.line);
    second
        .warning(
            "metadata.name",
            format!("{} is declared already at {place}; this one is not used", second.id()),
        )
        .help("remove one of the two, or give them different names")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), text: text.into() }
    }

    fn account(name: &str) -> String {
        format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n")
    }

    fn rule(destination_port: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  hosts: [a]\n  \
             http:\n  - route:\n    - destination: {{host: a, port: {{number: {destination_port}}}}}\n"
        )
    }

    fn names(store: &Store) -> Vec<String> {
        store.objects().map(|o| o.meta.name.clone()).collect()
    }

    #[test]
    fn a_resource_that_turns_wrong_keeps_its_last_good_version() {
        let mut store = Store::default();
        store.update(&[file("a.yaml", &rule("80"))]);
        let before: Vec<_> = store.objects().cloned().collect();
        let update = store.update(&[file("a.yaml", &rule("99999"))]);
        assert_eq!(update.kept.len(), 1);
        assert!(update.changed.is_empty() && update.removed.is_empty());
        assert!(update.diagnostics.iter().any(Diagnostic::is_error));
        assert_eq!(store.objects().cloned().collect::<Vec<_>>(), before);
        assert_eq!(store.revision(), 1, "nothing changed, so there is no new revision");
    }

    #[test]
    fn a_file_too_broken_to_read_loses_nothing_it_held() {
        let mut store = Store::default();
        store.update(&[file("a.yaml", &account("a")), file("b.yaml", &account("b"))]);
        store.update(&[file("a.yaml", "{{{"), file("b.yaml", &account("c"))]);
        assert_eq!(names(&store), ["a", "c"]);
    }

    #[test]
    fn a_resource_that_is_gone_from_the_files_is_gone() {
        let mut store = Store::default();
        store.update(&[file("a.yaml", &account("a"))]);
        let update = store.update(&[]);
        assert_eq!(update.removed.len(), 1);
        assert_eq!(names(&store), Vec::<String>::new());
    }

    #[test]
    fn of_two_declarations_the_first_counts_and_the_second_is_told() {
        let mut store = Store::default();
        let update = store.update(&[file("a.yaml", &account("x")), file("b.yaml", &account("x"))]);
        let message = &update.diagnostics[0].message;
        assert_eq!(message, "ServiceAccount default/x is declared already at a.yaml:1; this one is not used");
        assert_eq!(store.objects().next().unwrap().origin.file.as_ref(), "a.yaml");
    }
}
