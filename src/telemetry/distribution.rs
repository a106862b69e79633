//! How long things took, in buckets.

use std::time::Duration;

const fn nanos(bounds: [u64; LIMITED]) -> [Duration; LIMITED] {
    let mut durations = [Duration::ZERO; LIMITED];
    let mut at = 0;
    while at < bounds.len() {
        // The loop ends before the length of both.
        #[allow(clippy::indexing_slicing)]
        {
            durations[at] = Duration::from_nanos(bounds[at]);
        }
        at += 1;
    }
    durations
}

/// The upper bounds of the buckets: 1, 2.5 and 5 of each decade, from 100 ns, as an answer from memory takes less than
/// a microsecond, to a minute. What takes longer is in one more bucket.
///
/// A quantile that is computed from buckets is at most 2.5 times too high or too low.
pub const BOUNDS: [Duration; LIMITED] = nanos([
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
]);

/// The buckets with an upper bound. A number of its own: with `BOUNDS.len()` a length of an array type would need the
/// result of a function, and an optimising compiler then finds a cycle.
pub(super) const LIMITED: usize = 26;

/// The buckets, with that of what takes longer than the last bound.
pub(super) const BUCKETS: usize = LIMITED + 1;

/// The place of the bucket for that duration: below [`BUCKETS`].
pub(super) fn bucket(took: Duration) -> usize {
    BOUNDS.partition_point(|bound| *bound < took)
}

/// How long things took, counted in buckets.
///
/// ```
/// use std::time::Duration;
/// use tierstack::telemetry::Distribution;
///
/// let mut took = Distribution::default();
/// took.add(Duration::from_micros(200), 98);
/// took.add(Duration::from_millis(20), 2);
/// assert_eq!((took.count(), took.sum()), (100, Duration::from_micros(59_600)));
/// // Within the bucket of 100 to 250 µs.
/// let half = took.quantile(0.5).unwrap();
/// assert!(half > Duration::from_micros(100) && half <= Duration::from_micros(250));
/// assert!(took.quantile(0.99).unwrap() > Duration::from_millis(10));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BUCKETS],
    nanos: u128,
}

impl Distribution {
    pub(super) fn new(buckets: [u64; BUCKETS], nanos: u128) -> Self {
        Self { buckets, nanos }
    }

    /// Counts so many things that took that long.
    pub fn add(&mut self, took: Duration, times: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket(took)) {
            *bucket = bucket.saturating_add(times);
        }
        self.nanos = self.nanos.saturating_add(took.as_nanos().saturating_mul(times.into()));
    }

    /// How many things were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How long all of them took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        let seconds = u64::try_from(self.nanos / 1_000_000_000).unwrap_or(u64::MAX);
        // Less than a thousand million.
        Duration::new(seconds, (self.nanos % 1_000_000_000) as u32)
    }

    /// What each bucket has counted, with its upper bound. The last one has none.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        bounds.zip(self.buckets.iter().copied())
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum = sum.saturating_add(count);
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }

    /// What was counted since an earlier look at the same. All of it, if it was reset in between.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.buckets.iter_mut().zip(earlier.buckets) {
            match count.checked_sub(before) {
                Some(rest) => *count = rest,
                None => return self.clone(),
            }
        }
        since.nanos = self.nanos.saturating_sub(earlier.nanos);
        since
    }

    /// The duration that a part of all was faster than, such as 0.99 of them; `None` if nothing was counted. It is
    /// interpolated within its bucket, as Prometheus does. Of what took longer than the last bound, only that is known.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        let rank = part.clamp(0.0, 1.0) * all as f64;
        let (mut below, mut lower) = (0.0, Duration::ZERO);
        for (upper, count) in self.buckets() {
            let Some(upper) = upper else { break };
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                let within = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(lower + (upper - lower).mul_f64(within));
            }
            (below, lower) = (below + count, upper);
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(u64, u64)]) -> Distribution {
        let mut took = Distribution::default();
        all.iter().for_each(|(nanos, times)| took.add(Duration::from_nanos(*nanos), *times));
        took
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        assert_eq!([0, 100, 101, 250].map(|ns| bucket(Duration::from_nanos(ns))), [0, 0, 1, 1]);
        assert_eq!(bucket(Duration::from_secs(60)), BUCKETS - 2);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_where_prometheus_finds_them() {
        assert_eq!(Distribution::default().quantile(0.5), None);
        let took = of(&[(200, 50), (800, 50)]);
        assert_eq!(took.quantile(0.5), Some(Duration::from_nanos(250)));
        assert_eq!(took.quantile(0.25), Some(Duration::from_nanos(175)));
        assert_eq!(took.quantile(1.0), Some(Duration::from_nanos(1000)));
        assert_eq!(of(&[(u64::MAX, 1)]).quantile(0.5), Some(Duration::from_secs(60)));
        assert_eq!(took.quantile(f64::NAN).map(|_| ()), Some(()));
    }

    #[test]
    fn what_was_counted_since_is_what_came_later() {
        let (before, after) = (of(&[(200, 5)]), of(&[(200, 7), (800, 1)]));
        assert_eq!(after.since(&before), of(&[(200, 2), (800, 1)]));
        assert_eq!(before.since(&after), before, "it was reset");
        let mut all = before.clone();
        all.merge(&after.since(&before));
        assert_eq!(all, after);
    }
}
