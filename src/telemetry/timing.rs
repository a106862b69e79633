//! Counts how long things take, on several threads.
//!
//! Each thread counts in a line of its own, with plain loads and stores, as in a [`ShardedCounters`](super::ShardedCounters).

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::distribution::{BUCKETS, Distribution, bucket};
use super::gatherer;
use crate::thread_slot;

/// The buckets, and the sum in nanoseconds.
#[repr(align(128))]
struct Line([AtomicU64; BUCKETS + 1]);

impl Default for Line {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Durations, counted by any number of threads.
#[derive(Default)]
pub(super) struct Timing {
    /// A line for each thread, by its number. There are none until something is counted.
    lines: OnceLock<Box<[OnceLock<Box<Line>>]>>,
    /// Threads that have no line of their own.
    others: Line,
}

impl Timing {
    /// Counts so many things that took that long. Tells whether they are the first.
    pub(super) fn add(&self, took: Duration, times: u64) -> bool {
        let mut first = false;
        let lines = self.lines.get_or_init(|| {
            first = true;
            (0..gatherer::lines()).map(|_| OnceLock::new()).collect()
        });
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).wrapping_mul(times);
        let amounts = [(bucket(took), times), (BUCKETS, nanos)];
        if let Some(line) = lines.get(thread_slot::number()) {
            let Line(sums) = &**line.get_or_init(Box::default);
            for (sum, amount) in at(sums, amounts) {
                // No other thread writes here, so nothing is lost between the two.
                sum.store(sum.load(Relaxed).wrapping_add(amount), Relaxed);
            }
        } else {
            for (sum, amount) in at(&self.others.0, amounts) {
                sum.fetch_add(amount, Relaxed);
            }
        }
        first
    }

    pub(super) fn read(&self) -> Distribution {
        let (mut buckets, mut nanos) = ([0_u64; BUCKETS], 0_u128);
        let lines = self.lines.get().into_iter().flatten().filter_map(OnceLock::get);
        for Line(sums) in lines.map(|line| &**line).chain([&self.others]) {
            let [counts @ .., sum] = sums;
            for (bucket, count) in buckets.iter_mut().zip(counts) {
                *bucket = bucket.wrapping_add(count.load(Relaxed));
            }
            nanos += u128::from(sum.load(Relaxed));
        }
        Distribution::new(buckets, nanos)
    }
}

fn at(
    sums: &[AtomicU64; BUCKETS + 1],
    amounts: [(usize, u64); 2],
) -> impl Iterator<Item = (&AtomicU64, u64)> {
    amounts.into_iter().filter_map(|(at, amount)| Some((sums.get(at)?, amount)))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn several_threads_lose_nothing() {
        const EACH: u64 = 100_003;
        let timing = Timing::default();
        // More threads than there are lines.
        let threads = gatherer::lines() + 3;
        let barrier = std::sync::Barrier::new(threads);
        thread::scope(|scope| {
            for thread in 0..threads as u64 {
                let (timing, barrier) = (&timing, &barrier);
                scope.spawn(move || {
                    let took = Duration::from_nanos(150 * (thread % 2 + 1));
                    timing.add(took, 1);
                    // All live at once.
                    barrier.wait();
                    for _ in 1..EACH {
                        let _ = timing.add(took, 1);
                    }
                });
            }
            scope.spawn(|| (0..1000).map(|_| timing.read().count()).max());
        });
        let (even, odd) = (threads.div_ceil(2) as u64, threads as u64 / 2);
        let mut all = Distribution::default();
        all.add(Duration::from_nanos(150), even * EACH);
        all.add(Duration::from_nanos(300), odd * EACH);
        assert_eq!(timing.read(), all);
    }
}
