//! What is counted: each read once, by what came of it.

use crate::telemetry::{Counter, Histogram, Labels, ShardedCounters, names};
use crate::types::Scope;

#[derive(Debug)]
pub(super) struct Counters {
    pub(super) hit: ShardedCounters<1>,
    pub(super) negative: ShardedCounters<1>,
    pub(super) stale: ShardedCounters<1>,
    pub(super) error: Counter,
    pub(super) coalesced: ShardedCounters<1>,
    /// Answered by the disk.
    pub(super) disk: Counter,
    pub(super) miss: ShardedCounters<1>,
    bypass: Counter,
    pub(super) refresh_failed: Counter,
    refresh_kept: Counter,
    refresh_dropped: Counter,
    pub(super) written_kept: Counter,
    pub(super) written_dropped: Counter,
    pub(super) load_duration: Histogram,
}

/// What became of the answer of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    /// A write came between, or such an answer is not kept.
    Dropped,
    /// It is too large, or nothing is kept at present.
    Bypass,
}

impl Counters {
    pub(super) fn new(labels: &Labels) -> Self {
        let request = |result| labels.counter(names::CACHE_REQUESTS, &[("result", result)]);
        let refresh = |outcome| labels.counter(names::CACHE_REFRESHES, &[("outcome", outcome)]);
        let written = |outcome| labels.counter(names::CACHE_WRITES, &[("outcome", outcome)]);
        Self {
            hit: ShardedCounters::new([request("hit")]),
            negative: ShardedCounters::new([request("negative")]),
            stale: ShardedCounters::new([request("stale")]),
            error: request("error"),
            coalesced: ShardedCounters::new([request("coalesced")]),
            disk: request("disk"),
            miss: ShardedCounters::new([request("miss")]),
            bypass: request("bypass"),
            refresh_failed: refresh("failed"),
            refresh_kept: refresh("kept"),
            refresh_dropped: refresh("dropped"),
            written_kept: written("kept"),
            written_dropped: written("dropped"),
            load_duration: labels.histogram(names::CACHE_LOAD_DURATION, &[]),
        }
    }

    /// A read for which the store below was asked.
    pub(super) fn asked(&self, fate: Fate) {
        match fate {
            Fate::Kept | Fate::Dropped => self.miss.add([1]),
            Fate::Bypass => self.bypass.increment(1),
        }
    }

    /// A refresh that did not fail.
    pub(super) fn refreshed(&self, fate: Fate) {
        match fate {
            Fate::Kept => self.refresh_kept.increment(1),
            Fate::Dropped | Fate::Bypass => self.refresh_dropped.increment(1),
        }
    }
}

/// What was dropped, by cause.
#[derive(Debug)]
pub(super) struct Invalidations {
    key: Counter,
    prefix: Counter,
    all: Counter,
}

impl Invalidations {
    pub(super) fn new(labels: &Labels) -> Self {
        let cause = |cause| labels.counter(names::CACHE_INVALIDATIONS, &[("cause", cause)]);
        Self { key: cause("key"), prefix: cause("prefix"), all: cause("all") }
    }

    pub(super) fn count(&self, scope: &Scope) {
        match scope {
            Scope::Keys(keys) => self.key.increment(keys.len() as u64),
            Scope::Prefix(_) => self.prefix.increment(1),
            Scope::All => self.all.increment(1),
        }
    }
}
