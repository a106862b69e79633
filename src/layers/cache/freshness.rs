//! How long an entry is served: decisions about moments, without a clock.

use std::time::Duration;

use super::CacheConfig;
use crate::clock::Clock;

/// A moment of the coarse clock, in milliseconds: an entry holds some, so they are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// Does not come.
    pub(super) const NEVER: Self = Self(u64::MAX);

    pub(super) fn now(clock: &dyn Clock) -> Self {
        Self(millis(clock.coarse()))
    }

    /// Rounded down, so that what is served until then is served for no longer than the span.
    const fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// Whether it is at hand. Only a moment that comes costs a look at the clock.
    pub(super) fn has_come(self, now: impl FnOnce() -> Self) -> bool {
        self != Self::NEVER && self <= now()
    }
}

const fn millis(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(span.subsec_millis() as u64)
}

/// The settings that are about time.
#[derive(Clone, Debug)]
pub(super) struct Times {
    ttl: Option<Duration>,
    negative_ttl: Option<Duration>,
}

impl Times {
    pub(super) fn new(config: &CacheConfig) -> Self {
        Self {
            ttl: config.ttl.map(|ttl| ttl.0),
            negative_ttl: config.negative_ttl.map(|ttl| ttl.0),
        }
    }

    /// Until when an answer may be served. `None`: not at all.
    ///
    /// It counts from the question: what the store below found may be as old as that.
    pub(super) fn until(&self, is_value: bool, asked: Moment) -> Option<Moment> {
        let ttl = if is_value { self.ttl } else { Some(self.negative_ttl?) };
        Some(ttl.map_or(Moment::NEVER, |ttl| asked.after(ttl)))
    }
}
