//! What is counted.

use std::time::Duration;

use super::config::Ack;
use crate::clock::Timestamp;
use crate::telemetry::{Counter, Gauge, Histogram, Labels, names};
use crate::types::units::ByteSize;

/// Why nothing is acknowledged any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The journal failed: nothing more is written to it.
    Journal,
    /// The store below refused a batch for good.
    Refused,
    /// A defect.
    Internal,
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// The store below has it.
    Ok,
    /// It is tried again.
    Failed,
    /// The store below refused it for good.
    Refused,
}

/// There is no journal, or the system does not say.
const UNKNOWN: i64 = -1;

/// The series of one layer.
#[derive(Debug)]
pub(super) struct Counters {
    dirty_bytes: Gauge,
    dirty_entries: Gauge,
    max_dirty: Gauge,
    oldest: Gauge,
    waiting: Gauge,
    wait: Histogram,
    timeouts: Counter,
    acknowledged: [Counter; 3],
    flushes: [Counter; 3],
    flushed_entries: Counter,
    coalesced: Counter,
    flush: Histogram,
    journal_bytes: Gauge,
    journal_max: Gauge,
    replayed: Counter,
    failed: [Gauge; 3],
    away: Gauge,
    disk_free: Gauge,
}

impl Counters {
    /// Registers the series, at 0.
    pub(super) fn new(labels: &Labels) -> Self {
        let acknowledged = |ack| labels.counter(names::WRITEBACK_ACKNOWLEDGED, &[("ack", ack)]);
        let flushes = |outcome| labels.counter(names::WRITEBACK_FLUSHES, &[("outcome", outcome)]);
        let failed = |cause| labels.gauge(names::WRITEBACK_FAILED, &[("cause", cause)]);
        let disk_free = labels.gauge(names::WRITEBACK_DISK_FREE, &[]);
        disk_free.set(UNKNOWN);
        Self {
            disk_free,
            dirty_bytes: labels.gauge(names::WRITEBACK_DIRTY_BYTES, &[]),
            dirty_entries: labels.gauge(names::WRITEBACK_DIRTY_ENTRIES, &[]),
            max_dirty: labels.gauge(names::WRITEBACK_MAX_DIRTY, &[]),
            oldest: labels.gauge(names::WRITEBACK_OLDEST_DIRTY, &[]),
            waiting: labels.gauge(names::WRITEBACK_WAITING, &[]),
            wait: labels.histogram(names::WRITEBACK_WAIT, &[]),
            timeouts: labels.counter(names::WRITEBACK_TIMEOUTS, &[]),
            acknowledged: ["journal", "memory", "through"].map(acknowledged),
            flushes: ["ok", "failed", "refused"].map(flushes),
            flushed_entries: labels.counter(names::WRITEBACK_FLUSHED_ENTRIES, &[]),
            coalesced: labels.counter(names::WRITEBACK_COALESCED, &[]),
            flush: labels.histogram(names::WRITEBACK_FLUSH_DURATION, &[]),
            journal_bytes: labels.gauge(names::WRITEBACK_JOURNAL_BYTES, &[]),
            journal_max: labels.gauge(names::WRITEBACK_JOURNAL_MAX, &[]),
            replayed: labels.counter(names::WRITEBACK_REPLAYED, &[]),
            failed: ["journal", "refused", "internal"].map(failed),
            away: labels.gauge(names::WRITEBACK_STORE_AWAY, &[]),
        }
    }

    /// What the alerts compare with: bytes that may be dirty, and that the journal may hold (0: there is none).
    pub(super) fn bounds(&self, max_dirty: ByteSize, journal: ByteSize) {
        self.max_dirty.set(whole(max_dirty.0));
        self.journal_max.set(whole(journal.0));
    }

    /// What is dirty now.
    pub(super) fn dirty(&self, bytes: u64, entries: usize) {
        self.dirty_bytes.set(whole(bytes));
        self.dirty_entries.set(whole(entries as u64));
    }

    /// Since when the oldest write that waits has been dirty.
    pub(super) fn oldest(&self, oldest: Option<Timestamp>) {
        self.oldest.set(oldest.map_or(0, |oldest| whole(oldest.as_millis() / 1000)));
    }

    /// Bytes of the journal's records.
    pub(super) fn journal(&self, bytes: u64) {
        self.journal_bytes.set(whole(bytes));
    }

    /// A batch was acknowledged.
    pub(super) fn acknowledged(&self, ack: Ack) {
        let [journal, memory, through] = &self.acknowledged;
        match ack {
            Ack::Journal => journal,
            Ack::Memory => memory,
            Ack::Through => through,
        }
        .increment(1);
    }

    /// A writer begins to wait for room.
    pub(super) fn waits(&self) {
        self.waiting.increment(1);
    }

    /// A writer waits no more.
    pub(super) fn waited(&self, took: Duration) {
        self.waiting.decrement(1);
        self.wait.record(took);
    }

    /// A writer had no room within its deadline.
    pub(super) fn timed_out(&self) {
        self.timeouts.increment(1);
    }

    /// A flush ended, by which the store below has so many entries more.
    pub(super) fn flushed(&self, outcome: Flushed, entries: usize, took: Duration) {
        let [ok, failed, refused] = &self.flushes;
        match outcome {
            Flushed::Ok => ok,
            Flushed::Failed => failed,
            Flushed::Refused => refused,
        }
        .increment(1);
        self.flushed_entries.increment(entries as u64);
        self.flush.record(took);
    }

    /// So many operations replaced an earlier one of their keys before that was flushed.
    pub(super) fn coalesced(&self, operations: u64) {
        self.coalesced.increment(operations);
    }

    /// So many batches of the journal were read again at the start.
    pub(super) fn replayed(&self, batches: u64) {
        self.replayed.increment(batches);
    }

    /// Nothing is acknowledged any more.
    pub(super) fn failed(&self, cause: Cause) {
        let [journal, refused, internal] = &self.failed;
        match cause {
            Cause::Journal => journal,
            Cause::Refused => refused,
            Cause::Internal => internal,
        }
        .set(1);
    }

    /// Bytes that are free on the disk of the journal.
    pub(super) fn disk_free(&self, bytes: Option<u64>) {
        self.disk_free.set(bytes.map_or(UNKNOWN, whole));
    }

    /// Whether the stack is open without the store below, which was not there.
    pub(super) fn away(&self, away: bool) {
        self.away.set(away.into());
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
