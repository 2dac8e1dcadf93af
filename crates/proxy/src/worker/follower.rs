//! Keeps sockets as the configuration in force wants them: opened for new listeners, handed over when only the name
//! changes, closed for removed ones, tried again where the address is busy.

use super::thread::Order;
use super::{ListenerStatus, Phase, Shared, bind};
use crate::connection::Stage;
use crate::notice;
use crate::snapshot::{Live, Snapshot};
use model::listener::Binding;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// First and longest wait before an address is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Time in which clients may hear that this proxy leaves before connections without a request are closed.
const NOTICE: Duration = Duration::from_secs(1);

async fn sleep_until_or_never(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Keeps sockets as the snapshot in force wants them.
pub(super) struct Follower {
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
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, sockets: BTreeMap::new() }
    }

    pub(super) async fn follow(mut self, live: Arc<Live>) {
        let mut changes = live.changes();
        let mut phase = self.shared.phase.subscribe();
        while *phase.borrow_and_update() == Phase::Serving {
            changes.borrow_and_update();
            let doubles = self.apply(&live.current());
            self.publish(doubles);
            let retry = self.next_retry();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                changed = phase.changed() => if changed.is_err() { return },
                () = sleep_until_or_never(retry) => {}
            }
        }
        self.leave(phase).await;
    }

    /// From here on the configuration does not matter any more.
    async fn leave(mut self, mut phase: watch::Receiver<Phase>) {
        self.shared.tell(|| Order::Leave(Stage::Leaving));
        self.publish(Vec::new());
        let mut notice = Some(Instant::now() + NOTICE);
        loop {
            let now = *phase.borrow_and_update();
            if now >= Phase::Closed {
                for address in std::mem::take(&mut self.sockets).into_keys() {
                    self.shared.tell(|| Order::Close { address });
                }
                self.publish(Vec::new());
            }
            if now == Phase::Over {
                return;
            }
            tokio::select! {
                changed = phase.changed() => if changed.is_err() { return },
                () = sleep_until_or_never(notice) => {
                    notice = None;
                    self.shared.tell(|| Order::Leave(Stage::Closing));
                }
            }
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        self.sockets.values().filter_map(|p| Some(p.bound.as_ref().err()?.next)).min()
    }

    /// Opens and closes sockets; the listeners whose address another has.
    fn apply(&mut self, snapshot: &Snapshot) -> Vec<ListenerStatus> {
        let mut wanted: BTreeMap<SocketAddr, (&str, &Binding)> = BTreeMap::new();
        let mut doubles = Vec::new();
        for (name, state) in &snapshot.listeners {
            for address in state.config.addresses().filter(|_| !state.config.binding.unbound) {
                match wanted.get(&address) {
                    Some((other, _)) => doubles.push(ListenerStatus {
                        name: name.clone(),
                        address,
                        bound: Err(format!("{address} belongs to listener {other}")),
                    }),
                    None => {
                        wanted.insert(address, (name, &state.config.binding));
                    }
                }
            }
        }
        let gone: Vec<SocketAddr> =
            self.sockets.keys().filter(|a| !wanted.contains_key(a)).copied().collect();
        for address in gone {
            self.close(address);
        }
        for (address, (name, binding)) in wanted {
            self.open(address, name, binding);
        }
        doubles
    }

    fn open(&mut self, address: SocketAddr, name: &str, binding: &Binding) {
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
        let bound = match bind::listen(address, binding, self.shared.threads.len()) {
            Ok(sockets) => {
                let actual = sockets.first().and_then(|s| s.local_addr().ok()).unwrap_or(address);
                for (thread, socket) in self.shared.threads.iter().zip(sockets) {
                    let _ = thread.orders.send(Order::Listen { name: name.into(), address, socket });
                }
                Ok(actual)
            }
            Err(error) => {
                let why = bind::explain(address, binding, &error);
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
