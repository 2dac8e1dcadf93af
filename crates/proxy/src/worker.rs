//! The threads that serve: how many, what they listen to, when they leave. Each has its own runtime, its own socket per
//! listener and its own upstream connections; in steady state nothing passes between them.
//!
//! A change of configuration opens sockets for new listeners and stops accepting for removed ones; it closes no
//! connection. What happens to a connection is `connection`'s.

mod bind;
mod thread;

use crate::connection::Stage;
use crate::notice;
use crate::snapshot::{Live, Snapshot};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use thread::{Order, Start};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How many threads, and how much they take on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of threads; 0 is one per core.
    pub concurrency: usize,
    /// Most connections open at once, over all threads; `None` follows the limit on open files.
    pub max_connections: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 0, max_connections: None }
    }
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
    /// Set once: no sockets are opened any more.
    is_over: watch::Sender<bool>,
}

struct Thread {
    orders: mpsc::UnboundedSender<Order>,
    open: Arc<AtomicUsize>,
}

/// First and longest wait before an address is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Time at the end of a grace period in which resting connections are closed, at most.
const CLOSING: Duration = Duration::from_secs(1);

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
        let start = Start { live: live.clone(), number, limit, orders: received, open: open.clone() };
        handles.extend(spawn(&format!("worker-{number}"), move || thread::run(start)));
        threads.push(Thread { orders, open });
    }
    let shared = Arc::new(Shared {
        threads,
        statuses: watch::Sender::new(Vec::new()),
        is_over: watch::Sender::new(false),
    });
    let followed = shared.clone();
    handles.extend(spawn("listeners", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Follower { shared: followed, sockets: BTreeMap::new() }.follow(live));
        Ok(())
    }));
    Workers { shared, threads: Mutex::new(handles) }
}

fn spawn(
    name: &str,
    body: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Option<JoinHandle<()>> {
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

    /// Tells clients on every connection to go elsewhere (`Connection: close`, GOAWAY). New connections are still
    /// taken, and told the same: who does not know yet that this proxy leaves must not fail. Before `grace` is over
    /// connections without a request are closed.
    pub async fn drain(&self, grace: Duration) {
        self.shared.tell(|| Order::Leave(Stage::Leaving));
        let closing = CLOSING.min(grace / 2);
        self.wait_idle(grace - closing).await;
        self.shared.tell(|| Order::Leave(Stage::Closing));
        self.wait_idle(closing).await;
    }

    async fn wait_idle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.is_idle() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20).min(limit)).await;
        }
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
        self.shared.is_over.send_replace(true);
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
    fn tell(&self, order: impl Fn() -> Order) {
        for thread in &self.threads {
            // A thread that ended needs no orders.
            let _ = thread.orders.send(order());
        }
    }
}

/// Keeps sockets as the snapshot in force wants them.
struct Follower {
    shared: Arc<Shared>,
    /// By the address that is configured.
    sockets: BTreeMap<SocketAddr, Place>,
}

/// An address that a listener wants.
struct Place {
    listener: String,
    /// The address it came to, or why not.
    bound: Result<SocketAddr, Failed>,
}

struct Failed {
    why: String,
    wait: Duration,
    next: Instant,
}

impl Follower {
    async fn follow(mut self, live: Arc<Live>) {
        let mut changes = live.changes();
        let mut is_over = self.shared.is_over.subscribe();
        loop {
            changes.borrow_and_update();
            self.apply(&live.current());
            let next = self.sockets.values().filter_map(|p| Some(p.bound.as_ref().err()?.next)).min();
            let retry = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = retry => {}
                _ = is_over.wait_for(|over| *over) => return,
            }
        }
    }

    fn apply(&mut self, snapshot: &Snapshot) {
        let mut wanted: BTreeMap<SocketAddr, &str> = BTreeMap::new();
        let mut doubles = Vec::new();
        for (name, state) in &snapshot.listeners {
            let Some(address) = state.config.address else { continue };
            match wanted.get(&address) {
                Some(other) => doubles.push(ListenerStatus {
                    name: name.clone(),
                    address,
                    bound: Err(format!("{address} belongs to listener {other}")),
                }),
                None => drop(wanted.insert(address, name)),
            }
        }
        let gone: Vec<SocketAddr> =
            self.sockets.keys().filter(|a| !wanted.contains_key(a)).copied().collect();
        for address in gone {
            self.close(address);
        }
        for (address, name) in wanted {
            self.open(address, name);
        }
        self.publish(doubles);
    }

    fn open(&mut self, address: SocketAddr, name: &str) {
        let wait = match self.sockets.get_mut(&address) {
            Some(Place { listener, bound: Ok(_) }) => {
                if listener != name {
                    name.clone_into(listener);
                    self.shared.tell(|| Order::Rename { address, name: name.into() });
                }
                return;
            }
            Some(Place { listener, bound: Err(failed) }) => {
                name.clone_into(listener);
                if failed.next > Instant::now() {
                    return;
                }
                Some(failed.wait)
            }
            None => None,
        };
        let bound = match bind::listen(address, self.shared.threads.len()) {
            Ok(sockets) => {
                let actual = sockets.first().and_then(|s| s.local_addr().ok()).unwrap_or(address);
                for (thread, socket) in self.shared.threads.iter().zip(sockets) {
                    let _ = thread.orders.send(Order::Listen { name: name.into(), address, socket });
                }
                Ok(actual)
            }
            Err(error) => {
                let why = bind::explain(address, &error);
                if wait.is_none() {
                    notice::tell(format_args!("{name}: cannot listen: {why}"));
                }
                let wait = wait.map_or(RETRY.0, |wait| (wait * 2).min(RETRY.1));
                Err(Failed { why, wait, next: Instant::now() + wait })
            }
        };
        self.sockets.insert(address, Place { listener: name.to_owned(), bound });
    }

    fn close(&mut self, address: SocketAddr) {
        if let Some(Place { bound: Ok(_), .. }) = self.sockets.remove(&address) {
            self.shared.tell(|| Order::Close { address });
        }
    }

    fn publish(&self, doubles: Vec<ListenerStatus>) {
        let status = |(address, place): (&SocketAddr, &Place)| ListenerStatus {
            name: place.listener.clone(),
            address: *place.bound.as_ref().unwrap_or(address),
            bound: place.bound.as_ref().map(|_| ()).map_err(|failed| failed.why.clone()),
        };
        let mut statuses: Vec<_> = self.sockets.iter().map(status).chain(doubles).collect();
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        self.shared.statuses.send_if_modified(|now| {
            let is_new = *now != statuses;
            *now = statuses;
            is_new
        });
    }
}
