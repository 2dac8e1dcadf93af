//! Reading configuration from files and folders: which files count, in which order, and how large they may be.
//! What is in them is for [`store`](crate::store).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path as the user would name it.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
}

/// Largest file read, in bytes.
pub const FILE_SIZE_LIMIT: u64 = 16 << 20;
/// How deep folders are followed; ends a circle of symbolic links.
const DEPTH_LIMIT: usize = 32;

/// A path that cannot be read.
#[derive(Debug)]
pub enum SourceError {
    /// Opening or reading failed.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than [`FILE_SIZE_LIMIT`].
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file is not UTF-8.
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// Folders within folders, too many.
    TooDeep {
        /// Which.
        path: PathBuf,
    },
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(f, "{} cannot be read: {source}", path.display()),
            Self::TooLarge { path, size } => {
                write!(f, "{} has {size} bytes; at most {FILE_SIZE_LIMIT} are read", path.display())
            }
            Self::NotText { path } => write!(f, "{} is not UTF-8 text", path.display()),
            Self::TooDeep { path } => {
                write!(f, "{} lies more than {DEPTH_LIMIT} folders deep", path.display())
            }
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Reads every configuration file at or below `paths`, in the order given and by name within a folder. One that cannot
/// be read becomes an error and takes no other with it.
///
/// In folders, files ending in `.yaml`, `.yml` and `.json` count, hidden ones do not. A file named outright counts
/// whatever it is called.
pub fn read(paths: &[PathBuf]) -> (Vec<SourceFile>, Vec<SourceError>) {
    let mut found = Found::default();
    for path in paths {
        found.visit(path, 0);
    }
    (found.files, found.errors)
}

#[derive(Default)]
struct Found {
    files: Vec<SourceFile>,
    errors: Vec<SourceError>,
}

impl Found {
    fn visit(&mut self, path: &Path, depth: usize) {
        let result = match std::fs::metadata(path) {
            Ok(facts) if facts.is_dir() => self.visit_folder(path, depth),
            Ok(facts) => read_file(path, facts.len()).map(|file| self.files.push(file)),
            Err(source) => Err(SourceError::Unreadable { path: path.to_owned(), source }),
        };
        self.errors.extend(result.err());
    }

    fn visit_folder(&mut self, path: &Path, depth: usize) -> Result<(), SourceError> {
        if depth == DEPTH_LIMIT {
            return Err(SourceError::TooDeep { path: path.to_owned() });
        }
        let unreadable = |source| SourceError::Unreadable { path: path.to_owned(), source };
        let entries = std::fs::read_dir(path).map_err(unreadable)?;
        let mut children: Vec<PathBuf> =
            entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(unreadable)?;
        children.sort();
        for child in children {
            let hidden = child.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            if !hidden && (child.is_dir() || is_configuration(&child)) {
                self.visit(&child, depth + 1);
            }
        }
        Ok(())
    }
}

fn is_configuration(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

fn read_file(path: &Path, size: u64) -> Result<SourceFile, SourceError> {
    if size > FILE_SIZE_LIMIT {
        return Err(SourceError::TooLarge { path: path.to_owned(), size });
    }
    let bytes =
        std::fs::read(path).map_err(|source| SourceError::Unreadable { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| SourceError::NotText { path: path.to_owned() })?;
    Ok(SourceFile { name: path.to_string_lossy().into(), text: text.into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn folders_are_read_in_order_of_name_and_only_for_configuration() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["c.yaml", "a.yml", "b/x.json", ".hidden.yaml", "notes.md"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let (files, errors) = read(&[folder.path().to_owned()]);
        let names: Vec<_> = files.iter().map(|f| f.name.rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.yml", "x.json", "c.yaml"]);
        assert!(errors.is_empty());
    }

    #[test]
    fn a_path_that_cannot_be_read_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good.yaml");
        std::fs::write(&good, "kind: x").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        let (files, errors) = read(&[folder.path().join("absent"), folder.path().join("binary"), good]);
        assert_eq!(files.len(), 1);
        assert!(matches!(errors.as_slice(), [SourceError::Unreadable { .. }, SourceError::NotText { .. }]));
    }
}
