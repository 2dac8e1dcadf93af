//! Sockets with a name in a folder. The path of the folder may be longer than a socket's may be, so the folder is held open
//! and named by that.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// A folder with sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    folder: File,
}

impl Sockets {
    /// Those in `folder`.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: File::open(folder)? })
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }

    /// Listens at `name`, in place of who did before.
    pub(super) fn listen(&self, name: &str) -> io::Result<UnixListener> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(path)
    }

    /// Calls who listens at `name`.
    pub(super) async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(self.path(name)).await
    }
}
