//! What the filter is built of, so that the model checker can build the same file of its own (`tests/ordering.rs`).

pub(super) use std::sync::atomic::{AtomicU16, Ordering};
