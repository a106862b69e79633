//! Counts of what happens millions of times a second, on several threads.
//!
//! Threads that add to one number wait for each other: two threads that do nothing but hits took four times
//! as long for each where they shared three counters. And the addition that threads may share, an
//! atomic one, costs as much as the rest of a hit. So each thread adds to a line of a [`ShardedCounters`] that no other
//! writes to, with plain loads and stores. Once a second a thread collects what was added
//! since; [`gather`] does so at once, and a set of counters that goes does so for itself. Nothing is lost.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::gatherer::{GATHERER, Gather, lines};
use super::handles::Counter;
use crate::thread_slot;

/// Counters that are added to together. The first one counts events.
pub(crate) struct ShardedCounters<const N: usize>(Arc<Sums<N>>);

struct Sums<const N: usize> {
    counters: [Counter; N],
    /// A line for each thread, by its number. There are none until something is counted.
    lines: OnceLock<Box<[Line<N>]>>,
    /// What was handed on of each line. Held until it is, so that the next reader finds it there.
    handed: Mutex<Vec<[u64; N]>>,
}

/// Sums since the beginning, on a cache line that only its thread writes to.
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

impl<const N: usize> std::fmt::Debug for ShardedCounters<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardedCounters").finish_non_exhaustive()
    }
}

impl<const N: usize> ShardedCounters<N> {
    pub(crate) fn new(counters: [Counter; N]) -> Self {
        let handed = Mutex::default();
        Self(Arc::new(Sums { counters, lines: OnceLock::new(), handed }))
    }

    /// Adds to each counter. The first amount is of events; without one nothing is counted.
    pub(crate) fn add(&self, amounts: [u64; N]) {
        if amounts.first() == Some(&0) {
            return;
        }
        let lines = self.0.lines.get_or_init(|| self.lines());
        let Some(line) = lines.get(thread_slot::number()) else { return self.0.hand_on(amounts) };
        // Backwards, so that a reader of the event sees all of it.
        for (sum, amount) in line.0.iter().zip(amounts).rev() {
            // Nobody else writes here, so nothing is lost between the two.
            sum.store(sum.load(Relaxed).wrapping_add(amount), Release);
        }
    }

    #[cold]
    fn lines(&self) -> Box<[Line<N>]> {
        let sums: Weak<Sums<N>> = Arc::downgrade(&self.0);
        if !GATHERER.attend(sums) {
            return Box::default();
        }
        let line = |_| Line(std::array::from_fn(|_| AtomicU64::new(0)));
        (0..lines()).map(line).collect()
    }
}

impl<const N: usize> Sums<N> {
    fn hand_on(&self, amounts: [u64; N]) {
        for (counter, amount) in self.counters.iter().zip(amounts) {
            counter.increment(amount);
        }
    }
}

impl<const N: usize> Gather for Sums<N> {
    fn gather(&self) {
        let Some(lines) = self.lines.get() else { return };
        let mut handed = self.handed.lock();
        handed.resize(lines.len(), [0; N]);
        for (line, handed) in lines.iter().zip(&mut *handed) {
            let sums = line.0.each_ref().map(|sum| sum.load(Acquire));
            if sums != *handed {
                let mut since = sums;
                since
                    .iter_mut()
                    .zip(*handed)
                    .for_each(|(sum, handed)| *sum = sum.wrapping_sub(handed));
                *handed = sums;
                self.hand_on(since);
            }
        }
    }

    fn gather_durations(&self) {}
}

impl<const N: usize> Drop for Sums<N> {
    fn drop(&mut self) {
        self.gather();
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use std::thread;

    use super::*;
    use crate::telemetry::{Labels, gather};

    fn counters() -> (ShardedCounters<2>, Snapshotter) {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let labels = Labels::default();
        let counters = metrics::with_local_recorder(&recorder, || {
            ShardedCounters::new([labels.counter("events", &[]), labels.counter("bytes", &[])])
        });
        (counters, snapshotter)
    }

    /// Events and bytes since the last look.
    fn counted(snapshotter: &Snapshotter) -> (u64, u64) {
        let (mut events, mut bytes) = (0, 0);
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            match (key.key().name(), value) {
                ("events", DebugValue::Counter(value)) => events += value,
                (_, DebugValue::Counter(value)) => bytes += value,
                _ => {}
            }
        }
        (events, bytes)
    }

    #[test]
    fn what_was_added_is_handed_on_once() {
        let (counters, snapshotter) = counters();
        assert_eq!(counted(&snapshotter), (0, 0));
        for n in 1..4 {
            (0..n).for_each(|_| counters.add([1, 10]));
            gather();
            assert_eq!(counted(&snapshotter), (n, 10 * n));
            gather();
            assert_eq!(counted(&snapshotter), (0, 0));
        }
    }

    #[test]
    fn several_threads_lose_nothing() {
        let (counters, snapshotter) = counters();
        const EACH: u64 = 100_003;
        // More threads than there are lines.
        let threads = counters.lines().len() + 3;
        let barrier = std::sync::Barrier::new(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    counters.add([1, 7]);
                    // All live at once.
                    barrier.wait();
                    (1..EACH).for_each(|_| counters.add([1, 7]));
                });
            }
            scope.spawn(|| (0..1000).for_each(|_| gather()));
        });
        gather();
        let events = EACH * threads as u64;
        assert_eq!(counted(&snapshotter), (events, events * 7));
    }

    #[test]
    fn threads_that_follow_each_other_lose_nothing() {
        let (counters, snapshotter) = counters();
        for _ in 0..300 {
            thread::scope(|scope| scope.spawn(|| counters.add([1, 7])).join().unwrap());
        }
        gather();
        assert_eq!(counted(&snapshotter), (300, 2100));
    }

    #[test]
    fn what_a_thread_leaves_is_collected_when_the_counters_go() {
        let (counters, snapshotter) = counters();
        counters.add([1, 1]);
        thread::scope(|scope| scope.spawn(|| counters.add([1, 1])).join().unwrap());
        drop(counters);
        let mut seen = (0, 0);
        // The task that gathers for all counters at this moment may hold it for a moment more.
        while seen.0 < 2 {
            let (events, bytes) = counted(&snapshotter);
            seen = (seen.0 + events, seen.1 + bytes);
        }
        assert_eq!(seen, (2, 2));
    }

    #[test]
    fn what_a_thread_leaves_is_handed_on_by_itself() {
        struct Panics;
        impl metrics::CounterFn for Panics {
            fn increment(&self, _: u64) {
                panic!("a recorder of somebody else");
            }
            fn absolute(&self, _: u64) {}
        }
        let facade = metrics::Counter::from_arc(Arc::new(Panics));
        let bad =
            ShardedCounters::new([Counter { facade, ..Labels::default().counter("bad", &[]) }]);
        for _ in 0..2 {
            let (counters, snapshotter) = counters();
            bad.add([1]);
            counters.add([1, 1]);
            thread::scope(|scope| scope.spawn(|| counters.add([1, 1])).join().unwrap());
            let mut seen = 0;
            while seen < 2 {
                seen += counted(&snapshotter).0;
                thread::yield_now();
            }
            assert_eq!(seen, 2);
        }
        gather();
    }
}
