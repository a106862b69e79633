//! What was counted at each boundary since it was made.

use std::collections::BTreeMap;

use crate::error::Operation;
use crate::telemetry::{Distribution, Value, names, snapshot};

/// What was counted, by stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(BTreeMap<String, Stack>);

#[derive(Clone, Debug, Default)]
struct Stack {
    layers: BTreeMap<String, Boundary>,
    stored: Stored,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bytes: Option<u64>,
    pub(super) entries: Option<u64>,
}

/// What one series holds.
pub(super) enum Counted<'a> {
    Number(f64),
    Took(&'a Distribution),
}

/// What was counted at one boundary.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Boundary {
    pub(super) all: Timed,
    pub(super) read: Timed,
    pub(super) write: Timed,
    pub(super) bytes: u64,
    pub(super) failed: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) in_flight: u64,
    pub(super) cache: Cache,
    pub(super) write_back: WriteBack,
    pub(super) backup: Backup,
}

/// Operations, and how long they took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Timed {
    pub(super) ops: u64,
    pub(super) took: Distribution,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cache {
    /// Whether it is one.
    pub(super) is_there: bool,
    pub(super) requests: u64,
    pub(super) hits: u64,
    pub(super) evictions: u64,
    pub(super) bytes: Option<u64>,
    pub(super) entries: Option<u64>,
    pub(super) disk_bytes: Option<u64>,
    pub(super) disk_active: Option<bool>,
    pub(super) change_feed_connected: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WriteBack {
    /// Whether it is one.
    pub(super) is_there: bool,
    pub(super) dirty_bytes: u64,
    pub(super) dirty_entries: u64,
    pub(super) max_dirty: u64,
    /// Milliseconds since 1970.
    pub(super) oldest: Option<u64>,
    pub(super) waiting: u64,
    pub(super) journal_bytes: u64,
    pub(super) flushed: u64,
    pub(super) failures: u64,
    pub(super) failed: Option<String>,
    pub(super) store_away: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Backup {
    /// Milliseconds since 1970.
    pub(super) last_success: Option<u64>,
    pub(super) failures: u64,
}

impl Counts {
    /// What this process has counted until now.
    pub(super) fn read() -> Self {
        let (mut counts, snapshot) = (Self::default(), snapshot());
        for (family, samples) in snapshot.families() {
            for sample in samples {
                let value = match sample.value() {
                    Value::Counter(count) => Counted::Number(*count as f64),
                    Value::Gauge(value) => Counted::Number(*value),
                    Value::Durations(took) => Counted::Took(took),
                };
                counts.take(family, |name| sample.label(name), &value);
            }
        }
        counts
    }

    /// What was counted at a boundary. Nothing yet, where there is none.
    pub(super) fn at(&self, stack: &str, layer: &str) -> Boundary {
        let stack = self.0.get(stack);
        stack.and_then(|stack| stack.layers.get(layer)).cloned().unwrap_or_default()
    }

    pub(super) fn stored(&self, stack: &str) -> Stored {
        self.0.get(stack).map(|stack| stack.stored).unwrap_or_default()
    }

    /// Takes in a series. Those of other families, and of no stack, are left out.
    pub(super) fn take<'a>(
        &mut self,
        family: &str,
        label: impl Fn(&str) -> Option<&'a str>,
        value: &Counted<'_>,
    ) {
        let Some(stack) = label("stack") else { return };
        let stack = self.0.entry(stack.to_owned()).or_default();
        // 0 is also what a store shows that does not tell.
        let told = |number: f64| Some(whole(number)).filter(|told| *told > 0);
        match (family, value) {
            (names::STORE_BYTES, Counted::Number(number)) => {
                if label("place") == Some("stored") {
                    stack.stored.bytes = told(*number);
                }
            }
            (names::STORE_ENTRIES, Counted::Number(number)) => stack.stored.entries = told(*number),
            _ => {
                let Some(layer) = label("layer") else { return };
                stack.layers.entry(layer.to_owned()).or_default().take(family, label, value);
            }
        }
    }
}

impl Boundary {
    fn take<'a>(
        &mut self,
        family: &str,
        label: impl Fn(&str) -> Option<&'a str>,
        value: &Counted<'_>,
    ) {
        match value {
            Counted::Took(took) if family == names::OP_DURATION => {
                self.of(label("op")).for_each(|timed| timed.took.merge(took));
            }
            Counted::Took(_) => {}
            Counted::Number(number) => self.number(family, label, *number),
        }
    }

    fn number<'a>(&mut self, family: &str, label: impl Fn(&str) -> Option<&'a str>, number: f64) {
        let amount = whole(number);
        let (cache, backup) = (&mut self.cache, &mut self.backup);
        match family {
            names::OPS => {
                self.of(label("op")).for_each(|timed| timed.ops += amount);
                if label("outcome") == Some("error") {
                    self.failed += amount;
                }
            }
            names::OP_BYTES => self.bytes += amount,
            names::INFLIGHT => self.in_flight = amount,
            names::ERRORS if amount > 0 => {
                let kind = label("kind").unwrap_or_default();
                *self.errors.entry(kind.to_owned()).or_default() += amount;
            }
            names::CACHE_REQUESTS => {
                cache.is_there = true;
                match label("result") {
                    // It went past the cache.
                    Some("bypass") => {}
                    Some("hit" | "negative" | "stale" | "disk") => {
                        (cache.requests, cache.hits) =
                            (cache.requests + amount, cache.hits + amount);
                    }
                    _ => cache.requests += amount,
                }
            }
            names::CACHE_EVICTIONS => cache.evictions += amount,
            names::CACHE_BYTES => cache.bytes = Some(amount),
            names::CACHE_ENTRIES => cache.entries = Some(amount),
            names::CACHE_DISK_BYTES => cache.disk_bytes = Some(amount),
            names::CACHE_DISK_ACTIVE => cache.disk_active = Some(number > 0.0),
            names::CACHE_CHANGE_FEED_CONNECTED => cache.change_feed_connected = Some(number > 0.0),
            family if family.starts_with(WRITE_BACK) => {
                self.write_back.number(family, label, number);
            }
            names::BACKUP_LAST_SUCCESS if number > 0.0 => {
                backup.last_success = backup.last_success.max(Some(whole(number * 1000.0)));
            }
            names::BACKUP_FAILURES => backup.failures += amount,
            _ => {}
        }
    }

    /// Where operations of that name are counted.
    fn of(&mut self, op: Option<&str>) -> impl Iterator<Item = &mut Timed> {
        let is = |of: &[Operation]| of.iter().any(|of| Some(of.as_str()) == op);
        let part = if is(&[Operation::Get, Operation::GetMany, Operation::Scan]) {
            Some(&mut self.read)
        } else if is(&[Operation::Write, Operation::Ingest]) {
            Some(&mut self.write)
        } else {
            None
        };
        std::iter::once(&mut self.all).chain(part)
    }
}

/// What the names of its families begin with.
const WRITE_BACK: &str = "tierstack_writeback_";

impl WriteBack {
    fn number<'a>(&mut self, family: &str, label: impl Fn(&str) -> Option<&'a str>, number: f64) {
        let amount = whole(number);
        self.is_there = true;
        match family {
            names::WRITEBACK_DIRTY_BYTES => self.dirty_bytes = amount,
            names::WRITEBACK_DIRTY_ENTRIES => self.dirty_entries = amount,
            names::WRITEBACK_MAX_DIRTY => self.max_dirty = amount,
            names::WRITEBACK_OLDEST_DIRTY => {
                self.oldest = Some(whole(number * 1000.0)).filter(|at| *at > 0);
            }
            names::WRITEBACK_WAITING => self.waiting = amount,
            names::WRITEBACK_JOURNAL_BYTES => self.journal_bytes = amount,
            names::WRITEBACK_FLUSHED_ENTRIES => self.flushed += amount,
            names::WRITEBACK_FLUSHES if label("outcome") != Some("ok") => self.failures += amount,
            names::WRITEBACK_FAILED if amount > 0 => {
                self.failed = label("cause").map(str::to_owned);
            }
            names::WRITEBACK_STORE_AWAY => self.store_away = amount > 0,
            _ => {}
        }
    }
}

/// Counters and gauges are whole numbers; a gauge may be below zero for a moment.
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}
