//! Files that hold keys: written whole or not at all, readable by their owner only. Blocking; what is inside is not looked at.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// What was read, and whether others could have read it too.
pub struct PrivateFile {
    /// The content.
    pub content: Vec<u8>,
    /// Group or world had permissions on the file; they have been taken away, but the content may be known.
    pub was_exposed: bool,
}

/// Replaces the file at `path` atomically: mode 0600, in a directory made with mode 0700 if missing.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    place(path, content, |temporary| std::fs::rename(temporary, path))
}

/// Like [`write`], but an existing file stays as it is and is an error of kind `AlreadyExists`. Of several processes that
/// do this at the same time one succeeds.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    place(path, content, |temporary| {
        // Unlike a rename, a link never replaces.
        std::fs::hard_link(temporary, path)?;
        std::fs::remove_file(temporary)
    })
}

fn place(path: &Path, content: &[u8], publish: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut name = path.file_name().ok_or_else(|| io::Error::other("names no file"))?.to_owned();
    // No two writers share one temporary file.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    name.push(format!(".{}.{}.new", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    let temporary = directory.join(name);
    let placed = write_whole(&temporary, content).and_then(|()| publish(&temporary));
    if placed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    placed?;
    File::open(directory)?.sync_all()
}

fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Reads a file of at most `max_bytes`. When others could read it, its mode is tightened to 0600 and that is reported.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<PrivateFile> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let was_exposed = mode & OTHERS != 0;
    if was_exposed {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let mut content = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("larger than {max_bytes} bytes")));
    }
    Ok(PrivateFile { content, was_exposed })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_read_what_is_written() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state/key.pem");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        let read = read(&path, 10).unwrap();
        assert_eq!((read.content.as_slice(), read.was_exposed), (b"two".as_slice(), false));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn creating_never_replaces() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key.pem");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path, 10).unwrap().content, b"one");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn an_exposed_file_is_reported_and_tightened() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key.pem");
        std::fs::write(&path, b"x").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path, 10).unwrap().was_exposed);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_file_larger_than_expected_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key.pem");
        write(&path, b"0123456789").unwrap();
        assert!(read(&path, 9).is_err() && read(&path, 10).is_ok());
    }
}
