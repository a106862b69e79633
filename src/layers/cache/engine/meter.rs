//! What is in an engine, counted.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::telemetry::{Counter, Gauge, Labels, names};

/// What is in the engine, as everything that adds and removes reports it.
pub(super) struct Meter {
    bytes: AtomicI64,
    entries: AtomicI64,
    bytes_gauge: Gauge,
    entries_gauge: Gauge,
    pub(super) evicted: Counter,
    pub(super) expired: Counter,
    pub(super) idle: Counter,
}

impl Meter {
    pub(super) fn new(labels: &Labels) -> Self {
        let evictions = |cause| labels.counter(names::CACHE_EVICTIONS, &[("cause", cause)]);
        Self {
            bytes: AtomicI64::new(0),
            entries: AtomicI64::new(0),
            bytes_gauge: labels.gauge(names::CACHE_BYTES, &[]),
            entries_gauge: labels.gauge(names::CACHE_ENTRIES, &[]),
            evicted: evictions("size"),
            expired: evictions("expired"),
            idle: evictions("idle"),
        }
    }

    pub(super) fn added(&self, weight: u64) {
        self.bytes.fetch_add(weight as i64, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes_gauge.increment(weight as i64);
        self.entries_gauge.increment(1);
    }

    pub(super) fn removed(&self, weight: u64) {
        self.bytes.fetch_sub(weight as i64, Ordering::Relaxed);
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes_gauge.decrement(weight as i64);
        self.entries_gauge.decrement(1);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).max(0) as u64
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed).max(0) as u64
    }
}

/// The gauges outlive the cache, and others of the same stack count in them.
impl Drop for Meter {
    fn drop(&mut self) {
        self.bytes_gauge.decrement(self.bytes() as i64);
        self.entries_gauge.decrement(self.entries() as i64);
    }
}
