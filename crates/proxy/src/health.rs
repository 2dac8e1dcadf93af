//! Watching endpoints, on the control thread: those that fail too often are left out for a time, those that do not pass
//! health checks until they do. What is found out is written where all threads read it.

mod checks;
mod outliers;
mod probe;

pub use outliers::Outliers;

use crate::notice::tell;
use crate::snapshot::Live;
use checks::Checks;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

/// Watches the endpoints of the configuration in force. Never returns.
pub async fn follow(live: Arc<Live>) {
    let mut changes = live.changes();
    let mut outliers = Outliers::default();
    let mut checks = Checks::default();
    let start = Instant::now();
    let mut is_new = true;
    loop {
        changes.borrow_and_update();
        if std::mem::take(&mut is_new) {
            checks.follow(&live);
        }
        let look = outliers.look(&live.current(), start.elapsed(), random);
        look.told.iter().for_each(tell);
        tokio::select! {
            () = live.alarmed() => {}
            changed = changes.changed() => match changed {
                Ok(()) => is_new = true,
                Err(_) => return,
            },
            () = at(look.next.map(|next| start + next)) => {}
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

fn random() -> u64 {
    // The standard library seeds its hashers from the operating system, each one differently.
    RandomState::new().hash_one(0)
}
