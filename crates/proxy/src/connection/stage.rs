//! How far a listener is on its way out. Set by the worker, watched by the listener's connections.

use tokio::sync::watch;

/// What a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stage {
    /// Go on.
    #[default]
    Serving,
    /// Go on, and tell clients to make no further requests here. Nothing is closed under a client's hand.
    Leaving,
    /// As before, and close while no request is under way.
    Closing,
}

/// A connection's view of the stage.
#[derive(Debug, Clone)]
pub(crate) struct StageView(watch::Receiver<Stage>);

impl StageView {
    /// The view of what `sender` says.
    pub(crate) fn of(sender: &watch::Sender<Stage>) -> Self {
        Self(sender.subscribe())
    }

    /// The stage now.
    pub(crate) fn now(&self) -> Stage {
        *self.0.borrow()
    }

    /// Waits until the stage is at least `stage`.
    pub(crate) async fn reached(&mut self, stage: Stage) {
        if self.0.wait_for(|now| *now >= stage).await.is_err() {
            // Who sets it is gone, and this thread is ending with it.
            std::future::pending::<()>().await;
        }
    }
}
