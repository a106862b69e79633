//! What the core of the cache is built of: locks and atomics. Its files name them here alone, so that the
//! model checker can build the same files of its own (`model_tests`).

pub(super) use std::sync::atomic::{AtomicU64, Ordering};

// Keys that share a stripe disturb each other's loads: in tests always the same ones do.
#[cfg(test)]
pub(super) use foldhash::quality::FixedState as RandomState;
#[cfg(not(test))]
pub(super) use foldhash::quality::RandomState;
pub(super) use parking_lot::Mutex;

/// A value that is read without a lock, and replaced as a whole.
#[derive(Debug)]
pub(super) struct Published<T>(arc_swap::ArcSwap<T>);

impl<T> Published<T> {
    pub(super) fn new(value: T) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(value))
    }

    pub(super) fn get(&self) -> arc_swap::Guard<std::sync::Arc<T>> {
        self.0.load()
    }

    pub(super) fn publish(&self, value: T) {
        self.0.store(std::sync::Arc::new(value));
    }
}

/// Enough that writes to a few keys seldom disturb loads of others.
pub(super) const STRIPES: usize = 1024;

/// Prefixes of a table. A sweep looks at every entry, so the more prefixes it deals with, the less each of them costs.
pub(super) const MOST_PREFIXES: usize = 4096;
