//! Noticing that configuration files may have changed: by inotify, and by looking again where that is not to be had.
//! What changed, and whether it matters, is for whoever reads the files.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Nothing more for so long, and a change is taken for complete: an editor's save is several events.
const QUIET: Duration = Duration::from_millis(3);
/// Longest wait for quiet.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// How often files are looked at that nobody tells us about, and folders for having been replaced.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often files are looked at although we would be told: events get lost on some file systems.
const DISTRUST_INTERVAL: Duration = Duration::from_secs(5);

/// What a watch is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A file below one of the paths was touched.
    Touched,
    /// Nobody wants to know any more.
    Stop,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// It is time to read the files.
    Look,
    /// Nobody wants to know any more.
    Stop,
}

/// Files and folders being watched. Blocking: it lives on a thread of its own.
pub(crate) struct Watch {
    roots: Vec<Root>,
    watcher: Option<RecommendedWatcher>,
    signals: Receiver<Signal>,
    last_look: Instant,
}

struct Root {
    path: PathBuf,
    /// Device and inode of what is watched; `None` while it is not.
    watched: Option<(u64, u64)>,
}

impl Watch {
    /// Watches `paths`, which need not exist yet. Events and whoever holds `sender` end a wait on `signals`.
    pub(crate) fn new(paths: &[PathBuf], sender: Sender<Signal>, signals: Receiver<Signal>) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let roots: Vec<PathBuf> = paths.iter().map(absolute).collect();
        let relevant = roots.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| matters(&event, &relevant)) {
                // Nobody listens once the watch is gone.
                let _ = sender.send(Signal::Touched);
            }
        });
        let roots = roots.into_iter().map(|path| Root { path, watched: None }).collect();
        let mut watch = Self { roots, watcher: watcher.ok(), signals, last_look: Instant::now() };
        watch.settle_roots();
        watch
    }

    /// Waits until the files are worth reading, at the latest `until`.
    pub(crate) fn wait(&mut self, until: Option<Instant>) -> Wake {
        loop {
            let now = Instant::now();
            let tick = now + POLL_INTERVAL;
            let deadline = until.map_or(tick, |until| until.min(tick));
            let wake = match self.signals.recv_timeout(deadline.saturating_duration_since(now)) {
                Ok(Signal::Touched) => self.wait_for_quiet(),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => Wake::Stop,
                Err(RecvTimeoutError::Timeout) => {
                    let all_watched = !self.settle_roots();
                    let is_due = until.is_some_and(|until| until <= Instant::now());
                    if all_watched && !is_due && self.last_look.elapsed() < DISTRUST_INTERVAL {
                        continue;
                    }
                    Wake::Look
                }
            };
            self.last_look = Instant::now();
            return wake;
        }
    }

    fn wait_for_quiet(&mut self) -> Wake {
        let end = Instant::now() + LONGEST_WAIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.signals.recv_timeout(QUIET.min(left)) {
                Ok(Signal::Touched) if !left.is_zero() => {}
                Ok(Signal::Touched) | Err(RecvTimeoutError::Timeout) => break,
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Wake::Stop,
            }
        }
        self.settle_roots();
        Wake::Look
    }

    /// Watches what is not watched yet or was replaced. Whether the files must be looked at because of it.
    fn settle_roots(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return true };
        let mut look = false;
        for root in &mut self.roots {
            // A file is replaced when it is saved, so its folder is what is watched.
            let (target, mode) = match std::fs::metadata(&root.path) {
                Ok(facts) if facts.is_dir() => (root.path.as_path(), RecursiveMode::Recursive),
                _ => (root.path.parent().unwrap_or(Path::new("/")), RecursiveMode::NonRecursive),
            };
            let there = std::fs::metadata(target).map(|facts| (facts.dev(), facts.ino())).ok();
            if there.is_some() && there == root.watched {
                continue;
            }
            look = true;
            if root.watched.take().is_some() {
                // The old folder is gone, and with it most likely its watch.
                let _ = watcher.unwatch(target);
            }
            root.watched = there.filter(|_| watcher.watch(target, mode).is_ok());
        }
        look
    }
}

/// Whether an event can have changed what is read below `roots`. Reading makes events as well.
fn matters(event: &notify::Event, roots: &[PathBuf]) -> bool {
    let changes = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    let concerns = |path: &PathBuf| roots.iter().any(|root| path.starts_with(root) || root.starts_with(path));
    changes && (event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(concerns))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::channel;

    const BOUND: Duration = Duration::from_secs(10);

    /// Waits for a wake-up that comes well before anyone would have looked unasked.
    fn woken(watch: &mut Watch, change: impl FnOnce()) -> Wake {
        let start = Instant::now();
        change();
        let wake = watch.wait(Some(start + BOUND));
        assert!(start.elapsed() < DISTRUST_INTERVAL, "woken by the event, not by the clock");
        wake
    }

    #[test]
    fn a_file_renamed_into_place_a_new_folder_and_a_removal_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, signals) = channel();
        let mut watch = Watch::new(&[folder.path().to_owned()], sender, signals);
        let at = |name: &str| folder.path().join(name);
        let save = || {
            std::fs::write(at("a.yaml.tmp"), "x").unwrap();
            std::fs::rename(at("a.yaml.tmp"), at("a.yaml")).unwrap();
        };
        assert_eq!(woken(&mut watch, save), Wake::Look);
        let nest = || {
            std::fs::create_dir(at("sub")).unwrap();
            std::fs::write(at("sub/b.yaml"), "x").unwrap();
        };
        assert_eq!(woken(&mut watch, nest), Wake::Look);
        assert_eq!(woken(&mut watch, || std::fs::remove_file(at("a.yaml")).unwrap()), Wake::Look);
    }

    #[test]
    fn a_folder_that_is_made_later_is_watched_from_then_on() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("later");
        let (sender, signals) = channel();
        let mut watch = Watch::new(std::slice::from_ref(&folder), sender, signals);
        assert_eq!(woken(&mut watch, || std::fs::create_dir(&folder).unwrap()), Wake::Look);
        assert_eq!(woken(&mut watch, || std::fs::write(folder.join("a.yaml"), "x").unwrap()), Wake::Look);
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, signals) = channel();
        let mut watch = Watch::new(&[folder.path().to_owned()], sender.clone(), signals);
        sender.send(Signal::Stop).unwrap();
        assert_eq!(watch.wait(None), Wake::Stop);
    }
}
