//! Who may be picked of a cluster, as its health is: by subset, and for retries that leave priorities.

use arc_swap::ArcSwapOption;
use model::balance::SubsetTables;
use std::sync::Arc;

/// Sets of priorities that are left, of which tables are kept.
const KEPT: usize = 8;

/// The tables of a cluster until its health changes.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) all: SubsetTables,
    /// What retries needed so far.
    elsewhere: ArcSwapOption<Vec<Elsewhere>>,
}

/// The tables of a cluster without some priorities.
#[derive(Clone)]
struct Elsewhere {
    left: Vec<u32>,
    tables: Arc<SubsetTables>,
}

impl Tables {
    pub(super) fn new(all: SubsetTables) -> Self {
        Self { all, elsewhere: ArcSwapOption::empty() }
    }

    /// The tables without the priorities `left`, made where they are needed first.
    pub(super) fn elsewhere(&self, left: &[u32], make: impl FnOnce() -> SubsetTables) -> Arc<SubsetTables> {
        let known = self.elsewhere.load();
        let known = known.as_ref().map_or(&[][..], |known| known.as_slice());
        if let Some(found) = known.iter().find(|one| one.left == left) {
            return found.tables.clone();
        }
        let tables = Arc::new(make());
        // Two threads that come at once both make it; what one of them keeps may get lost and is made again.
        let new = Elsewhere { left: left.to_vec(), tables: tables.clone() };
        let kept = known.iter().take(KEPT - 1).cloned().chain([new]);
        self.elsewhere.store(Some(Arc::new(kept.collect())));
        tables
    }
}
