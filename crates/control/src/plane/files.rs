//! The texts of all configuration files as of now, with the moments bridged in which a file is empty or away because
//! someone is saving it. What the texts say is for the store.

use crate::source::{self, SourceError, SourceFile};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For so long a file that became empty or vanished is taken for one that is being saved.
const GRACE: Duration = Duration::from_millis(100);

/// The configuration files and what was last read from them.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    held: Vec<SourceFile>,
    /// Files whose last text is still used, and until when.
    suspects: HashMap<Arc<str>, Instant>,
}

/// One look at all files.
pub(super) struct Reading {
    /// Whether any text differs from the last look.
    pub(super) changed: bool,
    /// Paths that could not be read; what was read from them before still counts.
    pub(super) errors: Vec<SourceError>,
    /// When to look again, whatever happens.
    pub(super) again_at: Option<Instant>,
}

impl Files {
    /// Files and folders to be read; nothing has been read yet.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, held: Vec::new(), suspects: HashMap::new() }
    }

    /// What was last read.
    pub(super) fn texts(&self) -> &[SourceFile] {
        &self.held
    }

    /// Reads all files. `vanishes_at_once` names files whose removal is never doubted.
    pub(super) fn read(&mut self, now: Instant, vanishes_at_once: impl Fn(&str) -> bool) -> Reading {
        let (mut files, errors) = source::read(&self.paths);
        self.share(&mut files);
        let names: HashSet<&str> = files.iter().map(|f| &*f.name).collect();
        let emptied: HashSet<&str> =
            files.iter().filter(|f| f.text.trim().is_empty()).map(|f| &*f.name).collect();
        let mut suspects = HashMap::new();
        let mut kept = HashSet::new();
        for old in self.held.iter().filter(|old| !old.text.trim().is_empty()) {
            let is_away = !names.contains(&*old.name);
            if is_away && errors.iter().any(|e| is_at_or_below(&old.name, path_of(e))) {
                kept.insert(old.name.clone());
            } else if (is_away && !vanishes_at_once(&old.name)) || emptied.contains(&*old.name) {
                let until = self.suspects.get(&old.name).copied().unwrap_or(now + GRACE);
                if now < until {
                    kept.insert(old.name.clone());
                }
                // Past its time it stays listed while it is held, so that it is not doubted anew.
                suspects.insert(old.name.clone(), until);
            }
        }
        let again_at = suspects.iter().filter(|(name, _)| kept.contains(*name)).map(|(_, at)| *at).min();
        let next = merge(&self.held, files, &kept);
        let same = |(a, b): (&SourceFile, &SourceFile)| Arc::ptr_eq(&a.text, &b.text) && a.name == b.name;
        let changed = next.len() != self.held.len() || !next.iter().zip(&self.held).all(same);
        self.held = next;
        self.suspects = suspects;
        Reading { changed, errors, again_at }
    }
}

impl Files {
    /// Lets texts that did not change be the ones that are held.
    fn share(&self, files: &mut [SourceFile]) {
        let held: HashMap<&str, &SourceFile> = self.held.iter().map(|file| (&*file.name, file)).collect();
        for file in files {
            if let Some(same) = held.get(&*file.name).filter(|held| ***held == *file) {
                *file = (*same).clone();
            }
        }
    }
}

/// `new`, with the old text of each file that is `kept`, in the place the old order gives it.
fn merge(old: &[SourceFile], new: Vec<SourceFile>, kept: &HashSet<Arc<str>>) -> Vec<SourceFile> {
    let mut next: Vec<SourceFile> = new.into_iter().filter(|f| !kept.contains(&f.name)).collect();
    for (at, file) in old.iter().enumerate().filter(|(_, file)| kept.contains(&file.name)) {
        let before = old.iter().take(at).rev();
        let place = before.filter_map(|b| next.iter().position(|n| n.name == b.name)).next();
        next.insert(place.map_or(0, |place| place + 1), file.clone());
    }
    next
}

fn path_of(error: &SourceError) -> &Path {
    match error {
        SourceError::Unreadable { path, .. }
        | SourceError::TooLarge { path, .. }
        | SourceError::NotText { path }
        | SourceError::TooDeep { path } => path,
    }
}

fn is_at_or_below(name: &str, path: &Path) -> bool {
    Path::new(name).starts_with(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(files: &Files) -> Vec<&str> {
        files.texts().iter().map(|f| f.name.rsplit('/').next().unwrap()).collect()
    }

    #[test]
    fn a_file_that_is_being_saved_is_neither_empty_nor_away() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a.yaml", "b.yaml", "c.yaml"] {
            std::fs::write(at(name), "old").unwrap();
        }
        let mut files = Files::new(vec![folder.path().to_owned()]);
        let start = Instant::now();
        assert!(files.read(start, |_| false).changed);
        std::fs::write(at("a.yaml"), "").unwrap();
        std::fs::remove_file(at("b.yaml")).unwrap();
        let reading = files.read(start, |_| false);
        assert!(!reading.changed);
        assert_eq!(reading.again_at, Some(start + GRACE));
        assert_eq!(names(&files), ["a.yaml", "b.yaml", "c.yaml"]);
        std::fs::write(at("a.yaml"), "new").unwrap();
        let reading = files.read(start + GRACE, |_| false);
        assert!(reading.changed && reading.again_at.is_none());
        assert_eq!(names(&files), ["a.yaml", "c.yaml"], "b.yaml is really gone");
        assert_eq!(&*files.texts()[0].text, "new");
    }

    #[test]
    fn an_emptied_file_is_empty_after_its_grace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, "old").unwrap();
        let mut files = Files::new(vec![folder.path().to_owned()]);
        let start = Instant::now();
        files.read(start, |_| false);
        std::fs::write(&path, "").unwrap();
        files.read(start, |_| false);
        assert!(files.read(start + GRACE, |_| false).changed);
        assert_eq!(&*files.texts()[0].text, "");
    }

    #[test]
    fn some_files_vanish_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entry.yaml");
        std::fs::write(&path, "old").unwrap();
        let mut files = Files::new(vec![folder.path().to_owned()]);
        files.read(Instant::now(), |_| false);
        std::fs::remove_file(&path).unwrap();
        assert!(files.read(Instant::now(), |name| name.ends_with("entry.yaml")).changed);
        assert!(files.texts().is_empty());
    }

    #[test]
    fn what_was_read_from_a_folder_that_cannot_be_read_any_more_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("config");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.yaml"), "text").unwrap();
        let mut files = Files::new(vec![folder.clone()]);
        files.read(Instant::now(), |_| false);
        std::fs::remove_dir_all(&folder).unwrap();
        let reading = files.read(Instant::now() + GRACE, |_| true);
        assert_eq!((reading.changed, reading.errors.len()), (false, 1));
        assert_eq!(names(&files), ["a.yaml"]);
    }
}
