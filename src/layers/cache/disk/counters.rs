//! What is counted.

use super::log::Log;
use super::table::{Refused, Table};
use crate::telemetry::{Counter, Gauge, Labels, names};

pub(super) struct Counters {
    bytes: Gauge,
    entries: Gauge,
    active: Gauge,
    queue: Counter,
    busy: Counter,
    large: Counter,
    damaged: Counter,
    io: Counter,
    evicted: Counter,
}

/// Registers the series of a disk, and lets go of them.
pub(in crate::layers::cache) fn register_counters(labels: &Labels) {
    drop(Counters::new(labels));
}

impl Counters {
    pub(super) fn new(labels: &Labels) -> Self {
        let dropped = |cause| labels.counter(names::CACHE_DISK_DROPS, &[("cause", cause)]);
        let active = labels.gauge(names::CACHE_DISK_ACTIVE, &[]);
        active.set(1);
        Self {
            bytes: labels.gauge(names::CACHE_DISK_BYTES, &[]),
            entries: labels.gauge(names::CACHE_DISK_ENTRIES, &[]),
            active,
            queue: dropped("queue"),
            busy: dropped("busy"),
            large: dropped("large"),
            damaged: dropped("damaged"),
            io: dropped("io"),
            evicted: labels.counter(names::CACHE_EVICTIONS, &[("cause", "disk")]),
        }
    }

    pub(super) fn entries(&self, table: &Table) {
        self.entries.set(table.entries() as i64);
    }

    pub(super) fn bytes(&self, log: &Log) {
        self.bytes.set(log.bytes() as i64);
    }

    pub(super) fn refused(&self, refused: Refused) {
        match refused {
            Refused::Full => self.queue.increment(1),
            Refused::Large => self.large.increment(1),
            Refused::Late => {}
        }
    }

    /// Entries that were not read, as no thread was free.
    pub(super) fn busy(&self, entries: usize) {
        self.busy.increment(entries as u64);
    }

    pub(super) fn damaged(&self) {
        self.damaged.increment(1);
    }

    pub(super) fn failed(&self, table: &Table) {
        self.io.increment(1);
        self.active.set(0);
        self.entries(table);
    }

    pub(super) fn evicted(&self, entries: usize) {
        self.evicted.increment(entries as u64);
    }

    pub(super) fn closed(&self) {
        for gauge in [&self.active, &self.bytes, &self.entries] {
            gauge.set(0);
        }
    }
}
