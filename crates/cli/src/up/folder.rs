//! The folder of a mesh: what is in force there now, and word when that may have changed. Problems in it are told by the
//! control plane, which reads the same files.

use api::Object;
use control::source;
use control::store::Store;
use notify::{Event, EventKind, RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// For so long nothing may happen before a change counts as complete: an editor's save is several events, and a file that
/// is away for a moment is no Deployment to stop.
const QUIET: Duration = Duration::from_millis(150);
/// How often one looks without being told: events get lost on some file systems.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A folder that is watched.
pub(super) struct Folder {
    path: PathBuf,
    store: Store,
    touched: Arc<Notify>,
    /// Stops telling when dropped; absent where there is no way to be told.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Folder {
    /// Reads `path` for the first time.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let (files, errors) = source::read(&[path.to_owned()]);
        if let (true, Some(error)) = (files.is_empty(), errors.first()) {
            return Err(error.to_string());
        }
        let mut store = Store::default();
        store.update(&files);
        let touched = Arc::new(Notify::new());
        let watcher = watch(path, touched.clone());
        Ok(Folder { path: path.to_owned(), store, touched, _watcher: watcher })
    }

    /// The resources in force.
    pub(super) fn objects(&self) -> Vec<Arc<Object>> {
        self.store.objects().cloned().collect()
    }

    /// Waits until what is in force has changed.
    pub(super) async fn change(&mut self) {
        loop {
            tokio::select! {
                () = self.touched.notified() => self.quiet().await,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let (files, errors) = source::read(std::slice::from_ref(&self.path));
            // What cannot be read just now is not gone.
            if errors.is_empty() {
                let update = self.store.update(&files);
                if !update.changed.is_empty() || !update.removed.is_empty() {
                    return;
                }
            }
        }
    }

    async fn quiet(&self) {
        while tokio::time::timeout(QUIET, self.touched.notified()).await.is_ok() {}
    }
}

fn watch(path: &Path, touched: Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let is_access = event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_)));
        if !is_access {
            touched.notify_one();
        }
    })
    .ok()?;
    watcher.watch(path, RecursiveMode::Recursive).ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn account(name: &str) -> String {
        format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n")
    }

    #[tokio::test]
    async fn a_change_is_noticed_and_a_wrong_text_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, account("a")).unwrap();
        let mut watched = Folder::open(folder.path()).unwrap();
        assert_eq!(watched.objects().len(), 1);
        std::fs::write(&file, "kind: [").unwrap();
        let unchanged = tokio::time::timeout(QUIET * 3, watched.change()).await;
        assert!(unchanged.is_err(), "the last good version stays in force");
        std::fs::write(&file, account("b")).unwrap();
        tokio::time::timeout(Duration::from_secs(10), watched.change()).await.unwrap();
        assert_eq!(watched.objects()[0].meta.name, "b");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let error = Folder::open(Path::new("/nonexistent/mesh")).map(|_| ()).unwrap_err();
        assert!(error.contains("/nonexistent/mesh"), "{error}");
    }
}
