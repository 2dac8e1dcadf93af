//! The threads that serve: how many, what they listen to, when they leave. Each has its own runtime, its own socket per
//! listener and its own upstream connections; in steady state nothing passes between them.
//!
//! A change of configuration opens sockets for new listeners and stops accepting for removed ones; it closes no
//! connection. What happens to a connection is `connection`'s.

mod follower;
mod bind;
mod thread;

use crate::notice;
use crate::snapshot::Live;
use follower::Follower;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use thread::{Order, Start};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How many threads, and how much they take on.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Number of threads; 0 is one per core.
    pub concurrency: usize,
    /// Most connections open at once, over all threads; `None` follows the limit on open files.
    pub max_connections: Option<usize>,
    /// Called every few seconds on each thread, to give memory back.
    pub tidy: Option<fn()>,
}

/// A listener's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// The listener.
    pub name: String,
    /// Where it listens; when bound, with the port that port 0 became.
    pub address: SocketAddr,
    /// Whether it does, or why not. It is tried again.
    pub bound: Result<(), String>,
}

/// The running threads. Dropping it stops them.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    threads: Vec<Thread>,
    statuses: watch::Sender<Vec<ListenerStatus>>,
    phase: watch::Sender<Phase>,
}

/// What the threads are at, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Clients are told to go elsewhere.
    Leaving,
    /// No connections are taken any more.
    Closed,
    Over,
}

struct Thread {
    orders: mpsc::UnboundedSender<Order>,
    open: Arc<AtomicUsize>,
}

/// How often a leaving proxy looks whether its work is done.
const LOOK: Duration = Duration::from_millis(20);

/// Starts the threads, and the one that follows `live` and opens sockets.
pub fn start(live: Arc<Live>, options: &Options) -> Workers {
    let count = match options.concurrency {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let limit = options.max_connections.unwrap_or_else(connection_limit).div_ceil(count).max(1);
    let mut handles = Vec::new();
    let mut threads = Vec::new();
    for number in 0..count {
        let (orders, received) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let tidy = options.tidy;
        let start = Start { live: live.clone(), number, limit, tidy, orders: received, open: open.clone() };
        handles.extend(spawn(&format!("worker-{number}"), move || thread::run(start)));
        threads.push(Thread { orders, open });
    }
    let shared = Arc::new(Shared {
        threads,
        statuses: watch::Sender::new(Vec::new()),
        phase: watch::Sender::new(Phase::Serving),
    });
    let followed = shared.clone();
    handles.extend(spawn("listeners", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Follower::new(followed).follow(live));
        Ok(())
    }));
    Workers { shared, threads: Mutex::new(handles) }
}

fn spawn(name: &str, body: impl FnOnce() -> io::Result<()> + Send + 'static) -> Option<JoinHandle<()>> {
    let told = name.to_owned();
    let run = move || {
        if let Err(error) = body() {
            notice::tell(format_args!("thread {told} ended: {error}"));
        }
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|error| notice::tell(format_args!("thread {name} cannot be started: {error}"))).ok()
}

/// How many connections the limit on open files allows: it is raised as far as it goes, a fifth is left for everything
/// else, and each connection may need one more to an endpoint.
fn connection_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let mut raised = limit;
        raised.current = limit.maximum;
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let files = limit.current.unwrap_or(1 << 20).min(1 << 22) as usize;
    (files / 5 * 4 / 2).max(16)
}

impl Workers {
    /// What listens, what does not and why.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        self.shared.statuses.borrow().clone()
    }

    /// Wakes whenever [`listeners`](Self::listeners) changes.
    pub fn listener_changes(&self) -> watch::Receiver<Vec<ListenerStatus>> {
        self.shared.statuses.subscribe()
    }

    /// Tells clients on every connection to go elsewhere (`Connection: close`, GOAWAY) and soon after closes the
    /// connections that have no request. New connections are still taken, and told the same: who does not know yet that
    /// this proxy leaves must not fail. Done when no connection is open or `grace` is over; from then on none is taken.
    pub async fn drain(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if !grace.is_zero() {
            self.shared.enter(Phase::Leaving);
        }
        while !self.is_idle() && Instant::now() < deadline {
            tokio::time::sleep(LOOK.min(grace)).await;
        }
        self.shared.enter(Phase::Closed);
    }

    /// Whether no connection is open.
    pub fn is_idle(&self) -> bool {
        self.open_connections() == 0
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.shared.threads.iter().map(|t| t.open.load(Ordering::Relaxed)).sum()
    }

    /// Ends the threads, whatever is open.
    pub fn stop(&self) {
        self.shared.enter(Phase::Over);
        self.shared.tell(|| Order::Stop);
    }

    /// Waits for the end of the threads. Blocks; call [`stop`](Self::stop) before.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                notice::tell("a thread ended by a panic");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Goes on to `phase`; there is no way back.
    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let is_next = *now < phase;
            *now = phase.max(*now);
            is_next
        });
    }

    fn tell(&self, order: impl Fn() -> Order) {
        for thread in &self.threads {
            // A thread that ended needs no orders.
            let _ = thread.orders.send(order());
        }
    }
}
