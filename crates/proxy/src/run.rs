//! One proxy process from its start to its end: reads the bootstrap, restores the last good configuration, starts the
//! threads that serve, and on the main thread everything else: discovery, DNS, the identity, the admin interface,
//! signals.

mod ending;
mod setup;

pub use setup::{IdentityOptions, Memory, Options, RunError};

use crate::admin::{self, Admin};
use crate::discovery::{self, Hub, Stream};
use crate::dns;
use crate::health;
use crate::names;
use crate::notice::tell;
use crate::worker::{self, Workers};
use ending::Ending;
use identity::workload::{self, Event};
use setup::Setup;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};

/// How often memory that is not used is given back.
const TIDY: Duration = Duration::from_secs(3);
/// So many times in a row without a connection, and the proxy rests.
const RESTED: u32 = 2;

/// Runs a proxy until it is told to end.
pub fn run(options: Options) -> Result<(), RunError> {
    let started = Instant::now();
    let setup = Setup::new(&options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(RunError::Runtime)?;
    let outcome = LocalSet::new().block_on(&runtime, serve(setup, options, started));
    // Lookups that never return must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(setup: Setup, options: Options, started: Instant) -> Result<(), RunError> {
    let Setup { node, ads, hub, last_good, concurrency, admin_address, telemetry } = setup;
    let ending = Ending::new().map_err(RunError::Signals)?;
    let admin_listener = match admin_address {
        Some(address) => {
            Some(tokio::net::TcpListener::bind(address).await.map_err(|e| RunError::Admin(address, e))?)
        }
        None => None,
    };
    let workers =
        worker::Options { concurrency, tidy: Some(options.memory.tidy), ..worker::Options::default() };
    let workers = Rc::new(worker::start(hub.live().clone(), &workers));
    spawn_local(timers(hub.clone()));
    spawn_local(small(hub.clone()));
    spawn_local(asking(hub.clone()));
    spawn_local(give_back(options.memory, workers.clone()));
    spawn_local(dns::follow(hub.clone()));
    spawn_local(names::follow(hub.live().clone()));
    spawn_local(health::follow(hub.live().clone()));
    if let Some(file) = last_good {
        let hub = hub.clone();
        spawn_local(async move { hub.keep_saved(file).await });
    }
    if let Some(identity) = options.identity {
        let options = identity.workload_options().map_err(RunError::Identity)?;
        spawn_local(identify(hub.clone(), options));
    }
    let status = ads.map(|ads| {
        let status = Rc::new(RefCell::new(discovery::Status::default()));
        let stream = Stream { ads, node: node.proto.clone(), status: status.clone() };
        spawn_local(discovery::follow(hub.clone(), stream));
        status
    });
    let (commands, received) = mpsc::unbounded_channel();
    let admin = Rc::new(Admin {
        hub: hub.clone(),
        stream: status,
        listeners: listing(&workers),
        node,
        settings: admin::Settings {
            bootstrap: options.bootstrap.display().to_string(),
            concurrency,
            drain_time: options.drain_time,
        },
        started,
        draining: Cell::new(false),
        unhealthy: Cell::new(false),
        commands,
    });
    if let Some(listener) = admin_listener {
        if let Ok(address) = listener.local_addr() {
            tell(format_args!("admin interface at http://{address}"));
        }
        spawn_local(admin::serve(listener, admin.clone()));
    }
    spawn_local(announce(admin.clone()));
    let outcome = tokio::select! {
        () = ending.wait(&admin, &workers, received, options.drain_time) => Ok(()),
        error = static_failure(&hub, &workers) => Err(error),
    };
    workers.stop();
    workers.join();
    telemetry.flush_logs();
    outcome
}

/// A static listener that cannot listen when the proxy starts is a mistake that only people can mend. Returns nothing
/// else: one that comes from a control plane is tried again.
async fn static_failure(hub: &Hub, workers: &Workers) -> RunError {
    let is_static = |name: &String| hub.read(|discovery| discovery.catalog().listeners.is_static(name));
    let mut changes = workers.listener_changes();
    let mut bound = std::collections::BTreeSet::new();
    loop {
        for status in changes.borrow_and_update().iter().filter(|status| is_static(&status.name)) {
            match &status.bound {
                Ok(()) => drop(bound.insert(status.name.clone())),
                Err(why) if !bound.contains(&status.name) => {
                    return RunError::Listener(status.name.clone(), why.clone());
                }
                Err(_) => {}
            }
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn listing(workers: &Rc<Workers>) -> Box<dyn Fn() -> Vec<worker::ListenerStatus>> {
    let workers = workers.clone();
    Box::new(move || workers.listeners())
}

async fn timers(hub: Hub) {
    hub.keep_time().await;
}

async fn asking(hub: Hub) {
    hub.keep_asking().await;
}

async fn small(hub: Hub) {
    hub.keep_small().await;
}

/// Gives memory back that is not used any more: an allocator looks for that only when memory is taken or freed, and a
/// proxy at rest does neither. The program's own pages go once, after the start, and while there are no connections.
async fn give_back(memory: Memory, workers: Rc<Workers>) {
    tokio::time::sleep(TIDY).await;
    (memory.forget)();
    let mut resting = 0u32;
    loop {
        (memory.tidy)();
        resting = if workers.open_connections() == 0 { resting.saturating_add(1) } else { 0 };
        if resting >= RESTED {
            (memory.forget)();
        }
        tokio::time::sleep(TIDY).await;
    }
}

/// Says once that the proxy serves, and how long that took.
async fn announce(admin: Rc<Admin>) {
    // Workers report without a signal; the moment is for people.
    while admin.state() != admin::State::Live {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tell(format_args!("ready after {} ms", admin.started.elapsed().as_millis()));
}

/// Feeds the workload's identity in, whenever there is a new one.
async fn identify(hub: Hub, options: workload::WorkloadOptions) {
    let (publish, mut secrets) = watch::channel(None);
    let report = |event: Event| tell(&event);
    spawn_local(workload::run(options, publish, report));
    while secrets.changed().await.is_ok() {
        let current = secrets.borrow_and_update().clone();
        if let Some(current) = current {
            hub.feed(|discovery, now| discovery.identify(&current, now));
        }
    }
}
