//! What the core of the cache is built of: `stripes`, `era`, `marks`, `flight`. They name it here alone, so that the
//! model checker can build the same files of its own (`model_tests`).

pub(super) use std::sync::atomic::{AtomicU64, Ordering};

// Keys that share a stripe disturb each other's loads: in tests always the same ones do.
#[cfg(test)]
pub(super) use foldhash::quality::FixedState as RandomState;
#[cfg(not(test))]
pub(super) use foldhash::quality::RandomState;
pub(super) use parking_lot::{Mutex, RwLock};

/// Enough that writes to a few keys seldom disturb loads of others.
pub(super) const STRIPES: usize = 1024;

/// Of the marks. A sweep looks at every entry, so that the more marks it deals with, the less each of them costs.
pub(super) const MOST_PREFIXES: usize = 4096;
