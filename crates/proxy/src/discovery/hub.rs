//! The one [`Discovery`] of a process, shared by those who feed it (the stream, DNS, the identity) and those who look
//! at it (the admin interface). All of them run on the control thread; what comes out is published from here at once.

use super::{Discovery, LastGood, Output, Request};
use crate::notice::tell;
use crate::snapshot::Live;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};

/// Shortest time between two writes of the last good configuration.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked for what no request needs any more.
const LOOK_FOR_IDLE: Duration = Duration::from_secs(30);

/// Nothing for so long, and there is time for what nobody waits for.
const QUIET: Duration = Duration::from_millis(250);

/// A handle to the discovery. Cloning shares it.
#[derive(Clone)]
pub struct Hub(Rc<Shared>);

struct Shared {
    discovery: RefCell<Discovery>,
    live: Arc<Live>,
    outgoing: RefCell<Option<mpsc::UnboundedSender<Request>>>,
    stirred: Notify,
    unsaved: Notify,
    unpacked: Notify,
}

impl Hub {
    /// Shares `discovery`, and publishes to `live`.
    pub fn new(discovery: Discovery, live: Arc<Live>) -> Self {
        Self(Rc::new(Shared {
            discovery: RefCell::new(discovery),
            live,
            outgoing: RefCell::new(None),
            stirred: Notify::new(),
            unsaved: Notify::new(),
            unpacked: Notify::new(),
        }))
    }

    /// Looks at it.
    pub fn read<R>(&self, look: impl FnOnce(&Discovery) -> R) -> R {
        look(&self.0.discovery.borrow())
    }

    /// Feeds it, and does what follows: publish, send, tell.
    pub fn feed<R>(&self, act: impl FnOnce(&mut Discovery, Instant) -> R) -> R {
        let shared = &self.0;
        let mut discovery = shared.discovery.borrow_mut();
        let result = act(&mut discovery, Instant::now());
        let Output { changed, requests, accepted, told } = discovery.take_output();
        if changed {
            shared.live.publish(discovery.config());
        }
        drop(discovery);
        told.iter().for_each(tell);
        if let Some(outgoing) = &*shared.outgoing.borrow() {
            for request in requests {
                // A broken stream is noticed by whoever reads it, and a new one begins with everything.
                let _ = outgoing.send(request);
            }
        }
        if accepted {
            shared.unsaved.notify_one();
            shared.unpacked.notify_one();
        }
        shared.stirred.notify_waiters();
        result
    }

    /// Where it is published.
    pub fn live(&self) -> &Arc<Live> {
        &self.0.live
    }

    /// Begins a stream: its requests, the first ones among them, come out of the receiver.
    pub(super) fn open_stream(&self) -> mpsc::UnboundedReceiver<Request> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for request in self.0.discovery.borrow_mut().connected() {
            let _ = sender.send(request);
        }
        *self.0.outgoing.borrow_mut() = Some(sender);
        receiver
    }

    /// The stream is over.
    pub(super) fn close_stream(&self) {
        *self.0.outgoing.borrow_mut() = None;
    }

    /// Ready after the next time something is fed in, from now on.
    pub fn stirred(&self) -> Notified<'_> {
        self.0.stirred.notified()
    }

    /// Gives up waiting for what does not come, when it is time. Never returns.
    pub async fn keep_time(&self) {
        loop {
            let stirred = self.0.stirred.notified();
            match self.read(Discovery::next) {
                None => stirred.await,
                Some(next) => {
                    tokio::select! {
                        () = stirred => {}
                        () = tokio::time::sleep_until(next.into()) => {
                            self.feed(|discovery, now| discovery.advance(now));
                        }
                    }
                }
            }
        }
    }

    /// Asks for what requests need, and no longer for what none has needed for long. Never returns.
    pub async fn keep_asking(&self) {
        let mut rounds = tokio::time::interval(LOOK_FOR_IDLE);
        loop {
            tokio::select! {
                needs = self.0.live.take_needs() => {
                    self.feed(|discovery, now| discovery.need(needs, now));
                }
                _ = rounds.tick() => {
                    let live = &self.0.live;
                    self.feed(|discovery, now| discovery.let_idle_go(|cluster| live.take_use(cluster), now));
                }
            }
        }
    }

    /// Lets what was accepted take less room, whenever there is nothing else to do. Never returns.
    pub async fn keep_small(&self) {
        loop {
            self.0.unpacked.notified().await;
            while tokio::time::timeout(QUIET, self.0.stirred.notified()).await.is_ok() {}
            self.0.discovery.borrow_mut().rest();
        }
    }

    /// Keeps what was accepted on disk. Never returns.
    pub async fn keep_saved(&self, file: LastGood) {
        let mut failed = false;
        loop {
            self.0.unsaved.notified().await;
            let responses = self.read(Discovery::export);
            let (target, path) = (file.clone(), file.path().display().to_string());
            let outcome = tokio::task::spawn_blocking(move || target.write(&responses)).await;
            let error = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let (Some(error), false) = (&error, failed) {
                tell(format_args!("the last good configuration cannot be written to `{path}`: {error}"));
            }
            failed = error.is_some();
            tokio::time::sleep(SAVE_PAUSE).await;
        }
    }
}
