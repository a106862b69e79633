//! Instants of the coarse clock.

use std::time::Duration;

use crate::clock::Clock;

/// A moment of the coarse clock, in milliseconds: an entry holds some, so they are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::layers::cache) struct CoarseTime(pub(in crate::layers::cache) u64);

impl CoarseTime {
    /// Does not come.
    pub(in crate::layers::cache) const NEVER: Self = Self(u64::MAX);
    pub(super) const LONG_AGO: Self = Self(0);

    pub(in crate::layers::cache) fn now(clock: &dyn Clock) -> Self {
        Self(millis(clock.coarse()))
    }

    /// Rounded down, so that what is served until then is served for no longer than the span.
    pub(in crate::layers::cache) const fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// How much later it is than another; zero if it is earlier.
    pub(in crate::layers::cache) const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub(in crate::layers::cache) const fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

const fn millis(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(span.subsec_millis() as u64)
}
