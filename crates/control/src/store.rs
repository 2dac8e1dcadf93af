//! The resources in force. A resource whose newest text is wrong keeps its last good version; one that is gone from the
//! files is gone from here. Where two files declare one resource, the first in file order counts.
//! What resources mean together is not decided here.

use crate::source::SourceFile;
use api::{Diagnostic, Object, ObjectKey, Rejected, Spec};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Resources by key, in force.
#[derive(Debug, Default)]
pub struct Store {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// File names in order.
    files: Vec<Arc<str>>,
    /// By file name, what its text said, so that a file that did not change is not read twice.
    parsed: HashMap<Arc<str>, ParsedFile>,
    /// Whether what is in force is exactly what the texts say: nothing rejected, nothing declared twice.
    is_plain: bool,
    revision: u64,
}

/// What a file's text says.
#[derive(Debug)]
struct ParsedFile {
    text: Arc<str>,
    /// In the order in which they are written.
    objects: Vec<Arc<Object>>,
    rejected: Vec<Rejected>,
    diagnostics: Vec<Diagnostic>,
}

impl ParsedFile {
    /// What a file says. Resources that are equal in `before` are taken from there.
    fn new(file: &SourceFile, before: Option<&Self>) -> Self {
        let parsed = api::parse(&file.name, &file.text);
        let mut known = before.map(|before| before.objects.iter()).unwrap_or_default().peekable();
        let shared = |object: Object| match known.next_if(|known| ***known == object) {
            Some(known) => known.clone(),
            None => {
                known.next();
                Arc::new(object)
            }
        };
        Self {
            text: file.text.clone(),
            objects: parsed.objects.into_iter().map(shared).collect(),
            rejected: parsed.rejected,
            diagnostics: parsed.diagnostics,
        }
    }

    fn is_of(&self, text: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.text, text) || self.text == *text
    }

    fn keys(&self) -> HashSet<ObjectKey> {
        self.objects.iter().map(|object| object.id()).collect()
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

    /// The resources in force, as far as possible in the order of files and lines.
    pub fn in_order(&self) -> Vec<Arc<Object>> {
        if !self.is_plain {
            return self.objects.values().cloned().collect();
        }
        let parsed = self.files.iter().filter_map(|name| self.parsed.get(name));
        parsed.flat_map(|parsed| &parsed.objects).cloned().collect()
    }

    /// How many resources are in force.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is in force.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Files that hold WorkloadEntries and nothing else.
    pub fn files_of_entries(&self) -> HashSet<Arc<str>> {
        let is_entry = |object: &Arc<Object>| matches!(object.spec, Spec::WorkloadEntry(_));
        let only_entries = |parsed: &ParsedFile| {
            parsed.rejected.is_empty() && !parsed.objects.is_empty() && parsed.objects.iter().all(is_entry)
        };
        self.parsed.iter().filter(|(_, parsed)| only_entries(parsed)).map(|(name, _)| name.clone()).collect()
    }

    /// Number of updates that changed anything.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes `files`, which are all there are, the resources in force.
    pub fn update(&mut self, files: &[SourceFile]) -> Update {
        let mut update = Update::default();
        let same_files = files.iter().map(|file| &file.name).eq(&self.files);
        let differs =
            |file: &&SourceFile| self.parsed.get(&file.name).is_none_or(|known| !known.is_of(&file.text));
        let differing: Vec<&SourceFile> = files.iter().filter(differs).collect();
        let mut old = Vec::new();
        for file in &differing {
            let before = self.parsed.remove(&file.name);
            self.parsed.insert(file.name.clone(), ParsedFile::new(file, before.as_ref()));
            old.push(before);
        }
        let is_simple = same_files && self.is_plain && self.replace(&differing, &old, &mut update);
        if !is_simple {
            update = Update::default();
            self.files = files.iter().map(|file| file.name.clone()).collect();
            self.parsed.retain(|name, _| files.iter().any(|file| file.name == *name));
            self.collect(&mut update);
        }
        let parsed = self.files.iter().filter_map(|name| self.parsed.get(name));
        update.diagnostics.extend(parsed.flat_map(|parsed| parsed.diagnostics.iter().cloned()));
        if !update.changed.is_empty() || !update.removed.is_empty() {
            self.revision += 1;
        }
        update.diagnostics.sort();
        update
    }

    /// Replaces what some files said, where no file says anything of what another does and nothing is rejected. Otherwise
    /// nothing is done, and the answer is no.
    fn replace(
        &mut self,
        differing: &[&SourceFile],
        old: &[Option<ParsedFile>],
        update: &mut Update,
    ) -> bool {
        let new = || differing.iter().filter_map(|file| self.parsed.get(&file.name));
        let before: HashSet<ObjectKey> = old.iter().flatten().flat_map(|parsed| parsed.keys()).collect();
        let mut after: HashMap<ObjectKey, Arc<Object>> = HashMap::new();
        for parsed in new() {
            if !parsed.rejected.is_empty() {
                return false;
            }
            for object in &parsed.objects {
                let key = object.id();
                let is_elsewhere = !before.contains(&key) && self.objects.contains_key(&key);
                if is_elsewhere || after.insert(key, object.clone()).is_some() {
                    return false;
                }
            }
        }
        update.removed = before.into_iter().filter(|key| !after.contains_key(key)).collect();
        update.removed.sort();
        for key in &update.removed {
            self.objects.remove(key);
        }
        for (key, object) in after {
            let known = self.objects.get(&key);
            if known.is_none_or(|known| !Arc::ptr_eq(known, &object) && *known != object) {
                update.changed.push(key.clone());
            }
            self.objects.insert(key, object);
        }
        update.changed.sort();
        true
    }

    /// Collects what all files say.
    fn collect(&mut self, update: &mut Update) {
        let mut next: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        let mut rejected = HashSet::new();
        let mut broken_files = HashSet::new();
        let mut has_duplicates = false;
        for parsed in self.files.iter().filter_map(|name| self.parsed.get(name)) {
            for object in &parsed.objects {
                match next.entry(object.id()) {
                    Entry::Occupied(first) => {
                        has_duplicates = true;
                        update.diagnostics.push(duplicate(object, first.get()));
                    }
                    Entry::Vacant(place) => drop(place.insert(object.clone())),
                }
            }
            for reject in &parsed.rejected {
                match &reject.key {
                    Some(key) => rejected.insert(key.clone()),
                    // Too broken to tell which resource it was: none of this file's may vanish because of it.
                    None => broken_files.insert(reject.origin.file.clone()),
                };
            }
        }
        self.is_plain = !has_duplicates && rejected.is_empty() && broken_files.is_empty();
        for (key, old) in &self.objects {
            let wrong_now = rejected.contains(key) || broken_files.contains(&old.origin.file);
            if wrong_now && !next.contains_key(key) {
                next.insert(key.clone(), old.clone());
                update.kept.push(key.clone());
            }
        }
        let differs = |(key, new): &(&ObjectKey, &Arc<Object>)| {
            self.objects.get(*key).is_none_or(|old| !Arc::ptr_eq(old, new) && old != *new)
        };
        update.changed = next.iter().filter(differs).map(|(key, _)| key.clone()).collect();
        update.removed = self.objects.keys().filter(|key| !next.contains_key(*key)).cloned().collect();
        self.objects = next;
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

    /// A small xorshift generator: the same numbers on every run.
    fn roll(state: &mut u64, sides: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % sides
    }

    #[test]
    fn after_any_edits_the_store_holds_what_one_holds_that_never_saw_another_text() {
        for seed in 1..=20 {
            let mut dice = seed * 7919;
            let mut store = Store::default();
            let mut texts: BTreeMap<String, String> = BTreeMap::new();
            for step in 0..100 {
                let name = format!("{}.yaml", roll(&mut dice, 4));
                let one = |dice: &mut u64| {
                    account(&format!("n{}\n  labels: {{v: \"{}\"}}", roll(dice, 12), roll(dice, 3)))
                };
                match roll(&mut dice, 8) {
                    0 => drop(texts.remove(&name)),
                    _ => {
                        let all: Vec<String> = (0..roll(&mut dice, 4)).map(|_| one(&mut dice)).collect();
                        texts.insert(name, all.join("---\n"));
                    }
                }
                let files: Vec<SourceFile> = texts.iter().map(|(name, text)| file(name, text)).collect();
                let mut fresh = Store::default();
                let (update, whole) = (store.update(&files), fresh.update(&files));
                let all = |store: &Store| store.objects().cloned().collect::<Vec<_>>();
                assert_eq!(all(&store), all(&fresh), "seed {seed}, step {step}");
                assert_eq!(update.diagnostics, whole.diagnostics);
                let sorted = |store: &Store| {
                    let mut all = store.in_order();
                    all.sort_by_key(|object| object.id());
                    all
                };
                assert_eq!(sorted(&store), sorted(&fresh));
            }
        }
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
