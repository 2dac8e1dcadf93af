//! What a cluster is being asked for, over all threads: counted where a limit needs it, and given back by dropping.

use model::limits::{Priority, Thresholds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Counters of one cluster. They outlive changes of configuration.
#[derive(Debug, Default)]
pub struct Usage {
    counts: [[AtomicU32; 4]; 2],
    /// It had a request.
    had_traffic: AtomicBool,
    /// There was a request since somebody asked last.
    used: AtomicBool,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Open connections.
    Connections,
    /// Requests waiting for a connection.
    Pending,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
}

impl Limited {
    /// The limit, as messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Pending => "max_pending_requests",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
        }
    }

    /// The limit by `thresholds`.
    pub fn of(self, thresholds: &Thresholds) -> Option<u32> {
        match self {
            Self::Connections => thresholds.connections,
            Self::Pending => thresholds.pending,
            Self::Requests => thresholds.requests,
            Self::Retries => thresholds.retries,
        }
    }
}

/// One of what is limited, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    usage: Arc<Usage>,
    what: Limited,
    priority: Priority,
}

impl Usage {
    /// How many there are. Only limited ones are counted.
    pub fn count(&self, what: Limited, priority: Priority) -> u32 {
        self.counter(what, priority).load(Relaxed)
    }

    /// Takes one, of at most `limit`.
    pub fn take(self: &Arc<Self>, what: Limited, priority: Priority, limit: u64) -> Option<Permit> {
        let counter = self.counter(what, priority);
        if u64::from(counter.fetch_add(1, Relaxed)) >= limit {
            counter.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit { usage: self.clone(), what, priority })
    }

    /// Remembers that there was a request.
    pub fn note_traffic(&self) {
        if !self.had_traffic.load(Relaxed) {
            self.had_traffic.store(true, Relaxed);
        }
    }

    /// Whether there was a request.
    pub fn had_traffic(&self) -> bool {
        self.had_traffic.load(Relaxed)
    }

    /// Remembers that there was a request, until the next [`Usage::take_use`].
    pub fn note_use(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Whether there was a request since this was asked last.
    pub fn take_use(&self) -> bool {
        self.used.swap(false, Relaxed)
    }

    fn counter(&self, what: Limited, priority: Priority) -> &AtomicU32 {
        let [default, high] = &self.counts;
        let [connections, pending, requests, retries] = match priority {
            Priority::Default => default,
            Priority::High => high,
        };
        match what {
            Limited::Connections => connections,
            Limited::Pending => pending,
            Limited::Requests => requests,
            Limited::Retries => retries,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.usage.counter(self.what, self.priority).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_given_out_and_what_is_dropped_comes_back() {
        let usage = Arc::new(Usage::default());
        let take = || usage.take(Limited::Requests, Priority::Default, 2);
        let (first, second) = (take().unwrap(), take().unwrap());
        assert!(take().is_none());
        drop(first);
        let third = take();
        assert!(third.is_some() && take().is_none());
        assert!(usage.take(Limited::Requests, Priority::High, 1).is_some());
        drop((second, third));
        assert_eq!(usage.count(Limited::Requests, Priority::Default), 0);
    }
}
