//! The thread that writes log lines, so that no request waits for one. Each worker has a queue of its own, emptied
//! every few hundredths of a second; a queue that is full loses what comes, counted.

use super::counters::Counter;
use super::exchange::Exchange;
use super::log::Output;
use super::sink::{Sink, Sinks};
use super::view::View;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines are gathered for so long before they are written.
const LINGER: Duration = Duration::from_millis(20);
/// One write takes about so many bytes.
const BATCH: usize = 64 * 1024;
/// Exchanges in one worker's queue.
const LONGEST_QUEUE: usize = 8_192;
/// A queue that long is emptied at once.
const LONG_QUEUE: usize = LONGEST_QUEUE / 2;
/// The longest that [`Writer::flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The writer's thread; it ends, everything written, when this is dropped.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Finished exchanges of one worker.
#[derive(Default)]
pub(super) struct Queue(Mutex<Vec<(Box<Exchange>, Instant)>>);

struct Shared {
    sinks: Arc<Sinks>,
    queues: Mutex<Vec<Arc<Queue>>>,
    /// Something is in a queue, or something else is to be done.
    pending: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
    flushed: Condvar,
    dropped: Arc<Counter>,
}

#[derive(Default)]
struct State {
    closing: bool,
    urgent: bool,
    /// Flushes asked for, and done.
    asked: u64,
    done: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    pub(super) fn start(sinks: Arc<Sinks>, dropped: Arc<Counter>) -> Self {
        let shared = Arc::new(Shared {
            sinks,
            queues: Mutex::default(),
            pending: AtomicBool::new(false),
            state: Mutex::default(),
            wake: Condvar::new(),
            flushed: Condvar::new(),
            dropped,
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || of_thread.run());
        if let Err(error) = &thread {
            let _ =
                writeln!(std::io::stderr(), "access logs: no thread to write them: {error}; lines are lost");
        }
        Self { shared, thread: thread.ok() }
    }

    /// A queue for one more worker.
    pub(super) fn queue(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        lock(&self.shared.queues).push(Arc::clone(&queue));
        queue
    }

    /// Puts an exchange that ended at `end` into the worker's queue.
    pub(super) fn push(&self, queue: &Queue, exchange: Box<Exchange>, end: Instant) {
        let length = {
            let mut entries = lock(&queue.0);
            if entries.len() >= LONGEST_QUEUE || self.thread.is_none() {
                drop(entries);
                self.shared.dropped.increment();
                return;
            }
            entries.push((exchange, end));
            entries.len()
        };
        // The queue's lock orders this after the writer's own look at the queue, so a flag seen set is one the writer
        // has still to act upon.
        if length == LONG_QUEUE || !self.shared.pending.load(Ordering::Relaxed) {
            self.shared.prod(|state| state.urgent |= length >= LONG_QUEUE);
        }
    }

    /// Waits until everything queued until now is written, for a bounded time.
    pub(super) fn flush(&self) {
        if self.thread.is_none() {
            return;
        }
        let mut number = 0;
        self.shared.prod(|state| {
            state.asked += 1;
            state.urgent = true;
            number = state.asked;
        });
        let state = lock(&self.shared.state);
        let waited = self.shared.flushed.wait_timeout_while(state, FLUSH_TIMEOUT, |s| s.done < number);
        drop(waited);
    }

    /// Opens the files anew.
    pub(super) fn reopen(&self) {
        self.shared.sinks.reopen();
        self.shared.prod(|state| state.urgent = true);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.prod(|state| state.closing = true);
        if let Some(thread) = self.thread.take()
            // The last exchange to be written may have been the last to hold us.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn prod(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        self.pending.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    fn run(&self) {
        loop {
            let (closing, asked) = self.wait();
            self.pending.store(false, Ordering::Relaxed);
            self.sinks.open_due();
            self.write_queues();
            if asked > 0 {
                lock(&self.state).done = asked;
                self.flushed.notify_all();
            }
            if closing {
                return;
            }
        }
    }

    /// Waits for work, then a little longer for more of it.
    fn wait(&self) -> (bool, u64) {
        let state = lock(&self.state);
        let idle = |state: &mut State| !state.closing && !self.pending.load(Ordering::Relaxed);
        let state = self.wake.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let gathering = |state: &mut State| !state.closing && !state.urgent;
        let waited = self.wake.wait_timeout_while(state, LINGER, gathering);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.urgent = false;
        (state.closing, state.asked)
    }

    fn write_queues(&self) {
        let mut entries: Vec<(Box<Exchange>, Instant)> = Vec::new();
        {
            let mut queues = lock(&self.queues);
            for queue in &*queues {
                entries.append(&mut lock(&queue.0));
            }
            // Queues of workers that are gone.
            queues.retain(|queue| Arc::strong_count(queue) > 1);
        }
        entries.sort_by_key(|(_, end)| *end);
        let mut batches: Vec<Batch> = Vec::new();
        for (exchange, end) in &entries {
            let Some(logs) = &exchange.recorder().logs else { continue };
            let view = View { exchange, end: *end, messages: None };
            for output in logs.outputs.iter().filter(|output| output.takes(&view)) {
                self.append(&mut batches, output, &view);
            }
        }
        for batch in &mut batches {
            batch.write(&self.dropped);
        }
    }

    fn append(&self, batches: &mut Vec<Batch>, output: &Output, view: &View<'_>) {
        let at = match batches.iter().position(|b| Arc::ptr_eq(&b.sink, &output.sink)) {
            Some(at) => at,
            None => {
                batches.push(Batch { sink: Arc::clone(&output.sink), bytes: Vec::new(), lines: 0 });
                batches.len() - 1
            }
        };
        let Some(batch) = batches.get_mut(at) else { return };
        output.write(view, &mut batch.bytes);
        batch.lines += 1;
        if batch.bytes.len() >= BATCH {
            batch.write(&self.dropped);
        }
    }
}

/// Lines for one sink.
struct Batch {
    sink: Arc<Sink>,
    bytes: Vec<u8>,
    lines: u64,
}

impl Batch {
    fn write(&mut self, dropped: &Counter) {
        if self.lines > 0 && !self.sink.write(&self.bytes) {
            dropped.add(self.lines);
        }
        self.bytes.clear();
        self.lines = 0;
    }
}
