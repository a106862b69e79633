//! From what was counted at two moments to what happens in a second.

use std::collections::VecDeque;
use std::time::Duration;

use super::counts::{Boundary, Counts, Timed};
use super::facts::{CacheFacts, Speed};

/// The longest time that quantiles and ratios are of: one second has too few operations for a p99.
const WINDOW: Duration = Duration::from_secs(10);
/// What was counted longer ago is no start of a rate: nobody watched meanwhile.
const FRESH: Duration = Duration::from_secs(5);

/// What was counted at the last moments, oldest first.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<(Duration, Counts)>);

impl Window {
    /// Takes in what is counted now, by the monotonic clock.
    pub(super) fn push(&mut self, now: Duration, counts: Counts) {
        if self.0.back().is_some_and(|(last, _)| now.saturating_sub(*last) > FRESH) {
            self.0.clear();
        }
        self.0.push_back((now, counts));
        // The one that is left out next begins the window.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    pub(super) fn now(&self) -> Option<&Counts> {
        self.0.back().map(|(_, counts)| counts)
    }

    /// The time between the last two moments.
    pub(super) fn period(&self) -> Option<Duration> {
        let (now, _) = self.0.back()?;
        let (before, _) = self.0.get(self.0.len().checked_sub(2)?)?;
        Some(now.saturating_sub(*before)).filter(|period| !period.is_zero())
    }

    /// What happened at a boundary.
    pub(super) fn rates(&self, stack: &str, layer: &str) -> Option<Rates> {
        let seconds = self.period()?.as_secs_f64();
        let (_, first) = self.0.front()?;
        let (_, before) = self.0.get(self.0.len().checked_sub(2)?)?;
        let (_, now) = self.0.back()?;
        let at = |counts: &Counts| counts.at(stack, layer);
        Some(Rates::of(&at(first), &at(before), &at(now), seconds))
    }
}

/// What happens at a boundary in a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) all: Speed,
    pub(super) read: Speed,
    pub(super) write: Speed,
    pub(super) bytes: f64,
    pub(super) errors: f64,
    /// The part of the operations of the window that failed, and how many there were.
    pub(super) failing: Option<(f64, u64)>,
    pub(super) cache: CacheFacts,
    /// Entries that a buffer brought to the store below it.
    pub(super) flushed: f64,
}

impl Rates {
    fn of(first: &Boundary, before: &Boundary, now: &Boundary, seconds: f64) -> Self {
        let per_second = |now: u64, before: u64| since(now, before) as f64 / seconds;
        let speed = |of: fn(&Boundary) -> &Timed| {
            let took = of(now).took.since(&of(first).took);
            let quantile = |part| took.quantile(part).map(|span| span.as_secs_f64());
            Speed {
                per_second: Some(per_second(of(now).ops, of(before).ops)),
                p50: quantile(0.5),
                p99: quantile(0.99),
            }
        };
        // Of a store that is closed meanwhile, counts may go down.
        let ratio = |part, whole| (whole > 0).then(|| (part as f64 / whole as f64).min(1.0));
        let ops = since(now.all.ops, first.all.ops);
        let requests = since(now.cache.requests, first.cache.requests);
        Self {
            all: speed(|boundary| &boundary.all),
            read: speed(|boundary| &boundary.read),
            write: speed(|boundary| &boundary.write),
            bytes: per_second(now.bytes, before.bytes),
            errors: per_second(now.failed, before.failed),
            failing: ratio(since(now.failed, first.failed), ops).map(|ratio| (ratio, ops)),
            cache: CacheFacts {
                hit_ratio: ratio(since(now.cache.hits, first.cache.hits), requests),
                requests_per_second: Some(per_second(now.cache.requests, before.cache.requests)),
                evictions_per_second: Some(per_second(now.cache.evictions, before.cache.evictions)),
                ..CacheFacts::default()
            },
            flushed: per_second(now.write_back.flushed, before.write_back.flushed),
        }
    }
}

/// All of it, where the count was reset: its store was opened again.
fn since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}
