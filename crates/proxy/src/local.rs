//! What one thread owns: its view of the snapshot, its upstream connections, its random numbers. No lock, no sharing.

use crate::snapshot::{Live, Snapshot};
use crate::upstream::{Mirrors, Pools, Watch};
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

/// One thread's belongings, shared by its connections.
pub struct Local {
    live: Arc<Live>,
    current: RefCell<Arc<Snapshot>>,
    pools: Pools,
    mirrors: Mirrors,
    watch: Rc<Watch>,
    random: Cell<u64>,
}

impl Local {
    /// Belongings of a new thread.
    pub fn new(live: Arc<Live>) -> Rc<Self> {
        let current = RefCell::new(live.current());
        // The standard library seeds its hashers from the operating system.
        let seed = RandomState::new().hash_one(std::process::id());
        Rc::new(Self {
            live,
            current,
            pools: Pools::default(),
            mirrors: Mirrors::default(),
            watch: Rc::default(),
            random: Cell::new(seed),
        })
    }

    /// The snapshot in force. One load and a comparison while nothing changes.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let newest = self.live.cell().load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&newest, &current) {
            *current = Arc::clone(&newest);
        }
        current.clone()
    }

    /// Where the snapshot comes from.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Connections to endpoints.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Copies of requests on their way.
    pub fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Exchanges that may not be silent for too long.
    pub fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// 64 random bits: good for spreading load and for ids, not for secrets. SplitMix64.
    pub fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Closes upstream connections that are too old, or whose endpoint is gone. Call it every few seconds.
    pub fn sweep(&self) {
        let snapshot = self.snapshot();
        let mut known = rustc_hash::FxHashMap::default();
        for cluster in snapshot.clusters.values() {
            let limit = cluster.config.idle_timeout;
            cluster.sweep();
            cluster
                .each_endpoint(|endpoint| drop(known.insert(endpoint.id, (limit, endpoint.vitals.clone()))));
        }
        self.pools.sweep(|id| known.get(&id).cloned());
    }
}
