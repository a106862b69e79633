//! What is in an engine, counted.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::telemetry::{Counter, Gauge, Labels, names};

/// What is in the engine, as everything that adds and removes reports it.
pub(super) struct Counters {
    bytes: AtomicI64,
    entries: AtomicI64,
    bytes_gauge: Gauge,
    entries_gauge: Gauge,
    pub(super) evicted: Counter,
    pub(super) expired: Counter,
    pub(super) idle: Counter,
}

/// What came and what left, to be counted at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    bytes: i64,
    entries: i64,
}

impl Change {
    pub(super) const fn with(self, weight: u64) -> Self {
        Self { bytes: self.bytes + weight as i64, entries: self.entries + 1 }
    }

    pub(super) const fn without(self, weight: u64) -> Self {
        Self { bytes: self.bytes - weight as i64, entries: self.entries - 1 }
    }
}

impl Counters {
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
        self.changed(Change::default().with(weight));
    }

    pub(super) fn removed(&self, weight: u64) {
        self.changed(Change::default().without(weight));
    }

    /// What others do at the same time may be counted before or after: the sums are right once all have counted.
    pub(super) fn changed(&self, Change { bytes, entries }: Change) {
        // Counters that all threads share: where one entry takes the place of another of its size there is nothing to count.
        if bytes != 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.bytes_gauge.increment(bytes);
        }
        if entries != 0 {
            self.entries.fetch_add(entries, Ordering::Relaxed);
            self.entries_gauge.increment(entries);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).max(0) as u64
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed).max(0) as u64
    }
}

/// The gauges outlive the cache, and others of the same stack count in them.
impl Drop for Counters {
    fn drop(&mut self) {
        self.bytes_gauge.decrement(self.bytes() as i64);
        self.entries_gauge.decrement(self.entries() as i64);
    }
}
