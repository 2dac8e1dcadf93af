//! Where log lines go: files opened to append, standard output, standard error. Only the writer's thread writes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// After a failure a file is left alone for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// All sinks in use, one per path.
#[derive(Default)]
pub(super) struct Sinks(Mutex<BTreeMap<String, Weak<Sink>>>);

/// One place that lines go to.
pub(super) struct Sink {
    path: String,
    reopen: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    file: Option<File>,
    failed: Option<Instant>,
}

impl Sinks {
    /// The sink of that path, shared by all who name it.
    pub(super) fn sink(&self, path: &str) -> Arc<Sink> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = all.get(path).and_then(Weak::upgrade) {
            return sink;
        }
        all.retain(|_, sink| sink.strong_count() > 0);
        let sink = Arc::new(Sink {
            path: path.to_owned(),
            reopen: AtomicBool::new(false),
            open: Mutex::new(Open::default()),
        });
        all.insert(path.to_owned(), Arc::downgrade(&sink));
        sink
    }

    /// Makes every file be opened anew before the next line.
    pub(super) fn reopen(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sink in all.values().filter_map(Weak::upgrade) {
            sink.reopen.store(true, Ordering::Release);
        }
    }

    /// Opens again what is to be opened again, without waiting for a line.
    pub(super) fn open_due(&self) {
        let due: Vec<_> = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.values().filter_map(Weak::upgrade).filter(|s| s.reopen.load(Ordering::Acquire)).collect()
        };
        for sink in due {
            sink.write(&[]);
        }
    }
}

impl Sink {
    /// Writes all of `bytes`; false when that could not be done. The first failure is told on standard error.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.reopen.swap(false, Ordering::AcqRel) {
            *open = Open::default();
        }
        if open.failed.is_some_and(|at| at.elapsed() < PAUSE) {
            return false;
        }
        let silent = open.failed.is_some();
        match self.try_write(&mut open, bytes) {
            Ok(()) => {
                open.failed = None;
                true
            }
            Err(error) => {
                *open = Open { file: None, failed: Some(Instant::now()) };
                if !silent {
                    // Nothing can be done about standard error failing, too.
                    let _ = writeln!(io::stderr(), "access log {}: {error}; its lines are lost", self.path);
                }
                false
            }
        }
    }

    fn try_write(&self, open: &mut Open, bytes: &[u8]) -> io::Result<()> {
        match self.path.as_str() {
            "/dev/stdout" => {
                let mut stream = io::stdout().lock();
                stream.write_all(bytes)?;
                stream.flush()
            }
            "/dev/stderr" => io::stderr().lock().write_all(bytes),
            path => {
                let file = match open.file.take() {
                    Some(file) => file,
                    None => OpenOptions::new().create(true).append(true).open(path)?,
                };
                open.file.insert(file).write_all(bytes)
            }
        }
    }
}
