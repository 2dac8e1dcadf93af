//! What requests need and the proxy has not been sent: noted here by the threads that serve, taken from here by the one
//! that asks the control plane. Nobody comes here for what is there.

use rustc_hash::FxHashSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Needs noted and not yet taken; beyond it requests wait in vain.
const MOST: usize = 4096;

/// Something to ask the control plane for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// The cluster of this name.
    Cluster(String),
    /// The virtual host of this name (`model::on_demand::host_name`).
    Host(String),
}

/// All that is asked for.
#[derive(Default)]
pub(super) struct Needs {
    open: Mutex<FxHashSet<Need>>,
    stirred: Notify,
}

impl Needs {
    /// Notes a need; many requests with the same one note it once.
    pub(super) fn note(&self, need: Need) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() < MOST && open.insert(need) {
            self.stirred.notify_one();
        }
    }

    /// Takes those that were noted, once there are any.
    pub(super) async fn take(&self) -> Vec<Need> {
        loop {
            let stirred = self.stirred.notified();
            let noted: Vec<Need> = self.open.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
            if !noted.is_empty() {
                return noted;
            }
            stirred.await;
        }
    }
}
