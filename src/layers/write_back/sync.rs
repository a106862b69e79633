//! What the core is built of: `filter` and `overlay`. They name it here alone, so that the model checker can build the same files of its
//! own (`model_tests`, `tests/ordering.rs`).

pub(super) use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

pub(super) use parking_lot::RwLock;

/// Of the filter.
pub(super) const FEWEST_SLOTS: u64 = 1 << 10;
