//! One thread: its runtime, its sockets, its connections. It accepts, and hands each connection to `connection`.

use crate::connection::{self, Arrival, Desk, Stage, StageView};
use crate::local::Local;
use crate::notice;
use crate::record::ListenerCounters;
use crate::snapshot::Live;
use futures_util::FutureExt;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

/// What a thread is told to do.
pub(super) enum Order {
    /// Accept at `address` for listener `name`.
    Listen { name: Box<str>, address: SocketAddr, socket: std::net::TcpListener },
    /// What comes in at `address` belongs to listener `name` now.
    Rename { address: SocketAddr, name: Box<str> },
    /// Accept no more at `address`; its connections are told to leave.
    Close { address: SocketAddr },
    /// All connections are told to leave, or to close when they have nothing to do.
    Leave(Stage),
    /// End, whatever is open.
    Stop,
}

/// What a thread starts with.
pub(super) struct Start {
    pub(super) live: Arc<Live>,
    pub(super) number: usize,
    pub(super) limit: usize,
    pub(super) tidy: Option<fn()>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    /// Connections open on this thread, for others to read.
    pub(super) open: Arc<AtomicUsize>,
}

/// A thread's body.
pub(super) fn run(start: Start) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, obey(start));
    Ok(())
}

/// Where connections come in on this thread.
struct Post {
    desk: Rc<Desk>,
    open: Arc<AtomicUsize>,
    listener: RefCell<(Rc<str>, ListenerCounters)>,
    stage: watch::Sender<Stage>,
    /// Dropped when it is closed.
    is_closed: tokio::sync::Notify,
}

/// How often old upstream connections are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often exchanges on which nothing moves are looked for.
const WATCH: Duration = Duration::from_millis(500);

async fn obey(start: Start) {
    let Start { live, number, limit, tidy, mut orders, open } = start;
    let telemetry = live.telemetry().clone();
    let local = Local::new(live);
    let desk = Desk::new(local.clone(), number, limit);
    let mut posts: HashMap<SocketAddr, Rc<Post>> = HashMap::new();
    let mut closed: Vec<Rc<Post>> = Vec::new();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut watch = tokio::time::interval(WATCH);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = watch.tick() => {
                local.watch().sweep(std::time::Instant::now());
                local.pools().look();
                continue;
            }
            _ = sweep.tick() => {
                local.sweep();
                if let Some(tidy) = tidy {
                    tidy();
                }
                closed.retain(|post| !post.stage.is_closed());
                continue;
            }
        };
        match order {
            Some(Order::Listen { name, address, socket }) => {
                let socket = match TcpListener::from_std(socket) {
                    Ok(socket) => socket,
                    Err(error) => {
                        notice::tell(format_args!("{name}: thread {number} cannot listen: {error}"));
                        continue;
                    }
                };
                let post = Rc::new(Post {
                    desk: desk.clone(),
                    open: open.clone(),
                    listener: RefCell::new((Rc::from(&*name), telemetry.listener(&name))),
                    stage: watch::Sender::new(Stage::Serving),
                    is_closed: tokio::sync::Notify::new(),
                });
                posts.insert(address, post.clone());
                tokio::task::spawn_local(accept(post, socket));
            }
            Some(Order::Rename { address, name }) => {
                if let Some(post) = posts.get(&address) {
                    *post.listener.borrow_mut() = (Rc::from(&*name), telemetry.listener(&name));
                }
            }
            Some(Order::Close { address }) => {
                if let Some(post) = posts.remove(&address) {
                    post.is_closed.notify_one();
                    post.stage.send_replace(Stage::Leaving);
                    closed.push(post);
                }
            }
            Some(Order::Leave(stage)) => {
                for post in posts.values().chain(&closed) {
                    post.stage.send_replace(stage);
                }
            }
            Some(Order::Stop) | None => return,
        }
    }
}

async fn accept(post: Rc<Post>, socket: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = post.is_closed.notified() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((client, remote)) => begin(&post, client, remote),
            Err(error) => recover(&post, &error).await,
        }
    }
    // Clients that were let in already are served.
    while let Some(Ok((client, remote))) = socket.accept().now_or_never() {
        begin(&post, client, remote);
    }
}

fn begin(post: &Rc<Post>, socket: TcpStream, remote: SocketAddr) {
    let (listener, counters) = post.listener.borrow().clone();
    let arrival = Arrival { socket, remote, listener, counters, stage: StageView::of(&post.stage) };
    let telemetry = post.desk.local.live().telemetry().clone();
    let counted = Counted::new(post.open.clone());
    // A panic costs one connection, and is counted.
    let serving = AssertUnwindSafe(connection::serve(post.desk.clone(), arrival)).catch_unwind();
    tokio::task::spawn_local(serving.map(move |outcome| {
        drop(counted);
        if outcome.is_err() {
            telemetry.panicked();
        }
    }));
}

/// Without file descriptors accepting fails again at once: others need time to close theirs.
async fn recover(post: &Post, error: &std::io::Error) {
    let is_about_client = matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::Interrupted
    );
    if !is_about_client {
        let name = post.listener.borrow().0.clone();
        notice::tell(format_args!("{name}: cannot accept connections for now: {error}"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A connection that is counted as open while this lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
